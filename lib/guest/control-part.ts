/** The control queue of a guest as it lies in guest memory: its driver, found again from the first boot block. */
import type { NamedRange } from '../observe/page-audit';
import type { DriverQueue } from '../virtqueue/driver-queue';
import type { RingMemory, WriteLog } from '../virtqueue/ring-memory';
import { type BootBlock, Field } from './boot-block';
import { ControlDriver } from './control-driver';
import { CONTROL_AREA_BYTES, type GuestPlan } from './plan';
import { attachQueue, formatQueue } from './rings';

export interface ControlPart {
  readonly queue: DriverQueue;
  readonly driver: ControlDriver;
  readonly ranges: NamedRange[];
}

/** Writes an unused control queue to guest memory, where the plan has one. */
export function formatControl(memory: RingMemory, block: BootBlock, { control }: GuestPlan, log: WriteLog): void {
  if (control === null) return;
  formatQueue(memory, control.queue, log);
  block.fields[Field.CONTROL_STATE] = control.queue.state;
  block.fields[Field.CONTROL_AREA] = control.area;
  block.mark();
}

/** Null for a guest without one. Throws VHOST_ERR_RING when it is not where the block says. */
export function openControl(memory: RingMemory, block: BootBlock, log: WriteLog): ControlPart | null {
  const state = block.fields[Field.CONTROL_STATE]!;
  if (state === 0) return null;
  const area = { gpa: block.fields[Field.CONTROL_AREA]!, bytes: CONTROL_AREA_BYTES };
  const queue = attachQueue(memory, state, log);
  return {
    queue,
    driver: new ControlDriver(queue, memory, area, log),
    ranges: [...queue.ranges('control'), { name: 'control commands', gpa: area.gpa, length: area.bytes }],
  };
}
