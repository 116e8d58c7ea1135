/**
 * A driver that floods, as a child process on a tap of its own. All contenders of a benchmark are started once and stopped by SIGSTOP
 * between their windows, worker thread included, so that no window pays for a start.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { netdevExists, pin, threadNanos, threadsOf, vhostWorkerOf } from './proc';

export type Direction = 'tx' | 'rx';

/** What a driver has counted by itself, at a moment of CLOCK_MONOTONIC. */
export interface Sample {
  readonly micros: number;
  readonly frames: number;
  /** Looks at the used ring, and those that found nothing; 0 where a driver does not tell. */
  readonly looks: number;
  readonly idle: number;
  readonly kicks: number;
}

export interface Placement {
  readonly driverCpu: number;
  readonly workerCpu: number;
}

const START_LIMIT_MS = 120_000;

export abstract class Contender {
  abstract readonly name: string;
  readonly netdev: string;
  readonly #placement: Placement;
  readonly #command: readonly string[];
  #child: ChildProcess | null = null;
  #worker = -1;
  #ended: Promise<never> | null = null;

  constructor(netdev: string, command: readonly string[], placement: Placement) {
    this.netdev = netdev;
    this.#command = command;
    this.#placement = placement;
  }

  get pid(): number {
    return this.#child?.pid ?? -1;
  }

  /** Thread number of its vhost worker. */
  get worker(): number {
    return this.#worker;
  }

  /** Nanoseconds that its own threads, so all but the worker, have run. */
  driverNanos(): number {
    let nanos = 0;
    for (const tid of threadsOf(this.pid)) if (tid !== this.#worker) nanos += threadNanos(this.pid, tid);
    return nanos;
  }

  /** The driver's own count. */
  abstract sample(): Promise<Sample>;

  /** Starts the process and waits until its tap and its worker are there. */
  async start(): Promise<void> {
    const cpu = String(this.#placement.driverCpu);
    const argv = ['--pdeathsig', 'KILL', 'taskset', '--cpu-list', cpu, ...this.#command];
    const child = spawn('setpriv', argv, { stdio: ['pipe', 'pipe', 'pipe'] });
    this.#child = child;
    const said: string[] = [];
    child.stderr.setEncoding('utf8').on('data', (text: string) => said.push(text));
    this.#ended = new Promise<never>((_, reject) => {
      child.once('error', reject);
      child.once('exit', (code, signal) =>
        reject(new Error(`${this.name} ended (${signal ?? code}): ${said.join('')}`)),
      );
    });
    this.#ended.catch(() => undefined);
    this.listen(child);
    const limit = Date.now() + START_LIMIT_MS;
    while (!netdevExists(this.netdev) || this.#worker < 0) {
      if (Date.now() > limit)
        throw new Error(`${this.name} has no ${this.netdev} after ${START_LIMIT_MS} ms: ${said.join('')}`);
      await this.alive(sleep(50));
      this.#worker = vhostWorkerOf(this.pid);
    }
    pin(this.#worker, this.#placement.workerCpu);
  }

  /** Called once the tap is up. */
  async begin(): Promise<void> {}

  pause(): void {
    process.kill(this.pid, 'SIGSTOP');
  }

  resume(): void {
    process.kill(this.pid, 'SIGCONT');
  }

  /** Idempotent. */
  async end(): Promise<void> {
    const child = this.#child;
    if (child === null || child.exitCode !== null || child.signalCode !== null) return;
    child.kill('SIGKILL');
    await this.#ended?.catch(() => undefined);
  }

  protected abstract listen(child: ChildProcess): void;

  protected get child(): ChildProcess {
    if (this.#child === null) throw new Error(`${this.name} was not started`);
    return this.#child;
  }

  /** `waiting`, unless the process ends first. */
  protected async alive<T>(waiting: Promise<T>): Promise<T> {
    if (this.#ended === null) throw new Error(`${this.name} was not started`);
    return await Promise.race([waiting, this.#ended]);
  }
}
