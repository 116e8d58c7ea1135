/** Which feature bits need which (virtio 1.4 section 5.1.3.1), and what is offered when device, data path and tap have their say. */
import * as net from '../constants/virtio-net';
import { bit, bits, featureNames, hasBit } from './features';

/** A bit, and what it needs: every list must have one of its bits. */
interface Rule {
  readonly bit: number;
  readonly needs: readonly (readonly number[])[];
}

const needsCtrlVq = (...numbers: number[]): Rule[] =>
  numbers.map((number) => ({ bit: number, needs: [[net.VIRTIO_NET_F_CTRL_VQ]] }));
const needsGuestCsum = (...numbers: number[]): Rule[] =>
  numbers.map((number) => ({ bit: number, needs: [[net.VIRTIO_NET_F_GUEST_CSUM]] }));
const needsCsum = (...numbers: number[]): Rule[] =>
  numbers.map((number) => ({ bit: number, needs: [[net.VIRTIO_NET_F_CSUM]] }));

/** CTRL_GUEST_OFFLOADS is not in the specification's list; without a queue to say it there is no such command. */
const RULES: readonly Rule[] = [
  ...needsGuestCsum(
    net.VIRTIO_NET_F_GUEST_TSO4,
    net.VIRTIO_NET_F_GUEST_TSO6,
    net.VIRTIO_NET_F_GUEST_UFO,
    net.VIRTIO_NET_F_GUEST_USO4,
    net.VIRTIO_NET_F_GUEST_USO6,
  ),
  { bit: net.VIRTIO_NET_F_GUEST_ECN, needs: [[net.VIRTIO_NET_F_GUEST_TSO4, net.VIRTIO_NET_F_GUEST_TSO6]] },
  {
    bit: net.VIRTIO_NET_F_GUEST_UDP_TUNNEL_GSO,
    needs: [
      [net.VIRTIO_NET_F_GUEST_TSO4],
      [net.VIRTIO_NET_F_GUEST_TSO6],
      [net.VIRTIO_NET_F_GUEST_USO4],
      [net.VIRTIO_NET_F_GUEST_USO6],
    ],
  },
  { bit: net.VIRTIO_NET_F_GUEST_UDP_TUNNEL_GSO_CSUM, needs: [[net.VIRTIO_NET_F_GUEST_UDP_TUNNEL_GSO]] },
  ...needsCsum(
    net.VIRTIO_NET_F_HOST_TSO4,
    net.VIRTIO_NET_F_HOST_TSO6,
    net.VIRTIO_NET_F_HOST_UFO,
    net.VIRTIO_NET_F_HOST_USO,
  ),
  { bit: net.VIRTIO_NET_F_HOST_ECN, needs: [[net.VIRTIO_NET_F_HOST_TSO4, net.VIRTIO_NET_F_HOST_TSO6]] },
  {
    bit: net.VIRTIO_NET_F_HOST_UDP_TUNNEL_GSO,
    needs: [[net.VIRTIO_NET_F_HOST_TSO4], [net.VIRTIO_NET_F_HOST_TSO6], [net.VIRTIO_NET_F_HOST_USO]],
  },
  { bit: net.VIRTIO_NET_F_HOST_UDP_TUNNEL_GSO_CSUM, needs: [[net.VIRTIO_NET_F_HOST_UDP_TUNNEL_GSO]] },
  ...needsCtrlVq(
    net.VIRTIO_NET_F_CTRL_GUEST_OFFLOADS,
    net.VIRTIO_NET_F_CTRL_RX,
    net.VIRTIO_NET_F_CTRL_VLAN,
    net.VIRTIO_NET_F_CTRL_RX_EXTRA,
    net.VIRTIO_NET_F_GUEST_ANNOUNCE,
    net.VIRTIO_NET_F_MQ,
    net.VIRTIO_NET_F_CTRL_MAC_ADDR,
    net.VIRTIO_NET_F_NOTF_COAL,
    net.VIRTIO_NET_F_VQ_NOTF_COAL,
    net.VIRTIO_NET_F_RSS,
    net.VIRTIO_NET_F_HASH_REPORT,
    net.VIRTIO_NET_F_DEVICE_STATS,
  ),
  { bit: net.VIRTIO_NET_F_RSC_EXT, needs: [[net.VIRTIO_NET_F_HOST_TSO4, net.VIRTIO_NET_F_HOST_TSO6]] },
  { bit: net.VIRTIO_NET_F_RSS_CONTEXT, needs: [[net.VIRTIO_NET_F_RSS]] },
  { bit: net.VIRTIO_NET_F_HASH_TUNNEL, needs: [[net.VIRTIO_NET_F_RSS, net.VIRTIO_NET_F_HASH_REPORT]] },
];

