/**
 * The rings of a front end on a backend. A front end starts and stops rings one by one; a backend starts with the first and stops with the
 * last of them.
 */
import type { Backend, BackendDevice, QueueNotifiers } from '../backend/backend';
import type { PathSettings } from '../backend/path-settings';
import { freshQueue } from '../device/device-life';
import { VhostError } from '../errors';
import { EventFd } from '../host/event-fd';
import type { GuestMemory } from '../memory/guest-memory';
import { GUEST_OFFLOADS } from '../net/feature-rules';
import type { QueueState } from '../virtqueue/queue-state';

/** Null for those that the front end has not given. */
export type Doorbells = { readonly [Name in keyof QueueNotifiers]: QueueNotifiers[Name] | null };

export class DataPath implements BackendDevice {
  readonly backend: Backend;
  readonly queues: QueueState[];
  readonly notifiers: QueueNotifiers[];
  /** Stands in for descriptors that the front end has not given. */
  readonly #nobody: QueueNotifiers;
  readonly #served = new Set<number>();
  #onFirst: () => void;
  #memory: GuestMemory | null = null;
  #features = 0n;

  /** @param onFirst called once, before the first ring is served. */
  constructor(backend: Backend, queues: number, onFirst: () => void = () => undefined) {
    this.backend = backend;
    this.#onFirst = onFirst;
    this.#nobody = { kick: EventFd.create(), call: EventFd.create() };
    this.queues = Array.from({ length: queues }, () => freshQueue(1));
    this.notifiers = this.queues.map(() => this.#nobody);
  }

  get memory(): GuestMemory {
    if (this.#memory === null) throw new VhostError('VHOST_ERR_STATE', 'the front end has passed no memory');
    return this.#memory;
  }

  get features(): bigint {
    return this.#features;
  }

  /** Frames are spread over the queue pairs that are served. */
  get settings(): PathSettings {
    const last = Math.max(0, ...this.#served);
    return {
      activePairs: (last >> 1) + 1,
      receiveFilter: null,
      guestOffloads: this.#features & GUEST_OFFLOADS,
      linkUp: true,
    };
  }

  /** Queues that are served, ascending. */
  get served(): readonly number[] {
    return [...this.#served].sort((a, b) => a - b);
  }

  serves(queue: number): boolean {
    return this.#served.has(queue);
  }

  /** What rings are served with from the next start on; while none is served. */
  configure(memory: GuestMemory | null, features: bigint): void {
    if (this.#served.size > 0) throw new VhostError('VHOST_ERR_STATE', 'rings are served');
    this.#memory = memory;
    this.#features = features;
  }

  /** Serves a ring that is not served yet. On failure it is as before. */
  async begin(queue: number, state: QueueState, doorbells: Doorbells): Promise<void> {
    this.queues[queue] = state;
    this.notifiers[queue] = this.#notifiersOf(doorbells);
    const pairs = this.settings.activePairs;
    this.#served.add(queue);
    try {
      if (!this.backend.running) {
        this.#onFirst();
        this.#onFirst = () => undefined;
        await this.backend.start(this);
        return;
      }
      await this.backend.startQueue(queue);
      if (this.settings.activePairs !== pairs) await this.backend.settingsChanged();
    } catch (error) {
      this.#served.delete(queue);
      this.queues[queue] = freshQueue(1);
      throw error;
    }
  }

  /** Where the ring stood. Nothing touches it, nor its doorbells, when this resolves. */
  async end(queue: number): Promise<QueueState> {
    const last = this.#served.size === 1;
    const state = last ? (await this.backend.stop())[queue]! : await this.backend.stopQueue(queue);
    const pairs = this.settings.activePairs;
    this.#served.delete(queue);
    this.queues[queue] = freshQueue(1);
    this.notifiers[queue] = this.#nobody;
    if (!last && this.settings.activePairs !== pairs) await this.backend.settingsChanged();
    return state;
  }

  /** Where every ring stood that was served, by queue. */
  async endAll(): Promise<Map<number, QueueState>> {
    const ended = new Map<number, QueueState>();
    if (this.#served.size === 0) return ended;
    const states = await this.backend.stop();
    for (const queue of this.#served) {
      ended.set(queue, states[queue]!);
      this.queues[queue] = freshQueue(1);
      this.notifiers[queue] = this.#nobody;
    }
    this.#served.clear();
    return ended;
  }

  /** Other doorbells for a ring that is served. */
  async renotify(queue: number, doorbells: Doorbells): Promise<void> {
    const before = this.notifiers[queue]!;
    this.notifiers[queue] = this.#notifiersOf(doorbells);
    try {
      await this.backend.notifiersChanged(queue);
    } catch (error) {
      this.notifiers[queue] = before;
      throw error;
    }
  }

  #notifiersOf({ kick, call }: Doorbells): QueueNotifiers {
    return { kick: kick ?? this.#nobody.kick, call: call ?? this.#nobody.call };
  }

  /** After all rings have ended. */
  close(): void {
    this.#nobody.kick.close();
    this.#nobody.call.close();
  }
}
