/** Tells the write log which bytes of a queue its driver wrote. Callers ask `enabled` first, so that nothing is computed in vain. */
import { VRING_DESC_SIZE } from '../constants/virtio-ring';
import { DRIVER_STATE_HEADER, indirectTableBytes } from './driver-state';
import { availRingBytes, descTableBytes, usedRingBytes } from './layout';
import type { WriteLog } from './ring-memory';
import { driverStateBytes } from './split-driver-state';

/** Where a queue lies: guest physical addresses. */
export interface DriverPlaces {
  readonly size: number;
  readonly eventIdx: boolean;
  readonly desc: number;
  readonly avail: number;
  readonly used: number;
  readonly state: number;
  readonly indirect: { readonly tables: number; readonly entries: number } | null;
}

export class DriverMarks {
  readonly #log: WriteLog;
  readonly #places: DriverPlaces;

  constructor(log: WriteLog, places: DriverPlaces) {
    this.#log = log;
    this.#places = places;
  }

  get enabled(): boolean {
    return this.#log.enabled;
  }

  descriptor(id: number): void {
    this.#log.mark(this.#places.desc + id * VRING_DESC_SIZE, VRING_DESC_SIZE);
  }

  /** An entry of the indirect tables, counted over all of them. */
  tableEntry(index: number): void {
    this.#log.mark(this.#places.indirect!.tables + index * VRING_DESC_SIZE, VRING_DESC_SIZE);
  }

  /** A word of the available ring: 0 flags, 1 index, then entries and used_event. */
  availWord(word: number): void {
    this.#log.mark(this.#places.avail + 2 * word, 2);
  }

  /** `count` entries of the available ring from index `first` on. */
  availEntries(first: number, count: number): void {
    const { size, avail } = this.#places;
    const slot = first & (size - 1);
    const before = Math.min(count, size - slot);
    this.#log.mark(avail + 4 + 2 * slot, 2 * before);
    if (before < count) this.#log.mark(avail + 4, 2 * (count - before));
  }

  stateHeader(): void {
    this.#log.mark(this.#places.state, DRIVER_STATE_HEADER);
  }

  /** The words of the chains with heads `least` to `most`. */
  chains(least: number, most: number): void {
    this.#log.mark(this.#places.state + DRIVER_STATE_HEADER + 4 * least, 4 * (most - least + 1));
  }

  next(id: number): void {
    const { state, size } = this.#places;
    this.#log.mark(state + DRIVER_STATE_HEADER + 4 * size + 2 * id, 2);
  }

  all(): void {
    for (const { gpa, length } of driverRanges('', this.#places)) if (length > 0) this.#log.mark(gpa, length);
  }
}

/** What of a queue lies where in guest memory. */
export function driverRanges(name: string, places: DriverPlaces): { name: string; gpa: number; length: number }[] {
  const { size, eventIdx, desc, avail, used, state, indirect } = places;
  return [
    { name: `${name} descriptor table`, gpa: desc, length: descTableBytes(size) },
    { name: `${name} available ring`, gpa: avail, length: availRingBytes(size, eventIdx) },
    { name: `${name} used ring`, gpa: used, length: usedRingBytes(size, eventIdx) },
    { name: `${name} driver state`, gpa: state, length: driverStateBytes(size) },
    {
      name: `${name} indirect tables`,
      gpa: indirect?.tables ?? 0,
      length: indirect === null ? 0 : indirectTableBytes(size, indirect.entries),
    },
  ];
}
