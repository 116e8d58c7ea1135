/** What a front end may ask (vhost-user specification, "Front-end message types"): payload, descriptors and answer of each request. */
import * as user from '../constants/vhost-user';
import type { PayloadKind, Payloads } from './payload';

/**
 * How many descriptors come along: `vring` one unless the payload says none, `regions` one a region, `maybe` one or none (what old front
 * ends send with a region that goes).
 */
export type DescriptorRule = 'none' | 'one' | 'vring' | 'regions' | 'maybe';

export interface RequestShape {
  readonly request: number;
  readonly payload: PayloadKind;
  readonly fds: DescriptorRule;
  /** Of its own; without one it is acknowledged only where REPLY_ACK and the header's flag ask for it. */
  readonly reply?: PayloadKind;
}

export const REQUESTS = {
  GET_FEATURES: { request: user.VHOST_USER_GET_FEATURES, payload: 'empty', fds: 'none', reply: 'u64' },
  SET_FEATURES: { request: user.VHOST_USER_SET_FEATURES, payload: 'u64', fds: 'none' },
  SET_OWNER: { request: user.VHOST_USER_SET_OWNER, payload: 'empty', fds: 'none' },
  RESET_OWNER: { request: user.VHOST_USER_RESET_OWNER, payload: 'empty', fds: 'none' },
  SET_MEM_TABLE: { request: user.VHOST_USER_SET_MEM_TABLE, payload: 'memory', fds: 'regions' },
  // Answered by itself only with LOG_SHMFD, without which nobody serves it.
  SET_LOG_BASE: { request: user.VHOST_USER_SET_LOG_BASE, payload: 'log', fds: 'one', reply: 'u64' },
  SET_LOG_FD: { request: user.VHOST_USER_SET_LOG_FD, payload: 'empty', fds: 'one' },
  SET_VRING_NUM: { request: user.VHOST_USER_SET_VRING_NUM, payload: 'vringState', fds: 'none' },
  SET_VRING_ADDR: { request: user.VHOST_USER_SET_VRING_ADDR, payload: 'vringAddr', fds: 'none' },
  SET_VRING_BASE: { request: user.VHOST_USER_SET_VRING_BASE, payload: 'vringState', fds: 'none' },
  GET_VRING_BASE: { request: user.VHOST_USER_GET_VRING_BASE, payload: 'vringState', fds: 'none', reply: 'vringState' },
  SET_VRING_KICK: { request: user.VHOST_USER_SET_VRING_KICK, payload: 'vringFd', fds: 'vring' },
  SET_VRING_CALL: { request: user.VHOST_USER_SET_VRING_CALL, payload: 'vringFd', fds: 'vring' },
  SET_VRING_ERR: { request: user.VHOST_USER_SET_VRING_ERR, payload: 'vringFd', fds: 'vring' },
  GET_PROTOCOL_FEATURES: {
    request: user.VHOST_USER_GET_PROTOCOL_FEATURES,
    payload: 'empty',
    fds: 'none',
    reply: 'u64',
  },
  SET_PROTOCOL_FEATURES: { request: user.VHOST_USER_SET_PROTOCOL_FEATURES, payload: 'u64', fds: 'none' },
  GET_QUEUE_NUM: { request: user.VHOST_USER_GET_QUEUE_NUM, payload: 'empty', fds: 'none', reply: 'u64' },
  SET_VRING_ENABLE: { request: user.VHOST_USER_SET_VRING_ENABLE, payload: 'vringState', fds: 'none' },
  SEND_RARP: { request: user.VHOST_USER_SEND_RARP, payload: 'u64', fds: 'none' },
  NET_SET_MTU: { request: user.VHOST_USER_NET_SET_MTU, payload: 'u64', fds: 'none' },
  SET_BACKEND_REQ_FD: { request: user.VHOST_USER_SET_BACKEND_REQ_FD, payload: 'empty', fds: 'one' },
  IOTLB_MSG: { request: user.VHOST_USER_IOTLB_MSG, payload: 'iotlb', fds: 'none' },
  SET_VRING_ENDIAN: { request: user.VHOST_USER_SET_VRING_ENDIAN, payload: 'vringState', fds: 'none' },
  GET_CONFIG: { request: user.VHOST_USER_GET_CONFIG, payload: 'config', fds: 'none', reply: 'config' },
  SET_CONFIG: { request: user.VHOST_USER_SET_CONFIG, payload: 'config', fds: 'none' },
  POSTCOPY_ADVISE: { request: user.VHOST_USER_POSTCOPY_ADVISE, payload: 'empty', fds: 'none', reply: 'empty' },
  POSTCOPY_LISTEN: { request: user.VHOST_USER_POSTCOPY_LISTEN, payload: 'empty', fds: 'none' },
  POSTCOPY_END: { request: user.VHOST_USER_POSTCOPY_END, payload: 'empty', fds: 'none', reply: 'u64' },
  GET_INFLIGHT_FD: { request: user.VHOST_USER_GET_INFLIGHT_FD, payload: 'inflight', fds: 'none', reply: 'inflight' },
  SET_INFLIGHT_FD: { request: user.VHOST_USER_SET_INFLIGHT_FD, payload: 'inflight', fds: 'one' },
  RESET_DEVICE: { request: user.VHOST_USER_RESET_DEVICE, payload: 'empty', fds: 'none' },
  VRING_KICK: { request: user.VHOST_USER_VRING_KICK, payload: 'vringState', fds: 'none' },
  GET_MAX_MEM_SLOTS: { request: user.VHOST_USER_GET_MAX_MEM_SLOTS, payload: 'empty', fds: 'none', reply: 'u64' },
  ADD_MEM_REG: { request: user.VHOST_USER_ADD_MEM_REG, payload: 'memReg', fds: 'one' },
  REM_MEM_REG: { request: user.VHOST_USER_REM_MEM_REG, payload: 'memReg', fds: 'maybe' },
  SET_STATUS: { request: user.VHOST_USER_SET_STATUS, payload: 'u64', fds: 'none' },
  GET_STATUS: { request: user.VHOST_USER_GET_STATUS, payload: 'empty', fds: 'none', reply: 'u64' },
  SET_DEVICE_STATE_FD: {
    request: user.VHOST_USER_SET_DEVICE_STATE_FD,
    payload: 'deviceState',
    fds: 'one',
    reply: 'u64',
  },
  CHECK_DEVICE_STATE: { request: user.VHOST_USER_CHECK_DEVICE_STATE, payload: 'empty', fds: 'none', reply: 'u64' },
} as const satisfies Readonly<Record<string, RequestShape>>;

export type RequestName = keyof typeof REQUESTS;
export type PayloadOf<Name extends RequestName> = Payloads[(typeof REQUESTS)[Name]['payload']];
export type ReplyOf<Name extends RequestName> = (typeof REQUESTS)[Name] extends {
  reply: infer Kind extends PayloadKind;
}
  ? Payloads[Kind]
  : unknown;

const NAMES = new Map<number, RequestName>(
  (Object.keys(REQUESTS) as RequestName[]).map((name) => [REQUESTS[name].request, name]),
);

/** Null for one that this library does not know. */
export function requestName(request: number): RequestName | null {
  return NAMES.get(request) ?? null;
}

export function requestShape(name: RequestName): RequestShape {
  return REQUESTS[name];
}
