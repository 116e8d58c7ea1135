/** What this back end offers a front end, whoever it is. */
import type { Backend } from '../backend/backend';
import { VHOST_F_LOG_ALL } from '../constants/vhost';
import * as user from '../constants/vhost-user';
import * as net from '../constants/virtio-net';
import { maxMemRegions } from '../memory/guest-memory';
import { DEVICE_FEATURES } from '../net/feature-rules';
import { bits } from '../net/features';

/** Queue pairs at most: as many as the kernel path and its taps were tried with under a front end. */
export const MOST_QUEUE_PAIRS = 8;
/** Memory slots where no kernel sets a limit: as many as a front end with hot-pluggable memory asks for. */
const EMULATED_MEMORY_SLOTS = 509;

export interface Offer {
  readonly features: bigint;
  readonly protocolFeatures: bigint;
  readonly queuePairs: number;
  readonly memorySlots: number;
}

/**
 * INFLIGHT_SHMFD is not among them: rings are served in order and nothing is in flight where one was stopped, and QEMU goes on from the used
 * index after a back end was killed.
 */
const PROTOCOL_FEATURES = bits(
  user.VHOST_USER_PROTOCOL_F_MQ,
  user.VHOST_USER_PROTOCOL_F_LOG_SHMFD,
  user.VHOST_USER_PROTOCOL_F_RARP,
  user.VHOST_USER_PROTOCOL_F_REPLY_ACK,
  user.VHOST_USER_PROTOCOL_F_MTU,
  user.VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS,
  user.VHOST_USER_PROTOCOL_F_STATUS,
);

/** What front end and guest settle between themselves, and the back end must only not stand in the way of. */
const BY_FRONT_END = bits(net.VIRTIO_NET_F_MTU, net.VIRTIO_NET_F_CTRL_VQ, net.VIRTIO_NET_F_GUEST_ANNOUNCE);

/**
 * NOTIFY_ON_EMPTY and ANY_LAYOUT are for drivers older than virtio 1. The device's own features (filters, offloads that change while it runs,
 * ring reset) are the front end's: it has configuration space and control queue, and tells a back end nothing of them.
 */
const WITHHELD = DEVICE_FEATURES | bits(net.VIRTIO_F_NOTIFY_ON_EMPTY, net.VIRTIO_F_ANY_LAYOUT);

/** After `probe`: what kernel and taps carry is then known. */
export function offerOf(backend: Backend, queuePairs: number): Offer {
  const shared = bits(VHOST_F_LOG_ALL, user.VHOST_USER_F_PROTOCOL_FEATURES);
  const multiqueue = queuePairs > 1 ? bits(net.VIRTIO_NET_F_MQ) : 0n;
  return {
    // The protocol carries 64 bits.
    features: BigInt.asUintN(64, (backend.offeredFeatures & ~WITHHELD) | BY_FRONT_END | multiqueue | shared),
    protocolFeatures: PROTOCOL_FEATURES,
    queuePairs,
    memorySlots: backend.kind === 'vhost-kernel' ? maxMemRegions() : EMULATED_MEMORY_SLOTS,
  };
}
