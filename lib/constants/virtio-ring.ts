/** Split virtqueues (virtio 1.4 section 2.7; include/uapi/linux/virtio_ring.h). */

/** Feature bit numbers. */
export const VIRTIO_RING_F_INDIRECT_DESC = 28;
export const VIRTIO_RING_F_EVENT_IDX = 29;

/** Descriptor flags (section 2.7.5): values, not bit numbers. */
export const VRING_DESC_F_NEXT = 1;
export const VRING_DESC_F_WRITE = 2;
export const VRING_DESC_F_INDIRECT = 4;

/** used.flags: the device asks not to be kicked (section 2.7.8). */
export const VRING_USED_F_NO_NOTIFY = 1;
/** avail.flags: the driver asks not to be called (section 2.7.6). */
export const VRING_AVAIL_F_NO_INTERRUPT = 1;

/** Alignments in bytes (section 2.7). */
export const VRING_DESC_ALIGN_SIZE = 16;
export const VRING_AVAIL_ALIGN_SIZE = 2;
export const VRING_USED_ALIGN_SIZE = 4;

/** Bytes of a descriptor and of a used ring element. */
export const VRING_DESC_SIZE = 16;
export const VRING_USED_ELEM_SIZE = 8;

/** Largest queue size (section 2.7). */
export const VIRTQUEUE_MAX_SIZE = 32768;
