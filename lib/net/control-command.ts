/**
 * Commands of the control virtqueue (virtio 1.4 section 5.1.6.5) as bytes and as data, little-endian: class, command, then data whose form
 * the two decide. The data must have exactly the bytes of its form: with fewer there is no command, and what a driver means by more is not
 * known, so both are malformed, which is answered VIRTIO_NET_ERR like what is not served here.
 */
import { ETH_ALEN } from '../constants/if-ether';
import { VIRTIO_NET_F_GUEST_UDP_TUNNEL_GSO, VIRTIO_NET_F_GUEST_UDP_TUNNEL_GSO_CSUM } from '../constants/virtio-net';
import {
  VIRTIO_NET_CTRL_ANNOUNCE,
  VIRTIO_NET_CTRL_ANNOUNCE_ACK,
  VIRTIO_NET_CTRL_GUEST_OFFLOADS,
  VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET,
  VIRTIO_NET_CTRL_HDR_SIZE,
  VIRTIO_NET_CTRL_MAC,
  VIRTIO_NET_CTRL_MAC_ADDR_SET,
  VIRTIO_NET_CTRL_MAC_TABLE_SET,
  VIRTIO_NET_CTRL_MQ,
  VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET,
  VIRTIO_NET_CTRL_RX,
  VIRTIO_NET_CTRL_VLAN,
  VIRTIO_NET_CTRL_VLAN_ADD,
  VIRTIO_NET_CTRL_VLAN_DEL,
  VIRTIO_NET_F_GUEST_UDP_TUNNEL_GSO_CSUM_MAPPED,
  VIRTIO_NET_F_GUEST_UDP_TUNNEL_GSO_MAPPED,
} from '../constants/virtio-net-ctrl';
import { invalidArgument } from '../errors';
import { formatMac, parseMac } from './ethernet';
import { bit } from './features';
import { MAC_TABLE_ENTRIES, VLANS } from './receive-filter';

/** By command of class VIRTIO_NET_CTRL_RX. */
export const RX_MODES = ['promisc', 'allmulti', 'alluni', 'nomulti', 'nouni', 'nobcast'] as const;
export type RxMode = (typeof RX_MODES)[number];

export interface MacTableSet {
  readonly kind: 'mac-table-set';
  /** Lower case, with colons; empty when there were more than the table holds. */
  readonly unicast: readonly string[];
  readonly multicast: readonly string[];
  readonly unicastOverflow: boolean;
  readonly multicastOverflow: boolean;
}

/** What `vid`, `pairs` and `offloads` may be depends on the device: see ControlState. A parsed `vid` is below 4096. */
export type ControlCommand =
  | { readonly kind: 'rx-mode'; readonly mode: RxMode; readonly on: boolean }
  | MacTableSet
  | { readonly kind: 'mac-addr-set'; readonly mac: string }
  | { readonly kind: 'vlan-add' | 'vlan-del'; readonly vid: number }
  | { readonly kind: 'announce-ack' }
  | { readonly kind: 'mq-vq-pairs-set'; readonly pairs: number }
  /** A mask: bit n for feature n. */
  | { readonly kind: 'guest-offloads-set'; readonly offloads: bigint }
  /** Whatever is not served here, the specification's own included. Its data is not looked at. */
  | { readonly kind: 'unknown'; readonly class: number; readonly command: number };

/** A command that is served, with data that cannot be its. */
export interface MalformedCommand {
  readonly kind: 'malformed';
  readonly class: number;
  readonly command: number;
  readonly reason: string;
}

/** Never throws. Null when there are not even class and command. `bytes` must not change meanwhile: copy what a guest can write to. */
export function parseControlCommand(bytes: Uint8Array): ControlCommand | MalformedCommand | null {
  if (bytes.length < VIRTIO_NET_CTRL_HDR_SIZE) return null;
  const klass = bytes[0]!;
  const command = bytes[1]!;
  const data = bytes.subarray(VIRTIO_NET_CTRL_HDR_SIZE);
  const parsed = parseData(klass, command, data);
  if (parsed === null) return { kind: 'unknown', class: klass, command };
  return typeof parsed === 'string' ? { kind: 'malformed', class: klass, command, reason: parsed } : parsed;
}

