/** IPv4, IPv6 and UDP (RFC 791, RFC 8200, RFC 768; include/uapi/linux/ip.h, in.h and udp.h). Sizes in bytes. */

/** First byte of a header without options: version 4, five words. */
export const IPV4_VERSION_IHL = 0x45;
/** Header without options. */
export const IPV4_HLEN = 20;
/** Default time to live (IPDEFTTL). */
export const IPV4_TTL = 64;
/** Protocol numbers. */
export const IPPROTO_TCP = 6;
export const IPPROTO_UDP = 17;
/** Header of IPv6 without extensions (RFC 8200). */
export const IPV6_HLEN = 40;

/** Ports, length, checksum. */
export const UDP_HLEN = 8;
