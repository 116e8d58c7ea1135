/**
 * Where a migration goes, as one word:
 *
 *     tcp:HOST:PORT     a name or a literal address, IPv6 in brackets; port 0 to listen on one that the kernel chooses
 *     unix:PATH         a socket file; unix:@NAME for a name of the abstract namespace
 *     file:PATH         to save to and restore from
 */
import { isIPv6 } from 'node:net';
import { UNIX_NAME_LIMIT } from '../constants/socket';
import { invalidArgument } from '../errors';

export type Address =
  | { kind: 'tcp'; host: string; port: number }
  | { kind: 'unix'; path: string }
  | { kind: 'file'; path: string };

const FORMS = 'tcp:HOST:PORT, unix:PATH or file:PATH';
const PORT_LIMIT = 65_535;
/** RFC 1035 section 2.3.4 */
const HOST_LIMIT = 253;

/** Throws VHOST_ERR_INVALID_ARGUMENT with the value and what it should be. */
export function parseAddress(text: string): Address {
  const [, scheme, rest] = /^([a-z]+):(.*)$/s.exec(text) ?? [];
  if (text.includes('\0')) throw invalidArgument(`address ${JSON.stringify(text)} has a zero byte`);
  switch (scheme) {
    case 'tcp':
      return parseTcp(text, rest!);
    case 'unix':
      return { kind: 'unix', path: unixName(text, rest!) };
    case 'file':
      if (rest === '') throw invalidArgument(`address "${text}" has no path`, FORMS);
      return { kind: 'file', path: rest! };
    default:
      throw invalidArgument(`address "${text}" is none of ${FORMS}`);
  }
}

function parseTcp(text: string, rest: string): Address {
  const [, bracketed, plain, digits] = /^(?:\[([^\]]*)\]|([^:[\]]*)):([^:]*)$/.exec(rest) ?? [];
  if (digits === undefined) {
    const hint =
      isIPv6(rest) || rest.split(':').length > 2 ? 'an IPv6 address stands in brackets: tcp:[::1]:4444' : FORMS;
    throw invalidArgument(`address "${text}" is not tcp:HOST:PORT`, hint);
  }
  const host = bracketed ?? plain!;
  if (bracketed !== undefined && !isIPv6(bracketed))
    throw invalidArgument(`address "${text}": "${host}" is no IPv6 address`);
  if (bracketed === undefined && !/^[\w.-]+$/.test(host)) {
    throw invalidArgument(`address "${text}": "${host}" is no host name`);
  }
  if (host.length > HOST_LIMIT) {
    throw invalidArgument(`address "tcp:${host.slice(0, 16)}…": a host name of ${host.length}, at most ${HOST_LIMIT}`);
  }
  const port = /^\d{1,9}$/.test(digits) ? Number(digits) : Number.NaN;
  if (!(port <= PORT_LIMIT)) throw invalidArgument(`address "${text}": port "${digits}", 0 to ${PORT_LIMIT}`);
  return { kind: 'tcp', host, port };
}

function unixName(text: string, path: string): string {
  const abstract = path.startsWith('@');
  const name = abstract ? path.slice(1) : path;
  const bytes = Buffer.byteLength(name);
  if (bytes === 0) throw invalidArgument(`address "${text}" has no ${abstract ? 'name' : 'path'}`, FORMS);
  if (bytes > UNIX_NAME_LIMIT) {
    throw invalidArgument(
      `address "${text}": a ${abstract ? 'name' : 'path'} of ${bytes} bytes, a UNIX socket takes ${UNIX_NAME_LIMIT}`,
      abstract ? undefined : 'use a shorter path, such as one in /run',
    );
  }
  return path;
}

/** The reverse. */
export function formatAddress(address: Address): string {
  if (address.kind !== 'tcp') return `${address.kind}:${address.path}`;
  const host = address.host.includes(':') ? `[${address.host}]` : address.host;
  return `tcp:${host}:${address.port}`;
}