/** A reason when the data is malformed, null when the command is not served. */
function parseData(klass: number, command: number, data: Uint8Array): ControlCommand | string | null {
  switch (klass) {
    case VIRTIO_NET_CTRL_RX: {
      const mode = RX_MODES[command];
      if (mode === undefined) return null;
      return wrongLength(data, 1) ?? { kind: 'rx-mode', mode, on: data[0] !== 0 };
    }
    case VIRTIO_NET_CTRL_MAC:
      if (command === VIRTIO_NET_CTRL_MAC_TABLE_SET) return parseMacTable(data);
      if (command !== VIRTIO_NET_CTRL_MAC_ADDR_SET) return null;
      return wrongLength(data, ETH_ALEN) ?? { kind: 'mac-addr-set', mac: formatMac(data) };
    case VIRTIO_NET_CTRL_VLAN: {
      if (command !== VIRTIO_NET_CTRL_VLAN_ADD && command !== VIRTIO_NET_CTRL_VLAN_DEL) return null;
      const wrong = wrongLength(data, 2);
      if (wrong !== null) return wrong;
      const vid = le16(data, 0);
      if (vid >= VLANS) return `VLAN ${vid}, 0 to ${VLANS - 1}`;
      return { kind: command === VIRTIO_NET_CTRL_VLAN_ADD ? 'vlan-add' : 'vlan-del', vid };
    }
    case VIRTIO_NET_CTRL_ANNOUNCE:
      if (command !== VIRTIO_NET_CTRL_ANNOUNCE_ACK) return null;
      return wrongLength(data, 0) ?? { kind: 'announce-ack' };
    case VIRTIO_NET_CTRL_MQ:
      if (command !== VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET) return null;
      return wrongLength(data, 2) ?? { kind: 'mq-vq-pairs-set', pairs: le16(data, 0) };
    case VIRTIO_NET_CTRL_GUEST_OFFLOADS:
      if (command !== VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET) return null;
      return wrongLength(data, 8) ?? { kind: 'guest-offloads-set', offloads: featuresOf(le64(data, 0)) };
    default:
      return null;
  }
}

/** Two lists, each le32 entries and then 6 bytes an entry: unicast, multicast. Together they fill the data. */
function parseMacTable(data: Uint8Array): MacTableSet | string {
  const unicast = addressList(data, 0, MAC_TABLE_ENTRIES);
  if (unicast === null) return `${data.length} bytes end within the unicast addresses`;
  const multicast = addressList(data, unicast.end, MAC_TABLE_ENTRIES - unicast.macs.length);
  if (multicast === null) return `${data.length} bytes end within the multicast addresses`;
  if (multicast.end !== data.length) return `${data.length} bytes for a MAC table of ${multicast.end}`;
  return {
    kind: 'mac-table-set',
    unicast: unicast.macs,
    multicast: multicast.macs,
    unicastOverflow: unicast.overflow,
    multicastOverflow: multicast.overflow,
  };
}

/** Null when the data ends before the list does. A list of more than `room` overflows and is skipped. */
function addressList(
  data: Uint8Array,
  at: number,
  room: number,
): { macs: string[]; overflow: boolean; end: number } | null {
  const first = at + 4;
  if (first > data.length) return null;
  const entries = le32(data, at);
  const end = first + entries * ETH_ALEN;
  if (end > data.length) return null;
  if (entries > room) return { macs: [], overflow: true, end };
  const macs = Array.from({ length: entries }, (_, index) => formatMac(data, first + index * ETH_ALEN));
  return { macs, overflow: false, end };
}

/**
 * The bytes a driver sends: class, command, data. A list that overflows is written as the shortest that certainly does, of zero addresses;
 * a longer one than the table holds may be given as it is. Throws VHOST_ERR_INVALID_ARGUMENT for what does not fit its field.
 */
