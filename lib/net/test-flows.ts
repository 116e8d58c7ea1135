/** Between whom the UDP frames of a guest and of a station go: the same for every rig, so that either side can name a flow by its ports. */
import { invalidArgument } from '../errors';
import { parseIpv4, type UdpEnds } from './ipv4';
import { type FrameShape, RAW } from './test-frame';

/** How frames look: `raw` have one hash, `udp` one for each flow. */
export type FrameKind = 'raw' | 'udp';

export const GUEST_IPV4 = parseIpv4('10.0.0.2');
export const STATION_IPV4 = parseIpv4('10.0.0.1');
/** Ports of the first flow. */
export const GUEST_PORT = 10_000;
export const STATION_PORT = 20_000;

/** Throws VHOST_ERR_INVALID_ARGUMENT unless `count` flows from `first` on have numbers of 16 bits. */
export function requireFlows(first: number, count: number, name = 'flow'): void {
  if (!Number.isInteger(first) || first < 0 || first + count - 1 > 0xffff) {
    throw invalidArgument(`${count === 1 ? name : `${count} flows from ${name}`} ${first}`, '0 to 65535');
  }
}

/** What the guest's `index`th flow looks like, from 0 on. */
export function fromGuest(kind: FrameKind, index: number): FrameShape {
  return kind === 'raw' ? RAW : { udp: guestEnds(index) };
}

/**
 * What the station's `index`th flow looks like: the ends of the guest's, the other way round. The kernel's hash for a tap's queues is
 * symmetric, so it comes back on the queue on which the guest's flow was sent.
 */
export function fromStation(kind: FrameKind, index: number): FrameShape {
  if (kind === 'raw') return RAW;
  const { source, destination, sourcePort, destinationPort } = guestEnds(index);
  return {
    udp: { source: destination, destination: source, sourcePort: destinationPort, destinationPort: sourcePort },
  };
}

function guestEnds(index: number): UdpEnds {
  return {
    source: GUEST_IPV4,
    destination: STATION_IPV4,
    sourcePort: GUEST_PORT + index,
    destinationPort: STATION_PORT + index,
  };
}
