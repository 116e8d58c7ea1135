/**
 * The shapes of failure. What the kernel refused looks like Node's own system errors (`code`, `errno`, `syscall`, `path`) with a
 * `hint` that says what to do; what the caller, a peer or a saved state got wrong has a `code` that begins with VHOST_ERR_.
 */
import { getSystemErrorName } from 'node:util';

/** Codes of errors that do not come from the kernel. */
export type VhostErrorCode =
  | 'VHOST_ERR_CLOSED'
  | 'VHOST_ERR_INVALID_ARGUMENT'
  | 'VHOST_ERR_STATE'
  | 'VHOST_ERR_FEATURES'
  | 'VHOST_ERR_HEADER_SIZE'
  | 'VHOST_ERR_MEMORY_TABLE'
  | 'VHOST_ERR_LOG_SIZE'
  | 'VHOST_ERR_RING'
  | 'VHOST_ERR_PROTOCOL'
  | 'VHOST_ERR_MIGRATION'
  | 'VHOST_ERR_UNCERTAIN'
  | 'VHOST_ERR_RETURNED'
  | 'VHOST_ERR_INCOMPATIBLE'
  | 'VHOST_ERR_TIMEOUT'
  | 'VHOST_ERR_TLS'
  | 'VHOST_ERR_ABORTED'
  | 'VHOST_ERR_VM'
  | 'VHOST_ERR_UNSUPPORTED';

export interface VhostErrorDetails {
  /** Negative errno. */
  errno?: number;
  /** Name of the system call or ioctl. */
  syscall?: string;
  path?: string;
  /** What to do about it. */
  hint?: string;
  cause?: unknown;
}

export class VhostError extends Error {
  override readonly name: string = 'VhostError';
  /** An errno name such as EBUSY, or a {@link VhostErrorCode}. */
  readonly code: string;
  readonly errno?: number;
  readonly syscall?: string;
  readonly path?: string;
  readonly hint?: string;

  constructor(code: string, message: string, details: VhostErrorDetails = {}) {
    super(
      details.hint === undefined ? message : `${message} (${details.hint})`,
      details.cause === undefined ? undefined : { cause: details.cause },
    );
    this.code = code;
    if (details.errno !== undefined) this.errno = details.errno;
    if (details.syscall !== undefined) this.syscall = details.syscall;
    if (details.path !== undefined) this.path = details.path;
    if (details.hint !== undefined) this.hint = details.hint;
  }
}

/** Something a peer or a saved state sent: names message, offset and what was expected. */
export class ProtocolError extends VhostError {
  override readonly name = 'ProtocolError';
  /** Offset in the stream, in bytes, of the thing that is wrong. */
  readonly offset: number;
  readonly expected: string;

  constructor(what: string, offset: number, expected: string, details: VhostErrorDetails = {}) {
    super('VHOST_ERR_PROTOCOL', `${what} at offset ${offset}: expected ${expected}`, details);
    this.offset = offset;
    this.expected = expected;
  }
}

