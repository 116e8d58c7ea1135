/**
 * Mutual TLS over a connection. TLS 1.3 lets a client take a handshake for done before the server has looked at its certificate, and Node
 * closes without a word where it does not like one. So both sides look for themselves once the handshake is done and then tell each other
 * what they found, by one message each as the first bytes of the connection:
 *
 *     u8 bytes of reason | reason     0: accepted. Otherwise the connection ends after it
 *
 * Neither side goes on before it has heard that it was accepted.
 */
import { isIP } from 'node:net';
import type { Duplex } from 'node:stream';
import * as tls from 'node:tls';
import { invalidArgument, VhostError } from '../errors';
import type { WaitLimits } from '../host/wait-limits';
import type { Connection, SocketConnection } from './connection';
import { type AllowedPeer, refusal } from './tls-peer';

export interface TlsOptions {
  /** PEM: who signs certificates of peers; no other is trusted. */
  ca: string | Buffer;
  /** PEM: this side's certificate, with those between it and the authority. */
  cert: string | Buffer;
  /** PEM: its key. */
  key: string | Buffer;
  /** Connecting: the name that the other side's certificate must have. Default: the host of the address. */
  serverName?: string | undefined;
  /** Names, of which the peer's certificate must have one, or what decides of them. Without: any certificate of the authority. */
  allowedPeer?: AllowedPeer | undefined;
}

const MIN_VERSION = 'TLSv1.3';
const REASON_LIMIT = 255;
/** How long the reason of a refusal may take to leave. Milliseconds. */
const LAST_WORD_MS = 1000;

/** Throws VHOST_ERR_INVALID_ARGUMENT unless authority, certificate and key can be read and belong together. */
export function checkTlsOptions({ ca, cert, key }: TlsOptions): void {
  for (const [name, value] of Object.entries({ ca, cert, key })) {
    if (value === undefined || value.length === 0) throw invalidArgument(`tls.${name} is missing`, 'give it as PEM');
  }
  try {
    tls.createSecureContext({ ca, cert, key, minVersion: MIN_VERSION });
  } catch (error) {
    throw new VhostError('VHOST_ERR_INVALID_ARGUMENT', `tls: ${(error as Error).message}`, {
      cause: error,
      hint: 'ca, cert and key are PEM, and the key is that of the certificate',
    });
  }
}

/** The connecting side. `host` is that of the address, null for a UNIX socket. Owns `plain` and closes it when it fails. */
export async function secureClient(
  plain: SocketConnection,
  options: TlsOptions,
  host: string | null,
  limits: WaitLimits,
): Promise<Connection> {
  const { ca, cert, key, serverName, allowedPeer } = options;
  const name = serverName ?? host;
  if (name === null && allowedPeer === undefined) {
    plain.close();
    throw invalidArgument(
      'tls.serverName is missing',
      'a UNIX socket has no host name that a certificate could be for',
    );
  }
  let secure: tls.TLSSocket;
  try {
    secure = tls.connect({
      socket: plain.stream,
      ca,
      cert,
      key,
      minVersion: MIN_VERSION,
      // Looked at below, so that the server hears why.
      rejectUnauthorized: false,
      checkServerIdentity: () => undefined,
      ...(name !== null && isIP(name) === 0 ? { servername: name } : {}),
    });
  } catch (error) {
    plain.close();
    throw failed(plain.peer, error);
  }
  return finish(plain, secure, once(secure, 'secureConnect'), limits, () => {
    const certificate = secure.getPeerCertificate();
    const wrongName = name === null ? undefined : tls.checkServerIdentity(name, certificate);
    return (
      refusal(secure, certificate, allowedPeer) ?? (wrongName === undefined ? null : `wrong name: ${wrongName.message}`)
    );
  });
}

/** The listening side. Owns `plain` and closes it when it fails. */
export async function secureServer(
  plain: SocketConnection,
  { ca, cert, key, allowedPeer }: TlsOptions,
  limits: WaitLimits,
): Promise<Connection> {
  const server = tls.createServer({
    ca,
    cert,
    key,
    minVersion: MIN_VERSION,
    requestCert: true,
    rejectUnauthorized: false,
  });
  const socket = plain.stream;
  let secure: tls.TLSSocket;
  try {
    const shaken = new Promise<tls.TLSSocket>((resolve, reject) => {
      server.once('secureConnection', resolve);
      server.once('tlsClientError', reject);
      socket.once('error', reject);
      socket.once('close', () => reject(new Error('the peer closed the connection')));
    });
    server.emit('connection', socket);
    secure = await limits.within(shaken);
  } catch (error) {
    plain.close();
    throw failed(plain.peer, error);
  }
  return finish(plain, secure, Promise.resolve(), limits, () =>
    refusal(secure, secure.getPeerCertificate(), allowedPeer),
  );
}

