/** What the driver states of both formats have in common: the first 48 bytes, and what is checked before a queue is formatted. */
import { VRING_DESC_SIZE } from '../constants/virtio-ring';
import { invalidArgument, VhostError } from '../errors';
import { HIGH_WORD, highWord, lowWord, type RingMemory, u32At } from './ring-memory';

/** Bytes before the arrays. */
export const DRIVER_STATE_HEADER = 64;

/** Indexes of the header as u16. */
export const FREE_HEAD = 24;
export const FREE_COUNT = 25;
export const NEXT_AVAIL = 26;
export const PUBLISHED = 27;
export const NEXT_USED = 28;

/** Bit of a chain word: the device has it. */
export const IN_FLIGHT = 0x10000;

const EVENT_IDX = 1;
const INDIRECT = 2;

/** Chains of several buffers go through tables of `entries` descriptors from `tables` on, one for each descriptor of the ring. */
export interface IndirectTables {
  readonly tables: number;
  readonly entries: number;
}

export interface DriverStateHeader {
  size: number;
  eventIdx: boolean;
  /** Guest physical addresses of the three parts of the queue: descriptors, what the driver writes, what the device writes. */
  parts: [number, number, number];
  indirect: IndirectTables | null;
}

export const indirectTableBytes = (size: number, entries: number): number => size * entries * VRING_DESC_SIZE;

export function requireAligned(name: string, address: number, alignment: number): void {
  if (!Number.isSafeInteger(address) || address < 0 || address % alignment !== 0) {
    throw invalidArgument(`${name} at 0x${address.toString(16)}`, `a multiple of ${alignment}`);
  }
}

export function requireTables({ tables, entries }: IndirectTables): void {
  requireAligned('indirect tables', tables, 16);
  if (!Number.isInteger(entries) || entries < 1 || entries > 32768) {
    throw invalidArgument(`indirect tables of ${entries} descriptors`, '1 to 32768');
  }
}

/** Writes the header of a queue that was never used; all of it that is not given is 0. */
export function writeHeader(memory: RingMemory, at: number, magic: number, header: DriverStateHeader): void {
  const { size, eventIdx, parts, indirect } = header;
  const words = u32At(memory, at, DRIVER_STATE_HEADER / 4);
  words.fill(0);
  words[0] = magic;
  words[1] = size;
  words[2] = (eventIdx ? EVENT_IDX : 0) | (indirect === null ? 0 : INDIRECT);
  words[3] = indirect?.entries ?? 0;
  for (const [index, address] of [...parts, indirect?.tables ?? 0].entries()) {
    words[4 + 2 * index] = lowWord(address);
    words[5 + 2 * index] = highWord(address);
  }
}

export const readMagic = (memory: RingMemory, at: number): number => u32At(memory, at, 1)[0]!;

/** Reads back what `writeHeader` was given. Throws VHOST_ERR_RING when there is no such state. */
export function readHeader(
  memory: RingMemory,
  at: number,
  magic: number,
  format: 'split' | 'packed',
  isSize: (size: number) => boolean,
): DriverStateHeader {
  const words = u32At(memory, at, DRIVER_STATE_HEADER / 4);
  const size = words[1]!;
  if (words[0] !== magic || !isSize(size)) {
    throw new VhostError('VHOST_ERR_RING', `no driver state of a ${format} virtqueue at 0x${at.toString(16)}`);
  }
  const address = (index: number): number => words[4 + 2 * index]! + words[5 + 2 * index]! * HIGH_WORD;
  return {
    size,
    eventIdx: (words[2]! & EVENT_IDX) !== 0,
    parts: [address(0), address(1), address(2)],
    indirect: (words[2]! & INDIRECT) === 0 ? null : { tables: address(3), entries: words[3]! },
  };
}
