/** Connections over TCP and UNIX sockets: made, used both ways, refused, given up, and found dead. */
import { type ChildProcess, spawn } from 'node:child_process';
import { lstatSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { IPPROTO_TCP, SO_KEEPALIVE, SOL_SOCKET, TCP_NODELAY, TCP_USER_TIMEOUT } from '../../lib/constants/socket';
import { Netns } from '../../lib/host/netns';
import { Channel } from '../../lib/migration/channel';
import { type Connection, connectionOver } from '../../lib/migration/connection';
import {
  connect,
  type Listener,
  type ListenOptions,
  listen,
  type TransportOptions,
} from '../../lib/migration/transport';
import { native } from '../../lib/native';

const folder = mkdtempSync(join(tmpdir(), 'vhost-net-transport-'));
const closing: { close(): unknown }[] = [];
const descriptors = (): number => readdirSync('/proc/self/fd').length;
let before: number;

beforeEach(async () => {
  // The first poll and the first look-up make descriptors of libuv's own.
  await listen('tcp:127.0.0.1:0', {}, () => undefined).then((listener) => listener.close());
  before = descriptors();
});

afterEach(async () => {
  for (const thing of closing.splice(0)) await thing.close();
  const end = Date.now() + 2000;
  while (descriptors() > before && Date.now() < end) await sleep(2);
  expect(descriptors()).toBeLessThanOrEqual(before);
});

afterAll(() => rmSync(folder, { recursive: true }));

interface Pair {
  listener: Listener;
  near: Connection;
  far: Connection;
}

async function pair(address: string, options: ListenOptions = {}, near: TransportOptions = options): Promise<Pair> {
  let arrive: (connection: Connection) => void;
  const arrived = new Promise<Connection>((resolve) => {
    arrive = resolve;
  });
  const listener = await listen(address, options, (connection) => arrive(connection));
  closing.push(listener);
  const one = await connect(listener.address, near);
  const other = await arrived;
  closing.push(one, other);
  return { listener, near: one, far: other };
}

function read(stream: Duplex, length: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const take = (): void => {
      const bytes = stream.read(length) as Buffer | null;
      if (bytes === null) return;
      stream.off('readable', take);
      resolve(bytes.toString());
    };
    stream.on('readable', take);
    stream.once('error', reject);
    take();
  });
}

const ended = (stream: Duplex): Promise<unknown> =>
  new Promise((resolve) => {
    stream.once('end', () => resolve('end'));
    stream.once('error', resolve);
    stream.resume();
  });

const failure = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => new Error('it did not fail'),
    (error) => error,
  );

const addresses = [
  ['tcp:127.0.0.1:0', /^tcp:127\.0\.0\.1:[1-9]\d*$/, /^tcp:127\.0\.0\.1:[1-9]\d*$/],
  ['tcp:[::1]:0', /^tcp:\[::1\]:[1-9]\d*$/, /^tcp:\[::1\]:[1-9]\d*$/],
  ['tcp:localhost:0', /^tcp:(127\.0\.0\.1|\[::1\]):[1-9]\d*$/, /^tcp:/],
  [`unix:${folder}/socket`, new RegExp(`^unix:${folder}/socket$`), new RegExp(`^unix:${folder}/socket$`)],
  [`unix:@vhost-net-${process.pid}`, /^unix:@vhost-net-\d+$/, /^unix:@vhost-net-\d+$/],
] as const;

