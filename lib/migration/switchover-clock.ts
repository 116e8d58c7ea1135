/** When the steps of a switchover were done, and how long the guest stood still for each. */
import { type DowntimeParts, elapsed } from './options';

/** In this order. */
export type SwitchoverStep = 'paused' | 'stopped' | 'synced' | 'lastPages' | 'ready' | 'running';

export class SwitchoverClock {
  readonly #at: Record<SwitchoverStep, number> = {
    paused: 0,
    stopped: 0,
    synced: 0,
    lastPages: 0,
    ready: 0,
    running: 0,
  };

  mark(step: SwitchoverStep): void {
    this.#at[step] = performance.now();
  }

  /** performance.now() when it was marked. */
  at(step: SwitchoverStep): number {
    return this.#at[step];
  }

  /** Milliseconds from the pause until the destination said RUNNING. */
  get downtimeMs(): number {
    return elapsed(this.#at.paused, this.#at.running);
  }

  get parts(): DowntimeParts {
    const { paused, stopped, synced, lastPages, ready, running } = this.#at;
    return {
      stop: elapsed(paused, stopped),
      sync: elapsed(stopped, synced),
      lastPages: elapsed(synced, lastPages),
      state: elapsed(lastPages, ready),
      start: elapsed(ready, running),
    };
  }
}
