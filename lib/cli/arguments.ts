/** What commands take from the command line, and how they read it. */
import { readFileSync } from 'node:fs';
import { type Command, InvalidArgumentError } from 'commander';
import { invalidArgument } from '../errors';

/** A number from `least` on. */
export function numberFrom(least: number, most = Number.MAX_SAFE_INTEGER): (text: string) => number {
  return (text) => {
    const value = text.trim() === '' ? Number.NaN : Number(text);
    if (!(value >= least && value <= most)) {
      throw new InvalidArgumentError(
        `Give a number from ${least}${most < Number.MAX_SAFE_INTEGER ? ` to ${most}` : ''}.`,
      );
    }
    return value;
  };
}

export function wholeNumber(least: number, most: number): (text: string) => number {
  return (text) => {
    const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
    if (!(value >= least && value <= most)) {
      throw new InvalidArgumentError(`Give a whole number from ${least} to ${most}.`);
    }
    return value;
  };
}

export interface TlsFlags {
  tlsCa?: string;
  tlsCert?: string;
  tlsKey?: string;
  tlsPeer?: string;
}

export function addTlsOptions(command: Command, peer: string): Command {
  return command
    .option('--tls-ca <file>', 'mutual TLS: PEM of the authority that signs certificates of peers')
    .option('--tls-cert <file>', "PEM of this side's certificate")
    .option('--tls-key <file>', 'PEM of its key')
    .option('--tls-peer <name>', peer);
}

export interface TlsFiles {
  ca: string;
  cert: string;
  key: string;
}

/** Null without TLS. Throws VHOST_ERR_INVALID_ARGUMENT for half of what it takes, or for a file that cannot be read. */
export function readTlsFiles({ tlsCa, tlsCert, tlsKey, tlsPeer }: TlsFlags): TlsFiles | null {
  const given = { '--tls-ca': tlsCa, '--tls-cert': tlsCert, '--tls-key': tlsKey };
  const missing = Object.entries(given).filter(([, file]) => file === undefined);
  if (missing.length === 3 && tlsPeer === undefined) return null;
  if (missing.length > 0)
    throw invalidArgument(`${missing.map(([name]) => name).join(' and ')} missing`, 'TLS takes all three');
  return { ca: readPem(tlsCa!), cert: readPem(tlsCert!), key: readPem(tlsKey!) };
}

function readPem(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    throw invalidArgument((error as Error).message, 'give a PEM file that can be read');
  }
}

/** A whole number names a descriptor of this process. */
export function eventsTarget(text: string): string | number {
  return /^\d+$/.test(text) ? Number(text) : text;
}
