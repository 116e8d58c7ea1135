/** Mutual TLS: who is accepted, and that both sides say why when one is not. */
import { readdirSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import * as tls from 'node:tls';
import type { VhostError } from '../../lib/errors';
import type { Connection } from '../../lib/migration/connection';
import { connect, type Listener, listen } from '../../lib/migration/transport';
import type { TlsOptions } from '../../lib/migration/transport-tls';
import { Authority } from '../helpers/certificates';

const authority = new Authority('the authority');
const other = new Authority('another authority');
const source = authority.tls('source');
const destination = authority.tls('destination', { names: ['DNS:destination', 'IP:127.0.0.1', 'DNS:there.example'] });
const closing: { close(): unknown }[] = [];

afterEach(async () => {
  for (const thing of closing.splice(0)) await thing.close();
});
afterAll(() => {
  authority.remove();
  other.remove();
});

interface Outcome {
  near: Connection | VhostError;
  /** Null when the listener heard of nothing. */
  far: Connection | VhostError | null;
  listener: Listener;
}

async function meet(
  near: TlsOptions | undefined,
  far: TlsOptions | undefined,
  address = 'tcp:127.0.0.1:0',
): Promise<Outcome> {
  let settle: (outcome: Connection | VhostError) => void;
  const arrived = new Promise<Connection | VhostError>((resolve) => {
    settle = resolve;
  });
  const listener = await listen(
    address,
    { tls: far, timeoutMs: 5000, onError: (error) => settle(error) },
    (connection) => settle(connection),
  );
  closing.push(listener);
  const one = await connect(listener.address, { tls: near, timeoutMs: 5000 }).catch((error: VhostError) => error);
  const two = await Promise.race([arrived, sleep(3000, null, { ref: false })]);
  for (const end of [one, two]) if (end !== null && 'close' in end) closing.push(end);
  return { near: one, far: two, listener };
}

const refused = (text: string) =>
  expect.objectContaining({
    code: 'VHOST_ERR_TLS',
    message: expect.stringContaining(text),
    hint: expect.stringMatching(/\w/),
  });

function read(stream: Duplex, length: number): Promise<string> {
  return new Promise((resolve) => {
    const take = (): void => {
      const bytes = stream.read(length) as Buffer | null;
      if (bytes !== null) resolve(bytes.toString());
      else stream.once('readable', take);
    };
    take();
  });
}

test.each([
  ['by the address', destination, source],
  ['by a name', destination, { ...source, serverName: 'there.example' }],
  [
    'by a list of names',
    { ...destination, allowedPeer: ['source', 'other'] },
    { ...source, allowedPeer: ['destination'] },
  ],
  ['by a function', { ...destination, allowedPeer: (names: readonly string[]) => names.includes('source') }, source],
])('accepted %s', async (_, far, near) => {
  const met = await meet(near, far);
  if (!('stream' in met.near) || met.far === null || !('stream' in met.far)) throw met.near;
  expect((met.near.stream as tls.TLSSocket).getProtocol()).toBe('TLSv1.3');
  met.near.stream.write('hello');
  expect(await read(met.far.stream, 5)).toBe('hello');
  met.far.stream.write('there');
  expect(await read(met.near.stream, 5)).toBe('there');
  expect([met.near.fd, met.far.fd]).toEqual([null, null]);
  expect(() => (met.near as Connection).takeFd()).toThrow(expect.objectContaining({ code: 'VHOST_ERR_STATE' }));
  const end = new Promise((resolve) => (met.far as Connection).stream.once('end', resolve).resume());
  met.near.close();
  await end;
});

test('over a UNIX socket, by a name or a list', async () => {
  const address = `unix:@vhost-net-tls-${process.pid}`;
  for (const near of [
    { ...source, serverName: 'destination' },
    { ...source, allowedPeer: ['destination'] },
  ]) {
    const met = await meet(near, destination, address);
    expect(met.near).toHaveProperty('stream');
    await met.listener.close();
  }
  const { near } = await meet(source, destination, address);
  expect(near).toMatchObject({
    code: 'VHOST_ERR_INVALID_ARGUMENT',
    message: expect.stringContaining('tls.serverName'),
  });
});

test.each<[string, TlsOptions, TlsOptions, string, string]>([
  [
    'the source has a certificate of another authority',
    { ...other.tls('source'), ca: authority.ca },
    destination,
    'refused this side: certificate: not signed',
    'was refused: certificate: not signed',
  ],
  [
    'the destination has',
    source,
    { ...other.tls('destination', { names: ['IP:127.0.0.1'] }), ca: authority.ca },
    'was refused: certificate: not signed',
    'refused this side: certificate: not signed',
  ],
  [
    'the source’s has expired',
    authority.tls('source', { expired: true }),
    destination,
    'refused this side: certificate: expired (CERT_HAS_EXPIRED)',
    'was refused: certificate: expired (CERT_HAS_EXPIRED)',
  ],
  [
    'the destination’s has expired',
    source,
    authority.tls('destination', { names: ['IP:127.0.0.1'], expired: true }),
    'was refused: certificate: expired',
    'refused this side: certificate: expired',
  ],
  [
    'the destination’s has another name',
    { ...source, serverName: 'elsewhere' },
    destination,
    'was refused: wrong name',
    'refused this side: wrong name',
  ],
  [
    'the source is not on the list',
    source,
    { ...destination, allowedPeer: ['someone'] },
    'refused this side: none of the names source is allowed',
    'was refused: none of the names source is allowed',
  ],
  [
    'the destination is not on the list',
    { ...source, allowedPeer: ['someone'] },
    destination,
    'was refused: none of the names destination, 127.0.0.1, there.example is allowed',
    'refused this side: none of the names',
  ],
])('%s: both sides say so', async (_, near, far, nearSays, farSays) => {
  const met = await meet(near, far);
  expect(met.near).toEqual(refused(nearSays));
  expect(met.far).toEqual(refused(farSays));
});

test('what a refusal leaves behind: nothing', async () => {
  await meet(source, { ...destination, allowedPeer: ['someone'] });
  for (const thing of closing.splice(0)) await thing.close();
  await sleep(50);
  const before = readdirSync('/proc/self/fd').length;
  for (let i = 0; i < 5; i++) await meet(source, { ...destination, allowedPeer: ['someone'] });
  for (const thing of closing.splice(0)) await thing.close();
  await sleep(50);
  expect(readdirSync('/proc/self/fd').length).toBeLessThanOrEqual(before);
});

test('a client without a certificate, and one that speaks TLS 1.2 only', async () => {
  const errors: VhostError[] = [];
  const listener = await listen('tcp:127.0.0.1:0', { tls: destination, onError: (error) => errors.push(error) }, () => {
    throw new Error('it must not come so far');
  });
  closing.push(listener);
  const port = Number(listener.address.split(':')[2]);
  for (const options of [{}, { maxVersion: 'TLSv1.2' as const }]) {
    const client = tls.connect({ port, host: '127.0.0.1', ca: authority.ca, rejectUnauthorized: false, ...options });
    client.on('error', () => undefined);
    await new Promise((resolve) => client.once('close', resolve).resume());
  }
  expect(errors).toEqual([refused('no certificate'), refused('TLS with')]);
});

test('one side without TLS: each says what it found, none waits for ever', async () => {
  const plain = await meet(undefined, destination);
  (plain.near as Connection).stream.on('error', () => undefined).write('VHNM and no TLS at all');
  await sleep(200);
  const errors: VhostError[] = [];
  const listener = await listen(
    'tcp:127.0.0.1:0',
    { tls: destination, timeoutMs: 5000, onError: (error) => errors.push(error) },
    () => undefined,
  );
  closing.push(listener);
  const near = await connect(listener.address);
  closing.push(near);
  near.stream.on('error', () => undefined).write('VHNM and no TLS at all');
  await new Promise((resolve) => near.stream.once('close', resolve).resume());
  expect(errors).toEqual([refused('TLS with')]);

  const server = createServer((socket: Socket) => socket.on('error', () => undefined).end('no TLS here'));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  const error = await connect(`tcp:127.0.0.1:${port}`, { tls: source }).catch((thrown: unknown) => thrown);
  server.close();
  expect(error).toEqual(refused('TLS with'));
});

test('a peer that says nothing is given up in time, on either side', async () => {
  const errors: VhostError[] = [];
  const listener = await listen(
    'tcp:127.0.0.1:0',
    { tls: destination, timeoutMs: 100, onError: (error) => errors.push(error) },
    () => undefined,
  );
  closing.push(listener);
  const silent = await connect(listener.address);
  closing.push(silent);
  await new Promise((resolve) => silent.stream.once('close', resolve).resume());
  expect(errors).toEqual([expect.objectContaining({ code: 'VHOST_ERR_TIMEOUT' })]);

  const held: Connection[] = [];
  const deaf = await listen('tcp:127.0.0.1:0', {}, (connection) => held.push(connection));
  closing.push(deaf);
  expect(await connect(deaf.address, { tls: source, timeoutMs: 100 }).catch((error: unknown) => error)).toMatchObject({
    code: 'VHOST_ERR_TIMEOUT',
  });
  closing.push(...held);
});

test.each<[string, Partial<TlsOptions>, string]>([
  ['no certificate', { cert: '' }, 'tls.cert is missing'],
  ['no PEM', { cert: 'nonsense' }, 'tls: '],
  ['the key of another', { key: destination.key }, 'tls: '],
])('%s is refused before anything is connected', async (_, wrong, message) => {
  const invalid = { code: 'VHOST_ERR_INVALID_ARGUMENT', message: expect.stringContaining(message) };
  await expect(connect('tcp:127.0.0.1:1', { tls: { ...source, ...wrong } })).rejects.toMatchObject(invalid);
  await expect(listen('tcp:127.0.0.1:0', { tls: { ...source, ...wrong } }, () => undefined)).rejects.toMatchObject(
    invalid,
  );
});
