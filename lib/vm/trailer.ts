/**
 * Takes the trailer off a byte stream. Bytes are handed on at once, except the few at the end that could be the
 * beginning of the trailer.
 */
export class TrailerFilter {
  #held: Buffer = Buffer.alloc(0);
  #ended = false;
  readonly #trailer: Buffer;

  constructor(trailer: string) {
    this.#trailer = Buffer.from(trailer);
  }

  /** Whether the whole trailer was seen; what follows it is dropped. */
  get ended(): boolean {
    return this.#ended;
  }

  /** The part of `chunk` and of what was held back that certainly belongs to the stream. */
  push(chunk: Buffer): Buffer {
    if (this.#ended) return Buffer.alloc(0);
    const bytes = this.#held.length === 0 ? chunk : Buffer.concat([this.#held, chunk]);
    const found = bytes.indexOf(this.#trailer);
    this.#ended = found >= 0;
    const end = this.#ended ? found : bytes.length - this.#prefixAtEndOf(bytes);
    this.#held = this.#ended ? Buffer.alloc(0) : bytes.subarray(end);
    return bytes.subarray(0, end);
  }

  /** What was held back, when the stream ended without a trailer. */
  flush(): Buffer {
    const held = this.#held;
    this.#held = Buffer.alloc(0);
    return held;
  }

  #prefixAtEndOf(bytes: Buffer): number {
    for (let length = Math.min(this.#trailer.length - 1, bytes.length); length > 0; length--) {
      if (bytes.subarray(bytes.length - length).equals(this.#trailer.subarray(0, length))) return length;
    }
    return 0;
  }
}
