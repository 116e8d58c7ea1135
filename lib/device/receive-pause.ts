/**
 * Receive queues out of service for a while, with what comes for them waiting in the taps' queues. The device goes on saying that its
 * driver has enabled them, and where they stand: whoever stops the data path meanwhile finds nothing to be done for them.
 */
import type { Backend } from '../backend/backend';
import { copyQueueState } from '../virtqueue/queue-state';
import type { DeviceLife } from './device-life';

export class ReceivePause {
  readonly #queues = new Set<number>();

  /** Indexes of the queues that are out of service. */
  get queues(): ReadonlySet<number> {
    return this.#queues;
  }

  /** Takes every receive queue in use out of service. When one cannot be, those before are served again. */
  async begin(life: DeviceLife, backend: Backend): Promise<void> {
    try {
      for (let queue = 0; queue < 2 * life.control.activePairs; queue += 2) {
        const state = life.queues[queue];
        if (state === undefined || !state.ready || this.#queues.has(queue)) continue;
        const stood = await backend.stopQueue(queue);
        // Kept by the device, since the data path is told anew from here where to go on.
        Object.assign(state, copyQueueState(stood), { ready: true });
        this.#queues.add(queue);
      }
    } catch (error) {
      await this.end(life, backend);
      throw error;
    }
  }

  /** Serves them again, all of them even if one cannot be: the first error is thrown. */
  async end(life: DeviceLife, backend: Backend): Promise<void> {
    const failures: unknown[] = [];
    for (const queue of [...this.#queues]) {
      this.#queues.delete(queue);
      if (life.queues[queue]?.ready !== true) continue;
      await backend.startQueue(queue).catch((error: unknown) => failures.push(error));
    }
    if (failures.length > 0) throw failures[0];
  }

  /** The driver has taken the queue back: it is served again when the driver says so, from where the driver says. */
  forget(queue: number): void {
    this.#queues.delete(queue);
  }

  /** The data path is gone: the next one serves what the device says. */
  clear(): void {
    this.#queues.clear();
  }
}
