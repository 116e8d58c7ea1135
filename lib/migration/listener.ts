/**
 * Where a guest can arrive: takes the connections of one migration at a time, and of another after one that failed. A second source is refused
 * while there is a first.
 */
import { VhostError } from '../errors';
import { type FdHandle, native } from '../native';
import { Channel } from './channel';
import type { Connection } from './connection';
import type { DestinationHost, ReceivedMigration } from './destination';
import { type DestinationLinks, DestinationRun } from './destination-run';
import { FrameType, streamSeed } from './frame';
import type { HelloMessage } from './hello';
import type { MigrationOptions } from './options';
import type { PageCompression } from './page-compression';
import type { PageConnection } from './page-connection';
import { asPages } from './source-links';
import { type Listener, type ListenOptions, listen } from './transport';

export interface MigrationListenerOptions extends MigrationOptions {
  netns?: string;
  /** An attempt that failed, or a connection that did not come about. The listener goes on. */
  onFailure?: (error: unknown) => void;
}

/** Connections that have not said HELLO yet. Of more the one that has waited longest is closed: whoever means well says it at once. */
const MOST_SILENT = 64;

interface Attempt {
  readonly identity: string;
  readonly arrivals: Arrivals;
}

/** Connections of one attempt, whoever is first: they or who waits for them. */
class Arrivals implements DestinationLinks {
  readonly #options: MigrationOptions;
  readonly #pages = new Map<number, Deferred<PageConnection>>();
  readonly #descriptors = new Deferred<FdHandle>();
  #over = false;

  constructor(options: MigrationOptions) {
    this.#options = options;
  }

  async pages(index: number): Promise<PageConnection> {
    return this.#within(this.#page(index).promise, `page connection ${index}`);
  }

  async descriptors(): Promise<FdHandle> {
    return this.#within(this.#descriptors.promise, 'the connection for descriptors');
  }

  #page(index: number): Deferred<PageConnection> {
    let page = this.#pages.get(index);
    if (page === undefined) {
      page = new Deferred();
      this.#pages.set(index, page);
    }
    return page;
  }

  /** The attempt is over: what nobody waited for is closed, and what still comes. */
  close(): void {
    this.#over = true;
    for (const { promise } of this.#pages.values()) void promise.then((pages) => pages.close());
    void this.#descriptors.promise.then((fd) => native().fdClose(fd));
  }

  take(hello: HelloMessage, connection: Connection): void {
    const awaited = hello.channel === 'descriptors' ? this.#descriptors : this.#page(hello.index);
    // Of one kind and number there is one: a second would be nobody's.
    if (this.#over || awaited.resolved) connection.close();
    else if (hello.channel === 'descriptors') this.#descriptors.resolve(connection.takeFd());
    else {
      const { timeoutMs, signal } = this.#options;
      const seed = streamSeed(Buffer.from(hello.identity, 'hex'));
      const compression = (hello.compression ?? 'none') as PageCompression;
      this.#page(hello.index).resolve(asPages(connection, seed, { timeoutMs, signal, compression }));
    }
  }

  async #within<T>(promise: Promise<T>, what: string): Promise<T> {
    const { timeoutMs = 30_000, signal } = this.#options;
    let timer: NodeJS.Timeout | undefined;
    let onAbort: (() => void) | undefined;
    const failed = new Promise<never>((_, reject) => {
      const late = () => reject(new VhostError('VHOST_ERR_TIMEOUT', `${what} did not come within ${timeoutMs} ms`));
      timer = setTimeout(late, timeoutMs);
      onAbort = () => reject(new VhostError('VHOST_ERR_ABORTED', `cancelled while waiting for ${what}`));
      signal?.addEventListener('abort', onAbort, { once: true });
    });
    try {
      return await Promise.race([promise, failed]);
    } finally {
      clearTimeout(timer);
      if (onAbort !== undefined) signal?.removeEventListener('abort', onAbort);
    }
  }
}

class Deferred<T> {
  resolved = false;
  resolve: (value: T) => void = () => undefined;
  readonly promise = new Promise<T>((resolve) => {
    this.resolve = (value) => {
      this.resolved = true;
      resolve(value);
    };
  });
}

export class MigrationListener<Guest extends { resume(): void }> {
  readonly #host: DestinationHost<Guest>;
  readonly #options: MigrationListenerOptions;
  #listener: Listener | null = null;
  #attempt: Attempt | null = null;
  /** The longest waiting first. */
  readonly #silent = new Set<Connection>();
  readonly #arrived = new Deferred<ReceivedMigration<Guest>>();
  /** Attempts that failed so far. */
  failures = 0;

  private constructor(host: DestinationHost<Guest>, options: MigrationListenerOptions) {
    this.#host = host;
    this.#options = options;
  }

  /** Listens at `tcp:HOST:PORT` (port 0: any) or `unix:PATH`, with TLS when the options have it. */
  static async listen<Guest extends { resume(): void }>(
    address: string,
    host: DestinationHost<Guest>,
    options: MigrationListenerOptions = {},
  ): Promise<MigrationListener<Guest>> {
    const listener = new MigrationListener(host, options);
    const { signal, tls, netns, onFailure } = options;
    const transport: ListenOptions = { signal, tls, netns, onError: (error) => onFailure?.(error) };
    listener.#listener = await listen(address, transport, (connection) => {
      void listener.#take(connection).catch((error: unknown) => {
        connection.close();
        onFailure?.(error);
      });
    });
    return listener;
  }

  /** Where it listens really. */
  get address(): string {
    return this.#listener!.address;
  }

  /** Resolves when a guest has arrived and runs here; no further one is taken then. */
  get arrived(): Promise<ReceivedMigration<Guest>> {
    return this.#arrived.promise;
  }

  async #take(connection: Connection): Promise<void> {
    const { timeoutMs, signal } = this.#options;
    const channel = new Channel(connection.stream, {
      timeoutMs,
      signal,
    });
    const hello = await this.#greeted(connection, channel);
    if (hello.channel !== 'control') {
      // In this turn: nothing has been read ahead yet.
      if (this.#attempt?.identity === hello.identity) this.#attempt.arrivals.take(hello, connection);
      else connection.close();
      return;
    }
    if (this.#attempt !== null) {
      await channel.sendLast(
        FrameType.ERROR,
        'this destination is busy with another migration, or has its guest already',
      );
      channel.close();
      return;
    }
    await this.#receive(channel, hello);
  }

  async #greeted(connection: Connection, channel: Channel): Promise<HelloMessage> {
    const [longest] = this.#silent;
    if (longest !== undefined && this.#silent.size >= MOST_SILENT) {
      this.#silent.delete(longest);
      longest.close();
    }
    this.#silent.add(connection);
    try {
      return await channel.answer();
    } finally {
      this.#silent.delete(connection);
    }
  }

  async #receive(channel: Channel, hello: HelloMessage): Promise<void> {
    const attempt: Attempt = { identity: hello.identity, arrivals: new Arrivals(this.#options) };
    this.#attempt = attempt;
    try {
      const run = new DestinationRun(this.#host, channel, this.#options);
      this.#arrived.resolve(await run.receive(attempt.arrivals, hello));
    } catch (error) {
      this.failures++;
      this.#attempt = null;
      this.#options.onFailure?.(error);
    } finally {
      attempt.arrivals.close();
      channel.close();
    }
  }

  /** Takes no more connections; a guest that runs here goes on. Idempotent. */
  async close(): Promise<void> {
    await this.#listener?.close();
  }
}
