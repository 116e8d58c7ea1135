/** How long something may be waited for, and who may end the wait: one clock and one signal for all steps of a piece of work. */
import { abortedError, invalidArgument, VhostError } from '../errors';

export interface WaitOptions {
  /** Longest wait for all of it. Milliseconds. */
  timeoutMs?: number | undefined;
  signal?: AbortSignal | undefined;
}

/** setTimeout takes no longer one. */
const LONGEST_MS = 2 ** 31 - 1;

export class WaitLimits {
  readonly #doing: string;
  readonly #timeoutMs: number;
  readonly #deadline: number;
  readonly #signal: AbortSignal | undefined;

  /** @param doing what an error says was being done. */
  constructor(doing: string, { timeoutMs, signal }: WaitOptions, defaultMs: number) {
    const limit = timeoutMs ?? defaultMs;
    if (!(limit > 0 && limit <= LONGEST_MS))
      throw invalidArgument(`timeoutMs ${limit}: above 0, at most ${LONGEST_MS}`);
    this.#doing = doing;
    this.#timeoutMs = limit;
    this.#deadline = performance.now() + limit;
    this.#signal = signal;
  }

  /** Milliseconds, 0 when none are left. */
  get remaining(): number {
    return Math.max(0, this.#deadline - performance.now());
  }

  throwIfOver(): void {
    if (this.#signal?.aborted === true) throw this.#aborted();
    if (this.remaining === 0) throw this.#timedOut();
  }

  /** What `promise` settles with, unless a limit is reached first. Whoever made the promise clears up behind it. */
  async within<T>(promise: Promise<T>, atMostMs = Number.POSITIVE_INFINITY): Promise<T> {
    // It may reject after the race was lost, when nobody listens any more.
    promise.catch(() => undefined);
    this.throwIfOver();
    let timer: NodeJS.Timeout | undefined;
    let onAbort: (() => void) | undefined;
    const over = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(this.#timedOut()), Math.min(this.remaining, atMostMs));
      onAbort = () => reject(this.#aborted());
      this.#signal?.addEventListener('abort', onAbort, { once: true });
    });
    try {
      return await Promise.race([promise, over]);
    } finally {
      clearTimeout(timer);
      if (onAbort !== undefined) this.#signal?.removeEventListener('abort', onAbort);
    }
  }

  #aborted(): VhostError {
    return abortedError(this.#doing, this.#signal?.reason);
  }

  #timedOut(): VhostError {
    return new VhostError('VHOST_ERR_TIMEOUT', `${this.#doing}: not done within ${this.#timeoutMs} ms`, {
      hint: 'the peer or the network stands still',
    });
  }
}
