/** What a front end has said of one vring, as plain data, and what a data path is told of it. */
import { VHOST_VRING_F_LOG } from '../constants/vhost';
import { VIRTIO_F_RING_PACKED, VIRTIO_RING_F_EVENT_IDX } from '../constants/virtio-net';
import { VhostError } from '../errors';
import type { EventFd } from '../host/event-fd';
import { hasBit } from '../net/features';
import type { VringAddr } from '../vhost-user/payload';
import { type QueueState, validateQueueState } from '../virtqueue/queue-state';
import type { FrontEndMemory } from './front-end-memory';

export interface Vring {
  /** Entries; 0 before SET_VRING_NUM. */
  num: number;
  /** As SET_VRING_BASE has it, or where the ring was stopped. Of a packed ring bit 15 is the wrap counter. */
  base: number;
  addresses: VringAddr | null;
  /** The ring is started while it is there. */
  kick: EventFd | null;
  call: EventFd | null;
  err: EventFd | null;
  /** SET_VRING_ENABLE, which may come before anything else. */
  enabled: boolean;
}

export function newVring(): Vring {
  return { num: 0, base: 0, addresses: null, kick: null, call: null, err: null, enabled: false };
}

/** Started, and everything is there that serving it takes; whether it is enabled is said elsewhere. */
export function isStarted({ num, addresses, kick }: Vring): boolean {
  return num > 0 && addresses !== null && kick !== null;
}

/** Lets go of all descriptors. */
export function closeVring(vring: Vring): void {
  for (const event of [vring.kick, vring.call, vring.err]) event?.close();
  vring.kick = null;
  vring.call = null;
  vring.err = null;
}

/** Lets go of one eventfd and takes another. */
export function replaceEvent(vring: Vring, name: 'kick' | 'call' | 'err', event: EventFd | null): void {
  vring[name]?.close();
  vring[name] = event;
}

/**
 * The ring for a data path: addresses translated, everything checked. Throws VHOST_ERR_RING for a ring that no device could serve, and
 * VHOST_ERR_MEMORY_TABLE for one outside of the front end's memory.
 */
export function queueStateOf({ num, base, addresses }: Vring, memory: FrontEndMemory, features: bigint): QueueState {
  if (addresses === null) throw new VhostError('VHOST_ERR_RING', 'the ring has no addresses');
  const { desc, avail, used, flags, log } = addresses;
  const usedRing = memory.guestAddressOf(used, 'used ring');
  if ((flags & VHOST_VRING_F_LOG) !== 0 && log !== BigInt(usedRing)) {
    const where = `0x${log.toString(16)}, it lies at 0x${usedRing.toString(16)}`;
    throw new VhostError('VHOST_ERR_RING', `the used ring is to be logged at guest address ${where}`);
  }
  const state: QueueState = {
    size: num,
    ready: true,
    descTable: memory.guestAddressOf(desc, 'descriptor table'),
    availRing: memory.guestAddressOf(avail, 'available ring'),
    usedRing,
    ...positionOf(base, features),
  };
  return validateQueueState(state, memory.guest, hasBit(features, VIRTIO_RING_F_EVENT_IDX));
}

const INDEX_MASK = 0x7fff;
const WRAP = 0x8000;

/**
 * Of a packed ring a front end tells where it is to go on, and not always what was used: nothing is in flight when a ring is stopped, so both
 * are the same.
 */
function positionOf(base: number, features: bigint): Pick<QueueState, 'nextAvail' | 'packed'> {
  if (!hasBit(features, VIRTIO_F_RING_PACKED)) return { nextAvail: base };
  const nextAvail = base & INDEX_MASK;
  const wrap = (base & WRAP) !== 0;
  return { nextAvail, packed: { availWrap: wrap, nextUsed: nextAvail, usedWrap: wrap } };
}

/** The answer to GET_VRING_BASE; of a packed ring with the used position in the upper half. */
export function baseOf({ nextAvail, packed }: QueueState): number {
  if (packed === undefined) return nextAvail;
  const half = (index: number, wrap: boolean): number => index | (wrap ? WRAP : 0);
  return (half(nextAvail, packed.availWrap) | (half(packed.nextUsed, packed.usedWrap) << 16)) >>> 0;
}
