/** The event file: what stands in it, and readers that are slow, gone or never came. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { EventWriter } from '../../../lib/cli/events';
import type { MigrationEvent } from '../../../lib/migration/options';

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'events-'));
});

afterEach(() => rmSync(folder, { recursive: true, force: true }));

const ROUND: MigrationEvent = {
  kind: 'round',
  round: {
    round: 0,
    pages: 5,
    zeroPages: 1,
    bytes: 20_000,
    ms: 2,
    dirtyAfter: 3,
    dirtyBy: { guest: 3 },
    startMs: 0,
    hotPages: 0,
  },
};
const PROGRESS: MigrationEvent = { kind: 'progress', round: 0, pages: 1, bytes: 4096 };

type Line = Record<string, unknown>;
const lines = (text: string): Line[] =>
  text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Line);

/** A named pipe, and a reader that stands still until told. */
function namedPipe(): string {
  const path = join(folder, 'pipe');
  execFileSync('mkfifo', [path]);
  return path;
}

async function opened(path: string): Promise<EventWriter> {
  for (;;) {
    try {
      return new EventWriter(path);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENXIO') throw error;
      await sleep(10);
    }
  }
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode === null && child.signalCode === null) await new Promise((resolve) => child.once('exit', resolve));
}

test('one JSON object a line, with both times', async () => {
  const path = join(folder, 'events.jsonl');
  const before = Date.now();
  const writer = new EventWriter(path);
  writer.write({ kind: 'phase', phase: 'setup' });
  writer.write(ROUND);
  writer.write({ kind: 'decision', action: 'switchover', reason: 'it fits\nnow', estimateMs: null });
  await writer.close({ outcome: 'failed', error: { code: 'EPIPE', message: 'gone' } });
  const written = lines(readFileSync(path, 'utf8'));
  expect(written.map(({ kind }) => kind)).toEqual(['begin', 'phase', 'round', 'decision', 'end']);
  expect(written[0]).toMatchObject({ version: 1, pid: process.pid });
  expect(written[2]).toMatchObject(ROUND);
  expect(written[3]).toMatchObject({ reason: 'it fits\nnow', estimateMs: null });
  expect(written[4]).toMatchObject({ outcome: 'failed', error: { code: 'EPIPE', message: 'gone' }, dropped: 0 });
  const times = written.map(({ ms }) => ms as number);
  expect(times).toEqual([...times].sort((one, other) => one - other));
  for (const { at } of written) expect(Date.parse(at as string)).toBeGreaterThanOrEqual(before - 1);
  expect(writer.failure).toBeNull();
});

test('a path that cannot be written is an error at once', () => {
  expect(() => new EventWriter(join(folder, 'no', 'such'))).toThrow(expect.objectContaining({ code: 'ENOENT' }));
});

test('a named pipe that nobody reads is an error, and no wait', () => {
  const path = namedPipe();
  expect(() => new EventWriter(path)).toThrow(
    expect.objectContaining({ code: 'ENXIO', hint: 'start the reader of the named pipe first' }),
  );
});

test('a reader that goes away ends nothing', async () => {
  const path = namedPipe();
  const reader = spawn('head', ['-n', '1', path], { stdio: 'ignore' });
  const writer = await opened(path);
  await ended(reader);
  for (let at = 0; at < 100 && writer.failure === null; at++) {
    writer.write(ROUND);
    await sleep(5);
  }
  expect(writer.failure).toMatchObject({ code: 'EPIPE' });
  writer.write(ROUND);
  await writer.close({ outcome: 'completed' });
});

test('a reader that does not keep up misses what others supersede, and is told', async () => {
  const path = namedPipe();
  const out = join(folder, 'out');
  const reader = spawn('sh', ['-c', 'exec 3<"$1"; read -r go; cat <&3 >"$2"', 'sh', path, out], {
    stdio: ['pipe', 'ignore', 'inherit'],
  });
  const writer = await opened(path);
  for (let at = 0; at < 10_000; at++) writer.write(PROGRESS);
  await sleep(20);
  for (let at = 0; at < 10_000; at++) writer.write(PROGRESS);
  expect(writer.dropped).toBeGreaterThan(0);
  writer.write(ROUND);
  reader.stdin!.end('go\n');
  await writer.close({ outcome: 'completed' });
  await ended(reader);
  const written = lines(readFileSync(out, 'utf8'));
  const kinds = written.map(({ kind }) => kind);
  expect(kinds.filter((kind) => kind === 'round')).toHaveLength(1);
  expect(written.at(-1)).toMatchObject({ kind: 'end', dropped: writer.dropped });
  const told = written
    .filter(({ kind }) => kind === 'dropped')
    .reduce((sum, { events }) => sum + (events as number), 0);
  expect(told).toBe(writer.dropped);
  expect(kinds.filter((kind) => kind === 'progress')).toHaveLength(20_000 - writer.dropped);
});

test('a reader that never reads holds up the end for a second, and no longer', async () => {
  const path = namedPipe();
  const reader = spawn('sh', ['-c', 'exec 3<"$1"; read -r go', 'sh', path], { stdio: ['pipe', 'ignore', 'inherit'] });
  const writer = await opened(path);
  for (let at = 0; at < 100_000; at++) writer.write(ROUND);
  // Nothing supersedes a round, but not everything can be kept.
  expect(writer.dropped).toBeGreaterThan(0);
  await writer.close({ outcome: 'completed' });
  reader.stdin!.end();
  await ended(reader);
  expect(writer.failure).toBeNull();
});
