/** Which feature bits the kernel data path carries. */
import { VHOST_F_LOG_ALL, VHOST_NET_F_VIRTIO_NET_HDR } from '../constants/vhost';
import * as config from '../constants/virtio-config';
import * as net from '../constants/virtio-net';
import * as ring from '../constants/virtio-ring';
import { VhostError } from '../errors';
import { DEVICE_FEATURES } from '../net/feature-rules';
import { bits, featureNames, hasBit } from '../net/features';
import { BY_TAP } from './tap-features';

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

/** Bits every vhost-net offers, for before the device was asked. */
export const EVERY_VHOST_NET = bits(
  net.VIRTIO_NET_F_MRG_RXBUF,
  config.VIRTIO_F_NOTIFY_ON_EMPTY,
  ring.VIRTIO_RING_F_INDIRECT_DESC,
  ring.VIRTIO_RING_F_EVENT_IDX,
  config.VIRTIO_F_VERSION_1,
);

/** What a driver may ack, given what VHOST_GET_FEATURES answered and what the taps carry. */
export function carried(offered: bigint, byTap = BY_TAP): bigint {
  return (offered & ~WITHHELD) | (byTap & BY_TAP) | DEVICE_FEATURES;
}

/** Fails with VHOST_ERR_FEATURES, naming the bits, when not all that a driver acked can be carried. */
export function requireCarried(acked: bigint, offered: bigint, byTap = BY_TAP): void {
  // A driver may ack ANY_LAYOUT, which asks nothing of the kernel and must not reach it as its namesake.
  const unknown = acked & ~carried(offered, byTap) & ~bits(VHOST_NET_F_VIRTIO_NET_HDR);
  if (unknown !== 0n) {
    throw new VhostError(
      'VHOST_ERR_FEATURES',
      `the kernel data path does not carry ${featureNames(unknown).join(', ')}`,
      {
        hint: hasBit(unknown, config.VIRTIO_F_RING_PACKED)
          ? 'no vhost-net serves packed virtqueues: the emulated data path does'
          : 'negotiate within offeredFeatures of the backend',
      },
    );
  }
}

/** The argument of VHOST_SET_FEATURES, logging aside. */
export function vhostFeatures(acked: bigint, offered: bigint): bigint {
  return acked & offered & ~WITHHELD;
}
