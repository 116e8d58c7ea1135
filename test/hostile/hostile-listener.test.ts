/** Connections that mean harm to a listener: each ends within its bound, leaves nothing behind, and the next good migration is taken. */
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { GuestMemory } from '../../lib/memory/guest-memory';
import type { Connection } from '../../lib/migration/connection';
import { encodeFrameHeader, FrameType } from '../../lib/migration/frame';
import { MigrationListener } from '../../lib/migration/listener';
import { connect } from '../../lib/migration/transport';
import { native } from '../../lib/native';
import { type Machine, type Place, Rig } from '../helpers/migration-rig';
import { until } from '../helpers/vhost-wait';

/** Of every wait of the listener. Milliseconds. */
const BOUND = 500;

let rig: Rig;
let here: Place;
let there: Place;
let machine: Machine;
let folder: string;
let listener: MigrationListener<never>;
let failures: unknown[];
let before: { descriptors: number; mappings: number };

const descriptors = (): number => readdirSync('/proc/self/fd').length;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'hostile-'));
  rig = await Rig.create({ ringSize: 64 });
  [here, there] = [await rig.place('emulated'), await rig.place('emulated')];
  machine = await rig.boot(here, GuestMemory.create([{ gpa: 0, size: 12 << 20 }]));
  await rig.flows(machine);
});

afterAll(async () => {
  await rig.discard(machine);
  await rig.close();
  rmSync(folder, { recursive: true });
});

beforeEach(async () => {
  failures = [];
  listener = (await MigrationListener.listen(`unix:${folder}/to`, there.host(), {
    timeoutMs: BOUND,
    onFailure: (error) => failures.push(error),
  })) as unknown as MigrationListener<never>;
  before = { descriptors: descriptors(), mappings: native().mappingsLive() };
});

/** Nothing of what was tried is left, and the listener does what it is there for. */
afterEach(async () => {
  try {
    await nothingLeft();
  } finally {
    await listener.close();
  }
});

async function nothingLeft(): Promise<void> {
  await until('all of it is closed', () => descriptors() <= before.descriptors, 5000);
  expect(native().mappingsLive()).toBe(before.mappings);
  const [result, arrived] = await Promise.all([
    rig.source(machine, { channels: 1 }).migrate(listener.address),
    listener.arrived,
  ]);
  expect(result.audit).toMatchObject({ differing: 0 });
  await rig.discard(machine);
  const { memory, device, guest } = arrived as unknown as {
    memory: GuestMemory;
    device: Machine['device'];
    guest: Machine['runner'];
  };
  machine = { memory, device, runner: guest };
  [here, there] = [there, here];
  await rig.flows(machine, 10);
}

/** The other side closes it. */
async function ended(connections: readonly Connection[]): Promise<void> {
  for (const { stream } of connections) {
    stream.on('error', () => undefined);
    stream.resume();
  }
  await until('all are ended', () => connections.every(({ stream }) => stream.closed), 10 * BOUND);
}

function hello(changes: Record<string, unknown> = {}): Buffer {
  const payload = Buffer.from(
    JSON.stringify({
      version: 2,
      minVersion: 2,
      product: 'x',
      identity: '9'.repeat(32),
      channel: 'control',
      index: 0,
      ...changes,
    }),
  );
  return Buffer.concat([encodeFrameHeader(FrameType.HELLO, 0, payload, 0), payload]);
}

test('that say nothing', async () => {
  const silent = await Promise.all(Array.from({ length: 5 }, () => connect(listener.address)));
  await ended(silent);
  expect(failures).toHaveLength(5);
  for (const failure of failures) expect(failure).toMatchObject({ code: 'VHOST_ERR_TIMEOUT' });
});

test('that say half a HELLO, and go or stay', async () => {
  const stays = await connect(listener.address);
  stays.stream.write(hello().subarray(0, 40));
  const goes = await connect(listener.address);
  goes.stream.end(hello().subarray(0, 10));
  await ended([stays, goes]);
  expect(failures).toHaveLength(2);
});

