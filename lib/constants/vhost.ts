/** include/uapi/linux/vhost.h and vhost_types.h: ioctl requests as encoded on 64-bit x86 and arm64, feature bits, flags. */

export const VHOST_GET_FEATURES = 0x8008af00;
export const VHOST_SET_FEATURES = 0x4008af00;
export const VHOST_SET_OWNER = 0x0000af01;
export const VHOST_RESET_OWNER = 0x0000af02;
export const VHOST_SET_MEM_TABLE = 0x4008af03;
export const VHOST_SET_LOG_BASE = 0x4008af04;
export const VHOST_SET_LOG_FD = 0x4004af07;
export const VHOST_NEW_WORKER = 0x8004af08;
export const VHOST_FREE_WORKER = 0x4004af09;
export const VHOST_SET_VRING_NUM = 0x4008af10;
export const VHOST_SET_VRING_ADDR = 0x4028af11;
export const VHOST_SET_VRING_BASE = 0x4008af12;
export const VHOST_GET_VRING_BASE = 0xc008af12;
export const VHOST_SET_VRING_ENDIAN = 0x4008af13;
export const VHOST_GET_VRING_ENDIAN = 0x4008af14;
export const VHOST_ATTACH_VRING_WORKER = 0x4008af15;
export const VHOST_GET_VRING_WORKER = 0xc008af16;
export const VHOST_SET_VRING_KICK = 0x4008af20;
export const VHOST_SET_VRING_CALL = 0x4008af21;
export const VHOST_SET_VRING_ERR = 0x4008af22;
export const VHOST_SET_VRING_BUSYLOOP_TIMEOUT = 0x4008af23;
export const VHOST_GET_VRING_BUSYLOOP_TIMEOUT = 0x4008af24;
export const VHOST_SET_BACKEND_FEATURES = 0x4008af25;
export const VHOST_GET_BACKEND_FEATURES = 0x8008af26;
export const VHOST_NET_SET_BACKEND = 0x4008af30;
export const VHOST_GET_FEATURES_ARRAY = 0x8008af83;
export const VHOST_SET_FEATURES_ARRAY = 0x4008af83;
export const VHOST_SET_FORK_FROM_OWNER = 0x4001af84;
export const VHOST_GET_FORK_FROM_OWNER = 0x8001af85;

/** File number that takes an eventfd or backend away. */
export const VHOST_FILE_UNBIND = -1;

/** Value of the flag (not its bit number, which is 0) in vhost_vring_addr.flags. */
export const VHOST_VRING_F_LOG = 1;

/** Feature bit numbers private to host and kernel. */
export const VHOST_F_LOG_ALL = 26;
/** Shares its number with VIRTIO_F_ANY_LAYOUT, which a driver may ack: never copy it from there. */
export const VHOST_NET_F_VIRTIO_NET_HDR = 27;

/** Backend feature bit number: IOTLB messages in their second form. */
export const VHOST_BACKEND_F_IOTLB_MSG_V2 = 1;

/** Values of vhost_vring_state.num for VHOST_SET_VRING_ENDIAN. */
export const VHOST_VRING_LITTLE_ENDIAN = 0;
export const VHOST_VRING_BIG_ENDIAN = 1;

/** vring indexes of a vhost-net device, drivers/vhost/net.c. */
export const VHOST_NET_VQ_RX = 0;
export const VHOST_NET_VQ_TX = 1;
export const VHOST_NET_VQ_MAX = 2;

/** Frames that vhost takes from a tap's queue ahead of use, drivers/vhost/net.c. */
export const VHOST_NET_BATCH = 64;

/** What a vhost-net device may offer in word 0, by bit number. */
export const VHOST_NET_FEATURE_NAMES: Readonly<Record<number, string>> = {
  15: 'VIRTIO_NET_F_MRG_RXBUF',
  24: 'VIRTIO_F_NOTIFY_ON_EMPTY',
  26: 'VHOST_F_LOG_ALL',
  27: 'VHOST_NET_F_VIRTIO_NET_HDR',
  28: 'VIRTIO_RING_F_INDIRECT_DESC',
  29: 'VIRTIO_RING_F_EVENT_IDX',
  32: 'VIRTIO_F_VERSION_1',
  33: 'VIRTIO_F_ACCESS_PLATFORM',
  35: 'VIRTIO_F_IN_ORDER',
  40: 'VIRTIO_F_RING_RESET',
};
