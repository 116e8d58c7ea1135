/** One front end from connect to disconnect: what it asks, done, and what is answered. */
import type { Backend, RingFault } from '../backend/backend';
import { ETH_ALEN } from '../constants/if-ether';
import * as user from '../constants/vhost-user';
import { closeAll } from '../descriptors';
import { MIN_MTU } from '../device/device-properties';
import { reasonOf, VhostError } from '../errors';
import type { Tap } from '../host/tap';
import { announce } from '../migration/announce';
import type { FdHandle } from '../native';
import { formatMac } from '../net/ethernet';
import { featureNames, hasBit } from '../net/features';
import { emit, type Trace } from '../trace/trace';
import type { Request } from '../vhost-user/message';
import type { PayloadOf, ReplyOf, RequestName } from '../vhost-user/requests';
import { DataPath } from './data-path';
import type { Offer } from './offer';
import { SessionMemory } from './session-memory';
import { SessionRings } from './session-rings';
import { HOST_FEATURES, logInUse, newSessionState, type SessionState } from './session-state';

export interface SessionParts {
  /** Serves this session alone, until it is closed. */
  backend: Backend;
  taps: readonly Tap[];
  offer: Offer;
  trace?: Trace | undefined;
  /** Before the first ring is served: whoever had the taps until then lets them go. */
  onFirstRing?: (() => void) | undefined;
}

/** By name: what is done for a request. A handler takes the descriptors that it keeps out of the list. */
type Handlers = {
  readonly [Name in RequestName]?: (
    payload: PayloadOf<Name>,
    fds: FdHandle[],
  ) => Promise<ReplyOf<Name>> | ReplyOf<Name>;
};

/** Of the device status field: a byte. */
const MOST_STATUS = 0xff;

export class Session {
  readonly state: SessionState;
  readonly #parts: SessionParts;
  readonly #path: DataPath;
  readonly #rings: SessionRings;
  readonly #memory: SessionMemory;

