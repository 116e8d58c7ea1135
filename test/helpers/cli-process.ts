/** The command line as a process of its own: what it writes, how it ends. Killed by its pid only. */
import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';

const MAIN = join(__dirname, '..', '..', 'lib', 'cli', 'main.js');
const PATIENCE_MS = 30_000;

export interface CliOptions {
  /** Name of a network namespace whose addresses the process is to have. */
  inside?: string;
}

export class CliProcess {
  readonly #child: ChildProcess;
  readonly #changed = new Set<() => void>();
  stdout = '';
  stderr = '';
  /** Status, or the signal that ended it; null while it runs. */
  ended: number | NodeJS.Signals | null = null;

  constructor(args: readonly string[], { inside }: CliOptions = {}) {
    const line = [process.execPath, MAIN, ...args];
    // ip becomes what it starts: the pid is the command's.
    const [file, ...rest] = inside === undefined ? line : ['ip', 'netns', 'exec', inside, ...line];
    this.#child = spawn(file!, rest, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, TERM: 'dumb' } });
    for (const name of ['stdout', 'stderr'] as const) {
      this.#child[name]!.setEncoding('utf8').on('data', (text: string) => {
        this[name] += text;
        this.#change();
      });
    }
    this.#child.once('close', (code, signal) => {
      this.ended = code ?? signal;
      this.#change();
    });
  }

  get pid(): number {
    return this.#child.pid!;
  }

  #change(): void {
    for (const changed of this.#changed) changed();
  }

  /** Waits for a line on one of its outputs, and answers the match. */
  async says(pattern: RegExp, ms = PATIENCE_MS): Promise<RegExpExecArray> {
    const found = () => pattern.exec(this.stdout) ?? pattern.exec(this.stderr);
    await this.#until(() => found() !== null || this.ended !== null, ms, `to say ${pattern}`);
    const match = found();
    if (match === null) throw new Error(`it ended with ${this.ended} without saying ${pattern}\n${this.all}`);
    return match;
  }

  /** Waits for its end, and answers how. */
  async end(ms = PATIENCE_MS): Promise<number | NodeJS.Signals> {
    await this.#until(() => this.ended !== null, ms, 'to end');
    return this.ended!;
  }

  async #until(condition: () => boolean, ms: number, what: string): Promise<void> {
    if (condition()) return;
    await new Promise<void>((resolve, reject) => {
      const done = (settle: () => void): void => {
        clearTimeout(timer);
        this.#changed.delete(changed);
        settle();
      };
      const changed = (): void => {
        if (condition()) done(resolve);
      };
      const late = () => reject(new Error(`waited ${ms} ms for process ${this.pid} ${what}\n${this.all}`));
      const timer = setTimeout(() => done(late), ms);
      this.#changed.add(changed);
    });
  }

  get all(): string {
    return `stdout: ${this.stdout}\nstderr: ${this.stderr}`;
  }

  kill(signal: NodeJS.Signals): void {
    if (this.ended === null) this.#child.kill(signal);
  }
}