export function encodeControlCommand(command: ControlCommand): Uint8Array {
  switch (command.kind) {
    case 'rx-mode':
      return encode(VIRTIO_NET_CTRL_RX, RX_MODES.indexOf(command.mode), [command.on ? 1 : 0]);
    case 'mac-table-set':
      return encode(VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, [
        ...encodeAddressList(command.unicast, command.unicastOverflow),
        ...encodeAddressList(command.multicast, command.multicastOverflow),
      ]);
    case 'mac-addr-set':
      return encode(VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, parseMac(command.mac));
    case 'vlan-add':
      return encode(VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_ADD, integer('vid', command.vid, 2));
    case 'vlan-del':
      return encode(VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_DEL, integer('vid', command.vid, 2));
    case 'announce-ack':
      return encode(VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK, []);
    case 'mq-vq-pairs-set':
      return encode(VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, integer('pairs', command.pairs, 2));
    case 'guest-offloads-set':
      return encode(
        VIRTIO_NET_CTRL_GUEST_OFFLOADS,
        VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET,
        integer('offloads', bitmapOf(command.offloads), 8),
      );
    case 'unknown':
      return encode(integer('class', command.class, 1)[0]!, integer('command', command.command, 1)[0]!, []);
  }
}

/** Features 65 and 66 have other numbers in a bitmap of 64 bits. */
const MAPPED = [
  [bit(VIRTIO_NET_F_GUEST_UDP_TUNNEL_GSO), bit(VIRTIO_NET_F_GUEST_UDP_TUNNEL_GSO_MAPPED)],
  [bit(VIRTIO_NET_F_GUEST_UDP_TUNNEL_GSO_CSUM), bit(VIRTIO_NET_F_GUEST_UDP_TUNNEL_GSO_CSUM_MAPPED)],
] as const;

function featuresOf(bitmap: bigint): bigint {
  return MAPPED.reduce(
    (mask, [feature, mapped]) => ((mask & mapped) === 0n ? mask : (mask & ~mapped) | feature),
    bitmap,
  );
}

function bitmapOf(features: bigint): bigint {
  return MAPPED.reduce(
    (mask, [feature, mapped]) => ((mask & feature) === 0n ? mask : (mask & ~feature) | mapped),
    features,
  );
}

function encode(klass: number, command: number, data: ArrayLike<number>): Uint8Array {
  const bytes = new Uint8Array(VIRTIO_NET_CTRL_HDR_SIZE + data.length);
  bytes[0] = klass;
  bytes[1] = command;
  bytes.set(data, VIRTIO_NET_CTRL_HDR_SIZE);
  return bytes;
}

function encodeAddressList(macs: readonly string[], overflow: boolean): number[] {
  if (overflow) return [...integer('entries', MAC_TABLE_ENTRIES + 1, 4), ...overflowing];
  return [...integer('entries', macs.length, 4), ...macs.flatMap((mac) => [...parseMac(mac)])];
}

const overflowing = new Uint8Array((MAC_TABLE_ENTRIES + 1) * ETH_ALEN);

function integer(name: string, value: number | bigint, bytes: number): number[] {
  const limit = 1n << BigInt(8 * bytes);
  if (!(value >= 0 && value < limit) || (typeof value === 'number' && !Number.isInteger(value))) {
    throw invalidArgument(`${name} is ${value}`, `0 to ${limit - 1n}`);
  }
  return Array.from({ length: bytes }, (_, index) => Number((BigInt(value) >> BigInt(8 * index)) & 0xffn));
}

function wrongLength(data: Uint8Array, length: number): string | null {
  return data.length === length ? null : `${data.length} bytes of data, ${length}`;
}

const le16 = (bytes: Uint8Array, at: number): number => bytes[at]! | (bytes[at + 1]! << 8);
const le32 = (bytes: Uint8Array, at: number): number => le16(bytes, at) + le16(bytes, at + 2) * 0x10000;
const le64 = (bytes: Uint8Array, at: number): bigint => BigInt(le32(bytes, at)) | (BigInt(le32(bytes, at + 4)) << 32n);
