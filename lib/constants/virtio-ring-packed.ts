/** Packed virtqueues (virtio 1.4 section 2.8; include/uapi/linux/virtio_ring.h). What both formats share is in virtio-ring.ts. */

/** Descriptor flags (section 2.8.1): bit numbers, not values. */
export const VRING_PACKED_DESC_F_AVAIL = 7;
export const VRING_PACKED_DESC_F_USED = 15;

/** Flags of an event suppression structure (section 2.8.14). */
export const VRING_PACKED_EVENT_FLAG_ENABLE = 0;
export const VRING_PACKED_EVENT_FLAG_DISABLE = 1;
/** Only with EVENT_IDX: notify at one descriptor. */
export const VRING_PACKED_EVENT_FLAG_DESC = 2;

/** Bit number of the wrap counter in an event suppression structure; the bits below are the descriptor's index. */
export const VRING_PACKED_EVENT_F_WRAP_CTR = 15;

/** Bytes of an event suppression structure, and its alignment (section 2.8.10.1). */
export const VRING_PACKED_EVENT_SIZE = 4;
export const VRING_PACKED_EVENT_ALIGN_SIZE = 4;
