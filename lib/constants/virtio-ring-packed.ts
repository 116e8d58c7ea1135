/**
 * Packed virtqueues (virtio 1.4 section 2.8; include/uapi/linux/virtio_ring.h). Descriptor flags NEXT, WRITE and INDIRECT are those of
 * split virtqueues.
 */

/** Descriptor flags (section 2.8.1): bit numbers, as the kernel has them. */
export const VRING_PACKED_DESC_F_AVAIL = 7;
export const VRING_PACKED_DESC_F_USED = 15;

/** Event suppression flags (section 2.8.10): values of the low two bits; 3 is reserved. */
export const VRING_PACKED_EVENT_FLAG_ENABLE = 0;
export const VRING_PACKED_EVENT_FLAG_DISABLE = 1;
/** Only with EVENT_IDX. */
export const VRING_PACKED_EVENT_FLAG_DESC = 2;

/** Event suppression offset: bit number of the wrap counter above the offset (section 2.8.14). */
export const VRING_PACKED_EVENT_F_WRAP_CTR = 15;

/** Bytes of a descriptor and of an event suppression structure. */
export const VRING_PACKED_DESC_SIZE = 16;
export const VRING_PACKED_EVENT_SIZE = 4;

/** Alignments in bytes (section 2.8.10.1). */
export const VRING_PACKED_DESC_ALIGN_SIZE = 16;
export const VRING_PACKED_EVENT_ALIGN_SIZE = 4;