/** Everything that is set and misses what it needs, in words; empty when the set is one a driver may ack. */
export function unmetDependencies(features: bigint): string[] {
  return RULES.filter((rule) => hasBit(features, rule.bit) && !met(rule, features)).map((rule) => {
    const missing = rule.needs.filter((one) => !one.some((number) => hasBit(features, number)));
    const names = missing.map((one) => one.map((number) => featureNames(bit(number))[0]).join(' or '));
    return `${featureNames(bit(rule.bit))[0]} needs ${names.join(' and ')}`;
  });
}

function met(rule: Rule, features: bigint): boolean {
  return rule.needs.every((one) => one.some((number) => hasBit(features, number)));
}

/** Without the bits that miss what they need: the largest set that may be offered. */
export function withoutUnmet(features: bigint): bigint {
  let left = features;
  for (;;) {
    const unmet = RULES.filter((rule) => hasBit(left, rule.bit) && !met(rule, left)).map((rule) => rule.bit);
    if (unmet.length === 0) return left;
    left &= ~bits(...unmet);
  }
}

/** Receive offloads that a driver can turn off and on (section 5.1.6.5.9). */
export const GUEST_OFFLOADS = bits(
  net.VIRTIO_NET_F_GUEST_CSUM,
  net.VIRTIO_NET_F_GUEST_TSO4,
  net.VIRTIO_NET_F_GUEST_TSO6,
  net.VIRTIO_NET_F_GUEST_ECN,
  net.VIRTIO_NET_F_GUEST_UFO,
  net.VIRTIO_NET_F_GUEST_USO4,
  net.VIRTIO_NET_F_GUEST_USO6,
  net.VIRTIO_NET_F_GUEST_UDP_TUNNEL_GSO,
  net.VIRTIO_NET_F_GUEST_UDP_TUNNEL_GSO_CSUM,
);

/** What the device itself serves, whatever the data path. */
export const DEVICE_FEATURES = bits(
  net.VIRTIO_NET_F_CTRL_GUEST_OFFLOADS,
  net.VIRTIO_NET_F_MTU,
  net.VIRTIO_NET_F_MAC,
  net.VIRTIO_NET_F_STATUS,
  net.VIRTIO_NET_F_CTRL_VQ,
  net.VIRTIO_NET_F_CTRL_RX,
  net.VIRTIO_NET_F_CTRL_VLAN,
  net.VIRTIO_NET_F_CTRL_RX_EXTRA,
  net.VIRTIO_NET_F_GUEST_ANNOUNCE,
  net.VIRTIO_NET_F_MQ,
  net.VIRTIO_NET_F_CTRL_MAC_ADDR,
  net.VIRTIO_NET_F_SPEED_DUPLEX,
  net.VIRTIO_F_RING_RESET,
);

/** A set of features under a name: what every host of a pool can carry, so that a guest may move between all of them. */
export interface FeatureProfile {
  readonly name: string;
  readonly features: bigint;
}

export interface FeatureParties {
  /** What the data path carries, tap included. */
  backend: bigint;
  /** Queue pairs the device has. */
  pairs: number;
  profile?: FeatureProfile | undefined;
  /** Bits not to be offered. */
  without?: bigint | undefined;
}

/** What a driver is offered. `backend` bits that the device serves itself are neither needed nor looked at. */
export function offeredFeatures({ backend, pairs, profile, without = 0n }: FeatureParties): bigint {
  // NOTIFY_ON_EMPTY and ANY_LAYOUT are for drivers without VERSION_1, to whom nothing is offered.
  let features = (backend & ~bits(net.VIRTIO_F_NOTIFY_ON_EMPTY, net.VIRTIO_F_ANY_LAYOUT)) | DEVICE_FEATURES;
  if (pairs === 1) features &= ~bit(net.VIRTIO_NET_F_MQ);
  if (profile !== undefined) features &= profile.features;
  return withoutUnmet(features & ~without);
}

/** Named sets, from the poorest on. Bits are never added to a name that was released. */
export const FEATURE_PROFILES: Readonly<Record<string, FeatureProfile>> = Object.fromEntries(
  [
    {
      name: 'vhost-6.1',
      features:
        (DEVICE_FEATURES & ~bit(net.VIRTIO_F_RING_RESET)) |
        bits(
          net.VIRTIO_F_VERSION_1,
          net.VIRTIO_NET_F_MRG_RXBUF,
          net.VIRTIO_RING_F_INDIRECT_DESC,
          net.VIRTIO_RING_F_EVENT_IDX,
          net.VIRTIO_NET_F_CSUM,
          net.VIRTIO_NET_F_GUEST_CSUM,
          net.VIRTIO_NET_F_GUEST_TSO4,
          net.VIRTIO_NET_F_GUEST_TSO6,
          net.VIRTIO_NET_F_GUEST_ECN,
          net.VIRTIO_NET_F_HOST_TSO4,
          net.VIRTIO_NET_F_HOST_TSO6,
          net.VIRTIO_NET_F_HOST_ECN,
        ),
    },
  ].map((profile) => [profile.name, profile]),
);
