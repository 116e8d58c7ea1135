/** Ethernet II frames in place (IEEE 802.3 clause 3): addresses and EtherType at an offset of a byte array. */
import { ETH_ALEN } from '../constants/if-ether';
import { invalidArgument } from '../errors';

/** Offsets in a frame. */
export const ETHER_DESTINATION = 0;
export const ETHER_SOURCE = 6;
export const ETHER_TYPE = 12;
export const ETHER_PAYLOAD = 14;

const MAC = /^([0-9a-f]{2}:){5}[0-9a-f]{2}$/i;

/** Six bytes of "02:00:00:00:00:01". Throws VHOST_ERR_INVALID_ARGUMENT. */
export function parseMac(text: string): Uint8Array {
  if (!MAC.test(text))
    throw invalidArgument(`MAC address ${JSON.stringify(text)}`, 'six hexadecimal bytes with colons');
  return Uint8Array.from(text.split(':'), (byte) => Number.parseInt(byte, 16));
}

/** Lower case, with colons. */
export function formatMac(bytes: Uint8Array, offset = 0): string {
  return Array.from({ length: ETH_ALEN }, (_, index) => bytes[offset + index]!.toString(16).padStart(2, '0')).join(':');
}

/** Big-endian, as on the wire. */
export function etherType(bytes: Uint8Array, offset: number): number {
  return (bytes[offset + ETHER_TYPE]! << 8) | bytes[offset + ETHER_TYPE + 1]!;
}

/** Writes the header of a frame; addresses are taken from any place of `addresses`. */
export function writeEthernet(
  bytes: Uint8Array,
  offset: number,
  addresses: Uint8Array,
  destinationAt: number,
  sourceAt: number,
  type: number,
): void {
  for (let index = 0; index < ETH_ALEN; index++) {
    bytes[offset + ETHER_DESTINATION + index] = addresses[destinationAt + index]!;
    bytes[offset + ETHER_SOURCE + index] = addresses[sourceAt + index]!;
  }
  bytes[offset + ETHER_TYPE] = type >>> 8;
  bytes[offset + ETHER_TYPE + 1] = type;
}

/** Sends a frame back where it came from. */
export function swapAddresses(bytes: Uint8Array, offset: number): void {
  for (let at = offset; at < offset + ETH_ALEN; at++) {
    const byte = bytes[at + ETHER_DESTINATION]!;
    bytes[at + ETHER_DESTINATION] = bytes[at + ETHER_SOURCE]!;
    bytes[at + ETHER_SOURCE] = byte;
  }
}
