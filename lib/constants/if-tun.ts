/** include/uapi/linux/if_tun.h, if.h and sockios.h: what a tap is opened with and asked for. */

export const IFF_TUN = 0x0001;
export const IFF_TAP = 0x0002;
export const IFF_NAPI = 0x0010;
export const IFF_NAPI_FRAGS = 0x0020;
export const IFF_NO_CARRIER = 0x0040;
export const IFF_MULTI_QUEUE = 0x0100;
export const IFF_ATTACH_QUEUE = 0x0200;
export const IFF_DETACH_QUEUE = 0x0400;
export const IFF_PERSIST = 0x0800;
export const IFF_NO_PI = 0x1000;
export const IFF_ONE_QUEUE = 0x2000;
export const IFF_VNET_HDR = 0x4000;
export const IFF_TUN_EXCL = 0x8000;

export const TUN_F_CSUM = 0x01;
export const TUN_F_TSO4 = 0x02;
export const TUN_F_TSO6 = 0x04;
export const TUN_F_TSO_ECN = 0x08;
export const TUN_F_UFO = 0x10;
export const TUN_F_USO4 = 0x20;
export const TUN_F_USO6 = 0x40;
export const TUN_F_UDP_TUNNEL_GSO = 0x080;
export const TUN_F_UDP_TUNNEL_GSO_CSUM = 0x100;

/** tun_filter.flags: accept every multicast and broadcast address. */
export const TUN_FLT_ALLMULTI = 0x0001;
/** Exact addresses of a receive filter; those behind are hashed and must be multicast (FLT_EXACT_COUNT, drivers/net/tun.c). */
export const FLT_EXACT_COUNT = 8;

export const SIOCGIFFLAGS = 0x8913;
export const SIOCSIFFLAGS = 0x8914;
export const SIOCGIFMTU = 0x8921;
export const SIOCSIFMTU = 0x8922;
export const SIOCGIFINDEX = 0x8933;
export const SIOCGIFTXQLEN = 0x8942;
export const SIOCSIFTXQLEN = 0x8943;

/** if.h: bits of SIOCGIFFLAGS. */
export const IFF_UP = 0x1;
export const IFF_RUNNING = 0x40;

/** Interface names have 15 bytes at most. */
export const IFNAMSIZ = 16;
/** Names of the bits of TUNGETFEATURES. */
export const TUN_FEATURE_NAMES: Readonly<Record<number, string>> = {
  [IFF_TUN]: 'IFF_TUN',
  [IFF_TAP]: 'IFF_TAP',
  [IFF_NAPI]: 'IFF_NAPI',
  [IFF_NAPI_FRAGS]: 'IFF_NAPI_FRAGS',
  [IFF_NO_CARRIER]: 'IFF_NO_CARRIER',
  [IFF_MULTI_QUEUE]: 'IFF_MULTI_QUEUE',
  [IFF_NO_PI]: 'IFF_NO_PI',
  [IFF_ONE_QUEUE]: 'IFF_ONE_QUEUE',
  [IFF_VNET_HDR]: 'IFF_VNET_HDR',
};
