/** A vhost-user back end on a UNIX socket: one front end at a time on the taps of one server, and another after it. */
import { chmodSync, chownSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Backend } from '../backend/backend';
import { EmulatedBackend } from '../backend/emulated';
import { TapDiscard } from '../backend/tap-discard';
import { VhostKernelBackend } from '../backend/vhost-kernel';
import { invalidArgument, reasonOf } from '../errors';
import type { StreamSocket } from '../host/socket';
import type { Tap } from '../host/tap';
import { AcceptLoop, type BoundUnix, bindUnix } from '../migration/transport-listen';
import { emit, type Trace } from '../trace/trace';
import { Turns } from '../turns';
import { Conversation } from './conversation';
import { MOST_QUEUE_PAIRS, type Offer, offerOf } from './offer';
import { Session } from './session';

export type ServedPath = 'kernel' | 'emulated';

export interface VhostUserServerOptions {
  /** A path, or `@name` for an abstract one. */
  socket: string;
  /** Of the socket's file. Default 0o600. */
  mode?: number | undefined;
  /** Whom the socket's file belongs to. Default: this process. */
  owner?: { uid: number; gid: number } | undefined;
  /** One a queue pair, 1 to 8. They belong to the caller, who closes them after the server. */
  taps: readonly Tap[];
  backend?: ServedPath | undefined;
  trace?: Trace | undefined;
  /** A front end has come, or gone: why, null for one that left by itself. */
  onFrontEnd?: ((event: 'connected' | 'gone', reason: string | null) => void) | undefined;
}

const BACKLOG = 8;
/** A front end that comes while another is there may be the same one again, whose end has only not been seen yet. Milliseconds. */
const HAND_OVER_MS = 200;

export class VhostUserServer {
  readonly offer: Offer;
  readonly #options: VhostUserServerOptions;
  readonly #bound: BoundUnix;
  readonly #backend: Backend;
  readonly #accepting: AcceptLoop;
  readonly #stop = new AbortController();
  readonly #turns = new Turns();
  /** Front ends that are served or wait for it. */
  #present = 0;
  /** Keeps the taps empty while no rings run: what came then is for nobody. */
  #discards: TapDiscard[] = [];
  #closed = false;

  private constructor(options: VhostUserServerOptions, bound: BoundUnix, backend: Backend) {
    this.#options = options;
    this.#bound = bound;
    this.#backend = backend;
    this.offer = offerOf(backend, options.taps.length);
    this.#discard(true);
    this.#accepting = new AcceptLoop(
      bound.socket,
      (socket) => this.#arrived(socket),
      (error) => emit(options.trace, { kind: 'fault', object: 'vhost-user accept', message: error.message }),
    );
  }

  /** Listens when everything is ready to answer: a front end's guest stands still while it waits. */
  static async listen(options: VhostUserServerOptions): Promise<VhostUserServer> {
    const { taps, socket, mode, owner } = options;
    if (taps.length < 1 || taps.length > MOST_QUEUE_PAIRS) {
      throw invalidArgument(`${taps.length} queue pairs`, `1 to ${MOST_QUEUE_PAIRS}`);
    }
    const backend = await openBackend(options);
    let bound: BoundUnix | null = null;
    try {
      await backend.probe();
      bound = await bindUnix(socket, null, BACKLOG);
      // Whoever is let in by these is let in a moment later than the owner.
      if (!socket.startsWith('@')) {
        if (owner !== undefined) chownSync(socket, owner.uid, owner.gid);
        if (mode !== undefined) chmodSync(socket, mode);
      }
      return new VhostUserServer(options, bound, backend);
    } catch (error) {
      bound?.socket.close();
      bound?.remove();
      await backend.close();
      throw error;
    }
  }

  #discard(on: boolean): void {
    for (const discard of this.#discards.splice(0)) discard.stop();
    if (on) this.#discards = this.#options.taps.map((tap) => new TapDiscard(tap));
  }

  #arrived(socket: StreamSocket): void {
    if (this.#present > 1 || this.#closed) {
      socket.close();
      return;
    }
    this.#present++;
    void this.#serveOrRefuse(socket).finally(() => this.#present--);
  }

  async #serveOrRefuse(socket: StreamSocket): Promise<void> {
    const waiting = new AbortController();
    const turn = this.#turns.run(async () => {
      waiting.abort();
      if (!refused) await this.#serve(socket);
    });
    let refused = false;
    await sleep(HAND_OVER_MS, null, { signal: waiting.signal }).catch(() => undefined);
    if (!waiting.signal.aborted) {
      refused = true;
      socket.close();
      const message = 'a second front end is refused: one is served already';
      emit(this.#options.trace, { kind: 'fault', object: 'vhost-user', message });
    }
    await turn;
  }

  async #serve(socket: StreamSocket): Promise<void> {
    const { taps, trace, onFrontEnd } = this.#options;
    const session = new Session({
      backend: this.#backend,
      taps,
      offer: this.offer,
      trace,
      onFirstRing: () => this.#discard(false),
    });
    onFrontEnd?.('connected', null);
    let reason: string | null = null;
    try {
      await new Conversation(socket, session, { trace, signal: this.#stop.signal }).run();
    } catch (error) {
      reason = reasonOf(error);
      emit(trace, { kind: 'fault', object: 'vhost-user', message: `the front end is left: ${reason}` });
    }
    try {
      await session.close();
    } catch (error) {
      reason ??= reasonOf(error);
      emit(trace, { kind: 'fault', object: 'vhost-user', message: `after the front end had gone: ${reasonOf(error)}` });
    }
    if (!this.#closed) this.#discard(true);
    onFrontEnd?.('gone', reason);
  }

  /** Stops listening, ends the session with its rings where they are, and lets the backend go. Idempotent. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#accepting.stop();
    this.#bound.socket.close();
    this.#bound.remove();
    this.#stop.abort(new Error('the server ends'));
    await this.#turns.settled();
    this.#discard(false);
    await this.#backend.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

async function openBackend({ backend = 'kernel', taps, trace }: VhostUserServerOptions): Promise<Backend> {
  const options = { taps, trace, prepareTaps: true };
  return backend === 'emulated' ? new EmulatedBackend(options) : VhostKernelBackend.open(options);
}
