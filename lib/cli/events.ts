/**
 * Events for programs: one line of JSON each. docs/events.md has every field.
 *
 * The reader is never waited for: while it does not keep up, events that others supersede are left out and counted, and when it is gone the
 * writer falls silent.
 */
import { closeSync, constants, createWriteStream, fstatSync, openSync } from 'node:fs';
import { Socket } from 'node:net';
import type { Writable } from 'node:stream';
import { isatty, WriteStream } from 'node:tty';
import { VhostError } from '../errors';
import type { MigrationEvent } from '../migration/options';

export const EVENTS_VERSION = 1;

/** Bytes that wait for a slow reader before anything else is left out. */
const MAX_WAITING = 4 * 1024 * 1024;
/** How long `close` waits for the reader to take what is left. */
const LINGER_MS = 1000;

export class EventWriter {
  readonly #stream: Writable;
  readonly #started = performance.now();
  #failure: Error | null = null;
  #closed = false;
  #dropped = 0;
  /** Those of them that the reader was not told of yet. */
  #untold = 0;

  /**
   * Writes to a path, or to the descriptor of that number, which it then owns. Throws the system's error when the path cannot be opened,
   * before there is anything to lose.
   */
  constructor(target: string | number) {
    this.#stream = open(target);
    this.#stream.on('error', (error) => {
      this.#failure ??= error;
    });
    this.#stream.on('drain', () => this.#tellDropped());
    this.#line({ kind: 'begin', version: EVENTS_VERSION, pid: process.pid });
  }

  /** Why nothing is written any more: the reader is gone, or the disk is full. Null while all is well. */
  get failure(): Error | null {
    return this.#failure;
  }

  /** Events that were left out. */
  get dropped(): number {
    return this.#dropped;
  }

  /** Never throws and never waits. */
  write(event: MigrationEvent): void {
    const superseded = event.kind === 'progress' || event.kind === 'estimate';
    if (this.#stream.writableNeedDrain && (superseded || this.#stream.writableLength > MAX_WAITING)) {
      this.#dropped++;
      this.#untold++;
      return;
    }
    this.#tellDropped();
    this.#line(event);
  }

  /** Says how the work ended, waits a second at most for the reader, and lets the file go. Never rejects. */
  async close(end: { outcome: string; error?: { code: string; message: string } | null }): Promise<void> {
    if (this.#closed) return;
    this.#tellDropped();
    this.#line({ kind: 'end', outcome: end.outcome, error: end.error ?? null, dropped: this.#dropped });
    this.#closed = true;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, LINGER_MS);
      const done = (): void => {
        clearTimeout(timer);
        resolve();
      };
      this.#stream.once('close', done);
      if (this.#stream.destroyed) done();
      else this.#stream.end();
    });
    this.#stream.destroy();
  }

  #tellDropped(): void {
    if (this.#untold === 0) return;
    const events = this.#untold;
    this.#untold = 0;
    this.#line({ kind: 'dropped', events });
  }

  #line(event: object): void {
    if (this.#failure !== null || this.#closed || !this.#stream.writable) return;
    const ms = Math.round((performance.now() - this.#started) * 1000) / 1000;
    this.#stream.write(`${JSON.stringify({ at: new Date().toISOString(), ms, ...event })}\n`);
  }
}

/** What can make a writer wait gets a stream that never blocks a thread: the pool's are needed by the data path. */
function open(target: string | number): Writable {
  const fd = typeof target === 'number' ? target : openPath(target);
  try {
    const stats = fstatSync(fd);
    if (stats.isFIFO() || stats.isSocket()) return new Socket({ fd, readable: false, writable: true });
    if (isatty(fd)) return new WriteStream(fd);
    return createWriteStream('', { fd });
  } catch (error) {
    if (typeof target === 'string') closeSync(fd);
    throw error;
  }
}

function openPath(path: string): number {
  // Without O_NONBLOCK a named pipe that nobody reads would hold up the whole process here.
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC | constants.O_NONBLOCK;
  try {
    return openSync(path, flags, 0o644);
  } catch (cause) {
    const { code, errno, syscall } = cause as NodeJS.ErrnoException;
    if (code !== 'ENXIO') throw cause;
    throw new VhostError('ENXIO', `events cannot be written to ${path}: nobody reads it`, {
      ...(errno === undefined ? {} : { errno }),
      ...(syscall === undefined ? {} : { syscall }),
      path,
      hint: 'start the reader of the named pipe first',
      cause,
    });
  }
}
