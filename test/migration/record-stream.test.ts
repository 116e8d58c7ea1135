/** What a side sends is recorded to the byte, and a recording that fails costs the migration nothing. */
import { createReadStream } from 'node:fs';
import { mkdtemp, readdir, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { GuestMemory } from '../../lib/memory/guest-memory';
import { StreamInspector } from '../../lib/migration/inspect-stream';
import { MigrationListener } from '../../lib/migration/listener';
import { type Machine, type Place, Rig } from '../helpers/migration-rig';

let folder: string;
let rig: Rig;
let here: Place;
let there: Place;
let machine: Machine;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'record-'));
  rig = await Rig.create();
  [here, there] = [await rig.place('emulated'), await rig.place('emulated')];
  machine = await rig.boot(here, GuestMemory.create([{ gpa: 0, size: 16 << 20 }]));
  await rig.flows(machine);
});

afterEach(async () => {
  await rig.close();
  await rm(folder, { recursive: true });
});

async function summaryOf(path: string) {
  const inspector = new StreamInspector();
  const errors: string[] = [];
  for await (const line of inspector.lines(createReadStream(path))) errors.push(...line.errors);
  return { ...inspector.summary, said: errors };
}

test('both directions of the control connection, whole', async () => {
  const [source, destination] = [join(folder, 'source'), join(folder, 'destination')];
  const { result, machine: moved } = await rig.migrate(machine, there, {
    source: { record: source },
    destination: { record: destination },
  });
  machine = moved;
  const sent = await summaryOf(source);
  expect(sent).toMatchObject({ whole: true, said: [], bytes: result.bytes });
  expect(sent.rounds).toMatchObject({ 0: { pages: result.rounds[0]!.pages, zeroPages: result.rounds[0]!.zeroPages } });
  expect(Object.keys(sent.rounds)).toHaveLength(result.rounds.filter(({ pages }) => pages > 0).length);
  expect(await summaryOf(destination)).toMatchObject({
    said: [],
    types: { READY: { frames: 1 }, RUNNING: { frames: 1 } },
  });
  expect((await stat(source)).mode & 0o777).toBe(0o600);
});

test('page connections that go through JavaScript have files of their own', async () => {
  const path = join(folder, 'stream');
  const listener = await MigrationListener.listen(`unix:${join(folder, 'socket')}`, there.host(), {
    compression: 'deflate',
  });
  const source = rig.source(machine, { record: path, channels: 2, compression: 'deflate' });
  const [, arrived] = await Promise.all([source.migrate(listener.address), listener.arrived]);
  await listener.close();
  await rig.discard(machine);
  machine = { memory: arrived.memory, device: arrived.device, runner: arrived.guest };
  expect((await readdir(folder)).filter((name) => name.startsWith('stream')).sort()).toEqual([
    'stream',
    'stream.1',
    'stream.2',
  ]);
  for (const name of ['stream', 'stream.1', 'stream.2']) {
    expect(await summaryOf(join(folder, name))).toMatchObject({ whole: true, said: [] });
  }
  await rig.discard(machine);
});

test.each([['/dev/full'], ['/nowhere/at/all']])('%s: told, and the migration goes well', async (path) => {
  const source = rig.source(machine, { record: path });
  const [near, far] = rig.streams();
  const [result, arrived] = await Promise.all([source.migrate(near), rig.destination(there).receive(far)]);
  expect(result.audit).toMatchObject({ differing: 0 });
  expect(source.recordFailure).toMatchObject({ code: expect.stringMatching(/ENOSPC|ENOENT/) });
  await rig.discard(machine);
  await rig.discard({ memory: arrived.memory, device: arrived.device, runner: arrived.guest });
});
