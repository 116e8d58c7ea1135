/**
 * A virtio-net device: guest memory, queues and doorbells on one side, a backend that carries the frames on the other. It owns what must
 * outlive any backend (queue states, eventfds, the dirty log), so that stopping one and starting another is all a change of data path or
 * of process takes.
 */

import type { Backend, BackendDevice, QueueNotifiers } from '../backend/backend';
import { VhostError } from '../errors';
import { EventFd } from '../host/event-fd';
import type { DirtySource } from '../memory/dirty-log';
import type { GuestMemory } from '../memory/guest-memory';
import type { QueueState } from '../virtqueue/queue-state';
import { DeviceDirtyLog } from './device-dirty-log';
import { DEVICE_STATE_VERSION, type DeviceState, validateDeviceState } from './device-state';

export interface VirtioNetDeviceOptions {
  memory: GuestMemory;
  backend: Backend;
  /** Bits the driver acked. */
  features: bigint;
  /** Receive 2n, transmit 2n + 1. */
  queues: readonly QueueState[];
  /** Lower case, with colons. */
  mac: string;
  mtu?: number;
}

export class VirtioNetDevice implements BackendDevice {
  readonly memory: GuestMemory;
  readonly backend: Backend;
  readonly features: bigint;
  readonly mac: string;
  readonly mtu: number;
  readonly notifiers: readonly QueueNotifiers[];
  #queues: QueueState[];
  #log: DeviceDirtyLog | null = null;
  #closed = false;
  readonly #stopListening: () => void;

  constructor(options: VirtioNetDeviceOptions) {
    this.memory = options.memory;
    this.backend = options.backend;
    this.features = options.features;
    this.mac = options.mac;
    this.mtu = options.mtu ?? 1500;
    this.#queues = options.queues.map((queue) => ({ ...queue }));
    this.notifiers = this.#queues.map(() => ({ kick: EventFd.create(), call: EventFd.create() }));
    this.#stopListening = this.memory.onChange(() => this.#memoryChanged());
  }

  /** Builds the device that a source sent. `value` is validated; memory, backend and doorbells are this process's own. */
  static restore(value: unknown, parts: { memory: GuestMemory; backend: Backend }): VirtioNetDevice {
    const state = validateDeviceState(value);
    return new VirtioNetDevice({
      ...parts,
      features: BigInt(state.features),
      queues: state.queues,
      mac: state.mac,
      mtu: state.mtu,
    });
  }

  get queues(): readonly QueueState[] {
    return this.#queues;
  }

  get running(): boolean {
    return this.backend.running;
  }

  /** Everything a start takes time for, before somebody waits for it; until the start its taps are kept empty. */
  async prepare(): Promise<void> {
    this.#throwIfClosed();
    await this.backend.prepare(this);
  }

  async start(): Promise<void> {
    this.#throwIfClosed();
    await this.backend.start(this);
  }

  /** Nothing touches guest memory after this resolves; `queues` then holds where every ring stands. */
  async stop(): Promise<void> {
    if (!this.backend.running) return;
    this.#queues = (await this.backend.stop()).map((queue) => ({ ...queue }));
  }

  /** Turns dirty logging on, in a log that covers all of guest memory, while the device runs or stands. */
  async startDirtyLog(): Promise<DirtySource> {
    this.#throwIfClosed();
    if (this.#log !== null) throw new VhostError('VHOST_ERR_STATE', 'dirty logging is already on');
    const log = new DeviceDirtyLog(this.memory.end);
    try {
      await this.backend.setDirtyLog(log.current);
    } catch (error) {
      log.close();
      throw error;
    }
    this.#log = log;
    return log;
  }

  /** The log in use, or null. */
  get dirtyLog(): DirtySource | null {
    return this.#log;
  }

  async stopDirtyLog(): Promise<void> {
    const log = this.#log;
    if (log === null) return;
    this.#log = null;
    await this.backend.setDirtyLog(null);
    log.close();
  }

  save(): DeviceState {
    if (this.backend.running)
      throw new VhostError('VHOST_ERR_STATE', 'the state of a running device is not final: stop it first');
    return {
      version: DEVICE_STATE_VERSION,
      mandatory: ['features', 'queues'],
      features: `0x${this.features.toString(16)}`,
      mac: this.mac,
      mtu: this.mtu,
      queues: this.#queues.map((queue) => ({ ...queue })),
    };
  }

  /** Log first, then table: a table that outgrows the log would let the kernel write behind it. */
  async #memoryChanged(): Promise<void> {
    await this.#log?.grow(this.memory.end, (log) => this.backend.setDirtyLog(log));
    if (this.backend.running) await this.backend.memoryChanged();
  }

  /** Stops, then closes backend and doorbells. Guest memory belongs to the caller. Idempotent. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#stopListening();
    await this.backend.close();
    for (const { kick, call } of this.notifiers) {
      kick.close();
      call.close();
    }
    this.#log?.close();
    this.#log = null;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #throwIfClosed(): void {
    if (this.#closed) throw new VhostError('VHOST_ERR_CLOSED', 'VirtioNetDevice is closed');
  }
}
