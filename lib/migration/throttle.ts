/**
 * Slows down what comes to a guest, as a migration's last means: what a vhost device makes dirty it does by receiving, so a guest that
 * receives less has less memory made dirty. In every period the receive queues are out of service for a part of it; what comes meanwhile
 * waits in the taps' queues, as long as these hold it, and senders that look for acknowledgements slow down. The order of frames stays.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { invalidArgument } from '../errors';

/** Of QEMU's auto-converge: cpu-throttle-initial, cpu-throttle-increment, max-cpu-throttle. */
const FIRST_STEP = 0.2;
const STEP = 0.1;
const MOST = 0.99;
/** So long that a run of the shortest sleep that Node has, 1 ms, is what is left of it at most. */
const PERIOD_MS = 100;

/** How often `increase` finds something to increase. */
export const THROTTLE_STEPS = 9;

/** The fraction after the next step. */
export function nextFraction(fraction: number): number {
  return fraction === 0 ? FIRST_STEP : Math.min(MOST, Math.round((fraction + STEP) * 100) / 100);
}

/** VirtioNetDevice fits. */
export interface PausableReceive {
  pauseReceive(): Promise<void>;
  resumeReceive(): Promise<void>;
}

export class ReceiveThrottle {
  readonly #device: PausableReceive;
  readonly #periodMs: number;
  #fraction = 0;
  #running: Promise<void> | null = null;
  /** Ends the sleep that is under way. */
  #wake = new AbortController();
  #failure: unknown = null;

  constructor(device: PausableReceive, { periodMs = PERIOD_MS }: { periodMs?: number } = {}) {
    if (!(periodMs >= 1 && periodMs <= 10_000)) throw invalidArgument(`a period of ${periodMs} ms`, '1 to 10,000');
    this.#device = device;
    this.#periodMs = periodMs;
  }

  /** Part of the time that receive is out of service, 0 to 0.99. */
  get fraction(): number {
    return this.#fraction;
  }

  /** What ended it before its time, such as a device that was closed; null while all is well. */
  get failure(): unknown {
    return this.#failure;
  }

  /** From the next period on; 0 ends it, as `stop` does. */
  set(fraction: number): void {
    if (!(fraction >= 0 && fraction <= MOST)) throw invalidArgument(`a fraction of ${fraction}`, `0 to ${MOST}`);
    this.#fraction = fraction;
    if (fraction === 0) this.#wake.abort();
    else this.#running ??= this.#run();
  }

  /** The next step: 0.2, then 0.1 more each time, at most 0.99. Answers the fraction from now on. */
  increase(): number {
    this.set(nextFraction(this.#fraction));
    return this.#fraction;
  }

  /** When this resolves receive is in service again. Rejects with what kept it from that. Idempotent. */
  async stop(): Promise<void> {
    this.set(0);
    await this.#running;
    if (this.#failure === null) return;
    const failure = this.#failure;
    this.#failure = null;
    throw failure;
  }

  async #run(): Promise<void> {
    try {
      while (this.#fraction > 0) {
        // Anew for whoever ends it and changes his mind before it has ended.
        if (this.#wake.signal.aborted) this.#wake = new AbortController();
        const paused = this.#periodMs * this.#fraction;
        await this.#device.pauseReceive();
        await this.#sleep(paused);
        await this.#device.resumeReceive();
        await this.#sleep(this.#periodMs - paused);
      }
    } catch (error) {
      this.#failure = error;
      this.#fraction = 0;
    } finally {
      // Whatever failed: a device must not be left without receive.
      await this.#device.resumeReceive().catch((error: unknown) => {
        this.#failure ??= error;
      });
      this.#running = null;
    }
  }

  async #sleep(ms: number): Promise<void> {
    await sleep(Math.max(1, ms), undefined, { signal: this.#wake.signal }).catch(() => undefined);
  }
}