describe.each(addresses)('%s', (address, real, peer) => {
  test('says where it really listens, and carries bytes both ways', async () => {
    const { listener, near, far } = await pair(address);
    expect(listener.address).toMatch(real);
    expect(near.peer).toBe(listener.address);
    expect(far.peer).toMatch(peer);
    near.stream.write('hello');
    expect(await read(far.stream, 5)).toBe('hello');
    far.stream.end('there');
    expect(await read(near.stream, 5)).toBe('there');
    expect(await ended(near.stream)).toBe('end');
  });

  test('a close is seen by the other side', async () => {
    const { near, far } = await pair(address);
    void near.stream;
    const seen = ended(far.stream);
    near.close();
    near.close();
    expect(near.fd).toBeNull();
    expect(await seen).toBe('end');
  });

  test('a stream that is destroyed takes the connection along', async () => {
    const { near, far } = await pair(address);
    const seen = ended(far.stream);
    near.stream.destroy();
    expect(await seen).toBe('end');
    expect(near.fd).toBeNull();
    expect(() => near.takeFd()).toThrow(expect.objectContaining({ code: 'VHOST_ERR_CLOSED' }));
  });

  test('the descriptor goes on where the stream ended, and a stream where the descriptor did', async () => {
    const { near, far } = await pair(address);
    near.stream.write('greeting');
    expect(await read(far.stream, 8)).toBe('greeting');
    far.stream.write('answer');
    const fd = far.takeFd();
    expect(far.fd).toBeNull();
    expect(await read(near.stream, 6)).toBe('answer');
    near.stream.write('native');
    await sleep(20);
    const target = Buffer.alloc(16);
    expect(native().socketReceiveDescriptors(fd, target, 0)).toMatchObject({ bytes: 6 });
    expect(target.toString('utf8', 0, 6)).toBe('native');
    expect(native().socketSendDescriptors(fd, Buffer.from('pages'), [])).toBe(5);
    expect(await read(near.stream, 5)).toBe('pages');
    const again = connectionOver(fd, 'somebody');
    closing.push(again);
    again.stream.write('once more');
    expect(await read(near.stream, 9)).toBe('once more');
  });

  test('after a greeting by frames it can be taken, however fast the peer goes on', async () => {
    for (let round = 0; round < 20; round++) {
      const { listener, near, far } = await pair(address);
      const pages = Buffer.alloc(1 << 16, round);
      const sending = (async () => {
        await new Channel(near.stream).greet();
        near.stream.write(pages);
      })();
      await new Channel(far.stream).answer();
      const fd = far.takeFd();
      await sending;
      const got: Buffer[] = [];
      for (let length = 0; length < pages.length; ) {
        const target = Buffer.alloc(1 << 16);
        const read = native().socketReceiveDescriptors(fd, target, 0);
        if (typeof read === 'number') await sleep(1);
        else length += got.push(target.subarray(0, read.bytes)) > 0 ? read.bytes : 0;
      }
      expect(Buffer.concat(got).equals(pages)).toBe(true);
      native().fdClose(fd);
      await listener.close();
    }
  });

  test('bytes that were read ahead keep the descriptor from being taken', async () => {
    const { near, far } = await pair(address);
    near.stream.write('greeting and more');
    expect(await read(far.stream, 8)).toBe('greeting');
    expect(() => far.takeFd()).toThrow(
      expect.objectContaining({ code: 'VHOST_ERR_STATE', message: expect.stringContaining('9 bytes were read ahead') }),
    );
    expect(await read(far.stream, 9)).toBe(' and more');
    native().fdClose(far.takeFd());
    expect(await ended(near.stream)).toBe('end');
  });

  test('bytes that are not sent yet likewise', async () => {
    const { near } = await pair(address);
    near.stream.write(Buffer.alloc(32 << 20));
    expect(() => near.takeFd()).toThrow(
      expect.objectContaining({ code: 'VHOST_ERR_STATE', message: expect.stringContaining('not sent yet') }),
    );
  });

  test('a second listener is refused, and the first goes on', async () => {
    const { listener } = await pair(address, {});
    expect(await failure(listen(listener.address, {}, () => undefined))).toMatchObject({
      code: 'EADDRINUSE',
      path: expect.any(String),
      hint: expect.stringMatching(/listens there|address/),
    });
    closing.push(await connect(listener.address));
  });

  test('nobody listens there any more', async () => {
    const { listener } = await pair(address);
    await listener.close();
    await listener.close();
    expect(await failure(connect(listener.address))).toMatchObject({
      code: expect.stringMatching(/^(ECONNREFUSED|ENOENT)$/),
      path: listener.address,
      hint: expect.stringContaining('nobody listens there'),
    });
  });

  test('aborted before and while', async () => {
    const { listener } = await pair(address);
    const signal = AbortSignal.abort(new Error('not now'));
    const aborted = { code: 'VHOST_ERR_ABORTED', message: expect.stringContaining('not now') };
    expect(await failure(connect(listener.address, { signal }))).toMatchObject(aborted);
    expect(await failure(listen(address, { signal }, () => undefined))).toMatchObject(aborted);
    const controller = new AbortController();
    await listener.close();
    const other = await listen(listener.address, { signal: controller.signal }, () => undefined);
    controller.abort();
    expect(await failure(connect(other.address))).toMatchObject({ code: expect.stringMatching(/ECONNREFUSED|ENOENT/) });
  });
});

