/** The command on the memory of another process. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { inspectDescription, type NumberedInspection } from '../../../lib/observe/inspect-description';
import type { Description } from '../../../lib/observe/queue-description';

const MAIN = join(__dirname, '..', '..', '..', 'lib', 'cli', 'main.js');
const OWNER = join(__dirname, '..', '..', 'helpers', 'inspected-process.js');

let folder: string;
const owners: ChildProcess[] = [];

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'inspect-'));
});

afterEach(() => {
  for (const owner of owners.splice(0)) owner.stdin!.end();
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function describedBy(state: string): Promise<Description> {
  const owner = spawn(process.execPath, [OWNER, state], { stdio: ['pipe', 'pipe', 'inherit'] });
  owners.push(owner);
  for await (const line of createInterface(owner.stdout!)) return JSON.parse(line) as Description;
  throw new Error('the process said nothing');
}

function inspect(description: unknown, ...flags: string[]): { status: number | null; out: string; err: string } {
  const { status, stdout, stderr } = spawnSync(process.execPath, [MAIN, 'inspect', '--description', '-', ...flags], {
    input: typeof description === 'string' ? description : JSON.stringify(description),
    encoding: 'utf8',
  });
  return { status, out: stdout, err: stderr };
}

const inspections = (out: string): NumberedInspection[] => JSON.parse(out) as NumberedInspection[];

test('healthy queues', async () => {
  const description = await describedBy('healthy');
  const { status, out, err } = inspect(description);
  expect({ status, err }).toEqual({ status: 0, err: '' });
  expect(out).toContain('queue 0: MOVES\n  moves: its buffers wait for frames\n');
  expect(out).toContain('queue 1: MOVES\n  moves: nothing waits\n');
  const json = inspections(inspect(description, '--json', '--queue', '1').out);
  expect(json).toHaveLength(1);
  expect(json[0]).toMatchObject({
    queue: 1,
    inspection: { role: 'transmit', running: true, indexes: { availIdx: 3, usedIdx: 3, pending: 0, inFlight: 0 } },
  });
});

test('a queue that stands, and what its eventfd counts', async () => {
  const description = await describedBy('stuck');
  const { status, out } = inspect(description, '--json', '--limit', '1');
  expect(status).toBe(0);
  const [receive, transmit] = inspections(out);
  expect(receive!.inspection.diagnosis[0]).toBe('the driver has made nothing available: a receive queue needs buffers');
  expect(transmit!.inspection).toMatchObject({ verdict: 'stands', notifications: { kicks: 1, calls: 0 } });
  expect(transmit!.inspection.available).toHaveLength(1);
  expect(transmit!.inspection.diagnosis[0]).toMatch(
    /^3 chains wait and the device has not taken them: .*a kick was due/,
  );
});

test('a broken ring is named', async () => {
  const description = await describedBy('broken');
  const file = join(folder, 'description.json');
  writeFileSync(file, JSON.stringify(description));
  const { status, stdout } = spawnSync(process.execPath, [MAIN, 'inspect', '-d', file, '-q', '1'], {
    encoding: 'utf8',
  });
  expect(status).toBe(1);
  expect(stdout).toContain('queue 1: BROKEN');
  expect(stdout).toContain('available index 1, head 1: the chain loops at descriptor 1');
  expect(stdout).toContain('loop (virtio 1.4 section 2.7.5.2)');
});

test('a queue at full speed is accused of nothing', async () => {
  const description = await describedBy('moving');
  const seen = new Set<number | undefined>();
  let moving = 0;
  // Where processors are few the two processes take turns, and it takes longer until a look falls into a change.
  const end = performance.now() + 60_000;
  while (performance.now() < end && (seen.size < 300 || moving < 10)) {
    const [{ inspection }] = inspectDescription(description, { queue: 1 }) as [NumberedInspection];
    expect(inspection.violations).toEqual([]);
    seen.add(inspection.indexes.usedIdx);
    if (inspection.moving) moving++;
  }
  expect(seen.size).toBeGreaterThan(100);
  expect(moving).toBeGreaterThan(0);
});

test('the holes of a region stay holes', async () => {
  const description = await describedBy('healthy');
  const blocks = (): number[] => description.regions.map(({ path }) => statSync(path).blocks);
  const before = blocks();
  expect(inspect(description).status).toBe(0);
  expect(blocks()).toEqual(before);
});

test('it watches until it is told to stop', async () => {
  const description = await describedBy('healthy');
  const file = join(folder, 'watched.json');
  writeFileSync(file, JSON.stringify(description));
  const watch = spawn(process.execPath, [MAIN, 'inspect', '-d', file, '-q', '1', '--watch', '0.05'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let looks = 0;
  for await (const line of createInterface(watch.stdout)) {
    if (line.startsWith('queue 1: ') && ++looks === 3) watch.kill('SIGTERM');
  }
  expect(looks).toBeGreaterThanOrEqual(3);
});

describe('what cannot be read has status 2', () => {
  const sound: Description = { pid: 1, features: '0x0', regions: [], queues: [] };

  test.each<[string, unknown, string]>([
    ['no JSON', '{', 'is no JSON'],
    ['features', { ...sound, features: 7 }, 'features'],
    ['no regions', { ...sound, regions: undefined }, 'regions'],
    ['a region without path', { ...sound, regions: [{ gpa: 0, size: 4096, offset: 0 }] }, 'regions[0].path'],
    [
      'a file that is not there',
      { ...sound, regions: [{ gpa: 0, size: 4096, offset: 0, path: '/nowhere' }] },
      'ENOENT',
    ],
    [
      'a file that is too short',
      { ...sound, regions: [{ gpa: 0, size: 1 << 20, offset: 0, path: MAIN }] },
      'ends before the region',
    ],
    ['a region that cannot be', { ...sound, regions: [{ gpa: 1, size: 4096, offset: 0, path: MAIN }] }, 'GPA 0x1'],
    ['a queue without size', { ...sound, queues: [{ ready: true }] }, 'queues[0].size'],
  ])('%s', (_, description, words) => {
    const { status, out, err } = inspect(description);
    expect({ status, out }).toEqual({ status: 2, out: '' });
    expect(err).toContain(words);
  });

  test('a queue that is not described, a process that is gone, no description at all', async () => {
    expect(inspect(sound, '--queue', '3')).toMatchObject({
      status: 2,
      err: expect.stringContaining('queue 3') as string,
    });
    expect(spawnSync(process.execPath, [MAIN, 'inspect']).status).toBe(2);
    const description = await describedBy('healthy');
    const [owner] = owners.splice(0);
    owner!.stdin!.end();
    await new Promise((resolve) => owner!.once('exit', resolve));
    expect(inspect(description)).toMatchObject({ status: 2, err: expect.stringContaining('/proc/') as string });
  });
});
