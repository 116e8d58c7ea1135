/** Migrations between a listener and whoever connects to it: page connections, refusals, hand-over on one host. Emulated data path, real taps. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { EmulatedBackend } from '../../lib/backend/emulated';
import type { GuestRunner } from '../../lib/guest/guest-runner';
import { Channel } from '../../lib/migration/channel';
import type { DestinationHost } from '../../lib/migration/destination';
import { FrameType } from '../../lib/migration/frame';
import { MigrationListener, type MigrationListenerOptions } from '../../lib/migration/listener';
import type { MigrationOptions, MigrationResult } from '../../lib/migration/options';
import { connect } from '../../lib/migration/transport';
import { native } from '../../lib/native';
import { expectWhole, type Machine, MEMORY, type Place, Rig } from '../helpers/migration-rig';

let rig: Rig;
let here: Place;
let there: Place;
let machine: Machine;
let folder: string;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'listener-'));
  rig = await Rig.create();
  here = await rig.place('emulated');
  there = await rig.place('emulated');
  machine = await rig.boot(here);
  await rig.flows(machine);
});

afterEach(async () => {
  await rig.close();
  rmSync(folder, { recursive: true });
});

interface Arrival {
  result: MigrationResult;
  moved: Machine;
}

async function move(
  address: string,
  options: MigrationOptions,
  host: DestinationHost<GuestRunner> = there.host(),
  listening: MigrationListenerOptions = {},
): Promise<Arrival> {
  const listener = await MigrationListener.listen(address, host, listening);
  try {
    const [result, arrived] = await Promise.all([
      rig.source(machine, options).migrate(listener.address),
      listener.arrived,
    ]);
    const { memory, device, guest } = arrived;
    return { result, moved: { memory, device, runner: guest } };
  } finally {
    await listener.close();
  }
}

test.each([
  ['unix', 0],
  ['unix', 1],
  ['unix', 3],
  ['tcp', 0],
  ['tcp', 2],
] as const)('over %s with %i page connections', async (kind, channels) => {
  const address = kind === 'unix' ? `unix:${folder}/to` : 'tcp:127.0.0.1:0';
  const { result, moved } = await move(address, { channels });
  expect(result.audit).toMatchObject({ total: MEMORY / 4096, differing: 0 });
  expect(result.handover?.unproven).toEqual([]);
  // Whatever connections they took.
  expect(result.bytes).toBeGreaterThan(result.rounds.reduce((sum, { bytes }) => sum + bytes, 0));
  await rig.discard(machine);
  await expectWhole(rig, moved);
  await rig.discard(moved);
});

test('compressed pages are fewer bytes, and the same pages', async () => {
  const at = 0x80_0000;
  machine.memory.view(at, 1 << 20).fill(7);
  const before = machine.memory.read(at, 1 << 20);
  const { result, moved } = await move(`unix:${folder}/to`, { channels: 1, compression: 'deflate' });
  expect(result.audit).toMatchObject({ differing: 0 });
  expect(result.rounds[0]!.bytes).toBeLessThan(result.rounds[0]!.pages * 4096 * 0.7);
  expect(Buffer.compare(moved.memory.read(at, 1 << 20), before)).toBe(0);
  await rig.discard(machine);
  await expectWhole(rig, moved);
  await rig.discard(moved);
});

describe('a listener has one guest at most', () => {
  test('a second source is refused while the first moves, and goes on', async () => {
    const listener = await MigrationListener.listen(`unix:${folder}/to`, there.host());
    const holding = await connect(listener.address);
    const channel = new Channel(holding.stream);
    await channel.greet();
    await expect(rig.source(machine).migrate(listener.address)).rejects.toThrow(/busy with another migration/);
    await rig.flows(machine);
    // The first one goes without a word: the listener is free for the next.
    holding.close();
    let result: MigrationResult | null = null;
    for (let attempt = 0; attempt < 50 && result === null; attempt++) {
      result = await rig
        .source(machine)
        .migrate(listener.address)
        .catch(() => null);
    }
    expect(result?.audit).toMatchObject({ differing: 0 });
    expect(listener.failures).toBe(1);
    const { memory, device, guest } = await listener.arrived;
    await listener.close();
    await rig.discard(machine);
    await expectWhole(rig, { memory, device, runner: guest });
    await rig.discard({ memory, device, runner: guest });
  });

  test('page connections of nobody are closed', async () => {
    const listener = await MigrationListener.listen(`unix:${folder}/to`, there.host());
    const stray = await connect(listener.address);
    const channel = new Channel(stray.stream, { timeoutMs: 5000 });
    await channel.greet(Buffer.alloc(16, 9), 'pages', 1);
    await expect(channel.receive([FrameType.PAGES])).rejects.toThrow(/stream ends/);
    await listener.close();
  });

  test('a page connection that does not come ends the attempt within the bound', async () => {
    const failures: unknown[] = [];
    const listener = await MigrationListener.listen(`unix:${folder}/to`, there.host(), {
      timeoutMs: 300,
      onFailure: (error) => failures.push(error),
    });
    const mappings = native().mappingsLive();
    const control = await connect(listener.address);
    const channel = new Channel(control.stream, { timeoutMs: 5000 });
    await channel.greet();
    const { memory, features, mac } = machine.device;
    await channel.sendJson(FrameType.SETUP, {
      regions: memory.regions.map(({ gpa, size }) => ({ gpa, size })),
      features: `0x${features.toString(16)}`,
      pairs: 1,
      mac,
      mtu: 1500,
      environment: {},
      relay: false,
      pageConnections: 2,
      local: false,
      dryRun: false,
    });
    await channel.receive([FrameType.SETUP_ACK]);
    await expect(channel.receive([FrameType.ROUND_ACK])).rejects.toThrow(/page connection 1 did not come/);
    expect(failures).toMatchObject([{ code: 'VHOST_ERR_TIMEOUT' }]);
    expect(native().mappingsLive()).toBe(mappings);
    await listener.close();
  });
});

describe('hand-over on one host', () => {
  test('memory and tap go to the other process: nothing is copied, nothing is lost', async () => {
    const host = here.host();
    host.createBackend = async (_setup, taps) => new EmulatedBackend({ taps: taps! });
    host.createMemory = () => {
      throw new Error('memory is not made anew');
    };
    for (let time = 0; time < 3; time++) {
      const { result, moved } = await move(`unix:${folder}/to`, { local: true }, host);
      expect(result.rounds.reduce((sum, { pages }) => sum + pages, 0)).toBe(0);
      expect(result.bytes).toBeLessThan(20_000);
      for (const { base, usedIdx } of result.vrings) expect(base).toBe(usedIdx);
      await rig.discard(machine);
      machine = moved;
      await rig.flows(machine);
    }
    await expectWhole(rig, machine);
    await rig.discard(machine);
  });

  test('what the destination cannot do leaves the guest where it was', async () => {
    const host = here.host();
    host.createBackend = async (_setup, taps) => new EmulatedBackend({ taps: taps! });
    host.createGuest = async () => {
      throw new Error('no guest here');
    };
    const mappings = native().mappingsLive();
    await expect(move(`unix:${folder}/to`, { local: true }, host)).rejects.toThrow(/no guest here/);
    expect(machine.device.running).toBe(true);
    await rig.flows(machine);
    expect(native().mappingsLive()).toBe(mappings);
  });

  test.each([
    ['tcp', 'tcp:127.0.0.1:0'],
    ['a stream', null],
  ])('not over %s', async (_, address) => {
    const to = address ?? rig.streams()[0];
    const error = await rig
      .source(machine, { local: true })
      .migrate(to)
      .catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: 'VHOST_ERR_INVALID_ARGUMENT' });
    await rig.flows(machine);
  });
});

describe('preflight', () => {
  test('tells what differs and moves nothing', async () => {
    const host = there.host();
    host.createMemory = () => {
      throw new Error('nothing is to be made');
    };
    host.compare = async () => [{ what: 'shelf', source: 'upper', destination: 'lower', severity: 'degraded' }];
    await there.tap.setMtu(1400);
    const failures: unknown[] = [];
    const listener = await MigrationListener.listen(`unix:${folder}/to`, host, {
      onFailure: (error) => failures.push(error),
    });
    const differences = await rig.source(machine).preflight(listener.address);
    expect(differences).toEqual(
      expect.arrayContaining([
        { what: 'mtu', source: '1500', destination: '1400', severity: 'degraded' },
        { what: 'shelf', source: 'upper', destination: 'lower', severity: 'degraded' },
      ]),
    );
    await rig.flows(machine);
    expect(machine.device.dirtyLog).toBeNull();
    await listener.close();
  });

  test('properties that differ are fatal, each by its name', async () => {
    const host = there.host();
    host.properties = { ...machine.device.properties, mtu: 9000, rxQueueSize: 512 };
    await expect(move(`unix:${folder}/to`, {}, host)).rejects.toThrow(
      /property rxQueueSize: 256 here, 512 there; property mtu: 1500 here, 9000 there/,
    );
    await rig.flows(machine);
    host.properties = machine.device.properties;
    const { moved } = await move(`unix:${folder}/to`, {}, host);
    await rig.discard(machine);
    await expectWhole(rig, moved);
    await rig.discard(moved);
  });

  test('everything that is fatal is told at once', async () => {
    const host = there.host();
    host.compare = async () => [
      { what: 'features', source: 'many', destination: 'few', severity: 'fatal' },
      { what: 'queue pairs', source: '8', destination: '1', severity: 'fatal' },
    ];
    await expect(move(`unix:${folder}/to`, {}, host)).rejects.toThrow(/features: many here, few there; queue pairs: 8/);
    await rig.flows(machine);
  });
});
