/** The progress display on a terminal of any width, and where there is none. */
import { EventEmitter } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { createProgress } from '../../../lib/cli/progress';
import type { MigrationEvent } from '../../../lib/migration/options';

const UTF8 = { LANG: 'C.UTF-8' };

class Output extends EventEmitter {
  text = '';
  writes = 0;
  broken = false;

  constructor(
    readonly isTTY: boolean,
    public columns = 80,
  ) {
    super();
  }

  write(text: string): boolean {
    if (this.broken) throw new Error('EIO');
    this.text += text;
    this.writes++;
    return true;
  }
}

/** A terminal: what stands on it after everything written, and whether its cursor shows. */
class Screen {
  readonly rows: string[] = [''];
  row = 0;
  column = 0;
  cursor = true;
  /** Characters that did not fit their row. */
  broken = 0;

  constructor(
    text: string,
    readonly columns: number,
  ) {
    for (const [token] of text.matchAll(/\p{Cc}\[\??\d*[A-Za-z]|[\s\S]/gu)) this.#take(token);
  }

  #take(token: string): void {
    const control = /^\p{Cc}\[(\??\d*)([A-Za-z])$/u.exec(token);
    if (control !== null) this.#control(control[1]!, control[2]!);
    else if (token === '\r') this.column = 0;
    else if (token === '\n') {
      this.row++;
      this.column = 0;
      this.rows[this.row] ??= '';
    } else {
      if (this.column >= this.columns) this.broken++;
      const line = this.rows[this.row]!.padEnd(this.column);
      this.rows[this.row] = line.slice(0, this.column) + token + line.slice(this.column + 1);
      this.column++;
    }
  }

  #control(parameter: string, letter: string): void {
    if (letter === 'A') this.row -= Number(parameter);
    else if (letter === 'K') this.rows[this.row] = '';
    else if (letter === 'J') this.rows.splice(this.row + 1);
    else if (letter === 'h' || letter === 'l') this.cursor = letter === 'h';
    else if (letter !== 'm') throw new Error(`unexpected ${letter}`);
    if (this.row < 0) throw new Error('above the screen');
  }
}

const EVENTS: MigrationEvent[] = [
  { kind: 'phase', phase: 'setup' },
  { kind: 'phase', phase: 'precopy' },
  { kind: 'estimate', round: 0, pages: 32_768, dirtyPagesPerSecond: 21_400, downtimeMs: 84.2, leftMs: 3200 },
  { kind: 'progress', round: 0, pages: 0, bytes: 0 },
  { kind: 'progress', round: 0, pages: 8192, bytes: 33_554_432 },
  {
    kind: 'round',
    round: {
      round: 0,
      pages: 32_768,
      zeroPages: 21_044,
      bytes: 48e6,
      ms: 117,
      dirtyAfter: 3846,
      dirtyBy: {},
      startMs: 0,
      hotPages: 0,
    },
  },
  { kind: 'decision', action: 'switchover', reason: 'It fits\u001b[2J.', estimateMs: 7.9 },
];

/** Every event 100 ms after the one before; the screen after each. */
function play(output: Output, events: readonly MigrationEvent[], env: NodeJS.ProcessEnv = UTF8): Screen[] {
  let now = 0;
  const progress = createProgress(output, { env, now: () => now });
  const screens = events.map((event) => {
    now += 100;
    progress.event(event);
    return new Screen(output.text, output.columns);
  });
  progress.close();
  screens.push(new Screen(output.text, output.columns));
  return screens;
}

test('without a terminal: a line for each phase, round and decision', () => {
  const output = new Output(false);
  play(output, EVENTS);
  expect(output.text).toBe(
    [
      'comparing both sides',
      'copying memory',
      'round 0: 32,768 pages (21,044 zero), 45.8 MiB in 117 ms, 410 MB/s, 3,846 dirty afterwards',
      'It fits\ufffd[2J. Expected downtime: 7.90 ms.',
      '',
    ].join('\n'),
  );
});

