/**
 * What the commands of the control virtqueue add up to (virtio 1.4 section 5.1.6.5), as plain data, and what each of them makes of it.
 * A state is never changed, only followed by another: while the effects of a command fail, the state before it is still there.
 */
import {
  VIRTIO_NET_F_CTRL_GUEST_OFFLOADS,
  VIRTIO_NET_F_CTRL_MAC_ADDR,
  VIRTIO_NET_F_CTRL_RX,
  VIRTIO_NET_F_CTRL_RX_EXTRA,
  VIRTIO_NET_F_CTRL_VLAN,
  VIRTIO_NET_F_GUEST_ANNOUNCE,
  VIRTIO_NET_F_GUEST_HDRLEN,
  VIRTIO_NET_F_MQ,
} from '../constants/virtio-net';
import { VIRTIO_NET_CTRL_MQ_VQ_PAIRS_MIN } from '../constants/virtio-net-ctrl';
import type { ControlCommand, MacTableSet, RxMode } from '../net/control-command';
import { parseMac } from '../net/ethernet';
import { GUEST_OFFLOADS, unmetDependencies } from '../net/feature-rules';
import { bit, hasBit } from '../net/features';
import { initialReceiveFilter, type ReceiveFilter, VLANS } from '../net/receive-filter';

export interface ControlState {
  receiveFilter: ReceiveFilter;
  /** Queue pairs in use, from the first on. */
  activePairs: number;
  /** Offloads of received frames that are on: bit n for feature n. */
  guestOffloads: bigint;
  /** VIRTIO_NET_S_ANNOUNCE is set in the configuration space. */
  announcePending: boolean;
}

/** What must follow a command before it is answered VIRTIO_NET_OK; null when nothing is different from before. */
export type ControlChange = 'filter' | 'mac' | 'pairs' | 'offloads' | 'announce-ack' | null;

export interface ControlContext {
  /** Bits the driver acked. */
  features: bigint;
  /** max_virtqueue_pairs of the configuration space. */
  maxPairs: number;
}

const MODE_FIELDS = {
  promisc: 'promiscuous',
  allmulti: 'allMulticast',
  alluni: 'allUnicast',
  nomulti: 'noMulticast',
  nouni: 'noUnicast',
  nobcast: 'noBroadcast',
} as const satisfies Record<RxMode, keyof ReceiveFilter>;

/** After a reset: everything passes but tagged frames where VLANs are filtered, one pair, every offload that was acked. */
export function initialControlState(mac: string, features: bigint): ControlState {
  return {
    receiveFilter: initialReceiveFilter(mac, hasBit(features, VIRTIO_NET_F_CTRL_VLAN)),
    activePairs: 1,
    guestOffloads: features & GUEST_OFFLOADS,
    announcePending: false,
  };
}

/**
 * The state after `command` and what must be done for it, or 'error' for a command to be answered VIRTIO_NET_ERR: one whose feature was not
 * acked, or whose values the device cannot take on. `state` stays as it is.
 */
export function applyCommand(
  state: Readonly<ControlState>,
  command: ControlCommand,
  { features, maxPairs }: ControlContext,
): { state: ControlState; change: ControlChange } | 'error' {
  const acked = (feature: number): boolean => hasBit(features, feature);
  const filter = state.receiveFilter;
  switch (command.kind) {
    case 'rx-mode': {
      const { mode, on } = command;
      if (!acked(mode === 'promisc' || mode === 'allmulti' ? VIRTIO_NET_F_CTRL_RX : VIRTIO_NET_F_CTRL_RX_EXTRA)) {
        return 'error';
      }
      return filtered(state, filter[MODE_FIELDS[mode]] !== on, { [MODE_FIELDS[mode]]: on });
    }
    case 'mac-table-set':
      return acked(VIRTIO_NET_F_CTRL_RX) ? filtered(state, true, tableOf(command)) : 'error';
    case 'mac-addr-set':
      if (!acked(VIRTIO_NET_F_CTRL_MAC_ADDR) || !isStationAddress(command.mac)) return 'error';
      return filtered(state, filter.mac !== command.mac, { mac: command.mac }, 'mac');
    case 'vlan-add':
    case 'vlan-del':
      return acked(VIRTIO_NET_F_CTRL_VLAN) ? withVlan(state, command.vid, command.kind === 'vlan-add') : 'error';
    case 'announce-ack':
      // Nothing was asked, so nothing can be acked: a driver that says so is out of step.
      if (!acked(VIRTIO_NET_F_GUEST_ANNOUNCE) || !state.announcePending) return 'error';
      return { state: { ...state, announcePending: false }, change: 'announce-ack' };
    case 'mq-vq-pairs-set': {
      const { pairs } = command;
      if (!acked(VIRTIO_NET_F_MQ) || pairs < VIRTIO_NET_CTRL_MQ_VQ_PAIRS_MIN || pairs > maxPairs) return 'error';
      return { state: { ...state, activePairs: pairs }, change: pairs === state.activePairs ? null : 'pairs' };
    }
    case 'guest-offloads-set':
      return acked(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) ? withOffloads(state, command.offloads, features) : 'error';
    case 'unknown':
      return 'error';
  }
}

function filtered(
  state: Readonly<ControlState>,
  differs: boolean,
  fields: Partial<ReceiveFilter>,
  change: ControlChange = 'filter',
): { state: ControlState; change: ControlChange } {
  return {
    state: { ...state, receiveFilter: { ...state.receiveFilter, ...fields } },
    change: differs ? change : null,
  };
}

function tableOf({ unicast, multicast, unicastOverflow, multicastOverflow }: MacTableSet): Partial<ReceiveFilter> {
  return { unicast: [...unicast], multicast: [...multicast], unicastOverflow, multicastOverflow };
}

/**
 * Whether a station can have the address. Frames may not come from a group or from nobody (IEEE 802.3 clause 3.2.3): bridges drop what
 * does, the announcement after a migration included, so a device with such an address would be off the network.
 */
function isStationAddress(mac: string): boolean {
  const bytes = parseMac(mac);
  return (bytes[0]! & 1) === 0 && bytes.some((byte) => byte !== 0);
}

function withVlan(
  state: Readonly<ControlState>,
  vid: number,
  on: boolean,
): { state: ControlState; change: ControlChange } | 'error' {
  const { vlans } = state.receiveFilter;
  // The table is there when its feature was acked, which a saved state may contradict.
  if (vlans === null || !(vid >= 0 && vid < VLANS)) return 'error';
  const at = vid >> 3;
  const mask = 1 << (vid & 7);
  const table = vlans.slice();
  table[at] = on ? table[at]! | mask : table[at]! & ~mask;
  return filtered(state, table[at] !== vlans[at], { vlans: table });
}

function withOffloads(
  state: Readonly<ControlState>,
  wanted: bigint,
  features: bigint,
): { state: ControlState; change: ControlChange } | 'error' {
  // Linux counts GUEST_HDRLEN among the offloads and sends its bit when it was acked; there is nothing to turn off for it.
  const offloads = wanted & ~(features & bit(VIRTIO_NET_F_GUEST_HDRLEN));
  if ((offloads & ~(features & GUEST_OFFLOADS)) !== 0n) return 'error';
  // As between features: a segment whose checksum nobody vouches for cannot be handed over unsegmented.
  if (unmetDependencies(offloads).length > 0) return 'error';
  return {
    state: { ...state, guestOffloads: offloads },
    change: offloads === state.guestOffloads ? null : 'offloads',
  };
}
