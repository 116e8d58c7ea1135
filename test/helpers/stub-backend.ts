/** A data path that moves nothing: it notes what it is asked for, waits where a test says so, and fails where a test says so. */
import { EventEmitter } from 'node:events';
import type { Backend, BackendDevice, BackendEvents, RingPosition, StoppedRing } from '../../lib/backend/backend';
import type { DirtyLog } from '../../lib/memory/dirty-log';
import type { QueueState } from '../../lib/virtqueue/queue-state';
import { EVERYTHING } from './device-rig';

export class StubBackend extends EventEmitter<BackendEvents> implements Backend {
  readonly kind = 'emulated';
  readonly taps = null;
  offeredFeatures: bigint;
  readonly stoppedRings: readonly StoppedRing[] = [];
  /** What it was asked for, in order. */
  readonly calls: string[] = [];
  device: BackendDevice | null = null;
  log: DirtyLog | null = null;
  readonly #gates = new Map<string, Promise<void>>();
  readonly #failures = new Map<string, Error>();

  constructor(offered = EVERYTHING) {
    super();
    this.offeredFeatures = offered;
  }

  get running(): boolean {
    return this.device !== null;
  }

  /** Calls of that name wait from now on, until the function that is answered is called. */
  hold(name: string): () => void {
    let release = (): void => undefined;
    const gate = new Promise<void>((resolve) => {
      release = resolve;
    });
    this.#gates.set(name, gate);
    return () => {
      this.#gates.delete(name);
      release();
    };
  }

  /** The next call of that name fails. */
  fail(name: string, error = new Error(`planted: ${name}`)): Error {
    this.#failures.set(name, error);
    return error;
  }

  async #call(name: string): Promise<void> {
    this.calls.push(name);
    await this.#gates.get(name);
    const failure = this.#failures.get(name);
    this.#failures.delete(name);
    if (failure !== undefined) throw failure;
  }

  async probe(): Promise<bigint> {
    await this.#call('probe');
    return this.offeredFeatures;
  }

  requireFeatures(): void {
    this.calls.push('requireFeatures');
  }

  async prepare(): Promise<void> {
    await this.#call('prepare');
  }

  async start(device: BackendDevice): Promise<void> {
    await this.#call('start');
    this.device = device;
  }

  async stop(): Promise<QueueState[]> {
    await this.#call('stop');
    const queues = this.device!.queues.map((queue) => ({ ...queue }));
    this.device = null;
    return queues;
  }

  async settingsChanged(): Promise<void> {
    await this.#call('settingsChanged');
  }

  async stopQueue(queue: number): Promise<QueueState> {
    await this.#call(`stopQueue ${queue}`);
    return { ...this.device!.queues[queue]! };
  }

  async startQueue(queue: number): Promise<void> {
    await this.#call(`startQueue ${queue}`);
  }

  async notifiersChanged(queue: number): Promise<void> {
    await this.#call(`notifiersChanged ${queue}`);
  }

  async positions(): Promise<(RingPosition | null)[]> {
    await this.#call('positions');
    return this.device!.queues.map(() => null);
  }

  async setDirtyLog(log: DirtyLog | null): Promise<void> {
    await this.#call('setDirtyLog');
    this.log = log;
  }

  async memoryChanged(): Promise<void> {
    await this.#call('memoryChanged');
  }

  async close(): Promise<void> {
    await this.#call('close');
    this.device = null;
  }
}
