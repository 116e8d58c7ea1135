/**
 * Messages of one front end, one after the other: each is done before the next is read, and answered as the specification's reply rules have
 * it. A front end that breaks the protocol, or asks for what cannot be without waiting to hear so, is left, with the reason told.
 */
import { VHOST_USER_HDR_SIZE, VHOST_USER_PROTOCOL_F_REPLY_ACK } from '../constants/vhost-user';
import { closeAll } from '../descriptors';
import { reasonOf, VhostError } from '../errors';
import type { StreamSocket } from '../host/socket';
import { emit, type Trace } from '../trace/trace';
import { MessageChannel, type RawMessage } from '../vhost-user/channel';
import { checkRequestSize, emitReply, parseRequest, type Request } from '../vhost-user/message';
import { PROTOCOL, traceMessage } from '../vhost-user/message-record';
import type { PayloadKind, Payloads } from '../vhost-user/payload';
import { requestShape } from '../vhost-user/requests';
import type { Session } from './session';

/** Of an acknowledgement that refuses. */
const REFUSED = 1n;

export interface ConversationOptions {
  trace?: Trace | undefined;
  /** Ends it between two messages. */
  signal?: AbortSignal | undefined;
}

export class Conversation {
  readonly #channel: MessageChannel;
  readonly #session: Session;
  readonly #trace: Trace | undefined;

  constructor(socket: StreamSocket, session: Session, { trace, signal }: ConversationOptions) {
    this.#channel = new MessageChannel(socket, { checkSize: checkRequestSize, signal });
    this.#session = session;
    this.#trace = trace;
  }

  /** Until the front end has gone. Throws why it was left, VHOST_ERR_PROTOCOL or what a request was refused for. */
  async run(): Promise<void> {
    try {
      for (let message = await this.#channel.receive(); message !== null; message = await this.#channel.receive()) {
        await this.#take(message);
      }
    } finally {
      this.#channel.close();
    }
  }

  async #take(message: RawMessage): Promise<void> {
    const { header, payload, fds } = message;
    const count = fds.length;
    let request: Request | null;
    try {
      request = parseRequest(header, payload, count);
    } catch (error) {
      closeAll(fds);
      throw error;
    }
    traceMessage(this.#trace, {
      direction: 'in',
      name: request?.name ?? `request ${header.request}`,
      bytes: payload.length,
      payload: request?.payload,
      fds: count,
      needReply: header.needReply,
    });
    if (request === null || !this.#session.serves(request.name)) {
      closeAll(fds);
      await this.#unserved(request, header.request, header.needReply);
      return;
    }
    await this.#serve(request, message);
  }

  /** Nobody agreed on it. What wants no answer is left alone; what waits for one of its own would wait for ever. */
  async #unserved(request: Request | null, number: number, needReply: boolean): Promise<void> {
    const name = request?.name ?? `request ${number}`;
    const error = new VhostError('VHOST_ERR_UNSUPPORTED', `${name} was not negotiated`);
    if (request !== null && requestShape(request.name).reply !== undefined) throw error;
    await this.#refuse(name, number, needReply, error, false);
  }

  async #serve(request: Request, { header, fds }: RawMessage): Promise<void> {
    const { name, needReply } = request;
    let answer: unknown;
    try {
      answer = await this.#session.handle(request, fds);
    } catch (error) {
      await this.#refuse(name, header.request, needReply, error, true);
      return;
    }
    const { reply } = requestShape(name);
    if (reply !== undefined) await this.#answer(name, header.request, reply, answer as Payloads[typeof reply]);
    else if (this.#acknowledges(needReply)) await this.#answer(name, header.request, 'u64', 0n);
  }

  #acknowledges(needReply: boolean): boolean {
    return needReply && this.#session.hasProtocolFeature(VHOST_USER_PROTOCOL_F_REPLY_ACK);
  }

  /** `fatal`: a front end that does not hear of it would go on as if all were well. */
  async #refuse(name: string, request: number, needReply: boolean, error: unknown, fatal: boolean): Promise<void> {
    emit(this.#trace, { kind: 'fault', object: `${PROTOCOL} ${name}`, message: reasonOf(error) });
    if (this.#acknowledges(needReply) && !answersContent(name)) await this.#answer(name, request, 'u64', REFUSED);
    else if (fatal) throw error;
  }

  async #answer<Kind extends PayloadKind>(
    name: string,
    request: number,
    kind: Kind,
    payload: Payloads[Kind],
  ): Promise<void> {
    const bytes = emitReply(request, kind, payload);
    await this.#channel.send(bytes);
    const length = bytes.length - VHOST_USER_HDR_SIZE;
    traceMessage(this.#trace, { direction: 'out', name: `${name} reply`, bytes: length, payload, fds: 0 });
  }
}

/** Its answer is no mere acknowledgement, and has no value that says no. */
function answersContent(name: string): boolean {
  return name.startsWith('GET_');
}
