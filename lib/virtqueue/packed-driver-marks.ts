/** Tells the write log which bytes of a packed queue its driver wrote. Callers ask `enabled` first, so that nothing is computed in vain. */
import { VRING_DESC_SIZE } from '../constants/virtio-ring';
import { VRING_PACKED_DESC_SIZE, VRING_PACKED_EVENT_SIZE } from '../constants/virtio-ring-packed';
import { DRIVER_STATE_HEADER, type IndirectTables, indirectTableBytes } from './driver-state';
import { BUFFER_ENTRY_SIZE, bufferTableOffset, packedDriverStateBytes } from './packed-driver-state';
import { descRingBytes } from './packed-layout';
import { slotOf } from './packed-position';
import type { WriteLog } from './ring-memory';

/** Where a queue lies: guest physical addresses. */
export interface PackedDriverPlaces {
  readonly size: number;
  readonly eventIdx: boolean;
  readonly desc: number;
  readonly driverEvent: number;
  readonly deviceEvent: number;
  readonly state: number;
  readonly indirect: IndirectTables | null;
}

export class PackedDriverMarks {
  readonly #log: WriteLog;
  readonly #places: PackedDriverPlaces;

  constructor(log: WriteLog, places: PackedDriverPlaces) {
    this.#log = log;
    this.#places = places;
  }

  get enabled(): boolean {
    return this.#log.enabled;
  }

  /** `count` descriptors of the ring from `position` on. */
  descriptors(position: number, count: number): void {
    const { size, desc } = this.#places;
    const slot = slotOf(position, size);
    const before = Math.min(count, size - slot);
    this.#log.mark(desc + slot * VRING_PACKED_DESC_SIZE, before * VRING_PACKED_DESC_SIZE);
    if (before < count) this.#log.mark(desc, (count - before) * VRING_PACKED_DESC_SIZE);
  }

  /** An entry of the indirect tables, counted over all of them. */
  tableEntry(index: number): void {
    this.#log.mark(this.#places.indirect!.tables + index * VRING_DESC_SIZE, VRING_DESC_SIZE);
  }

  driverEvent(): void {
    this.#log.mark(this.#places.driverEvent, VRING_PACKED_EVENT_SIZE);
  }

  stateHeader(): void {
    this.#log.mark(this.#places.state, DRIVER_STATE_HEADER);
  }

  chain(id: number): void {
    this.#log.mark(this.#places.state + DRIVER_STATE_HEADER + 4 * id, 4);
  }

  buffer(entry: number): void {
    const { state, size } = this.#places;
    this.#log.mark(state + bufferTableOffset(size) + entry * BUFFER_ENTRY_SIZE, BUFFER_ENTRY_SIZE);
  }

  all(): void {
    for (const { gpa, length } of packedDriverRanges('', this.#places)) if (length > 0) this.#log.mark(gpa, length);
  }
}

/** What of a queue lies where in guest memory. */
export function packedDriverRanges(
  name: string,
  places: PackedDriverPlaces,
): { name: string; gpa: number; length: number }[] {
  const { size, desc, driverEvent, deviceEvent, state, indirect } = places;
  return [
    { name: `${name} descriptor ring`, gpa: desc, length: descRingBytes(size) },
    { name: `${name} driver event suppression`, gpa: driverEvent, length: VRING_PACKED_EVENT_SIZE },
    { name: `${name} device event suppression`, gpa: deviceEvent, length: VRING_PACKED_EVENT_SIZE },
    { name: `${name} driver state`, gpa: state, length: packedDriverStateBytes(size) },
    {
      name: `${name} indirect tables`,
      gpa: indirect?.tables ?? 0,
      length: indirect === null ? 0 : indirectTableBytes(size, indirect.entries),
    },
  ];
}
