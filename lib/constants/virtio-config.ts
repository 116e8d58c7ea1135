/** Feature bit numbers that concern queues and transport, whatever the device type (virtio 1.4 section 6; linux/virtio_config.h). */

/** Legacy: call even when suppressed once the available ring is empty. */
export const VIRTIO_F_NOTIFY_ON_EMPTY = 24;
/** Legacy: any framing of header and data. VERSION_1 includes it. Shares its number with VHOST_NET_F_VIRTIO_NET_HDR. */
export const VIRTIO_F_ANY_LAYOUT = 27;
export const VIRTIO_F_VERSION_1 = 32;
export const VIRTIO_F_ACCESS_PLATFORM = 33;
export const VIRTIO_F_RING_PACKED = 34;
export const VIRTIO_F_IN_ORDER = 35;
export const VIRTIO_F_ORDER_PLATFORM = 36;
export const VIRTIO_F_SR_IOV = 37;
export const VIRTIO_F_NOTIFICATION_DATA = 38;
export const VIRTIO_F_NOTIF_CONFIG_DATA = 39;
export const VIRTIO_F_RING_RESET = 40;
export const VIRTIO_F_ADMIN_VQ = 41;
export const VIRTIO_F_SUSPEND = 43;
