/** Asynchronous calls that run one after the other, in the order in which they were made. */
export class Turns {
  #last: Promise<unknown> = Promise.resolve();

  /** Runs `work` when everything before it has ended, well or not. */
  run<T>(work: () => Promise<T> | T): Promise<T> {
    const result = this.#last.then(work);
    this.#last = result.catch(() => undefined);
    return result;
  }

  /** When everything that was asked for until now has ended, and what that asked for in turn. Never rejects. */
  async settled(): Promise<void> {
    let seen: Promise<unknown>;
    do {
      seen = this.#last;
      await seen;
    } while (seen !== this.#last);
  }
}