test('a terminal that is dumb gets lines', () => {
  const output = new Output(true);
  play(output, EVENTS, { ...UTF8, TERM: 'dumb' });
  expect(output.text).not.toContain('\u001b');
});

test('on a terminal: one block, and its cursor back at the end', () => {
  const output = new Output(true);
  const screens = play(output, EVENTS);
  expect(screens[4]!.rows).toEqual([
    'copying memory',
    `round 0  ${'█'.repeat(10)}${'░'.repeat(30)} 25 %  8,192 of 32,768 pages`.slice(0, 79),
    '336 MB/s, downtime now 84.2 ms, 3.20 s left, dirtied 21,400 pages/s',
  ]);
  expect(screens[4]!.cursor).toBe(false);
  const last = screens.at(-1)!;
  expect(last.rows).toEqual([
    'copying memory',
    'It fits\ufffd[2J. Expected downtime: 7.90 ms.',
    expect.stringMatching(/^round 0 {2}█+100 % {2}32,768 of 32,768 pages$/),
    expect.stringContaining('downtime now 84.2 ms'),
    '',
  ]);
  expect(last.cursor).toBe(true);
  expect(output.listenerCount('error')).toBeLessThanOrEqual(1);
});

test.each([20, 33, 47, 60, 79, 80, 81, 200])('nothing is broken over the edge of %i columns', (columns) => {
  const screens = play(new Output(true, columns), EVENTS);
  for (const screen of screens) {
    expect(screen.broken).toBe(0);
    for (const row of screen.rows) expect(row.length).toBeLessThan(columns);
  }
  expect(screens.at(-1)!.rows.length).toBe(5);
});

test('a terminal that became narrower has more rows to go back', () => {
  const output = new Output(true, 80);
  let now = 0;
  const progress = createProgress(output, { env: UTF8, now: () => now });
  for (const event of EVENTS.slice(0, 5)) {
    now += 100;
    progress.event(event);
  }
  const before = output.text.length;
  output.columns = 40;
  now += 100;
  progress.event(EVENTS[4]!);
  progress.close();
  // 14, 74 and 67 characters stood there, in 1 + 2 + 2 rows.
  expect(output.text.slice(before)).toMatch(/^\r\p{Cc}\[4A/u);
});

test.each([
  [{}, true],
  [{ NO_COLOR: '' }, true],
  [{ NO_COLOR: '1' }, false],
  [{ NO_COLOR: '0' }, false],
])('colours with %j: %s', (env, coloured) => {
  const output = new Output(true);
  play(output, EVENTS, { ...UTF8, ...env });
  expect(/\p{Cc}\[\d*m/u.test(output.text)).toBe(coloured);
});

test('a terminal without UTF-8 gets a bar of ASCII', () => {
  const output = new Output(true);
  play(output, EVENTS.slice(0, 5), { LANG: 'C' });
  expect(output.text).toContain('##');
  expect(/[\u0080-\uffff]/u.test(output.text)).toBe(false);
});

test('at most ten updates a second, and the last event is never lost', async () => {
  const output = new Output(true);
  let now = 0;
  const progress = createProgress(output, { env: UTF8, now: () => now });
  progress.event(EVENTS[2]!);
  for (let at = 0; at < 10_000; at++) {
    now += 0.1;
    progress.event({ kind: 'progress', round: 0, pages: at, bytes: at * 4096 });
  }
  // One second of events, the first draw, and the cursor.
  expect(output.writes).toBeLessThanOrEqual(12);
  await sleep(150);
  expect(new Screen(output.text, 80).rows.join()).toContain('9,999 of 32,768 pages');
  progress.close();
});

test('an output that breaks ends nothing', () => {
  const output = new Output(true);
  const progress = createProgress(output, { env: UTF8 });
  output.broken = true;
  progress.event(EVENTS[0]!);
  output.emit('error', new Error('EPIPE'));
  progress.close();
  expect(new Screen(output.text, 80).cursor).toBe(false);
});