describe('TCP', () => {
  test('both ends are set to send at once and to find a dead peer', async () => {
    const { near, far } = await pair('tcp:127.0.0.1:0', { deadPeerMs: 5000 });
    for (const { fd } of [near, far]) {
      expect(native().socketGetOption(fd!, IPPROTO_TCP, TCP_NODELAY)).toBe(1);
      expect(native().socketGetOption(fd!, SOL_SOCKET, SO_KEEPALIVE)).toBe(1);
      expect(native().socketGetOption(fd!, IPPROTO_TCP, TCP_USER_TIMEOUT)).toBe(4500);
    }
  });

  test.each([0, 1999, 3_600_001, Number.NaN])('deadPeerMs %d is refused with its limits', async (deadPeerMs) => {
    expect(await failure(connect('tcp:127.0.0.1:1', { deadPeerMs }))).toMatchObject({
      code: 'VHOST_ERR_INVALID_ARGUMENT',
      message: `deadPeerMs ${deadPeerMs}: 2000 to 3600000`,
    });
  });

  test('port 0, a file, and a name that nobody has', async () => {
    expect(await failure(connect('tcp:127.0.0.1:0'))).toMatchObject({ message: expect.stringContaining('port 0') });
    expect(await failure(connect('file:/tmp/x'))).toMatchObject({ message: expect.stringContaining('saveToFile') });
    expect(await failure(connect('tcp:no-such-host.invalid:1'))).toMatchObject({
      message: expect.stringContaining('no-such-host.invalid'),
      hint: 'check the name, or give an address',
    });
  });

  test('an address that is not ours', async () => {
    expect(await failure(listen('tcp:192.0.2.1:0', {}, () => undefined))).toMatchObject({
      code: 'EADDRNOTAVAIL',
      hint: expect.stringContaining('none of this host'),
    });
  });
});

describe('between two network namespaces', () => {
  let [here, there]: [Netns, Netns] = [undefined as never, undefined as never];
  const HERE = '10.7.0.1';
  const THERE = '10.7.0.2';

  beforeEach(async () => {
    here = await Netns.create();
    there = await Netns.create();
    await here.ipBatch([
      `link add name a type veth peer name b netns ${there.name}`,
      `addr add ${HERE}/24 dev a`,
      'link set dev a up',
    ]);
    await there.ipBatch([`addr add ${THERE}/24 dev b`, 'link set dev b up']);
    before = descriptors();
  });

  afterEach(async () => {
    await here.delete();
    await there.delete();
  });

  const between = (deadPeerMs: number): Promise<Pair> =>
    pair(`tcp:${THERE}:0`, { netns: there.path, deadPeerMs }, { netns: here.path, deadPeerMs });

  test('a cut cable is found within the bound, with bytes under way and in silence', async () => {
    const [busy, quiet] = [await between(3000), await between(3000)];
    busy.far.stream.on('error', () => undefined);
    const errors = [busy.near, quiet.near, quiet.far].map(({ stream }) => ended(stream));
    const started = performance.now();
    await there.ip('link', 'set', 'dev', 'b', 'down');
    busy.near.stream.write('anybody there?');
    expect(await Promise.all(errors)).toEqual(Array(3).fill(expect.objectContaining({ code: 'ETIMEDOUT' })));
    const ms = performance.now() - started;
    expect(ms).toBeGreaterThan(1000);
    expect(ms).toBeLessThan(8000);
  });

  test('a host that answers nothing ends with the time given', async () => {
    await there.ip('link', 'set', 'dev', 'b', 'down');
    const started = performance.now();
    expect(await failure(connect(`tcp:${THERE}:4444`, { netns: here.path, timeoutMs: 300 }))).toMatchObject({
      code: 'VHOST_ERR_TIMEOUT',
      message: expect.stringContaining(`connecting to tcp:${THERE}:4444: not done within 300 ms`),
    });
    expect(performance.now() - started).toBeLessThan(5000);
    const controller = new AbortController();
    const aborted = failure(connect(`tcp:${THERE}:4444`, { netns: here.path, signal: controller.signal }));
    await sleep(20);
    controller.abort(new Error('never mind'));
    expect(await aborted).toMatchObject({ code: 'VHOST_ERR_ABORTED' });
  });

  test('a network without a route', async () => {
    expect(await failure(connect('tcp:198.51.100.1:4444', { netns: here.path }))).toMatchObject({
      code: 'ENETUNREACH',
      hint: 'there is no route to that network',
    });
  });
});

