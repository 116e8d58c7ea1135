/** Orders to the process behind a control socket. */
import { VhostError } from '../errors';
import type { Connection } from './connection';
import { readLines } from './control-lines';
import {
  type ControlMethod,
  type ControlMethods,
  type ControlReply,
  failureError,
  LONGEST_REPLY,
  parseReply,
} from './control-protocol';
import type { MigrationEvent } from './options';
import { connect } from './transport';

interface Waiting {
  resolve(result: unknown): void;
  reject(error: Error): void;
  onEvent: ((event: MigrationEvent) => void) | undefined;
}

export class ControlClient {
  readonly path: string;
  readonly #connection: Connection;
  readonly #waiting = new Map<number, Waiting>();
  #id = 0;
  #ended: Error | null = null;

  private constructor(path: string, connection: Connection) {
    this.path = path;
    this.#connection = connection;
    readLines(
      connection.stream,
      LONGEST_REPLY,
      (line) => this.#line(line),
      (error) => this.#end(error instanceof VhostError ? error : hasGone(path, error)),
    );
  }

  /** Throws the system's error with a hint when nobody listens there. */
  static async connect(path: string): Promise<ControlClient> {
    return new ControlClient(path, await connect(`unix:${path}`));
  }

  /** Resolves with the answer. Rejects with the error that was answered, or VHOST_ERR_CLOSED when the process went away before it. */
  call<Method extends ControlMethod>(
    method: Method,
    params: ControlMethods[Method]['params'],
    onEvent?: (event: MigrationEvent) => void,
  ): Promise<ControlMethods[Method]['result']> {
    return new Promise((resolve, reject) => {
      if (this.#ended !== null) {
        reject(this.#ended);
        return;
      }
      const id = ++this.#id;
      this.#waiting.set(id, { resolve: resolve as (result: unknown) => void, reject, onEvent });
      this.#connection.stream.write(`${JSON.stringify({ id, method, params })}\n`);
    });
  }

  #line(line: string): void {
    let reply: ControlReply;
    try {
      reply = parseReply(line);
    } catch (error) {
      this.#end(error as Error);
      return;
    }
    // Of a line of ours that could not be read: none of the answers will come.
    if (reply.id === null && 'error' in reply) this.#end(failureError(reply.error));
    const waiting = this.#waiting.get(reply.id ?? 0);
    if (waiting === undefined) return;
    if ('event' in reply) {
      waiting.onEvent?.(reply.event);
      return;
    }
    this.#waiting.delete(reply.id ?? 0);
    if ('error' in reply) waiting.reject(failureError(reply.error));
    else waiting.resolve(reply.result);
  }

  #end(error: Error): void {
    this.#ended ??= error;
    for (const { reject } of this.#waiting.values()) reject(this.#ended);
    this.#waiting.clear();
    this.#connection.close();
  }

  /** What is under way there goes on. Idempotent. */
  close(): void {
    this.#end(new VhostError('VHOST_ERR_CLOSED', 'the connection was closed'));
  }
}

/** However it was noticed. */
function hasGone(path: string, cause: Error | null): VhostError {
  return new VhostError('VHOST_ERR_CLOSED', `the process behind ${path} has gone`, cause === null ? {} : { cause });
}
