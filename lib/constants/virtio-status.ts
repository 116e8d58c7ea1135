/** Device status (virtio 1.4 section 2.1; include/uapi/linux/virtio_config.h): bits of the status register. */

export const VIRTIO_CONFIG_S_ACKNOWLEDGE = 1;
export const VIRTIO_CONFIG_S_DRIVER = 2;
export const VIRTIO_CONFIG_S_DRIVER_OK = 4;
export const VIRTIO_CONFIG_S_FEATURES_OK = 8;
export const VIRTIO_CONFIG_S_NEEDS_RESET = 64;
export const VIRTIO_CONFIG_S_FAILED = 128;

/** Device type of a network card (section 5). */
export const VIRTIO_ID_NET = 1;
