/** What control commands add up to, as it is written and read back. */

import { VIRTIO_NET_F_CTRL_VLAN } from '../constants/virtio-net';
import { hasBit } from '../net/features';
import { MAC_TABLE_ENTRIES, VLAN_TABLE_BYTES, VLANS, vlanList } from '../net/receive-filter';
import { type ControlState, initialControlState } from './control-state';
import { fields, type Reader } from './state-reader';

/** VLANs as a list of the identifiers let through; null when they are not filtered. */
export interface SavedControl {
  mac: string;
  promiscuous: boolean;
  allMulticast: boolean;
  allUnicast: boolean;
  noMulticast: boolean;
  noUnicast: boolean;
  noBroadcast: boolean;
  unicast: string[];
  multicast: string[];
  unicastOverflow: boolean;
  multicastOverflow: boolean;
  vlans: number[] | null;
  activePairs: number;
  /** Feature bits of the receive offloads that are on, hexadecimal. */
  guestOffloads: string;
  announcePending: boolean;
}

const FLAGS = [
  'promiscuous',
  'allMulticast',
  'allUnicast',
  'noMulticast',
  'noUnicast',
  'noBroadcast',
  'unicastOverflow',
  'multicastOverflow',
] as const;

export function encodeControl({
  receiveFilter: filter,
  activePairs,
  guestOffloads,
  announcePending,
}: ControlState): SavedControl {
  const { vlans, unicast, multicast, ...rest } = filter;
  return {
    ...rest,
    unicast: [...unicast],
    multicast: [...multicast],
    vlans: vlans === null ? null : vlanList(vlans),
    activePairs,
    guestOffloads: `0x${guestOffloads.toString(16)}`,
    announcePending,
  };
}

function vlanTable(reader: Reader, value: unknown): Uint8Array {
  const table = new Uint8Array(VLAN_TABLE_BYTES);
  for (const entry of reader.list(value, 'control vlans', 0, VLANS)) {
    const vid = reader.integer(entry, 'a VLAN', 0, VLANS - 1);
    table[vid >> 3]! |= 1 << (vid & 7);
  }
  return table;
}

export interface ControlContext {
  features: bigint;
  mac: string;
  pairs: number;
  /** Where the state does not say. */
  activePairs: number;
}

export function decodeControl(reader: Reader, value: unknown, context: ControlContext): ControlState {
  const saved = fields(reader, value, 'control');
  const initial = initialControlState(context.mac, context.features);
  const filter = { ...initial.receiveFilter };
  filter.mac = reader.mac(saved.mac ?? context.mac, 'control mac');
  for (const flag of FLAGS) filter[flag] = reader.boolean(saved[flag] ?? filter[flag], `control ${flag}`);
  const macs = (name: 'unicast' | 'multicast'): string[] =>
    reader.list(saved[name] ?? [], `control ${name}`, 0, MAC_TABLE_ENTRIES).map((mac) => reader.mac(mac, name));
  filter.unicast = macs('unicast');
  filter.multicast = macs('multicast');
  if (filter.unicast.length + filter.multicast.length > MAC_TABLE_ENTRIES)
    reader.refuse('a MAC table of both kinds', `${MAC_TABLE_ENTRIES} entries at most`);
  const filtersVlans = hasBit(context.features, VIRTIO_NET_F_CTRL_VLAN);
  if (saved.vlans != null && !filtersVlans) reader.refuse('VLANs that the driver cannot have named', 'null');
  if (filtersVlans) filter.vlans = vlanTable(reader, saved.vlans ?? []);
  const guestOffloads =
    saved.guestOffloads === undefined ? initial.guestOffloads : reader.features(saved.guestOffloads, 'guestOffloads');
  if ((guestOffloads & ~initial.guestOffloads) !== 0n) reader.refuse('guestOffloads', 'a subset of what was acked');
  return {
    receiveFilter: filter,
    activePairs: reader.integer(saved.activePairs ?? context.activePairs, 'activePairs', 1, context.pairs),
    guestOffloads,
    announcePending: reader.boolean(saved.announcePending ?? false, 'announcePending'),
  };
}
