/** Descriptors over a UNIX connection: what was sent arrives, what was not asked for does not, and nothing stays open. */
import { fstatSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { runTool } from '../../lib/host/run-tool';
import { StreamSocket } from '../../lib/host/socket';
import { GuestMemory } from '../../lib/memory/guest-memory';
import { type Connection, connectionOver } from '../../lib/migration/connection';
import { receiveDescriptors, sendDescriptors } from '../../lib/migration/descriptors';
import { connect, listen } from '../../lib/migration/transport';
import { type FdHandle, native } from '../../lib/native';

let near: Connection;
let far: Connection;
let given: FdHandle[] = [];
const descriptors = (): number => readdirSync('/proc/self/fd').length;
const inode = (fd: FdHandle): number => fstatSync(native().fdNumber(fd)).ino;

beforeEach(() => {
  const [one, other] = StreamSocket.pair();
  near = connectionOver(one.handle, 'unix:pair');
  far = connectionOver(other.handle, 'unix:pair');
});

afterEach(() => {
  near.close();
  far.close();
  for (const fd of given.splice(0)) native().fdClose(fd);
});

function memfds(count: number): FdHandle[] {
  given = Array.from({ length: count }, (_, at) => native().memfdCreate(`memfd ${at}`, 4096, 0) as FdHandle);
  return given;
}

const failure = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => new Error('it did not fail'),
    (error) => error,
  );

/** Takes descriptors of a promise, and closes them behind the test. */
async function received(most: number): Promise<{ text: string; inodes: number[] }> {
  const { bytes, fds } = await receiveDescriptors(far, most, { timeoutMs: 2000 });
  const inodes = fds.map(inode);
  for (const fd of fds) native().fdClose(fd);
  return { text: bytes.toString(), inodes };
}

test.each([0, 1, 2, 249, 250, 251, 500, 600])('%d descriptors, in order', async (count) => {
  const fds = memfds(count);
  const [, got] = await Promise.all([sendDescriptors(near, Buffer.from('what they are'), fds), received(count)]);
  expect(got).toEqual({ text: 'what they are', inodes: fds.map(inode) });
});

test('without bytes, and with as many as are allowed', async () => {
  const fds = memfds(1);
  for (const bytes of [new Uint8Array(), new Uint8Array(65_536).fill(65)]) {
    const [, got] = await Promise.all([sendDescriptors(near, bytes, fds), received(1)]);
    expect(got).toEqual({ text: 'A'.repeat(bytes.length), inodes: fds.map(inode) });
  }
  expect(await failure(sendDescriptors(near, new Uint8Array(65_537), fds))).toMatchObject({
    code: 'VHOST_ERR_INVALID_ARGUMENT',
    message: expect.stringContaining('at most 65536'),
  });
});

test('nothing of what follows is read', async () => {
  const [one, two] = memfds(2);
  await sendDescriptors(near, Buffer.from('first'), [one!]);
  await sendDescriptors(near, Buffer.from('second'), [two!]);
  near.stream.write('HELLO');
  expect(await received(1)).toEqual({ text: 'first', inodes: [inode(one!)] });
  expect(await received(1)).toEqual({ text: 'second', inodes: [inode(two!)] });
  expect(await new Promise((resolve) => far.stream.once('data', resolve))).toEqual(Buffer.from('HELLO'));
});

test('after a greeting on the stream, by the descriptor taken from it', async () => {
  const [one] = memfds(1);
  near.stream.write('HELLO');
  await new Promise((resolve) => far.stream.once('data', resolve));
  expect(await failure(receiveDescriptors(far, 1))).toMatchObject({
    code: 'VHOST_ERR_STATE',
    hint: expect.stringContaining('takeFd()'),
  });
  const fd = far.takeFd();
  // The sender's stream has sent all it was given.
  await sendDescriptors(near, Buffer.from('x'), [one!]);
  const { fds } = await receiveDescriptors(fd, 1);
  expect(inode(fds[0]!)).toBe(inode(one!));
  far = connectionOver(fd, 'unix:pair');
  near.stream.write('again');
  expect(await new Promise((resolve) => far.stream.once('data', resolve))).toEqual(Buffer.from('again'));
  native().fdClose(fds[0]!);
});

test('a sender whose stream is not empty yet is refused', async () => {
  near.stream.write(Buffer.alloc(16 << 20));
  expect(await failure(sendDescriptors(near, new Uint8Array(1), memfds(1)))).toMatchObject({ code: 'VHOST_ERR_STATE' });
});

