/** A packed ring that tests write by hand, as any driver or device might. */
import { gpa } from '../../lib/memory/address';
import { PackedDevice } from '../../lib/virtqueue/packed-device';
import { packedLayout } from '../../lib/virtqueue/packed-layout';
import type { QueueState } from '../../lib/virtqueue/queue-state';
import type { WriteLog } from '../../lib/virtqueue/ring-memory';
import { TestMemory } from './ring-memory';

export const RINGS = 0x10000;
export const TABLE = 0x18000;
export const DATA = 0x20000;
export const END = 0x30000;

export const AVAIL = 0x80;
export const USED = 0x8000;

export class HandRing {
  readonly memory = new TestMemory([
    { gpa: RINGS, size: DATA - RINGS },
    { gpa: DATA, size: END - DATA },
    { gpa: 0x100000, size: 4096 },
  ]);
  readonly layout;

  constructor(readonly size: number) {
    this.layout = packedLayout(RINGS, size);
  }

  state(): QueueState {
    const { desc, driverEvent, deviceEvent } = this.layout;
    return {
      size: this.size,
      ready: true,
      descTable: gpa(desc),
      availRing: gpa(driverEvent),
      usedRing: gpa(deviceEvent),
      nextAvail: 0,
      packed: { availWrap: true, nextUsed: 0, usedWrap: true },
    };
  }

  device(options: { eventIdx?: boolean; indirect?: boolean; log?: WriteLog } = {}): PackedDevice {
    return new PackedDevice(this.memory, this.state(), options);
  }

  /** Descriptor `index` of the ring, or of the table at `table`. */
  describe(index: number, address: number | bigint, length: number, id: number, flags: number, table = RINGS): void {
    const view = this.memory.view(table + 16 * index, 16);
    view.setBigUint64(0, BigInt(address), true);
    view.setUint32(8, length, true);
    view.setUint16(12, id, true);
    view.setUint16(14, flags, true);
  }

  /** Length, id and flags of descriptor `index` of the ring. */
  at(index: number): [length: number, id: number, flags: number] {
    const view = this.memory.view(RINGS + 16 * index, 16);
    return [view.getUint32(8, true), view.getUint16(12, true), view.getUint16(14, true)];
  }

  /** Offset and wrap counter, and flags, of an event suppression structure. */
  event(which: 'driverEvent' | 'deviceEvent'): [offWrap: number, flags: number] {
    const view = this.memory.view(this.layout[which], 4);
    return [view.getUint16(0, true), view.getUint16(2, true)];
  }

  setEvent(which: 'driverEvent' | 'deviceEvent', offWrap: number, flags: number): void {
    const view = this.memory.view(this.layout[which], 4);
    view.setUint16(0, offWrap, true);
    view.setUint16(2, flags, true);
  }
}
