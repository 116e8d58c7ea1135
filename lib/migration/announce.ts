/**
 * Tells the network that an address has moved: a reverse-ARP request as a broadcast from it (RFC 903), which makes every switch on the way
 * learn the port, and needs nothing from the guest. It may carry a nonce, by which it is known where it comes out again.
 */
import { randomBytes } from 'node:crypto';
import { ETH_P_8021Q, ETH_P_RARP, ETH_ZLEN, VLAN_HLEN } from '../constants/if-ether';
import type { Tap } from '../host/tap';
import { ETHER_PAYLOAD, ETHER_SOURCE, etherType, parseMac } from '../net/ethernet';

export const NONCE_SIZE = 16;
/** Behind the ARP packet of 28 bytes, in what pads the frame to its shortest length. */
const NONCE_AT = ETHER_PAYLOAD + 28;

export function newNonce(): Uint8Array {
  return randomBytes(NONCE_SIZE);
}

/** The frame itself, without a virtio-net header. `mac` has colons; `vlan` 0 to 4095. */
export function rarpFrame(mac: string, vlan: number | null = null, nonce: Uint8Array | null = null): Uint8Array {
  const address = parseMac(mac);
  const frame = new Uint8Array(ETH_ZLEN);
  const view = new DataView(frame.buffer);
  frame.fill(0xff, 0, 6);
  frame.set(address, ETHER_SOURCE);
  view.setUint16(12, ETH_P_RARP);
  view.setUint16(14, 1); // hardware type Ethernet
  view.setUint16(16, 0x0800); // protocol type IPv4
  view.setUint8(18, 6);
  view.setUint8(19, 4);
  view.setUint16(20, 3); // request reverse
  frame.set(address, 22);
  frame.set(address, 32);
  if (nonce !== null) frame.set(nonce, NONCE_AT);
  return vlan === null ? frame : tagged(frame, vlan);
}

function tagged(frame: Uint8Array, vlan: number): Uint8Array {
  const result = new Uint8Array(frame.length + VLAN_HLEN);
  result.set(frame.subarray(0, 12));
  result.set([ETH_P_8021Q >> 8, ETH_P_8021Q & 0xff, vlan >> 8, vlan & 0xff], 12);
  result.set(frame.subarray(12), 12 + VLAN_HLEN);
  return result;
}

/** Whether an untagged frame is the announcement with this nonce. `at` is where its destination address begins. */
export function carriesNonce(bytes: Uint8Array, at: number, end: number, nonce: Uint8Array): boolean {
  if (end - at < NONCE_AT + NONCE_SIZE || etherType(bytes, at) !== ETH_P_RARP) return false;
  for (let index = 0; index < NONCE_SIZE; index++) {
    if (bytes[at + NONCE_AT + index] !== nonce[index]) return false;
  }
  return true;
}

export interface Announcements {
  /** With colons; the first is the device's own. */
  macs: readonly string[];
  vlans: readonly number[];
  /** Goes with the last frame, which is untagged and from the first address. */
  nonce?: Uint8Array | null;
}

/** Sends them into the network through the tap, as if the guest had: writing beside an attached vhost is allowed, reading is not. */
export function announce(tap: Tap, { macs, vlans, nonce = null }: Announcements): void {
  for (const vlan of vlans) for (const mac of macs) send(tap, rarpFrame(mac, vlan));
  for (const mac of macs.slice(1)) send(tap, rarpFrame(mac));
  send(tap, rarpFrame(macs[0]!, null, nonce));
}

function send(tap: Tap, frame: Uint8Array): void {
  const header = tap.vnetHdrSize;
  const bytes = new Uint8Array(header + frame.length);
  bytes.set(frame, header);
  tap.writeFrames(bytes, bytes.length, 1, Int32Array.of(bytes.length));
}
