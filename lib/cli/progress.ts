/**
 * Progress of long work for a person: on a terminal one block that is drawn again and again, elsewhere a line for each phase, round and
 * decision.
 */
import type { MigrationEvent } from '../migration/options';
import { ProgressState } from './progress-state';

/** Redraws: at most ten a second. */
const DRAW_EVERY_MS = 100;
const BAR_MOST = 40;
const BAR_LEAST = 8;
const DEFAULT_COLUMNS = 80;

const ESC = '\u001b[';
const HIDE_CURSOR = `${ESC}?25l`;
const SHOW_CURSOR = `${ESC}?25h`;
const CLEAR_LINE = `${ESC}2K`;
const CLEAR_BELOW = `${ESC}J`;
const BOLD = `${ESC}1m`;
const CYAN = `${ESC}36m`;
const NORMAL = `${ESC}0m`;

/** What is written to: process.stderr, typically. */
export interface ProgressOutput {
  readonly isTTY?: boolean;
  readonly columns?: number;
  write(text: string): boolean;
  on(event: 'error', listener: (error: Error) => void): unknown;
  off(event: 'error', listener: (error: Error) => void): unknown;
}

export interface ProgressOptions {
  env?: NodeJS.ProcessEnv;
  /** Milliseconds of a clock that does not go back. */
  now?: () => number;
}

/**
 * Give it every event; `close` when the work is over, however it ended: the terminal has its cursor back then, or when the process exits. A
 * signal that is not handled leaves no time for it. Neither throws.
 */
export interface Progress {
  event(event: MigrationEvent): void;
  close(): void;
}

export function createProgress(out: ProgressOutput, options: ProgressOptions = {}): Progress {
  const env = options.env ?? process.env;
  const now = options.now ?? (() => performance.now());
  return out.isTTY === true && env.TERM !== 'dumb' ? new LiveProgress(out, env, now) : new LineProgress(out, now);
}

/** An output whose reader is gone is written to no more: an error of a terminal must not end a migration. */
class Guarded {
  #gone = false;
  readonly #onError = (): void => {
    this.#gone = true;
  };

  constructor(readonly out: ProgressOutput) {
    out.on('error', this.#onError);
  }

  write(text: string): void {
    if (this.#gone) return;
    try {
      this.out.write(text);
    } catch {
      this.#gone = true;
    }
  }

  close(): void {
    // The error of the last write comes later than the write.
    setTimeout(() => this.out.off('error', this.#onError), 1000).unref();
  }
}

class LineProgress implements Progress {
  readonly #out: Guarded;
  readonly #now: () => number;
  readonly #state = new ProgressState();

  constructor(out: ProgressOutput, now: () => number) {
    this.#out = new Guarded(out);
    this.#now = now;
  }

  event(event: MigrationEvent): void {
    const line = this.#state.apply(event, this.#now());
    if (line !== null) this.#out.write(`${line}\n`);
  }

  close(): void {
    this.#out.close();
  }
}

class LiveProgress implements Progress {
  readonly #out: Guarded;
  readonly #now: () => number;
  readonly #colour: boolean;
  readonly #blocks: readonly [full: string, empty: string];
  readonly #state = new ProgressState();
  #decision = '';
  /** Lengths of the lines that stand on the terminal. */
  #drawn: number[] = [];
  #drawnAt = Number.NEGATIVE_INFINITY;
  #timer: NodeJS.Timeout | undefined;
  #closed = false;
  readonly #onExit = (): void => this.#out.write(SHOW_CURSOR);

  constructor(out: ProgressOutput, env: NodeJS.ProcessEnv, now: () => number) {
    this.#out = new Guarded(out);
    this.#now = now;
    // https://no-color.org: present and not empty, whatever it says.
    this.#colour = (env.NO_COLOR ?? '') === '';
    this.#blocks = /utf-?8/i.test(env.LC_ALL || env.LC_CTYPE || env.LANG || '') ? ['█', '░'] : ['#', '.'];
    process.on('exit', this.#onExit);
    this.#out.write(HIDE_CURSOR);
  }

  event(event: MigrationEvent): void {
    if (this.#closed) return;
    const line = this.#state.apply(event, this.#now());
    if (event.kind === 'decision') this.#decision = line ?? '';
    const wait = this.#drawnAt + DRAW_EVERY_MS - this.#now();
    if (wait <= 0) this.#draw();
    else this.#timer ??= setTimeout(() => this.#draw(), wait).unref();
  }

  close(): void {
    if (this.#closed) return;
    this.#draw();
    this.#closed = true;
    clearTimeout(this.#timer);
    process.off('exit', this.#onExit);
    this.#out.write(`${this.#drawn.length === 0 ? '' : '\n'}${SHOW_CURSOR}`);
    this.#out.close();
  }

  #draw(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#drawnAt = this.#now();
    const columns = this.#out.out.columns || DEFAULT_COLUMNS;
    // The last column stays free: a terminal breaks the line there, and the block would move.
    const lines = this.#lines(columns - 1).map((line) => shorten(line, columns - 1));
    // A terminal that became narrower has broken the lines that stand there.
    const rows = this.#drawn.reduce((sum, length) => sum + Math.max(1, Math.ceil(length / columns)), 0);
    const up = rows > 1 ? `${ESC}${rows - 1}A` : '';
    const text = lines.map((line, at) => `${CLEAR_LINE}${this.#paint(line, at)}`).join('\n');
    this.#out.write(`${rows > 0 ? '\r' : ''}${up}${text}${CLEAR_BELOW}`);
    this.#drawn = lines.map((line) => line.length);
  }

  #lines(width: number): string[] {
    const { phase, round, fraction } = this.#state;
    const lines = [phase];
    if (this.#decision !== '') lines.push(this.#decision);
    const pages = this.#state.pagesText();
    if (pages !== '') lines.push(this.#bar(`round ${round}`, fraction, pages, width));
    const figures = this.#state.figures();
    while (figures.length > 1 && figures.join(', ').length > width) figures.pop();
    if (figures.length > 0) lines.push(figures.join(', '));
    return lines;
  }

  #bar(before: string, fraction: number | null, pages: string, width: number): string {
    const [full, empty] = this.#blocks;
    if (fraction === null) return `${before}  ${pages}`;
    const percent = this.#state.percent().padStart(5);
    const room = Math.min(BAR_MOST, width - before.length - pages.length - percent.length - 5);
    if (room < BAR_LEAST) return `${before} ${percent}  ${pages}`;
    const filled = Math.floor(room * fraction);
    return `${before}  ${full.repeat(filled)}${empty.repeat(room - filled)}${percent}  ${pages}`;
  }

  #paint(line: string, at: number): string {
    if (!this.#colour) return line;
    if (at === 0) return `${BOLD}${line}${NORMAL}`;
    const [full] = this.#blocks;
    const from = line.indexOf(full);
    if (from < 0) return line;
    const to = line.lastIndexOf(full) + 1;
    return `${line.slice(0, from)}${CYAN}${line.slice(from, to)}${NORMAL}${line.slice(to)}`;
  }
}

function shorten(line: string, width: number): string {
  if (line.length <= width) return line;
  return width > 1 ? `${line.slice(0, width - 1)}…` : line.slice(0, Math.max(0, width));
}