  constructor(parts: SessionParts) {
    const { backend, offer } = parts;
    this.#parts = parts;
    this.state = newSessionState(2 * offer.queuePairs);
    this.#path = new DataPath(backend, 2 * offer.queuePairs, parts.onFirstRing);
    this.#rings = new SessionRings(this.state, this.#path);
    this.#memory = new SessionMemory(this.state, this.#path, this.#rings, offer.memorySlots);
    backend.on('ringError', this.#onRingError);
  }

  readonly #onRingError = ({ queue }: RingFault): void => this.#rings.signalError(queue);

  /** Queues that run. */
  get served(): readonly number[] {
    return this.#path.served;
  }

  hasProtocolFeature(number: number): boolean {
    return hasBit(this.state.protocolFeatures, number);
  }

  /** Whether this session does anything for a request; others were never negotiated. */
  serves(name: RequestName): boolean {
    return this.#handlers[name] !== undefined;
  }

  /**
   * Does what a request asks. Answers the payload of its answer, undefined where it has none of its own. Descriptors are taken or closed
   * whatever happens. Throws what the request is refused for, with everything as before.
   */
  async handle<Name extends RequestName>(
    { name, payload }: Request & { name: Name },
    fds: FdHandle[],
  ): Promise<ReplyOf<Name>> {
    try {
      const handler = this.#handlers[name];
      if (handler === undefined) throw new VhostError('VHOST_ERR_UNSUPPORTED', `${name} was not negotiated`);
      return await handler(payload as PayloadOf<Name>, fds);
    } finally {
      closeAll(fds);
    }
  }

  readonly #handlers: Handlers = {
    GET_FEATURES: () => this.#parts.offer.features,
    SET_FEATURES: (features) => this.#setFeatures(features),
    GET_PROTOCOL_FEATURES: () => this.#parts.offer.protocolFeatures,
    SET_PROTOCOL_FEATURES: (features) => this.#setProtocolFeatures(features),
    GET_QUEUE_NUM: () => BigInt(this.#parts.offer.queuePairs),
    GET_MAX_MEM_SLOTS: () => BigInt(this.#parts.offer.memorySlots),
    // The backend owns its descriptors from the start, whoever connects: nothing is left to do.
    SET_OWNER: () => undefined,
    RESET_OWNER: () => this.#rings.reset(),
    RESET_DEVICE: () => this.#rings.reset(),
    SET_STATUS: (status) => this.#setStatus(status),
    GET_STATUS: () => BigInt(this.state.status),

    SET_MEM_TABLE: (regions, fds) => this.#memory.setTable(regions, fds.splice(0)),
    ADD_MEM_REG: (region, fds) => this.#memory.addRegion(region, fds.shift()!),
    REM_MEM_REG: (region) => this.#memory.removeRegion(region),
    SET_LOG_BASE: (base, fds) => this.#setLogBase(base, fds[0]!),

    SET_VRING_NUM: ({ index, num }) => this.#rings.setNum(index, num),
    SET_VRING_ADDR: (addresses) => this.#rings.setAddresses(addresses),
    SET_VRING_BASE: ({ index, num }) => this.#rings.setBase(index, num),
    // What a front end writes beside the index is left over from something else.
    GET_VRING_BASE: async ({ index }) => ({ index, num: await this.#rings.stop(index) }),
    SET_VRING_KICK: ({ index }, fds) => this.#rings.setKick(index, fds.shift() ?? null),
    SET_VRING_CALL: ({ index }, fds) => this.#rings.setCall(index, fds.shift() ?? null),
    SET_VRING_ERR: ({ index }, fds) => this.#rings.setErr(index, fds.shift() ?? null),
    SET_VRING_ENABLE: ({ index, num }) => this.#rings.enable(index, num),

    SEND_RARP: (mac) => this.#sendRarp(mac),
    NET_SET_MTU: (mtu) => this.#setMtu(mtu),
  };

  async #setFeatures(features: bigint): Promise<void> {
    const unknown = features & ~this.#parts.offer.features;
    if (unknown !== 0n) {
      throw new VhostError('VHOST_ERR_FEATURES', `${featureNames(unknown).join(', ')} acked, which was not offered`);
    }
    const { state } = this;
    const before = state.features;
    const logged = logInUse(state) !== null;
    this.#parts.backend.requireFeatures(features & ~HOST_FEATURES);
    // A driver's features change what every frame looks like: rings stand still meanwhile.
    if (((before ^ features) & ~HOST_FEATURES) !== 0n) await this.#rings.pauseAll();
    state.features = features;
    try {
      await this.#memory.applyLog();
    } catch (error) {
      state.features = before;
      await this.#rings.followAll();
      throw error;
    }
    if (logged && logInUse(state) === null) this.#memory.dropLog();
    await this.#rings.followAll();
  }

  #setProtocolFeatures(features: bigint): void {
    const unknown = features & ~this.#parts.offer.protocolFeatures;
    if (unknown !== 0n) {
      throw new VhostError('VHOST_ERR_FEATURES', `protocol features 0x${unknown.toString(16)} were not offered`);
    }
    this.state.protocolFeatures = features;
  }

  /** Kept and given back. 0, a reset, comes before GET_VRING_BASE and must leave the rings' indexes alone. */
  #setStatus(status: bigint): void {
    if (status > BigInt(MOST_STATUS))
      throw new VhostError('VHOST_ERR_STATE', `device status ${status}`, { hint: 'a byte' });
    this.state.status = Number(status);
  }

  async #setLogBase(base: PayloadOf<'SET_LOG_BASE'>, fd: FdHandle): Promise<bigint> {
    this.#require(user.VHOST_USER_PROTOCOL_F_LOG_SHMFD, 'LOG_SHMFD');
    await this.#memory.setLog(base, fd);
    return 0n;
  }

  /** As if the guest had sent it. A network that takes none now is no reason to end the session: four more follow. */
  #sendRarp(mac: bigint): void {
    this.#require(user.VHOST_USER_PROTOCOL_F_RARP, 'RARP');
    const bytes = Uint8Array.from({ length: ETH_ALEN }, (_, at) => Number((mac >> BigInt(8 * at)) & 0xffn));
    try {
      announce(this.#parts.taps[0]!, { macs: [formatMac(bytes)], vlans: [] });
    } catch (error) {
      emit(this.#parts.trace, { kind: 'fault', object: 'vhost-user SEND_RARP', message: reasonOf(error) });
    }
  }

  async #setMtu(mtu: bigint): Promise<void> {
    this.#require(user.VHOST_USER_PROTOCOL_F_MTU, 'MTU');
    const most = await this.#parts.taps[0]!.mtu();
    if (mtu < BigInt(MIN_MTU) || mtu > BigInt(most)) {
      throw new VhostError('VHOST_ERR_FEATURES', `MTU ${mtu}`, { hint: `${MIN_MTU} to the tap's ${most}` });
    }
  }

  #require(number: number, name: string): void {
    if (!this.hasProtocolFeature(number)) throw new VhostError('VHOST_ERR_UNSUPPORTED', `${name} was not negotiated`);
  }

  /** The front end is gone: rings stop where they are, and nothing of it stays. */
  async close(): Promise<void> {
    const { backend } = this.#parts;
    backend.off('ringError', this.#onRingError);
    try {
      await this.#rings.reset();
      await backend.setDirtyLog(null);
    } finally {
      this.#path.close();
      this.#memory.close();
    }
  }
}
