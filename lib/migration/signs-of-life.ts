/** Says something now and then on a connection where nothing else is said, and notices when the peer no longer does. */

/** Of the time after which a peer is taken for dead: how often something is said. */
const SAID_IN_IT = 5;

export interface LivingConnection {
  /** Something has come that nobody has read yet. */
  unread(): boolean;
  /** Says something, if the connection takes it now. */
  say(): void;
  /** Nothing was heard for so long. Milliseconds. */
  silent(forMs: number): void;
}

export class SignsOfLife {
  readonly #connection: LivingConnection;
  readonly #deadAfterMs: number;
  readonly #everyMs: number;
  readonly #timer: NodeJS.Timeout;
  #saidAt = performance.now();
  #heardAt = this.#saidAt;

  constructor(connection: LivingConnection, deadAfterMs: number) {
    this.#connection = connection;
    this.#deadAfterMs = deadAfterMs;
    this.#everyMs = deadAfterMs / SAID_IN_IT;
    this.#timer = setInterval(() => this.#beat(), this.#everyMs);
    this.#timer.unref();
  }

  said(): void {
    this.#saidAt = performance.now();
  }

  heard(): void {
    this.#heardAt = performance.now();
  }

  #beat(): void {
    const now = performance.now();
    if (now - this.#saidAt >= this.#everyMs) this.#connection.say();
    // What has come and is not read yet, for want of a reader or because this process stood still itself, was heard all the same.
    if (this.#connection.unread()) this.#heardAt = now;
    if (now - this.#heardAt <= this.#deadAfterMs) return;
    setImmediate(() => {
      if (this.#connection.unread() || this.#heardAt > now) return;
      this.stop();
      this.#connection.silent(now - this.#heardAt);
    });
  }

  /** Idempotent. */
  stop(): void {
    clearInterval(this.#timer);
  }
}
