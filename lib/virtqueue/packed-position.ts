/**
 * Places in a packed ring as one number: descriptors counted over two laps, so that index and wrap counter are one. 0 to size - 1 is the
 * lap whose wrap counter is true, size to 2 x size - 1 the one whose counter is false; the largest, 65,535, just fits 16 bits.
 */
import {
  VRING_PACKED_DESC_F_AVAIL,
  VRING_PACKED_DESC_F_USED,
  VRING_PACKED_EVENT_F_WRAP_CTR,
  VRING_PACKED_EVENT_FLAG_DESC,
  VRING_PACKED_EVENT_FLAG_DISABLE,
} from '../constants/virtio-ring-packed';

const AVAIL = 1 << VRING_PACKED_DESC_F_AVAIL;
const USED = 1 << VRING_PACKED_DESC_F_USED;
/** The two flags that say whose a descriptor is. */
export const OWNER_FLAGS = AVAIL | USED;

export const positionOf = (slot: number, wrap: boolean, size: number): number => (wrap ? slot : slot + size);
/** Index in the descriptor ring. */
export const slotOf = (position: number, size: number): number => (position < size ? position : position - size);
export const wrapOf = (position: number, size: number): boolean => position < size;

export function advance(position: number, descriptors: number, size: number): number {
  const to = position + descriptors;
  return to < 2 * size ? to : to - 2 * size;
}

export const retreat = (position: number, descriptors: number, size: number): number =>
  position >= descriptors ? position - descriptors : position - descriptors + 2 * size;

/** Descriptors from one place to another that is not before it. */
export const distance = (from: number, to: number, size: number): number =>
  to >= from ? to - from : to - from + 2 * size;

/** Of OWNER_FLAGS: what a descriptor here has when the driver made it available (section 2.8.1). */
export const availFlags = (position: number, size: number): number => (position < size ? AVAIL : USED);
/** Of OWNER_FLAGS: what a descriptor here has when the device used it. */
export const usedFlags = (position: number, size: number): number => (position < size ? OWNER_FLAGS : 0);

/** An event suppression structure that asks for a notification when the descriptor at `position` changes hands. */
export const eventAt = (position: number, size: number): number =>
  slotOf(position, size) |
  (wrapOf(position, size) ? 1 << VRING_PACKED_EVENT_F_WRAP_CTR : 0) |
  (VRING_PACKED_EVENT_FLAG_DESC << 16);

/** An event suppression structure that says ENABLE or DISABLE. */
export const eventOf = (flag: number): number => flag << 16;

/** Whether the other side, which wrote `event`, wants to hear of anything at all. */
export const asksForEvents = (event: number): boolean => ((event >>> 16) & 3) !== VRING_PACKED_EVENT_FLAG_DISABLE;

/**
 * Whether the other side, which wrote `event`, wants to hear of the descriptors from `from` to before `to`. DESC without EVENT_IDX and the
 * reserved value ask for every notification: one too many is harmless. So is what an offset outside the ring comes to.
 */
export function wantsEvent(event: number, to: number, from: number, size: number, eventIdx: boolean): boolean {
  const flag = (event >>> 16) & 3;
  if (flag !== VRING_PACKED_EVENT_FLAG_DESC || !eventIdx) return asksForEvents(event);
  const wrap = (event & (1 << VRING_PACKED_EVENT_F_WRAP_CTR)) !== 0;
  const awaited = positionOf(event & ((1 << VRING_PACKED_EVENT_F_WRAP_CTR) - 1), wrap, size);
  return distance(from, awaited, size) < distance(from, to, size);
}
