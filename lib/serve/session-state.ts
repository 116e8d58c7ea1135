/** What one front end has said since it connected, as plain data. */
import { VHOST_F_LOG_ALL } from '../constants/vhost';
import { VHOST_USER_F_PROTOCOL_FEATURES } from '../constants/vhost-user';
import type { DirtyLog } from '../memory/dirty-log';
import { bits, hasBit } from '../net/features';
import type { FrontEndMemory } from './front-end-memory';
import { newVring, type Vring } from './vring';

export interface SessionState {
  /** As acked by SET_FEATURES: bits of host and protocol included. */
  features: bigint;
  protocolFeatures: bigint;
  /** SET_STATUS; it is kept and given back. */
  status: number;
  memory: FrontEndMemory | null;
  /** Where the front end wants to find dirty pages; used while LOG_ALL is acked. */
  log: DirtyLog | null;
  /** Receive 2n, transmit 2n + 1. */
  readonly vrings: readonly Vring[];
}

export function newSessionState(queues: number): SessionState {
  return {
    features: 0n,
    protocolFeatures: 0n,
    status: 0,
    memory: null,
    log: null,
    vrings: Array.from({ length: queues }, newVring),
  };
}

/** Bits that front end and back end have between them and no driver acks. */
export const HOST_FEATURES = bits(VHOST_F_LOG_ALL, VHOST_USER_F_PROTOCOL_FEATURES);

/** What the driver acked. */
export function driverFeatures({ features }: SessionState): bigint {
  return features & ~HOST_FEATURES;
}

/** The log that is written to, or null. */
export function logInUse({ features, log }: SessionState): DirtyLog | null {
  return hasBit(features, VHOST_F_LOG_ALL) ? log : null;
}

/** Without protocol features there is no SET_VRING_ENABLE, and rings begin enabled (specification, "Ring states"). */
export function isEnabled({ features }: SessionState, vring: Vring): boolean {
  return vring.enabled || !hasBit(features, VHOST_USER_F_PROTOCOL_FEATURES);
}