/** Waits for the handshake, then for both sides to accept each other. */
async function finish(
  plain: SocketConnection,
  secure: tls.TLSSocket,
  handshake: Promise<void>,
  limits: WaitLimits,
  judge: () => string | null,
): Promise<Connection> {
  // Whoever waits on the stream hears of its errors; between two who wait nobody does.
  const quiet = (): void => undefined;
  secure.on('error', quiet);
  try {
    await limits.within(handshake);
    const reason = judge();
    if (reason !== null) {
      await sayLast(secure, reason);
      throw refused(plain.peer, reason);
    }
    secure.write(Buffer.from([0]));
    const theirs = await limits.within(readVerdict(secure));
    if (theirs !== null) throw refusedBy(plain.peer, theirs);
    secure.off('error', quiet);
    return new SecureConnection(plain, secure);
  } catch (error) {
    secure.destroy();
    plain.close();
    throw failed(plain.peer, error);
  }
}

class SecureConnection implements Connection {
  readonly fd = null;
  readonly stream: Duplex;
  readonly #plain: SocketConnection;

  constructor(plain: SocketConnection, secure: tls.TLSSocket) {
    this.#plain = plain;
    this.stream = secure;
    secure.once('close', () => plain.close());
  }

  get peer(): string {
    return this.#plain.peer;
  }

  takeFd(): never {
    throw new VhostError('VHOST_ERR_STATE', 'a connection under TLS has no descriptor of its own', {
      hint: 'use its stream: bytes on the socket are encrypted',
    });
  }

  close(): void {
    this.stream.destroy();
    this.#plain.close();
  }
}

async function sayLast(secure: tls.TLSSocket, reason: string): Promise<void> {
  const text = Buffer.from(reason).subarray(0, REASON_LIMIT);
  await new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, LAST_WORD_MS);
    secure.once('close', () => {
      clearTimeout(timer);
      resolve();
    });
    // Read to the end what the peer says, so that closing does not reset the connection before it has read this.
    secure.resume();
    secure.end(Buffer.concat([Buffer.from([text.length]), text]));
  });
}

/** Null for accepted. */
async function readVerdict(secure: tls.TLSSocket): Promise<string | null> {
  const [length] = await readExactly(secure, 1);
  return length === 0 ? null : (await readExactly(secure, length!)).toString('utf8');
}

function readExactly(stream: Duplex, length: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const settle = (done: () => void): void => {
      stream.off('readable', onReadable);
      stream.off('error', onEnd);
      stream.off('end', onEnd);
      stream.off('close', onEnd);
      done();
    };
    const onReadable = (): void => {
      const bytes = stream.read(length) as Buffer | null;
      if (bytes === null) return;
      if (bytes.length < length) onEnd();
      else settle(() => resolve(bytes));
    };
    const onEnd = (error?: unknown): void => {
      settle(() => reject(error instanceof Error ? error : new Error('the peer closed the connection')));
    };
    stream.on('readable', onReadable);
    for (const event of ['error', 'end', 'close']) stream.once(event, onEnd);
    onReadable();
  });
}

function once(secure: tls.TLSSocket, event: string): Promise<void> {
  return new Promise((resolve, reject) => {
    secure.once(event, () => resolve());
    secure.once('error', reject);
    secure.once('close', () => reject(new Error('the peer closed the connection')));
  });
}

function refused(peer: string, reason: string): VhostError {
  return new VhostError('VHOST_ERR_TLS', `TLS with ${peer}: the peer was refused: ${reason}`, {
    hint: 'compare the certificate of the peer with tls.ca, tls.serverName and tls.allowedPeer of this side',
  });
}

function refusedBy(peer: string, reason: string): VhostError {
  // Bytes of the peer on their way to a terminal.
  const printable = reason.replace(/[^\x20-\x7e]/g, '?');
  return new VhostError('VHOST_ERR_TLS', `TLS with ${peer}: the peer refused this side: ${printable}`, {
    hint: 'compare tls.cert of this side with what the peer expects',
  });
}

function failed(peer: string, error: unknown): VhostError {
  if (error instanceof VhostError) return error;
  return new VhostError('VHOST_ERR_TLS', `TLS with ${peer}: ${(error as Error).message}`, {
    cause: error,
    hint: 'both sides must use TLS 1.3, each with a certificate',
  });
}
