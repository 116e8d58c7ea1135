/** Where the parts of a packed virtqueue lie (virtio 1.4 section 2.8). Sizes in bytes. */
import { VIRTQUEUE_MAX_SIZE } from '../constants/virtio-ring';
import {
  VRING_PACKED_DESC_ALIGN_SIZE,
  VRING_PACKED_DESC_SIZE,
  VRING_PACKED_EVENT_SIZE,
} from '../constants/virtio-ring-packed';
import { invalidArgument } from '../errors';

/** Unlike a split one, a packed virtqueue may have any number of entries. */
export const isPackedQueueSize = (size: number): boolean =>
  Number.isInteger(size) && size >= 1 && size <= VIRTQUEUE_MAX_SIZE;

/** Throws VHOST_ERR_INVALID_ARGUMENT. */
export function requirePackedQueueSize(size: number): void {
  if (!isPackedQueueSize(size)) {
    throw invalidArgument(`a packed virtqueue of ${size} entries`, `1 to ${VIRTQUEUE_MAX_SIZE}`);
  }
}

export const descRingBytes = (size: number): number => VRING_PACKED_DESC_SIZE * size;

export interface PackedLayout {
  /** Guest physical addresses: of the descriptor ring, */
  readonly desc: number;
  /** of the driver event suppression structure, which the driver writes, */
  readonly driverEvent: number;
  /** and of the device event suppression structure, which the device writes. */
  readonly deviceEvent: number;
  /** From `desc` to the end of the last structure. */
  readonly bytes: number;
}

/** The three parts one after another from `base` on, which must be 16-byte aligned. */
export function packedLayout(base: number, size: number): PackedLayout {
  requirePackedQueueSize(size);
  if (!Number.isSafeInteger(base) || base < 0 || base % VRING_PACKED_DESC_ALIGN_SIZE !== 0) {
    throw invalidArgument(`a descriptor ring at 0x${base.toString(16)}`, 'a multiple of 16');
  }
  const driverEvent = base + descRingBytes(size);
  const deviceEvent = driverEvent + VRING_PACKED_EVENT_SIZE;
  return { desc: base, driverEvent, deviceEvent, bytes: deviceEvent + VRING_PACKED_EVENT_SIZE - base };
}
