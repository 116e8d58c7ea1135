/** Connecting sockets: names resolved, every address of a name tried, TCP set so that a peer that is gone is noticed. */
import { lookup } from 'node:dns/promises';
import { isIP, isIPv6 } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import * as so from '../constants/socket';
import { invalidArgument, VhostError } from '../errors';
import { type SocketName, StreamSocket, WRITABLE, whenReady } from '../host/socket';
import type { WaitLimits } from '../host/wait-limits';
import { type Address, formatAddress } from './address';

/** How often a UNIX listener whose queue is full is asked again. */
const AGAIN_MS = 10;
/** Smallest bound in which a dead peer can be found: keep-alive counts whole seconds. */
const LEAST_DEAD_PEER_MS = 2000;
const MOST_DEAD_PEER_MS = 3_600_000;
const PROBE_MS = 1000;

export function checkDeadPeerMs(deadPeerMs: number): void {
  if (!(deadPeerMs >= LEAST_DEAD_PEER_MS && deadPeerMs <= MOST_DEAD_PEER_MS)) {
    throw invalidArgument(`deadPeerMs ${deadPeerMs}: ${LEAST_DEAD_PEER_MS} to ${MOST_DEAD_PEER_MS}`);
  }
}

/**
 * Sends small frames at once, and ends the connection with ETIMEDOUT when nothing came from the peer for `deadPeerMs`: while bytes are
 * under way by TCP_USER_TIMEOUT, while all is quiet by a probe every second from half of the time on, which the kernel then measures by
 * the same limit. Half a second below the bound, so that the last probe within it finds the limit passed.
 */
export function tuneTcp(socket: StreamSocket, deadPeerMs: number): void {
  socket.setOption(so.IPPROTO_TCP, so.TCP_NODELAY, 1);
  socket.setOption(so.SOL_SOCKET, so.SO_KEEPALIVE, 1);
  socket.setOption(so.IPPROTO_TCP, so.TCP_KEEPIDLE, Math.max(1, Math.floor(deadPeerMs / 2 / PROBE_MS)));
  socket.setOption(so.IPPROTO_TCP, so.TCP_KEEPINTVL, 1);
  socket.setOption(so.IPPROTO_TCP, so.TCP_USER_TIMEOUT, Math.round(deadPeerMs - PROBE_MS / 2));
}

/** Literal addresses of a host, in the order in which they should be tried. */
export async function resolve(host: string, port: number, limits: WaitLimits): Promise<SocketName[]> {
  if (isIP(host) !== 0) return [{ host, port }];
  try {
    const found = await limits.within(lookup(host, { all: true, verbatim: true }));
    return found.map(({ address }) => ({ host: address, port }));
  } catch (error) {
    const { code, syscall } = error as NodeJS.ErrnoException;
    if (syscall !== 'getaddrinfo') throw error;
    throw new VhostError(code ?? 'ENOTFOUND', `${code}: no address for host "${host}"`, {
      syscall,
      cause: error,
      hint: 'check the name, or give an address',
    });
  }
}

/** A connected socket. */
export async function dial(
  address: Address & { kind: 'tcp' | 'unix' },
  { netns, deadPeerMs }: { netns: string | null; deadPeerMs: number },
  limits: WaitLimits,
): Promise<StreamSocket> {
  if (address.kind === 'unix') return dialUnix(address.path, netns, limits);
  if (address.port === 0) throw invalidArgument(`"${formatAddress(address)}": port 0 is for listening`);
  const names = await resolve(address.host, address.port, limits);
  const failures: { name: SocketName; error: VhostError }[] = [];
  for (const [at, name] of names.entries()) {
    try {
      // One that answers nothing must leave time for those after it.
      return await dialTcp(name, netns, deadPeerMs, limits, limits.remaining / (names.length - at));
    } catch (error) {
      limits.throwIfOver();
      failures.push({ name, error: error as VhostError });
    }
  }
  throw noneAnswered(address, failures);
}

async function dialTcp(
  name: SocketName,
  netns: string | null,
  deadPeerMs: number,
  limits: WaitLimits,
  atMostMs: number,
): Promise<StreamSocket> {
  const socket = await StreamSocket.create(isIPv6(name.host) ? so.AF_INET6 : so.AF_INET, netns);
  try {
    tuneTcp(socket, deadPeerMs);
    if (socket.connect(name) === 'pending') {
      await whenReady(socket.handle, WRITABLE, limits, atMostMs);
      socket.throwIfFailed(name.host);
    }
    return socket;
  } catch (error) {
    socket.close();
    throw error;
  }
}

async function dialUnix(path: string, netns: string | null, limits: WaitLimits): Promise<StreamSocket> {
  const socket = await StreamSocket.create(so.AF_UNIX, netns);
  try {
    while (socket.connect({ host: path, port: 0 }) === 'full') {
      // Such a socket has nothing to poll for.
      await limits.within(sleep(AGAIN_MS));
    }
    return socket;
  } catch (error) {
    socket.close();
    throw error instanceof VhostError ? withHint(error, `unix:${path}`) : error;
  }
}

const HINTS: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'nobody listens there: start the destination first',
  ENOENT: 'nobody listens there: start the destination first',
  EACCES: 'the socket belongs to another user',
  ENETUNREACH: 'there is no route to that network',
  EHOSTUNREACH: 'the host does not answer: check the address and the route',
  ETIMEDOUT: 'the host does not answer: check the address, and what filters on the way',
};

function withHint({ code, errno, syscall, message, cause }: VhostError, peer: string): VhostError {
  if (errno === undefined) return new VhostError(code, message, { cause });
  const hint = HINTS[code];
  return new VhostError(code, `${code}: ${syscall} '${peer}'`, {
    errno,
    ...(syscall === undefined ? {} : { syscall }),
    path: peer,
    ...(hint === undefined ? {} : { hint }),
  });
}

function noneAnswered(address: Address, failures: { name: SocketName; error: VhostError }[]): VhostError {
  const last = failures.at(-1)!.error;
  if (failures.length === 1) return withHint(last, formatAddress(address));
  const tried = failures.map(({ name, error }) => `${name.host} ${error.code}`).join(', ');
  return withHint(
    new VhostError(last.code, last.message, { errno: last.errno ?? 0, syscall: 'connect' }),
    `${formatAddress(address)} (tried ${tried})`,
  );
}
