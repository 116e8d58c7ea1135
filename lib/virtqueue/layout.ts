/** Where the parts of a split virtqueue lie (virtio 1.4 section 2.7). Sizes in bytes. */
import {
  VIRTQUEUE_MAX_SIZE,
  VRING_DESC_ALIGN_SIZE,
  VRING_DESC_SIZE,
  VRING_USED_ALIGN_SIZE,
  VRING_USED_ELEM_SIZE,
} from '../constants/virtio-ring';
import { invalidArgument } from '../errors';

export const alignUp = (value: number, alignment: number): number => Math.ceil(value / alignment) * alignment;

export const isQueueSize = (size: number): boolean =>
  Number.isInteger(size) && size >= 1 && size <= VIRTQUEUE_MAX_SIZE && (size & (size - 1)) === 0;

/** Throws VHOST_ERR_INVALID_ARGUMENT. */
export function requireQueueSize(size: number): void {
  if (!isQueueSize(size)) {
    throw invalidArgument(`a split virtqueue of ${size} entries`, 'a power of two from 1 to 32768');
  }
}

export const descTableBytes = (size: number): number => VRING_DESC_SIZE * size;
/** With EVENT_IDX used_event stands behind the ring. */
export const availRingBytes = (size: number, eventIdx: boolean): number => 4 + 2 * size + (eventIdx ? 2 : 0);
/** With EVENT_IDX avail_event stands behind the ring. */
export const usedRingBytes = (size: number, eventIdx: boolean): number =>
  4 + VRING_USED_ELEM_SIZE * size + (eventIdx ? 2 : 0);

export interface SplitLayout {
  /** Guest physical addresses. */
  readonly desc: number;
  readonly avail: number;
  readonly used: number;
  /** From `desc` to the end of the used ring. */
  readonly bytes: number;
}

/** The three parts one after another from `base` on, which must be 16-byte aligned. */
export function splitLayout(base: number, size: number, eventIdx: boolean): SplitLayout {
  requireQueueSize(size);
  if (!Number.isSafeInteger(base) || base < 0 || base % VRING_DESC_ALIGN_SIZE !== 0) {
    throw invalidArgument(`a descriptor table at 0x${base.toString(16)}`, 'a multiple of 16');
  }
  const avail = base + descTableBytes(size);
  const used = alignUp(avail + availRingBytes(size, eventIdx), VRING_USED_ALIGN_SIZE);
  return { desc: base, avail, used, bytes: used + usedRingBytes(size, eventIdx) - base };
}
