/** Sockets: asm-generic/socket.h, linux/net.h, linux/in.h, linux/tcp.h, linux/un.h of include/uapi, and include/net/scm.h. */

export const AF_UNIX = 1;
export const AF_INET = 2;
export const AF_INET6 = 10;

export const SOCK_STREAM = 1;
export const SOCK_DGRAM = 2;

export const SOL_SOCKET = 1;
export const SO_REUSEADDR = 2;
export const SO_ERROR = 4;
export const SO_KEEPALIVE = 9;
export const SO_DOMAIN = 39;

export const IPPROTO_TCP = 6;
export const TCP_NODELAY = 1;
export const TCP_KEEPIDLE = 4;
export const TCP_KEEPINTVL = 5;
export const TCP_USER_TIMEOUT = 18;

/** Bytes of a path or an abstract name: sun_path less the zero byte. */
export const UNIX_NAME_LIMIT = 107;
/** Descriptors that one message carries. */
export const SCM_MAX_FD = 253;
