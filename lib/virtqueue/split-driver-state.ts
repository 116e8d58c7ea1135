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
import {
  DRIVER_STATE_HEADER,
  FREE_COUNT,
  type IndirectTables,
  indirectTableBytes,
  readHeader,
  requireAligned,
  requireTables,
  writeHeader,
} from './driver-state';
import { availRingBytes, descTableBytes, isQueueSize, requireQueueSize, usedRingBytes } from './layout';
import { type RingMemory, u16At, u32At } from './ring-memory';

export { indirectTableBytes };

export const SPLIT_DRIVER_MAGIC = 0x53445156;

export interface SplitDriverOptions {
  /** Entries, a power of two from 1 to 32768. */
  size: number;
  /** Guest physical addresses: aligned by 16, 2 and 4. */
  desc: number;
  avail: number;
  used: number;
  /** VIRTIO_RING_F_EVENT_IDX was negotiated. */
  eventIdx?: boolean;
  /** VIRTIO_RING_F_INDIRECT_DESC was negotiated. */
  indirect?: IndirectTables;
}

export const driverStateBytes = (size: number): number => DRIVER_STATE_HEADER + 6 * size;

/** Zeroes the rings and writes the state of a queue that was never used. */
export function formatDriverState(memory: RingMemory, at: number, options: SplitDriverOptions): void {
  const { size, desc, avail, used, indirect, eventIdx = false } = options;
  requireQueueSize(size);
  requireAligned('driver state', at, 8);
  requireAligned('descriptor table', desc, 16);
  requireAligned('available ring', avail, 2);
  requireAligned('used ring', used, 4);
  if (indirect !== undefined) requireTables(indirect);
  u32At(memory, desc, size * 4).fill(0);
  u16At(memory, avail, availRingBytes(size, eventIdx) / 2).fill(0);
  u16At(memory, used, usedRingBytes(size, eventIdx) / 2).fill(0);
  if (indirect !== undefined) u32At(memory, indirect.tables, indirectTableBytes(size, indirect.entries) / 4).fill(0);

  const chains = u32At(memory, at + DRIVER_STATE_HEADER, size);
  chains.fill(0);
  writeHeader(memory, at, SPLIT_DRIVER_MAGIC, {
    size,
    eventIdx,
    parts: [desc, avail, used],
    indirect: indirect ?? null,
  });
  u16At(memory, at, DRIVER_STATE_HEADER / 2)[FREE_COUNT] = size;
  const next = u16At(memory, at + DRIVER_STATE_HEADER + 4 * size, size);
  for (let id = 0; id < size; id++) next[id] = (id + 1) % size;
}

/** Reads back what `formatDriverState` was given. Throws VHOST_ERR_RING when there is no such state. */
export function readDriverState(
  memory: RingMemory,
  at: number,
): Required<Omit<SplitDriverOptions, 'indirect'>> & { indirect: IndirectTables | null } {
  const { size, eventIdx, parts, indirect } = readHeader(memory, at, SPLIT_DRIVER_MAGIC, 'split', isQueueSize);
  const [desc, avail, used] = parts;
  memory.regionOf(desc, descTableBytes(size));
  memory.regionOf(avail, availRingBytes(size, eventIdx));
  memory.regionOf(used, usedRingBytes(size, eventIdx));
  return { size, eventIdx, desc, avail, used, indirect };
}
