import type { EventEmitter } from 'node:events';
import type { EventFd } from '../host/event-fd';
import type { Tap } from '../host/tap';
import type { DirtyLog } from '../memory/dirty-log';
import type { GuestMemory } from '../memory/guest-memory';
import type { QueueState } from '../virtqueue/queue-state';
import type { PathSettings } from './path-settings';

export type BackendKind = 'vhost-kernel' | 'emulated' | 'vhost-user';

/** The doorbells of one virtqueue. The device owns them, so they stay while backends come and go. */
export interface QueueNotifiers {
  /** Driver to device. */
  readonly kick: EventFd;
  /** Device to driver. */
  readonly call: EventFd;
}

/** What a backend is given to serve: memory, what driver and device agreed on, and where every queue stands. */
export interface BackendDevice {
  readonly memory: GuestMemory;
  /** Feature bits the driver acked. */
  readonly features: bigint;
  /** Two a queue pair: receive 2n, transmit 2n + 1. */
  readonly queues: readonly QueueState[];
  /** By queue; there may be more of them than queues. */
  readonly notifiers: readonly QueueNotifiers[];
  /** Absent: all pairs are in use, and taps are as their owner set them. */
  readonly settings?: PathSettings | undefined;
}

export interface PrepareOptions {
  /**
   * Another data path serves the same device on the same taps until the start: they are left alone, and ring positions are those that the
   * device has at the start. Default false: the taps are reserved and kept empty.
   */
  shared?: boolean;
}

/** What went wrong on a ring while it ran. */
export interface RingFault {
  readonly queue: number;
  readonly message: string;
}

/** One vring's indexes where a backend stopped; `base` equals `usedIdx` unless the guest broke the ring. */
export interface StoppedRing {
  readonly queue: number;
  readonly base: number;
  readonly usedIdx: number;
}

/** Where a ring that is being served stands. */
export interface RingPosition {
  /** The next available entry the device will take. */
  readonly nextAvail: number;
  /** Used entries the driver has been shown. */
  readonly usedIdx: number;
}

export interface BackendEvents {
  /** A ring reported an error (kernel backend: its error eventfd). The ring stands still; the others run on. */
  ringError: [RingFault];
}

/**
 * A data path. The contract between device and data path is start and stop: a stopped backend has given the queue states back and
 * nothing of it touches guest memory any more, so that another can start with them.
 */
export interface Backend extends EventEmitter<BackendEvents> {
  readonly kind: BackendKind;
  /** One a queue pair; null where another process has them. */
  readonly taps: readonly Tap[] | null;
  /** Every feature bit this data path can carry. */
  readonly offeredFeatures: bigint;
  readonly running: boolean;
  /** Finds out what this kernel and these taps carry, which `offeredFeatures` says from then on; before the taps are in use. */
  probe(): Promise<bigint>;
  /** Throws VHOST_ERR_FEATURES, with the names of the bits, unless it carries everything that a driver acked. */
  requireFeatures(features: bigint): void;
  /**
   * Everything that `start` with the same device will do, short of attaching: what takes time is done before a guest waits for it. Until
   * the start, frames that reach the taps are thrown away. Undone by `close`, or by a start with another device.
   */
  prepare(device: BackendDevice, options?: PrepareOptions): Promise<void>;
  /**
   * Vrings set, tap attached, every ring kicked once. On failure nothing stays attached, and the device's `queues` say where rings stand
   * through which frames have gone meanwhile.
   */
  start(device: BackendDevice): Promise<void>;
  /** Nothing touches guest memory after this resolves. The queue states, with nextAvail where this backend stopped. */
  stop(): Promise<QueueState[]>;
  /** The device's `settings` have changed, and hold when this resolves. While running. */
  settingsChanged(): Promise<void>;
  /** Takes one ring out of service (queue reset); the others go on. Where it stood. While running. */
  stopQueue(queue: number): Promise<QueueState>;
  /** Serves a ring as the device's `queues` describe it now. While running. */
  startQueue(queue: number): Promise<void>;
  /** The doorbells of a ring are others now: they are in use when this resolves, and those before no longer. While running. */
  notifiersChanged(queue: number): Promise<void>;
  /** Where the rings stand now, while running: by queue, null for one that is not served. */
  positions(): Promise<(RingPosition | null)[]>;
  /** What the last stop found, ring by ring. */
  readonly stoppedRings: readonly StoppedRing[];
  /** Dirty logging into `log`, or off; while running or stopped. On failure the state before is restored. */
  setDirtyLog(log: DirtyLog | null): Promise<void>;
  /** The memory table changed (log already grown): tell whoever works on it. While running. */
  memoryChanged(): Promise<void>;
  /** Stops, then releases everything. Idempotent. */
  close(): Promise<void>;
}
