import {
  VIRTQUEUE_MAX_SIZE,
  VRING_AVAIL_ALIGN_SIZE,
  VRING_DESC_ALIGN_SIZE,
  VRING_USED_ALIGN_SIZE,
} from '../constants/virtio-ring';
import { VhostError } from '../errors';
import { type GuestAddress, gpa } from '../memory/address';
import { availRingBytes, descTableBytes, isQueueSize, usedRingBytes } from './layout';
import type { RingMemory } from './ring-memory';

/** The three positions that a packed virtqueue has beside `nextAvail` (virtio 1.4 section 2.8.1). */
export interface PackedPosition {
  /** The device's wrap counter for available descriptors; true at first. */
  availWrap: boolean;
  /** Index in the descriptor ring of the next used descriptor the device will write. */
  nextUsed: number;
  /** The device's wrap counter for used descriptors; true at first. */
  usedWrap: boolean;
}

/**
 * Everything a device must know of a virtqueue to serve it, as plain data: what a backend is started with, what it gives back
 * when it stops, and what a migration carries. Untrusted until `validateQueueState` has passed it.
 */
export interface QueueState {
  /** Entries, 1 to 32768, in a split virtqueue a power of two (virtio 1.4 sections 2.7 and 2.8). */
  size: number;
  /** The driver has enabled it. */
  ready: boolean;
  /** 16-byte aligned; of a packed virtqueue the descriptor ring. */
  descTable: GuestAddress;
  /** 2-byte aligned; of a packed virtqueue the driver event suppression structure, 4-byte aligned. */
  availRing: GuestAddress;
  /** 4-byte aligned; of a packed virtqueue the device event suppression structure. */
  usedRing: GuestAddress;
  /**
   * Index of the next available entry the device will take. Of a split virtqueue free-running modulo 65536: the vring base. Of a packed one
   * an index of the descriptor ring.
   */
  nextAvail: number;
  /** Of a packed virtqueue, and only there. */
  packed?: PackedPosition;
}

function refuse(what: string, hint: string, cause?: unknown): never {
  throw new VhostError('VHOST_ERR_RING', `queue state: ${what}`, cause === undefined ? { hint } : { hint, cause });
}

/**
 * A copy of `state` with nothing in it that a device could trip over: every field in range and aligned, every ring wholly inside one
 * region of guest memory. Throws VHOST_ERR_RING.
 */
export function validateQueueState(state: Readonly<QueueState>, memory: RingMemory, eventIdx: boolean): QueueState {
  const { size, ready, nextAvail } = state;
  if (typeof size !== 'number' || !isQueueSize(size)) {
    refuse(`size is ${size}`, `a power of two from 1 to ${VIRTQUEUE_MAX_SIZE}`);
  }
  if (typeof ready !== 'boolean') refuse(`ready is ${ready}`, 'true or false');
  if (!Number.isInteger(nextAvail) || nextAvail < 0 || nextAvail > 0xffff) {
    refuse(`nextAvail is ${nextAvail}`, 'an integer from 0 to 65535');
  }
  const ring = (name: 'descTable' | 'availRing' | 'usedRing', alignment: number, bytes: number): GuestAddress => {
    const at: number = state[name];
    if (!Number.isSafeInteger(at) || at < 0 || at % alignment !== 0 || !Number.isSafeInteger(at + bytes)) {
      refuse(`${name} is ${at}`, `an address that is a multiple of ${alignment}`);
    }
    try {
      memory.regionOf(at, bytes);
    } catch (cause) {
      refuse(`${name} at 0x${at.toString(16)} with ${bytes} bytes`, 'wholly inside one memory region', cause);
    }
    return gpa(at);
  };
  return {
    size,
    ready,
    descTable: ring('descTable', VRING_DESC_ALIGN_SIZE, descTableBytes(size)),
    availRing: ring('availRing', VRING_AVAIL_ALIGN_SIZE, availRingBytes(size, eventIdx)),
    usedRing: ring('usedRing', VRING_USED_ALIGN_SIZE, usedRingBytes(size, eventIdx)),
    nextAvail,
  };
}