test('that say HELLO and then nothing: the next source is told that it is busy, and after the bound it is not', async () => {
  const holding = await connect(listener.address);
  holding.stream.write(hello());
  await until('the attempt is taken', () => holding.stream.readableLength > 0);
  await expect(rig.source(machine).migrate(listener.address)).rejects.toThrow(/busy with another migration/);
  await ended([holding]);
  expect(listener.failures).toBe(1);
});

test('200 at once, of every kind', async () => {
  const kinds = [
    null,
    hello().subarray(0, 30),
    Buffer.from('GET / HTTP/1.1\r\n\r\n'.padEnd(64)),
    hello({ channel: 'pages', index: 3 }),
  ];
  const many = await Promise.all(
    Array.from({ length: 200 }, async (_, index) => {
      const connection = await connect(listener.address);
      // Those that have waited longest are closed with what they said unread.
      connection.stream.on('error', () => undefined);
      const words = kinds[index % kinds.length]!;
      if (words !== null) connection.stream.write(words);
      return connection;
    }),
  );
  await ended(many);
  expect(failures.length).toBeGreaterThanOrEqual(150);
  await rig.flows(machine, 10);
}, 30_000);

test('that say nothing, 100 of them: 64 may wait, those that have waited longest are closed', async () => {
  const silent = await Promise.all(Array.from({ length: 100 }, () => connect(listener.address)));
  // One that speaks is served meanwhile.
  const stray = await connect(listener.address);
  stray.stream.write(hello());
  await until('HELLO is answered', () => stray.stream.readableLength > 0);
  await ended([...silent, stray]);
  const early = failures.filter((failure) => (failure as { code: string }).code !== 'VHOST_ERR_TIMEOUT');
  expect(early.length).toBeGreaterThanOrEqual(37);
  expect(failures.length).toBeLessThanOrEqual(102);
}, 30_000);

describe('HELLO for pages', () => {
  test.each<[string, Record<string, unknown>]>([
    ['of nobody', { channel: 'pages', index: 1 }],
    ['of index 0', { channel: 'pages', index: 0 }],
    ['of index 17', { channel: 'pages', index: 17 }],
    ['of an index of text', { channel: 'pages', index: '1' }],
    ['of no identity', { channel: 'pages', index: 1, identity: '' }],
    ['for descriptors of nobody', { channel: 'descriptors' }],
  ])('%s', async (_name, changes) => {
    const stray = await connect(listener.address);
    stray.stream.write(hello(changes));
    await ended([stray]);
  });

  /** A source that has said HELLO on its control connection. */
  async function attempt(): Promise<Connection> {
    const control = await connect(listener.address);
    control.stream.write(hello());
    await until('the attempt is taken', () => control.stream.readableLength > 0);
    return control;
  }

  test.each<[string, Record<string, unknown>[]]>([
    ['twice the same', [{ index: 1 }, { index: 1 }, { index: 1 }]],
    ['never asked for', [{ index: 5 }, { index: 16 }]],
    ['with a compression nobody knows', [{ index: 1, compression: 'lzma' }]],
    ['with a compression of no text', [{ index: 1, compression: 5 }]],
    ['with a compression of an object', [{ index: 1, compression: { toString: 5 } }]],
    [
      'for descriptors, twice',
      [
        { channel: 'descriptors', index: 0 },
        { channel: 'descriptors', index: 0 },
      ],
    ],
  ])('%s, while an attempt goes on', async (_name, hellos) => {
    const control = await attempt();
    const strays = await Promise.all(
      hellos.map(async (changes) => {
        const stray = await connect(listener.address);
        stray.stream.write(hello({ channel: 'pages', ...changes }));
        await until('HELLO is answered', () => stray.stream.readableLength > 0 || stray.stream.closed);
        return stray;
      }),
    );
    await ended([control, ...strays]);
    expect(listener.failures).toBe(1);
  });
});