describe('what was not asked for is closed and refused', () => {
  let before: number;

  async function refused(send: () => Promise<unknown>, most: number, message: string): Promise<void> {
    before = descriptors();
    const sending = send();
    const error = await failure(receiveDescriptors(far, most, { timeoutMs: 1000 }));
    await sending;
    expect(error).toMatchObject({ code: 'VHOST_ERR_PROTOCOL', message: expect.stringContaining(message) });
    // One is that of epoll, which the first wait makes.
    expect(descriptors()).toBeLessThanOrEqual(before + 1);
  }

  const raw = (bytes: Buffer, fds: FdHandle[]): Promise<unknown> =>
    Promise.resolve(native().socketSendDescriptors(near.fd!, bytes, fds));
  const header = (count: number, length = 0, magic = 0x44_46_48_56): Buffer => {
    const bytes = Buffer.alloc(12 + length);
    bytes.writeUInt32LE(magic, 0);
    bytes.writeUInt32LE(count, 4);
    bytes.writeUInt32LE(length, 8);
    return bytes;
  };

  test('more than the receiver takes', async () => {
    const fds = memfds(3);
    await refused(() => sendDescriptors(near, new Uint8Array(), fds), 2, 'more descriptors came than fit');
  });

  test('more than the receiver takes, in a later message', async () => {
    const fds = memfds(300);
    await refused(() => sendDescriptors(near, new Uint8Array(), fds), 299, '300 descriptors are announced');
    near.close();
  });

  test('more than were announced', async () => {
    const fds = memfds(3);
    await refused(() => raw(header(2), fds), 10, '3 descriptors came');
  });

  test('fewer than were announced', async () => {
    const fds = memfds(1);
    await refused(() => raw(header(2), fds), 10, '1 descriptors came');
  });

  test('bytes of something else', async () => {
    const fds = memfds(2);
    await refused(() => raw(header(2, 0, 0x4d_4e_48_56), fds), 10, 'expected 0x44464856');
  });

  test('a length that nobody would send', async () => {
    await refused(() => raw(header(0, 0).fill(0xff, 8), []), 10, '4294967295 bytes beside descriptors');
  });

  test('an end in the middle', async () => {
    const fds = memfds(2);
    await raw(header(2, 100).subarray(0, 50), fds);
    near.close();
    await refused(async () => undefined, 10, 'the stream ends after 38 of 100 bytes');
  });
});

test('a receiver that waits in vain, and one that is told to stop', async () => {
  expect(await failure(receiveDescriptors(far, 1, { timeoutMs: 50 }))).toMatchObject({ code: 'VHOST_ERR_TIMEOUT' });
  const controller = new AbortController();
  const waiting = failure(receiveDescriptors(far, 1, { signal: controller.signal }));
  await sleep(10);
  controller.abort(new Error('enough'));
  expect(await waiting).toMatchObject({ code: 'VHOST_ERR_ABORTED', message: expect.stringContaining('enough') });
});

test('a sender whose peer takes nothing', async () => {
  const fds = memfds(1);
  const error = await failure(
    (async () => {
      for (let i = 0; i < 1000; i++) await sendDescriptors(near, new Uint8Array(60_000), fds, { timeoutMs: 100 });
    })(),
  );
  expect(error).toMatchObject({ code: 'VHOST_ERR_TIMEOUT' });
});

test('over TCP it is refused', async () => {
  const held: Connection[] = [];
  const listener = await listen('tcp:127.0.0.1:0', {}, (connection) => held.push(connection));
  const connection = await connect(listener.address);
  expect(await failure(sendDescriptors(connection, new Uint8Array(1), []))).toMatchObject({
    code: 'VHOST_ERR_INVALID_ARGUMENT',
    hint: 'use a UNIX socket',
  });
  connection.close();
  expect(await failure(sendDescriptors(connection, new Uint8Array(1), []))).toMatchObject({ code: 'VHOST_ERR_STATE' });
  await sleep(20);
  for (const other of held) other.close();
  await listener.close();
});

test('another process sees the same guest memory', async () => {
  const memory = GuestMemory.create([
    { gpa: 0, size: 1 << 20 },
    { gpa: 1 << 30, size: 1 << 20 },
  ]);
  memory.write(1 << 30, Buffer.from('from here'));
  const path = `unix:@vhost-net-memory-${process.pid}`;
  const serve = async (connection: Connection): Promise<void> => {
    const layout = memory.regions.map(({ gpa, size }) => ({ gpa, size }));
    const fds = memory.regions.map(({ fd }) => fd);
    await sendDescriptors(connection, Buffer.from(JSON.stringify(layout)), fds);
    connection.close();
  };
  const listener = await listen(path, {}, (connection) => void serve(connection));
  const lib = join(__dirname, '../../lib');
  const script = `
    const { connect } = require('${lib}/migration/transport');
    const { receiveDescriptors } = require('${lib}/migration/descriptors');
    const { GuestMemory } = require('${lib}/memory/guest-memory');
    (async () => {
      const connection = await connect('${path}');
      const { bytes, fds } = await receiveDescriptors(connection, 8);
      const memory = GuestMemory.adopt(JSON.parse(bytes).map((region, at) => ({ ...region, fd: fds[at] })));
      process.stdout.write(Buffer.from(memory.read(1 << 30, 9)).toString());
      memory.write(0, Buffer.from('from there'));
      memory.close();
      connection.close();
    })();`;
  expect(await runTool(process.execPath, ['-e', script])).toBe('from here');
  expect(Buffer.from(memory.read(0, 10)).toString()).toBe('from there');
  await listener.close();
  memory.close();
});
