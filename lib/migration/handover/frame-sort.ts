/**
 * Which frames concern a hand-over how. A frame to one of the guest's own unicast addresses reaches the one tap on which the network last saw
 * that address; every other one (broadcast, multicast, flooded) reaches both taps; and those that the guest itself has sent come back to the
 * tap that it no longer, or not yet, sends through.
 */
import { createHash } from 'node:crypto';
import { ETH_ALEN, ETH_HLEN, ETH_P_8021Q } from '../../constants/if-ether';
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
 * queues a tap spreads a source's frames by flow, so addresses and ports count too.
 */
export function streamKey(bytes: Uint8Array, at: number, end: number, queues: number): bigint {
  const source = BigInt(addressNumber(bytes, at + ETHER_SOURCE));
  const key = (source << 16n) | BigInt(vlanOf(bytes, at, end) ?? NO_VLAN);
  if (queues === 1) return key;
  const tagged = vlanOf(bytes, at, end) !== null ? 4 : 0;
  // Addresses, EtherType, then what holds protocol, addresses and ports of IPv4 without options and of IPv6.
  return BigInt.asUintN(64, digest(bytes, at, Math.min(end, at + ETH_HLEN + tagged + 44)) ^ key);
}

/** What a frame is told apart by: 64 bits of the SHA-256 of everything from its destination address on. */
export function digest(bytes: Uint8Array, at: number, end: number): bigint {
  return createHash('sha256').update(bytes.subarray(at, end)).digest().readBigUInt64LE(0);
}