describe('UNIX socket files', () => {
  const path = join(folder, 'file');
  let child: ChildProcess | undefined;

  afterEach(() => {
    child?.kill('SIGKILL');
    rmSync(path, { force: true });
  });

  /** Listens at the path in another process. */
  async function listenElsewhere(): Promise<ChildProcess> {
    const script = `require('net').createServer().listen(${JSON.stringify(path)}, () => process.stdout.write('listening'))`;
    child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
    await new Promise((resolve) => child!.stdout!.once('data', resolve));
    return child;
  }

  test('only the owner can connect, and the file goes with the listener', async () => {
    const { listener } = await pair(`unix:${path}`);
    expect(lstatSync(path).mode & 0o777).toBe(0o600);
    await listener.close();
    expect(lstatSync(path, { throwIfNoEntry: false })).toBeUndefined();
  });

  test('a listener hears nothing of a second one that is refused', async () => {
    let came = 0;
    const listener = await listen(`unix:${path}`, {}, (connection) => {
      came++;
      closing.push(connection);
    });
    closing.push(listener);
    expect(await failure(listen(`unix:${path}`, {}, () => undefined))).toMatchObject({ code: 'EADDRINUSE' });
    closing.push(await connect(`unix:${path}`));
    while (came === 0) await sleep(2);
    await sleep(20);
    expect(came).toBe(1);
  });

  test('one that a dead process left is replaced, one of a living process is not', async () => {
    const other = await listenElsewhere();
    expect(await failure(listen(`unix:${path}`, {}, () => undefined))).toMatchObject({
      code: 'EADDRINUSE',
      path,
      hint: expect.stringContaining('somebody listens there'),
    });
    const gone = new Promise((resolve) => other.once('exit', resolve));
    other.kill('SIGKILL');
    await gone;
    expect(lstatSync(path).isSocket()).toBe(true);
    await pair(`unix:${path}`);
  });

  test('what is no socket is left alone', async () => {
    writeFileSync(path, 'precious');
    expect(await failure(listen(`unix:${path}`, {}, () => undefined))).toMatchObject({
      code: 'EADDRINUSE',
      hint: expect.stringContaining('no socket'),
    });
    expect(lstatSync(path).size).toBe(8);
  });

  test('a file that somebody else put there meanwhile stays', async () => {
    const { listener } = await pair(`unix:${path}`);
    rmSync(path);
    const replaced = await listen(`unix:${path}`, {}, () => undefined);
    closing.push(replaced);
    await listener.close();
    expect(lstatSync(path).isSocket()).toBe(true);
  });

  test('a folder that is not there', async () => {
    expect(await failure(listen(`unix:${folder}/none/socket`, {}, () => undefined))).toMatchObject({ code: 'ENOENT' });
  });

  test('a full queue of a listener is waited for', async () => {
    const listener = await listen(`unix:${path}`, { backlog: 1 }, (connection) => closing.push(connection));
    closing.push(listener);
    // Nothing is accepted while this runs without a pause.
    const connecting = Array.from({ length: 10 }, () => connect(`unix:${path}`));
    closing.push(...(await Promise.all(connecting)));
    expect(closing.length).toBeGreaterThan(10);
  });
});

test('a listener that cannot be given a descriptor says so and goes on when it can', async () => {
  const errors: string[] = [];
  const listener = await listen('tcp:127.0.0.1:0', { onError: ({ code }) => errors.push(code) }, (connection) =>
    closing.push(connection),
  );
  closing.push(listener);
  const accept = native().socketAccept;
  let failures = 2;
  const addon = native() as { socketAccept: typeof accept };
  // EMFILE
  addon.socketAccept = (fd) => (failures-- > 0 ? -24 : accept(fd));
  closing.push(await connect(listener.address));
  const end = Date.now() + 5000;
  while (closing.length < 3 && Date.now() < end) await sleep(5);
  addon.socketAccept = accept;
  expect(errors).toEqual(['EMFILE', 'EMFILE']);
  expect(closing.length).toBe(3);
});

test('what the owner of a listener throws closes the connection and is told', async () => {
  const errors: Error[] = [];
  const listener = await listen('tcp:127.0.0.1:0', { onError: (error) => errors.push(error) }, () => {
    throw new Error('no room');
  });
  closing.push(listener);
  const connection = await connect(listener.address);
  expect(await ended(connection.stream)).toBe('end');
  expect(errors).toEqual([expect.objectContaining({ message: expect.stringContaining('no room') })]);
});
