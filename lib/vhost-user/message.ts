/** Whole messages: a header, its payload, and how many descriptors came with it, checked against each other. */
import { ProtocolError } from '../errors';
import { emitHeader, type Header } from './header';
import {
  type Bounds,
  boundsText,
  emitPayload,
  type PayloadKind,
  type Payloads,
  parsePayload,
  payloadBounds,
} from './payload';
import { type DescriptorRule, type PayloadOf, REQUESTS, type RequestName, requestName, requestShape } from './requests';

/** Longest payload of a request that is not known: it is read and left. */
const UNKNOWN_MOST = 4096;

/** One a name: what a front end asks. */
export type Request = {
  readonly [Name in RequestName]: {
    readonly name: Name;
    readonly payload: PayloadOf<Name>;
    readonly needReply: boolean;
  };
}[RequestName];

/** Throws VHOST_ERR_PROTOCOL for a payload that the request cannot have: before it is read, and before there is room for it. */
export function checkRequestSize({ request, reply, size }: Header): void {
  const name = requestName(request);
  if (reply) throw new ProtocolError(`an answer to ${name ?? request}`, 4, 'requests from a front end');
  const bounds = name === null ? { least: 0, most: UNKNOWN_MOST } : payloadBounds(REQUESTS[name].payload);
  if (size < bounds.least || size > bounds.most) {
    throw new ProtocolError(`${name ?? `request ${request}`} with ${size} bytes`, 8, boundsText(bounds));
  }
}

/** The request, or null for one that is not known. `fds`: descriptors that came along. Throws VHOST_ERR_PROTOCOL. */
export function parseRequest(header: Header, bytes: Uint8Array, fds: number): Request | null {
  const name = requestName(header.request);
  if (name === null) return null;
  const { payload: kind, fds: rule } = requestShape(name);
  const payload = parsePayload(kind, bytes);
  const bounds = descriptorBounds(rule, payload);
  if (fds < bounds.least || fds > bounds.most) {
    throw new ProtocolError(`${name} with ${fds} descriptors`, 0, boundsText(bounds));
  }
  return { name, payload, needReply: header.needReply } as Request;
}

function descriptorBounds(rule: DescriptorRule, payload: Payloads[PayloadKind]): Bounds {
  const exactly = (count: number): Bounds => ({ least: count, most: count });
  switch (rule) {
    case 'none':
      return exactly(0);
    case 'one':
      return exactly(1);
    case 'maybe':
      return { least: 0, most: 1 };
    case 'regions':
      return exactly((payload as Payloads['memory']).length);
    case 'vring':
      return exactly((payload as Payloads['vringFd']).noFd ? 0 : 1);
  }
}

/** The bytes of a request, header included. */
export function emitRequest<Name extends RequestName>(
  name: Name,
  payload: PayloadOf<Name>,
  { needReply = false }: { needReply?: boolean } = {},
): Uint8Array {
  const { request, payload: kind } = requestShape(name);
  return join({ request, reply: false, needReply }, emitPayload(kind, payload));
}

/** The bytes of an answer, header included. An acknowledgement is a u64: 0 done, anything else refused. */
export function emitReply<Kind extends PayloadKind>(request: number, kind: Kind, payload: Payloads[Kind]): Uint8Array {
  return join({ request, reply: true, needReply: false }, emitPayload(kind, payload));
}

function join(header: Omit<Header, 'size'>, payload: Uint8Array): Uint8Array {
  return Buffer.concat([emitHeader({ ...header, size: payload.length }), payload]);
}
