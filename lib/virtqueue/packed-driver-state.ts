/**
 * The driver's own account of a packed virtqueue, kept in guest memory beside the ring so that guest memory alone is enough to go on.
 * Little-endian; the address is a multiple of 8. Positions count descriptors over two laps (packed-position.ts).
 *
 *     offset  type       field
 *     0       u32        magic, 'VQDP'
 *     4       u32        queue size
 *     8       u32        flags: 1 EVENT_IDX, 2 INDIRECT_DESC
 *     12      u32        descriptors in each indirect table
 *     16      u32 x 2    descriptor ring (low, high)
 *     24      u32 x 2    driver event suppression
 *     32      u32 x 2    device event suppression
 *     40      u32 x 2    indirect tables, one for each descriptor
 *     48      u16        first free entry of the buffer table
 *     50      u16        free entries, and free descriptors of the ring
 *     52      u16        next available position to fill
 *     54      u16        available position published last
 *     56      u16        next used position to take
 *     58      u16        chains in flight
 *     60      u32        id and flags of the first descriptor that is not published, written to the ring by publish
 *     64      u32[size]  chains by id: low 16 bits descriptors taken from the ring, bit 16 in flight
 *     ...     16 bytes x size  buffer table: address low and high, length, u16 flags, u16 next entry, of a chain or of the free list
 *
 * A used descriptor overwrites an available one, and of whichever chain, so the ring does not remember what a chain was made of. The
 * buffer table does: it is what the descriptor table is to a split virtqueue, a chain's id is its first entry there, and a chain of any
 * length can be made available again from it, at another place of the ring.
 *
 * Every method of the driver leaves it consistent, so a guest that stands between two calls can be copied.
 */
import { VRING_PACKED_EVENT_SIZE } from '../constants/virtio-ring-packed';
import { VhostError } from '../errors';
import {
  DRIVER_STATE_HEADER,
  FREE_COUNT,
  type IndirectTables,
  indirectTableBytes,
  NEXT_AVAIL,
  NEXT_USED,
  PUBLISHED,
  readHeader,
  requireAligned,
  requireTables,
  writeHeader,
} from './driver-state';
import { descRingBytes, isPackedQueueSize, requirePackedQueueSize } from './packed-layout';
import { type RingMemory, u16At, u32At } from './ring-memory';

export const PACKED_DRIVER_MAGIC = 0x50445156;

/** Index of the header as u16. */
export const CHAINS_IN_FLIGHT = 29;
/** Index of the header as u32. */
export const FIRST_ID_AND_FLAGS = 15;
/** Bytes of an entry of the buffer table. */
export const BUFFER_ENTRY_SIZE = 16;

export interface PackedDriverOptions {
  /** Entries, 1 to 32768. */
  size: number;
  /** Guest physical addresses: aligned by 16, 4 and 4. */
  desc: number;
  driverEvent: number;
  deviceEvent: number;
  /** VIRTIO_RING_F_EVENT_IDX was negotiated. */
  eventIdx?: boolean;
  /** VIRTIO_RING_F_INDIRECT_DESC was negotiated. */
  indirect?: IndirectTables;
}

export const packedDriverStateBytes = (size: number): number => DRIVER_STATE_HEADER + 4 * size + bufferTableBytes(size);
export const bufferTableBytes = (size: number): number => BUFFER_ENTRY_SIZE * size;
/** The buffer table, from the state on. */
export const bufferTableOffset = (size: number): number => DRIVER_STATE_HEADER + 4 * size;

/** Zeroes the ring and writes the state of a queue that was never used. */
export function formatPackedDriverState(memory: RingMemory, at: number, options: PackedDriverOptions): void {
  const { size, desc, driverEvent, deviceEvent, indirect, eventIdx = false } = options;
  requirePackedQueueSize(size);
  requireAligned('driver state', at, 8);
  requireAligned('descriptor ring', desc, 16);
  requireAligned('driver event suppression', driverEvent, 4);
  requireAligned('device event suppression', deviceEvent, 4);
  if (indirect !== undefined) requireTables(indirect);
  u32At(memory, desc, descRingBytes(size) / 4).fill(0);
  u32At(memory, driverEvent, 1).fill(0);
  u32At(memory, deviceEvent, 1).fill(0);
  if (indirect !== undefined) u32At(memory, indirect.tables, indirectTableBytes(size, indirect.entries) / 4).fill(0);

  u32At(memory, at + DRIVER_STATE_HEADER, (packedDriverStateBytes(size) - DRIVER_STATE_HEADER) / 4).fill(0);
  writeHeader(memory, at, PACKED_DRIVER_MAGIC, {
    size,
    eventIdx,
    parts: [desc, driverEvent, deviceEvent],
    indirect: indirect ?? null,
  });
  u16At(memory, at, DRIVER_STATE_HEADER / 2)[FREE_COUNT] = size;
  const table = u16At(memory, at + bufferTableOffset(size), bufferTableBytes(size) / 2);
  for (let entry = 0; entry < size; entry++) table[entry * 8 + 7] = (entry + 1) % size;
}

/** Reads back what `formatPackedDriverState` was given. Throws VHOST_ERR_RING when there is no such state. */
export function readPackedDriverState(
  memory: RingMemory,
  at: number,
): Required<Omit<PackedDriverOptions, 'indirect'>> & { indirect: IndirectTables | null } {
  const header = readHeader(memory, at, PACKED_DRIVER_MAGIC, 'packed', isPackedQueueSize);
  const { size, eventIdx, indirect } = header;
  const [desc, driverEvent, deviceEvent] = header.parts;
  memory.regionOf(desc, descRingBytes(size));
  memory.regionOf(driverEvent, VRING_PACKED_EVENT_SIZE);
  memory.regionOf(deviceEvent, VRING_PACKED_EVENT_SIZE);
  const state = u16At(memory, at, DRIVER_STATE_HEADER / 2);
  for (const field of [NEXT_AVAIL, PUBLISHED, NEXT_USED]) {
    if (state[field]! >= 2 * size) {
      throw new VhostError('VHOST_ERR_RING', `packed virtqueue driver: position ${state[field]} in a queue of ${size}`);
    }
  }
  return { size, eventIdx, desc, driverEvent, deviceEvent, indirect };
}
