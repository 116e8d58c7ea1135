/** Commands of the control virtqueue (virtio 1.4 section 5.1.6.5; include/uapi/linux/virtio_net.h). */

/** Bytes of class and command, before the data of every command. */
export const VIRTIO_NET_CTRL_HDR_SIZE = 2;

/** The ack byte. */
export const VIRTIO_NET_OK = 0;
export const VIRTIO_NET_ERR = 1;

/** Receive modes (section 5.1.6.5.1): one byte, on or off. The first two need CTRL_RX, the others CTRL_RX_EXTRA. */
export const VIRTIO_NET_CTRL_RX = 0;
export const VIRTIO_NET_CTRL_RX_PROMISC = 0;
export const VIRTIO_NET_CTRL_RX_ALLMULTI = 1;
export const VIRTIO_NET_CTRL_RX_ALLUNI = 2;
export const VIRTIO_NET_CTRL_RX_NOMULTI = 3;
export const VIRTIO_NET_CTRL_RX_NOUNI = 4;
export const VIRTIO_NET_CTRL_RX_NOBCAST = 5;

/** MAC addresses (section 5.1.6.5.2): the table needs CTRL_RX, the device's own address CTRL_MAC_ADDR. */
export const VIRTIO_NET_CTRL_MAC = 1;
export const VIRTIO_NET_CTRL_MAC_TABLE_SET = 0;
export const VIRTIO_NET_CTRL_MAC_ADDR_SET = 1;

/** VLAN table (section 5.1.6.5.3): le16 identifier. */
export const VIRTIO_NET_CTRL_VLAN = 2;
export const VIRTIO_NET_CTRL_VLAN_ADD = 0;
export const VIRTIO_NET_CTRL_VLAN_DEL = 1;

/** Gratuitous packets (section 5.1.6.5.4): no data. */
export const VIRTIO_NET_CTRL_ANNOUNCE = 3;
export const VIRTIO_NET_CTRL_ANNOUNCE_ACK = 0;

/** Multiqueue (section 5.1.6.5.5 to 5.1.6.5.7). */
export const VIRTIO_NET_CTRL_MQ = 4;
export const VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET = 0;
export const VIRTIO_NET_CTRL_MQ_RSS_CONFIG = 1;
export const VIRTIO_NET_CTRL_MQ_HASH_CONFIG = 2;
export const VIRTIO_NET_CTRL_MQ_VQ_PAIRS_MIN = 1;
export const VIRTIO_NET_CTRL_MQ_VQ_PAIRS_MAX = 0x8000;

/** Offloads of received frames (section 5.1.6.5.9): le64, bit n for feature n. */
export const VIRTIO_NET_CTRL_GUEST_OFFLOADS = 5;
export const VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET = 0;
/** Bits of its bitmap, which ends at 64, for the features 65 and 66; all others have the numbers of their features. */
export const VIRTIO_NET_F_GUEST_UDP_TUNNEL_GSO_MAPPED = 46;
export const VIRTIO_NET_F_GUEST_UDP_TUNNEL_GSO_CSUM_MAPPED = 47;

/** Notification coalescing (section 5.1.6.5.10). */
export const VIRTIO_NET_CTRL_NOTF_COAL = 6;
export const VIRTIO_NET_CTRL_NOTF_COAL_TX_SET = 0;
export const VIRTIO_NET_CTRL_NOTF_COAL_RX_SET = 1;
export const VIRTIO_NET_CTRL_NOTF_COAL_VQ_SET = 2;
export const VIRTIO_NET_CTRL_NOTF_COAL_VQ_GET = 3;

/** Hash of inner headers (section 5.1.6.4). */
export const VIRTIO_NET_CTRL_HASH_TUNNEL = 7;
export const VIRTIO_NET_CTRL_HASH_TUNNEL_SET = 0;

/** Device statistics (section 5.1.6.5.11). */
export const VIRTIO_NET_CTRL_STATS = 8;
export const VIRTIO_NET_CTRL_STATS_QUERY = 0;
export const VIRTIO_NET_CTRL_STATS_GET = 1;

/** RSS contexts (section 5.1.6.5.8). */
export const VIRTNET_RSS_CTX_CTRL = 9;
export const VIRTNET_RSS_CTX_CTRL_CAP_GET = 0;
export const VIRTNET_RSS_CTX_CTRL_ADD = 1;
export const VIRTNET_RSS_CTX_CTRL_MOD = 2;
export const VIRTNET_RSS_CTX_CTRL_DEL = 3;