/** What to try, by errno and system call: facts from the kernel's own rules, worded for a person. */
type Hints = Readonly<Record<string, string>>;
const HINTS: Hints = {
  'ENOENT open /dev/vhost-net':
    'load the module with "modprobe vhost_net"; in a container pass --device /dev/vhost-net; without it use "vhost-net vm"',
  'ENODEV open /dev/vhost-net': 'the kernel has no vhost_net module: load it with "modprobe vhost_net"',
  'EACCES open /dev/vhost-net': 'be root or a member of the group that owns /dev/vhost-net (usually kvm)',
  'EPERM open /dev/vhost-net': 'the container does not allow the device: pass --device /dev/vhost-net',
  'ENOENT open /dev/net/tun': 'load the module with "modprobe tun"; in a container pass --device /dev/net/tun',
  'EACCES open /dev/net/tun': 'be root, or let a privileged parent open the tap and pass its descriptor',
  'ENOMEM mmap': 'no memory, or fewer free huge pages than the region needs: see /proc/meminfo, HugePages_Free',
  'EPERM TUNSETIFF':
    'creating a tap needs CAP_NET_ADMIN in its network namespace; or use a persistent tap owned by this user',
  'EBUSY TUNSETIFF': 'another process has this tap open; a tap that is not multiqueue has one user at a time',
  'EINVAL TUNSETIFF': 'the interface exists with another type or another IFF_MULTI_QUEUE setting',
  'E2BIG TUNSETIFF': 'a tap has 256 queues at most',
  'EINVAL TUNSETVNETHDRSZ': 'the header is at least 10 bytes',
  'EBUSY VHOST_SET_OWNER': 'this descriptor already has an owner: open /dev/vhost-net again',
  'ENOMEM VHOST_SET_OWNER': 'no memory, or no thread could be made (RLIMIT_NPROC, pids.max)',
  'EBUSY VHOST_SET_VRING_NUM': 'the ring has a backend: detach it first',
  'EBUSY VHOST_SET_VRING_BASE': 'the ring has a backend: detach it first',
  'EINVAL VHOST_SET_VRING_NUM': 'a ring has a power of two entries, 1 to 32768',
  'EINVAL VHOST_SET_VRING_BASE': 'a split ring index is 0 to 65535',
  'EINVAL VHOST_SET_VRING_ADDR':
    'misaligned: available ring 2, used ring 4, log address 4 bytes; or outside memory or log while attached',
  'ENOTSUP VHOST_SET_VRING_ADDR': 'the only flag is VHOST_VRING_F_LOG (1)',
  'E2BIG VHOST_SET_MEM_TABLE':
    'more regions than /sys/module/vhost/parameters/max_mem_regions: merge regions or load vhost with a larger limit',
  'EFAULT VHOST_SET_MEM_TABLE': 'a region is empty, wraps around, or lies outside this process',
  'ENOTSUP VHOST_SET_MEM_TABLE': 'the padding word must be 0',
  'ENOTSUP VHOST_SET_FEATURES': 'a bit that this kernel does not offer: mask with VHOST_GET_FEATURES',
  'ENOTSUP VHOST_SET_BACKEND_FEATURES': 'a backend feature that this kernel does not offer',
  'EFAULT VHOST_SET_FEATURES': 'the dirty log does not cover the memory table in user address space',
  'EFAULT VHOST_SET_LOG_BASE': 'the dirty log does not lie in user address space',
  'EFAULT VHOST_NET_SET_BACKEND': 'memory table, ring addresses or log not set, or not mapped and writable',
  'ENOTSOCK VHOST_NET_SET_BACKEND': 'the descriptor is no tap, macvtap or raw packet socket',
  'EINVAL VHOST_NET_SET_BACKEND': 'the tap has no interface: TUNSETIFF missing, or its interface was deleted',
  'ENOTTY *': 'this kernel does not have the ioctl',
  'ENOBUFS *': 'a vhost-net device has rings 0 (receive) and 1 (transmit) only',
  'EPERM *': 'not the owner: call VHOST_SET_OWNER first, from the process whose memory the device uses',
};

/** What to do about a failed system call, or undefined. */
export function hintFor(code: string, syscall: string, path?: string): string | undefined {
  return (
    (path === undefined ? undefined : HINTS[`${code} ${syscall} ${path}`]) ??
    HINTS[`${code} ${syscall}`] ??
    (syscall.startsWith('VHOST_') ? HINTS[`${code} *`] : undefined)
  );
}

/** Errno names that libuv does not know. */
const OTHER_ERRNO_NAMES: Readonly<Record<number, string>> = { [-77]: 'EBADFD', [-95]: 'ENOTSUP' };

/**
 * The error of a failed system call, in the shape of Node's own. The name of errno 95 is Node's ENOTSUP, which the kernel's sources
 * call EOPNOTSUPP.
 */
export function systemError(errno: number, syscall: string, path?: string): VhostError {
  const code = OTHER_ERRNO_NAMES[errno] ?? getSystemErrorName(errno);
  const details: VhostErrorDetails = { errno, syscall };
  if (path !== undefined) details.path = path;
  const hint = hintFor(code, syscall, path);
  if (hint !== undefined) details.hint = hint;
  return new VhostError(code, `${code}: ${syscall}${path === undefined ? '' : ` '${path}'`}`, details);
}

/** Gives the value back, or throws when it is a negative errno. */
export function check<T>(result: T | number, syscall: string, path?: string): T {
  if (typeof result === 'number' && result < 0) throw systemError(result, syscall, path);
  return result as T;
}

/** An argument that was refused before any system call. */
export function invalidArgument(message: string, hint?: string): VhostError {
  return new VhostError('VHOST_ERR_INVALID_ARGUMENT', message, hint === undefined ? {} : { hint });
}

/** What anything that was thrown says. */
export function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Ended by whoever waits for it: `reason` is that of the AbortSignal. */
export function abortedError(doing: string, reason: unknown): VhostError {
  return new VhostError('VHOST_ERR_ABORTED', `cancelled while ${doing}: ${reasonOf(reason ?? 'aborted')}`);
}

/** Use of a closed object. */
export function closedError(what: string): VhostError {
  return new VhostError('VHOST_ERR_CLOSED', `${what} is closed`);
}
