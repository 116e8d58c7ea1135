/** IPv4 and UDP (RFC 791, RFC 768; include/uapi/linux/ip.h, in.h and udp.h). Sizes in bytes. */

/** First byte of a header without options: version 4, five words. */
export const IPV4_VERSION_IHL = 0x45;
/** Header without options. */
export const IPV4_HLEN = 20;
/** Default time to live (IPDEFTTL). */
export const IPV4_TTL = 64;
/** Protocol number. */
export const IPPROTO_UDP = 17;

/** Ports, length, checksum. */
export const UDP_HLEN = 8;
