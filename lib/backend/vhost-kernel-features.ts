/** Which feature bits the kernel data path carries, and what they mean for the tap underneath. */
import {
  IFF_VNET_HDR,
  TUN_F_CSUM,
  TUN_F_TSO_ECN,
  TUN_F_TSO4,
  TUN_F_TSO6,
  TUN_F_UFO,
  TUN_F_USO4,
  TUN_F_USO6,
} from '../constants/if-tun';
import { VHOST_F_LOG_ALL, VHOST_NET_F_VIRTIO_NET_HDR } from '../constants/vhost';
import * as config from '../constants/virtio-config';
import * as net from '../constants/virtio-net';
import * as ring from '../constants/virtio-ring';
import { VhostError } from '../errors';
import type { Tap } from '../host/tap';
import { bits, hasBit } from '../net/features';
import { headerLength } from '../net/header';

/** VHOST_F_LOG_ALL as a mask. */
export const LOG_ALL = bits(VHOST_F_LOG_ALL);

/**
 * Never passed on although the kernel may offer them: the two that are private to the host (one shares its number with ANY_LAYOUT,
 * which drivers ack), the IOTLB, which nobody here would serve, and IN_ORDER, whose position no ioctl reads back.
 */
const WITHHELD = bits(
  VHOST_F_LOG_ALL,
  VHOST_NET_F_VIRTIO_NET_HDR,
  config.VIRTIO_F_ACCESS_PLATFORM,
  config.VIRTIO_F_IN_ORDER,
);

/** Header formats and offloads that tap and frame carry without vhost's knowing. */
const BY_TAP = bits(
  net.VIRTIO_NET_F_CSUM,
  net.VIRTIO_NET_F_GUEST_CSUM,
  net.VIRTIO_NET_F_GUEST_TSO4,
  net.VIRTIO_NET_F_GUEST_TSO6,
  net.VIRTIO_NET_F_GUEST_ECN,
  net.VIRTIO_NET_F_GUEST_UFO,
  net.VIRTIO_NET_F_HOST_TSO4,
  net.VIRTIO_NET_F_HOST_TSO6,
  net.VIRTIO_NET_F_HOST_ECN,
  net.VIRTIO_NET_F_HOST_UFO,
  net.VIRTIO_NET_F_GUEST_USO4,
  net.VIRTIO_NET_F_GUEST_USO6,
  net.VIRTIO_NET_F_HOST_USO,
);

/** Served by the device itself, whatever the data path. */
const BY_DEVICE = bits(
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
);

/** Bits every vhost-net offers, for before the device was asked. */
export const EVERY_VHOST_NET = bits(
  net.VIRTIO_NET_F_MRG_RXBUF,
  config.VIRTIO_F_NOTIFY_ON_EMPTY,
  ring.VIRTIO_RING_F_INDIRECT_DESC,
  ring.VIRTIO_RING_F_EVENT_IDX,
  config.VIRTIO_F_VERSION_1,
);

/** What a driver may ack, given what VHOST_GET_FEATURES answered. */
export function carried(offered: bigint): bigint {
  return (offered & ~WITHHELD) | BY_TAP | BY_DEVICE;
}

/** The argument of VHOST_SET_FEATURES, logging aside. Fails with VHOST_ERR_FEATURES when a bit cannot be carried. */
export function vhostFeatures(acked: bigint, offered: bigint): bigint {
  // A driver may ack ANY_LAYOUT, which asks nothing of the kernel and must not reach it as its namesake.
  const unknown = acked & ~carried(offered) & ~bits(VHOST_NET_F_VIRTIO_NET_HDR);
  if (unknown !== 0n) {
    throw new VhostError(
      'VHOST_ERR_FEATURES',
      `feature bits 0x${unknown.toString(16)} are not offered by the kernel data path`,
      {
        hint: 'negotiate within offeredFeatures of the backend',
      },
    );
  }
  return acked & offered & ~WITHHELD;
}

/** TUN_F_ bits for what the guest takes: the tap hands over whole what the driver has acked, nothing else. */
export function tapOffload(features: bigint): number {
  const acked = (number: number, offload: number): number => (hasBit(features, number) ? offload : 0);
  return (
    acked(net.VIRTIO_NET_F_GUEST_CSUM, TUN_F_CSUM) |
    acked(net.VIRTIO_NET_F_GUEST_TSO4, TUN_F_TSO4) |
    acked(net.VIRTIO_NET_F_GUEST_TSO6, TUN_F_TSO6) |
    acked(net.VIRTIO_NET_F_GUEST_ECN, TUN_F_TSO_ECN) |
    acked(net.VIRTIO_NET_F_GUEST_UFO, TUN_F_UFO) |
    acked(net.VIRTIO_NET_F_GUEST_USO4, TUN_F_USO4) |
    acked(net.VIRTIO_NET_F_GUEST_USO6, TUN_F_USO6)
  );
}

/**
 * Sets header size and offloads of a tap for the features a driver acked. These requests take a lock that other tools can hold for
 * long: call it before a switchover, not during one. Answers the TUN_F_ bits that the kernel took.
 */
export async function prepareTap(tap: Tap, features: bigint): Promise<number> {
  await tap.setVnetHdrSize(headerLength(features));
  return tap.setBestOffload(tapOffload(features));
}

/**
 * Refuses a tap whose header differs from the device's: frames to the guest would vanish without any error, while those from it still
 * arrive. Fails with VHOST_ERR_HEADER_SIZE.
 */
export function requireHeader(tap: Tap, features: bigint): void {
  const wanted = headerLength(features);
  const found = (tap.flags & IFF_VNET_HDR) === 0 ? 0 : tap.vnetHdrSize;
  if (found !== wanted) {
    throw new VhostError(
      'VHOST_ERR_HEADER_SIZE',
      `tap ${tap.name} has headers of ${found} bytes, the acked features need ${wanted}`,
      {
        hint:
          found === 0
            ? 'open the tap with IFF_VNET_HDR'
            : 'call prepareTap(tap, features), or start with prepareTaps: true',
      },
    );
  }
}
