/** Both virtqueue formats behind one face, for tests that hold for either. */

import type { DriverQueue } from '../../lib/virtqueue/driver-queue';
import { alignUp, splitLayout } from '../../lib/virtqueue/layout';
import { PackedDriver } from '../../lib/virtqueue/packed-driver';
import { packedDriverStateBytes } from '../../lib/virtqueue/packed-driver-state';
import { packedLayout } from '../../lib/virtqueue/packed-layout';
import type { WriteLog } from '../../lib/virtqueue/ring-memory';
import { SplitDriver } from '../../lib/virtqueue/split-driver';
import { driverStateBytes } from '../../lib/virtqueue/split-driver-state';
import type { TestMemory } from './ring-memory';

export interface FormatOptions {
  size: number;
  eventIdx?: boolean;
  indirect?: { tables: number; entries: number };
}

export interface RingFormat {
  readonly name: 'split' | 'packed';
  /** Of ring and driver state, which lie one behind the other. */
  bytes(size: number): number;
  stateAt(gpa: number, size: number): number;
  format(memory: TestMemory, gpa: number, options: FormatOptions, log?: WriteLog): DriverQueue;
  /** Makes a queue that was never used look as if `start` descriptors, and entries, had come and gone. */
  begin(memory: TestMemory, gpa: number, options: FormatOptions, start: number): void;
}

/** With room for the event indexes, used or not. */
const splitStateAt = (gpa: number, size: number): number => alignUp(gpa + splitLayout(0, size, true).bytes, 16);
const packedStateAt = (gpa: number, size: number): number => alignUp(gpa + packedLayout(0, size).bytes, 16);

export const SPLIT: RingFormat = {
  name: 'split',
  stateAt: splitStateAt,
  bytes: (size) => splitStateAt(0, size) + driverStateBytes(size),
  format(memory, gpa, options, log) {
    const { size, eventIdx = false } = options;
    return SplitDriver.format(
      memory,
      splitStateAt(gpa, size),
      { ...options, ...splitLayout(gpa, size, eventIdx) },
      log,
    );
  },
  begin(memory, gpa, { size, eventIdx = false }, start) {
    const { avail, used } = splitLayout(gpa, size, eventIdx);
    const state = memory.view(splitStateAt(gpa, size), 64);
    for (const at of [52, 54, 56]) state.setUint16(at, start, true);
    memory.view(avail, 4).setUint16(2, start, true);
    memory.view(used, 4).setUint16(2, start, true);
  },
};

export const PACKED: RingFormat = {
  name: 'packed',
  stateAt: packedStateAt,
  bytes: (size) => packedStateAt(0, size) + packedDriverStateBytes(size),
  format(memory, gpa, options, log) {
    const { size } = options;
    return PackedDriver.format(memory, packedStateAt(gpa, size), { ...options, ...packedLayout(gpa, size) }, log);
  },
  begin(memory, gpa, { size }, start) {
    const position = start % (2 * size);
    const state = memory.view(packedStateAt(gpa, size), 64);
    for (const at of [52, 54, 56]) state.setUint16(at, position, true);
    // Each descriptor as the last lap over it left it: used, by the wrap counter of that lap.
    const ring = memory.view(gpa, 16 * size);
    for (let slot = 0; slot < size; slot++) {
      const lapWasTrue = slot < position % size ? position < size : position >= size;
      ring.setUint16(16 * slot + 14, lapWasTrue ? 0x8080 : 0, true);
    }
  },
};
