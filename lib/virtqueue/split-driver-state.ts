/**
 * The driver's own account of a split virtqueue, kept in guest memory beside the ring so that guest memory alone is enough to go on.
 * Little-endian; the address is a multiple of 8.
 *
 *     offset  type       field
 *     0       u32        magic, 'VQDS'
 *     4       u32        queue size
 *     8       u32        flags: 1 EVENT_IDX, 2 INDIRECT_DESC
 *     12      u32        descriptors in each indirect table
 *     16      u32 x 2    descriptor table (low, high)
 *     24      u32 x 2    available ring
 *     32      u32 x 2    used ring
 *     40      u32 x 2    indirect tables, one for each descriptor
 *     48      u16        first free descriptor
 *     50      u16        free descriptors
 *     52      u16        next available index to fill
 *     54      u16        available index published last
 *     56      u16        next used index to take
 *     58      u16 x 3    0
 *     64      u32[size]  chains by head: low 16 bits descriptors taken from the table, bit 16 in flight
 *     ...     u16[size]  next descriptor, of a chain or of the free list
 *
 * Every method of the driver leaves it consistent, so a guest that stands between two calls can be copied.
 */

import { VRING_DESC_SIZE } from '../constants/virtio-ring';
import { invalidArgument, VhostError } from '../errors';
import { availRingBytes, descTableBytes, isQueueSize, requireQueueSize, usedRingBytes } from './layout';
import { HIGH_WORD, highWord, lowWord, type RingMemory, u16At, u32At } from './ring-memory';

export const DRIVER_STATE_MAGIC = 0x53445156;
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

export interface SplitDriverOptions {
  /** Entries, a power of two from 1 to 32768. */
  size: number;
  /** Guest physical addresses: aligned by 16, 2 and 4. */
  desc: number;
  avail: number;
  used: number;
  /** VIRTIO_RING_F_EVENT_IDX was negotiated. */
  eventIdx?: boolean;
  /** VIRTIO_RING_F_INDIRECT_DESC was negotiated: chains of several buffers go through tables of `entries` descriptors from `tables` on. */
  indirect?: { tables: number; entries: number };
}

export const driverStateBytes = (size: number): number => DRIVER_STATE_HEADER + 6 * size;
export const indirectTableBytes = (size: number, entries: number): number => size * entries * VRING_DESC_SIZE;

function requireAligned(name: string, address: number, alignment: number): void {
  if (!Number.isSafeInteger(address) || address < 0 || address % alignment !== 0) {
    throw invalidArgument(`${name} at 0x${address.toString(16)}`, `a multiple of ${alignment}`);
  }
}

/** Zeroes the rings and writes the state of a queue that was never used. */
export function formatDriverState(memory: RingMemory, at: number, options: SplitDriverOptions): void {
  const { size, desc, avail, used, indirect, eventIdx = false } = options;
  requireQueueSize(size);
  requireAligned('driver state', at, 8);
  requireAligned('descriptor table', desc, 16);
  requireAligned('available ring', avail, 2);
  requireAligned('used ring', used, 4);
  if (indirect !== undefined) {
    requireAligned('indirect tables', indirect.tables, 16);
    if (!Number.isInteger(indirect.entries) || indirect.entries < 1 || indirect.entries > 32768) {
      throw invalidArgument(`indirect tables of ${indirect.entries} descriptors`, '1 to 32768');
    }
  }
  u32At(memory, desc, size * 4).fill(0);
  u16At(memory, avail, availRingBytes(size, eventIdx) / 2).fill(0);
  u16At(memory, used, usedRingBytes(size, eventIdx) / 2).fill(0);
  if (indirect !== undefined) {
    u32At(memory, indirect.tables, indirectTableBytes(size, indirect.entries) / 4).fill(0);
  }

  const words = u32At(memory, at, DRIVER_STATE_HEADER / 4 + size);
  words.fill(0);
  words[0] = DRIVER_STATE_MAGIC;
  words[1] = size;
  words[2] = (eventIdx ? EVENT_IDX : 0) | (indirect === undefined ? 0 : INDIRECT);
  words[3] = indirect?.entries ?? 0;
  const addresses = [desc, avail, used, indirect?.tables ?? 0];
  for (const [index, address] of addresses.entries()) {
    words[4 + 2 * index] = lowWord(address);
    words[5 + 2 * index] = highWord(address);
  }
  const halves = u16At(memory, at, DRIVER_STATE_HEADER / 2);
  halves[FREE_COUNT] = size;
  const next = u16At(memory, at + DRIVER_STATE_HEADER + 4 * size, size);
  for (let id = 0; id < size; id++) next[id] = (id + 1) % size;
}

/** Reads back what `formatDriverState` was given. Throws VHOST_ERR_RING when there is no such state. */
export function readDriverState(
  memory: RingMemory,
  at: number,
): Required<Omit<SplitDriverOptions, 'indirect'>> & {
  indirect: { tables: number; entries: number } | null;
} {
  const words = u32At(memory, at, DRIVER_STATE_HEADER / 4);
  const size = words[1]!;
  if (words[0] !== DRIVER_STATE_MAGIC || !isQueueSize(size)) {
    throw new VhostError('VHOST_ERR_RING', `no driver state of a split virtqueue at 0x${at.toString(16)}`);
  }
  const address = (index: number): number => words[4 + 2 * index]! + words[5 + 2 * index]! * HIGH_WORD;
  const state = {
    size,
    eventIdx: (words[2]! & EVENT_IDX) !== 0,
    desc: address(0),
    avail: address(1),
    used: address(2),
    indirect: (words[2]! & INDIRECT) === 0 ? null : { tables: address(3), entries: words[3]! },
  };
  memory.regionOf(state.desc, descTableBytes(size));
  memory.regionOf(state.avail, availRingBytes(size, state.eventIdx));
  memory.regionOf(state.used, usedRingBytes(size, state.eventIdx));
  return state;
}
