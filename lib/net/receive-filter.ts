/**
 * Which frames a driver wants (virtio 1.4 section 5.1.6.5.1 to 5.1.6.5.3), as plain data: what its control commands add up to, and what
 * a data path turns into a filter. Addresses are lower case with colons. `acceptsFrame` says what it means.
 */
import { ETH_ALEN, ETH_HLEN, ETH_P_8021Q } from '../constants/if-ether';
import { ETHER_PAYLOAD, etherType, formatMac, parseMac } from './ethernet';

/** VLAN identifiers of a 12-bit tag field. */
export const VLANS = 4096;
/** One bit a VLAN identifier: bit (vid & 7) of byte (vid >> 3). */
export const VLAN_TABLE_BYTES = VLANS / 8;
/** Addresses of both kinds that a table holds; a larger one lets everything of its kind through. */
export const MAC_TABLE_ENTRIES = 64;
export const BROADCAST = 'ff:ff:ff:ff:ff:ff';

export interface ReceiveFilter {
  /** Everything, whatever the rest says. */
  promiscuous: boolean;
  allMulticast: boolean;
  allUnicast: boolean;
  /** Stronger than `allMulticast`. Broadcast is not meant. */
  noMulticast: boolean;
  /** Stronger than `allUnicast`. */
  noUnicast: boolean;
  noBroadcast: boolean;
  /** The device's own address. */
  mac: string;
  /** The MAC table. */
  unicast: readonly string[];
  multicast: readonly string[];
  /** The driver named more than the table holds: all of the kind are let through. */
  unicastOverflow: boolean;
  multicastOverflow: boolean;
  /** VLAN_TABLE_BYTES of tagged frames to let through; null where VLANs are not filtered. Untagged frames always pass it. */
  vlans: Readonly<Uint8Array> | null;
}

/** What a device begins with, and a reset goes back to: everything passes until the driver says what it wants. */
export function initialReceiveFilter(mac: string, vlanFiltering: boolean): ReceiveFilter {
  return {
    promiscuous: true,
    allMulticast: false,
    allUnicast: false,
    noMulticast: false,
    noUnicast: false,
    noBroadcast: false,
    mac: formatMac(parseMac(mac)),
    unicast: [],
    multicast: [],
    unicastOverflow: false,
    multicastOverflow: false,
    vlans: vlanFiltering ? new Uint8Array(VLAN_TABLE_BYTES) : null,
  };
}

/** Whether every frame passes, whatever is in it. */
export function filtersNothing(filter: ReceiveFilter): boolean {
  if (filter.promiscuous) return true;
  const { noUnicast, noMulticast, noBroadcast, vlans } = filter;
  if (noUnicast || noMulticast || noBroadcast || !anyUnicast(filter) || !anyMulticast(filter)) return false;
  return vlans === null || vlans.every(isFull);
}

const isFull = (byte: number): boolean => byte === 0xff;
/** Unless the stronger `noUnicast`, or `noMulticast`, is set too. */
export const anyUnicast = (filter: ReceiveFilter): boolean => filter.allUnicast || filter.unicastOverflow;
export const anyMulticast = (filter: ReceiveFilter): boolean => filter.allMulticast || filter.multicastOverflow;

/**
 * Whether the driver wants the frame: what `receiveFilterProgram` does in the kernel. A frame too short for its Ethernet header, or for
 * the tag it says it has, passes only where nothing is filtered.
 * @param frame without a virtio-net header.
 * @param tag the tag control information of a tag that the kernel has taken out of the frame, or null. What follows such a tag is
 *   payload: a second tag is not looked at.
 * @param tpid EtherType of that tag. Others than 0x8100 are not filtered.
 */
export function acceptsFrame(
  filter: ReceiveFilter,
  frame: Uint8Array,
  tag: number | null,
  tpid: number = ETH_P_8021Q,
): boolean {
  if (filtersNothing(filter)) return true;
  if (frame.length < ETH_HLEN) return false;
  if (filter.vlans !== null && !acceptsVlan(filter.vlans, frame, tag, tpid)) return false;
  return acceptsDestination(filter, frame);
}

function acceptsVlan(vlans: Readonly<Uint8Array>, frame: Uint8Array, tag: number | null, tpid: number): boolean {
  if ((tag === null ? etherType(frame, 0) : tpid) !== ETH_P_8021Q) return true;
  if (tag === null && frame.length < ETHER_PAYLOAD + 2) return false;
  const vid = (tag ?? (frame[ETHER_PAYLOAD]! << 8) | frame[ETHER_PAYLOAD + 1]!) & (VLANS - 1);
  return ((vlans[vid >> 3]! >> (vid & 7)) & 1) !== 0;
}

function acceptsDestination(filter: ReceiveFilter, frame: Uint8Array): boolean {
  if ((frame[0]! & 1) === 0) {
    if (filter.noUnicast) return false;
    return anyUnicast(filter) || isDestination(frame, filter.mac) || isListed(frame, filter.unicast);
  }
  if (isDestination(frame, BROADCAST)) return !filter.noBroadcast;
  if (filter.noMulticast) return false;
  return anyMulticast(filter) || isListed(frame, filter.multicast);
}

function isListed(frame: Uint8Array, addresses: readonly string[]): boolean {
  for (const address of addresses) if (isDestination(frame, address)) return true;
  return false;
}

/** Compares with the text itself: this runs for every frame and must make no object. */
function isDestination(frame: Uint8Array, address: string): boolean {
  for (let index = 0; index < ETH_ALEN; index++) {
    if (frame[index] !== ((digit(address, 3 * index) << 4) | digit(address, 3 * index + 1))) return false;
  }
  return true;
}

/** Of a hexadecimal digit, upper case too. */
function digit(text: string, at: number): number {
  const character = text.charCodeAt(at) | 0x20;
  return character < 0x3a ? character - 0x30 : character - 0x57;
}

/** VLAN identifiers of a table, ascending. */
export function vlanList(table: Readonly<Uint8Array>): number[] {
  const list: number[] = [];
  for (let vid = 0; vid < VLANS; vid++) if (((table[vid >> 3]! >> (vid & 7)) & 1) !== 0) list.push(vid);
  return list;
}
