/**
 * The socket on which the process that owns a device takes orders. Whoever may open it owns the guest: its file is the owner's alone. A client
 * that goes away takes no migration with it.
 */
import type { Duplex } from 'node:stream';
import { invalidArgument, VhostError } from '../errors';
import type { Connection } from './connection';
import { checkOrder, idOf } from './control-check';
import { ControlDesk, type ControlHooks, type ControlParts, type Giver } from './control-desk';
import { readLines } from './control-lines';
import { type ControlReply, describeFailure, LONGEST_ORDER } from './control-protocol';
import type { MigrationEvent } from './options';
import { type Listener, listen } from './transport';

/** Bytes that wait for a slow client before events are left out. */
const MAX_WAITING = 4 * 1024 * 1024;
/** Orders of one client at a time. */
const MOST_ORDERS = 64;
/** How long the last answers may take to leave. */
const LINGER_MS = 1000;

export class ControlServer {
  readonly #desk: ControlDesk;
  readonly #clients = new Set<Client>();
  #listener: Listener | null = null;
  #closing: Promise<void> | null = null;

  private constructor(parts: ControlParts, hooks: ControlHooks) {
    this.#desk = new ControlDesk(parts, hooks);
  }

  /** Listens at a path, mode 0600; one that a dead process left behind is replaced. */
  static async serve(path: string, parts: ControlParts, hooks: ControlHooks = {}): Promise<ControlServer> {
    const server = new ControlServer(parts, hooks);
    server.#listener = await listen(`unix:${path}`, {}, (connection) => server.#take(connection));
    return server;
  }

  #take(connection: Connection): void {
    const client: Client = new Client(connection, this.#desk, () => this.#clients.delete(client));
    this.#clients.add(client);
  }

  /** Cancels what goes on, answers whoever waits, and lets the socket go. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    await this.#listener?.close();
    await this.#desk.close();
    await Promise.all([...this.#clients].map((client) => client.end()));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

class Client implements Omit<Giver, 'tell'> {
  readonly #connection: Connection;
  readonly #stream: Duplex;
  readonly #desk: ControlDesk;
  readonly #gone = new AbortController();
  readonly #orders = new Set<Promise<void>>();

  constructor(connection: Connection, desk: ControlDesk, onGone: () => void) {
    this.#connection = connection;
    this.#stream = connection.stream;
    this.#desk = desk;
    readLines(
      this.#stream,
      LONGEST_ORDER,
      (line) => this.#line(line),
      (error) => {
        this.#gone.abort(new Error('whoever ordered it has gone'));
        onGone();
        if (error === null) void this.end();
        else this.#hangUp(error);
      },
    );
  }

  get gone(): AbortSignal {
    return this.#gone.signal;
  }

  #line(line: string): void {
    let value: unknown;
    try {
      value = JSON.parse(line);
    } catch {
      this.#hangUp(new VhostError('VHOST_ERR_PROTOCOL', 'a line that is no JSON'));
      return;
    }
    const order = this.#carryOut(value).finally(() => this.#orders.delete(order));
    this.#orders.add(order);
  }

  async #carryOut(value: unknown): Promise<void> {
    const id = idOf(value);
    try {
      if (this.#orders.size >= MOST_ORDERS) throw invalidArgument(`more than ${MOST_ORDERS} orders at a time`);
      const order = checkOrder(value);
      const tell = (event: MigrationEvent): void => this.#tell(order.id, event);
      const result = await this.#desk.carryOut(order, { tell, gone: this.gone });
      this.#send({ id: order.id, result });
    } catch (error) {
      this.#send({ id, error: describeFailure(error) });
    }
  }

  #tell(id: number, event: MigrationEvent): void {
    const superseded = event.kind === 'progress' || event.kind === 'estimate';
    if (this.#stream.writableNeedDrain && (superseded || this.#stream.writableLength > MAX_WAITING)) return;
    this.#send({ id, event });
  }

  #send(reply: ControlReply): void {
    if (this.#stream.writable) this.#stream.write(`${JSON.stringify(reply)}\n`);
  }

  /** Somebody that does not speak the language: says so once. */
  #hangUp(error: Error): void {
    this.#send({ id: null, error: describeFailure(error) });
    this.#stream.end();
    this.#stream.once('finish', () => this.#connection.close());
  }

  /** Answers what it still waits for, and hangs up. */
  async end(): Promise<void> {
    await Promise.all(this.#orders);
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, LINGER_MS);
      const done = (): void => {
        clearTimeout(timer);
        resolve();
      };
      if (this.#stream.writable) this.#stream.end(done);
      else done();
    });
    this.#connection.close();
  }
}
