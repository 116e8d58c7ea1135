/** IEEE 802.3 and include/uapi/linux/if_ether.h. Sizes in bytes, without the frame check sequence. */

/** Octets of an address. */
export const ETH_ALEN = 6;
/** Destination, source, EtherType. */
export const ETH_HLEN = 14;
/** What a VLAN tag adds between the addresses and the EtherType (include/linux/if_vlan.h). */
export const VLAN_HLEN = 4;
/** Shortest frame. */
export const ETH_ZLEN = 60;
/** Largest payload and frame without jumbo frames. */
export const ETH_DATA_LEN = 1500;
export const ETH_FRAME_LEN = 1514;

/** EtherTypes. */
export const ETH_P_IP = 0x0800;
export const ETH_P_ARP = 0x0806;
export const ETH_P_RARP = 0x8035;
export const ETH_P_8021Q = 0x8100;
export const ETH_P_IPV6 = 0x86dd;
/** Local Experimental EtherType 1 (IEEE 802, clause 9.2.4): for use inside one's own network. */
export const ETH_P_802_EX1 = 0x88b5;
