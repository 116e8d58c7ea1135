/** A split ring in plain memory, written by hand or by a SplitDriver, and looked at by the inspector. */
import { gpa } from '../../lib/memory/address';
import { splitLayout } from '../../lib/virtqueue/layout';
import type { QueueState } from '../../lib/virtqueue/queue-state';
import type { InspectOptions, QueueInspection } from '../../lib/virtqueue/ring-inspection';
import { inspectQueue } from '../../lib/virtqueue/ring-inspector';
import { SplitDevice } from '../../lib/virtqueue/split-device';
import { SplitDriver } from '../../lib/virtqueue/split-driver';
import { TestMemory } from './ring-memory';

export const RINGS = 0x10000;
const STATE = 0x14000;
export const TABLES = 0x18000;
export const DATA = 0x20000;
export const END = 0x30000;

export type Descriptor = [address: number | bigint, length: number, flags: number, next?: number];

export class InspectedRing {
  readonly memory = new TestMemory([
    { gpa: RINGS, size: DATA - RINGS },
    { gpa: DATA, size: END - DATA },
  ]);
  readonly layout;
  readonly state: QueueState;
  readonly driver: SplitDriver;

  constructor(
    readonly size = 8,
    readonly eventIdx = false,
  ) {
    this.layout = splitLayout(RINGS, size, eventIdx);
    this.driver = SplitDriver.format(this.memory, STATE, {
      size,
      eventIdx,
      ...this.layout,
      indirect: { tables: TABLES, entries: 4 },
    });
    this.state = {
      size,
      ready: true,
      descTable: gpa(this.layout.desc),
      availRing: gpa(this.layout.avail),
      usedRing: gpa(this.layout.used),
      nextAvail: 0,
    };
  }

  device(state = this.state): SplitDevice {
    return new SplitDevice(this.memory, state, { eventIdx: this.eventIdx });
  }

  inspect(options: InspectOptions = {}, state: Partial<QueueState> = {}): QueueInspection {
    return inspectQueue(this.memory, { ...this.state, ...state }, { eventIdx: this.eventIdx, ...options });
  }

  /** Writes descriptors from index 0 on, of the ring or of a table. */
  describe(descriptors: readonly Descriptor[], table = this.layout.desc): void {
    for (const [index, [address, length, flags, next = 0]] of descriptors.entries()) {
      const view = this.memory.view(table + 16 * index, 16);
      view.setBigUint64(0, BigInt(address), true);
      view.setUint32(8, length, true);
      view.setUint16(12, flags, true);
      view.setUint16(14, next, true);
    }
  }

  /** Makes heads available from index 0 on. */
  offer(heads: readonly number[], idx = heads.length): void {
    const view = this.memory.view(this.layout.avail, 4 + 2 * this.size);
    for (const [slot, head] of heads.entries()) view.setUint16(4 + 2 * slot, head, true);
    view.setUint16(2, idx, true);
  }

  setAvail(word: number, value: number): void {
    this.memory.view(this.layout.avail + 2 * word, 2).setUint16(0, value, true);
  }

  setUsed(word: number, value: number): void {
    this.memory.view(this.layout.used + 2 * word, 2).setUint16(0, value, true);
  }
}
