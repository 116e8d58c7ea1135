import {
  VIRTQUEUE_MAX_SIZE,
  VRING_AVAIL_ALIGN_SIZE,
  VRING_DESC_ALIGN_SIZE,
  VRING_USED_ALIGN_SIZE,
} from '../constants/virtio-ring';
import {
  VRING_PACKED_DESC_ALIGN_SIZE,
  VRING_PACKED_EVENT_ALIGN_SIZE,
  VRING_PACKED_EVENT_SIZE,
} from '../constants/virtio-ring-packed';
import { VhostError } from '../errors';
import { type GuestAddress, gpa } from '../memory/address';
import { availRingBytes, descTableBytes, isQueueSize, usedRingBytes } from './layout';
import { descRingBytes, isPackedQueueSize } from './packed-layout';
import { distance, positionOf } from './packed-position';
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

/** One that shares nothing with the original. */
export function copyQueueState(state: Readonly<QueueState>): QueueState {
  return state.packed === undefined ? { ...state } : { ...state, packed: { ...state.packed } };
}

function refuse(what: string, hint: string, cause?: unknown): never {
  throw new VhostError('VHOST_ERR_RING', `queue state: ${what}`, cause === undefined ? { hint } : { hint, cause });
}

/**
 * A copy of `state` with nothing in it that a device could trip over: every field in range and aligned, every ring wholly inside one
 * region of guest memory. The format is the one that `packed` says. Throws VHOST_ERR_RING.
 */
export function validateQueueState(state: Readonly<QueueState>, memory: RingMemory, eventIdx: boolean): QueueState {
  return state.packed === undefined
    ? validateSplitQueueState(state, memory, eventIdx)
    : validatePackedQueueState(state, memory);
}

/** As `validateQueueState`, of a split virtqueue. */
export function validateSplitQueueState(
  state: Readonly<QueueState>,
  memory: RingMemory,
  eventIdx: boolean,
): QueueState {
  const { size, nextAvail, packed } = state;
  if (packed !== undefined) refuse('packed is there', 'a split virtqueue has no such positions');
  if (typeof size !== 'number' || !isQueueSize(size)) {
    refuse(`size is ${size}`, `a power of two from 1 to ${VIRTQUEUE_MAX_SIZE}`);
  }
  return {
    size,
    ready: requireBoolean('ready', state.ready),
    descTable: requireArea(memory, state, 'descTable', VRING_DESC_ALIGN_SIZE, descTableBytes(size)),
    availRing: requireArea(memory, state, 'availRing', VRING_AVAIL_ALIGN_SIZE, availRingBytes(size, eventIdx)),
    usedRing: requireArea(memory, state, 'usedRing', VRING_USED_ALIGN_SIZE, usedRingBytes(size, eventIdx)),
    nextAvail: requireIndex('nextAvail', nextAvail, 0x10000),
  };
}

/** As `validateQueueState`, of a packed virtqueue. */
export function validatePackedQueueState(
  state: Readonly<QueueState>,
  memory: RingMemory,
): QueueState & { packed: PackedPosition } {
  const { size, packed } = state;
  if (typeof packed !== 'object' || packed === null) {
    refuse(`packed is ${packed}`, 'the positions of a packed virtqueue');
  }
  if (typeof size !== 'number' || !isPackedQueueSize(size)) refuse(`size is ${size}`, `1 to ${VIRTQUEUE_MAX_SIZE}`);
  const nextAvail = requireIndex('nextAvail', state.nextAvail, size);
  const availWrap = requireBoolean('packed.availWrap', packed.availWrap);
  const nextUsed = requireIndex('packed.nextUsed', packed.nextUsed, size);
  const usedWrap = requireBoolean('packed.usedWrap', packed.usedWrap);
  // A device is at most one lap ahead of what it has used: all else would have it write over descriptors it has not taken.
  if (distance(positionOf(nextUsed, usedWrap, size), positionOf(nextAvail, availWrap, size), size) > size) {
    refuse(`nextAvail ${nextAvail} (${availWrap}) is behind packed.nextUsed ${nextUsed} (${usedWrap})`, 'at or ahead');
  }
  const event = (name: 'availRing' | 'usedRing'): GuestAddress =>
    requireArea(memory, state, name, VRING_PACKED_EVENT_ALIGN_SIZE, VRING_PACKED_EVENT_SIZE);
  return {
    size,
    ready: requireBoolean('ready', state.ready),
    descTable: requireArea(memory, state, 'descTable', VRING_PACKED_DESC_ALIGN_SIZE, descRingBytes(size)),
    availRing: event('availRing'),
    usedRing: event('usedRing'),
    nextAvail,
    packed: { availWrap, nextUsed, usedWrap },
  };
}

function requireBoolean(name: string, value: unknown): boolean {
  return typeof value === 'boolean' ? value : refuse(`${name} is ${value}`, 'true or false');
}

/** An integer from 0 to before `end`. */
function requireIndex(name: string, value: number, end: number): number {
  if (!Number.isInteger(value) || value < 0 || value >= end) {
    refuse(`${name} is ${value}`, `an integer from 0 to ${end - 1}`);
  }
  return value;
}

function requireArea(
  memory: RingMemory,
  state: Readonly<QueueState>,
  name: 'descTable' | 'availRing' | 'usedRing',
  alignment: number,
  bytes: number,
): GuestAddress {
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
}
