/**
 * Which frames concern a hand-over how. A frame to one of the guest's own unicast addresses reaches the one tap on which the network last saw
 * that address; every other one (broadcast, multicast, flooded) reaches both taps; and those that the guest itself has sent come back to the
 * tap that it no longer, or not yet, sends through.
 */
import { createHash } from 'node:crypto';
import { ETH_ALEN, ETH_HLEN, ETH_P_8021Q, ETH_P_IP, ETH_P_IPV6, VLAN_HLEN } from '../../constants/if-ether';
import { IPPROTO_TCP, IPPROTO_UDP, IPV4_HLEN, IPV6_HLEN } from '../../constants/ip';
import { ETHER_PAYLOAD, ETHER_SOURCE, etherType, formatMac, parseMac } from '../../net/ethernet';

export type FrameSort = 'unicast' | 'group' | 'own';

/** 802.1Q: the identifier within the tag. */
const VID_MASK = 0xfff;
const NO_VLAN = 0xffff;

/** Six bytes as one number, below 2^48. */
export function addressNumber(bytes: Uint8Array, at: number): number {
  return (
    ((bytes[at]! << 8) | bytes[at + 1]!) * 2 ** 32 +
    (bytes[at + 2]! * 2 ** 24 + ((bytes[at + 3]! << 16) | (bytes[at + 4]! << 8) | bytes[at + 5]!))
  );
}

/** VLAN identifier of a frame that carries a tag, or null. `at` is where its destination address begins. */
export function vlanOf(bytes: Uint8Array, at: number, end: number): number | null {
  if (end - at < ETH_HLEN + 2 || etherType(bytes, at) !== ETH_P_8021Q) return null;
  return ((bytes[at + ETHER_PAYLOAD]! << 8) | bytes[at + ETHER_PAYLOAD + 1]!) & VID_MASK;
}

/** The guest's addresses: those its device has, and those it has been seen to send from. */
export class GuestAddresses {
  readonly #numbers = new Set<number>();
  readonly #limit: number;

  constructor(macs: Iterable<string>, limit = 256) {
    this.#limit = limit;
    for (const mac of macs) this.add(parseMac(mac), 0);
  }

  /** One more, of the bytes at `at`; group addresses and what is beyond the limit are left out. */
  add(bytes: Uint8Array, at: number): void {
    if ((bytes[at]! & 1) !== 0 || this.#numbers.size >= this.#limit) return;
    this.#numbers.add(addressNumber(bytes, at));
  }

  has(bytes: Uint8Array, at: number): boolean {
    return this.#numbers.has(addressNumber(bytes, at));
  }

  /** With colons, in the order in which they became known. */
  get list(): string[] {
    return [...this.#numbers].map((number) => {
      const bytes = new Uint8Array(ETH_ALEN);
      for (let at = ETH_ALEN - 1, rest = number; at >= 0; at--, rest = Math.floor(rest / 256)) bytes[at] = rest % 256;
      return formatMac(bytes);
    });
  }

  /** `at` is where the frame's destination address begins. */
  sort(bytes: Uint8Array, at: number): FrameSort {
    if (this.has(bytes, at + ETHER_SOURCE)) return 'own';
    return (bytes[at]! & 1) === 0 && this.has(bytes, at) ? 'unicast' : 'group';
  }
}

/**
 * Within one stream frames keep their order at every tap: those of one source address and VLAN (IEEE 802.1Q clause 8.6.6). With several
 * queues a tap spreads a source's frames by flow, so a stream is what no tap spreads: addresses, protocol and ports.
 */
export function streamKey(bytes: Uint8Array, at: number, end: number, queues: number): bigint {
  const source = BigInt(addressNumber(bytes, at + ETHER_SOURCE));
  const vlan = vlanOf(bytes, at, end);
  const key = (source << 16n) | BigInt(vlan ?? NO_VLAN);
  if (queues === 1) return key;
  const payload = at + ETH_HLEN + (vlan === null ? 0 : VLAN_HLEN);
  const hash = createHash('sha256').update(bytes.subarray(at, Math.min(end, payload)));
  for (const [from, to] of flowFields(bytes, payload, end)) hash.update(bytes.subarray(from, to));
  return hash.digest().readBigUInt64LE(0);
}

/** Where in a packet the flow is said; nothing for what is neither IPv4 nor IPv6. Fragments have no ports. */
function flowFields(bytes: Uint8Array, ip: number, end: number): [number, number][] {
  const type = (bytes[ip - 2]! << 8) | bytes[ip - 1]!;
  if (type === ETH_P_IP && end - ip >= IPV4_HLEN) {
    const ports = ip + (bytes[ip]! & 0xf) * 4;
    const fragment = (((bytes[ip + 6]! << 8) | bytes[ip + 7]!) & 0x3fff) !== 0;
    const fields: [number, number][] = [
      [ip + 9, ip + 10],
      [ip + 12, ip + 20],
    ];
    return fragment || !hasPorts(bytes[ip + 9]!) || ports + 4 > end ? fields : [...fields, [ports, ports + 4]];
  }
  if (type === ETH_P_IPV6 && end - ip >= IPV6_HLEN) {
    const fields: [number, number][] = [
      [ip + 6, ip + 7],
      [ip + 8, ip + 40],
    ];
    const ports = ip + IPV6_HLEN;
    return !hasPorts(bytes[ip + 6]!) || ports + 4 > end ? fields : [...fields, [ports, ports + 4]];
  }
  return [];
}

function hasPorts(protocol: number): boolean {
  return protocol === IPPROTO_TCP || protocol === IPPROTO_UDP;
}

/** What a frame is told apart by: 64 bits of the SHA-256 of everything from its destination address on. */
export function digest(bytes: Uint8Array, at: number, end: number): bigint {
  return createHash('sha256').update(bytes.subarray(at, end)).digest().readBigUInt64LE(0);
}
