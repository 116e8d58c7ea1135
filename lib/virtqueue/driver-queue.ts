/**
 * The driver's half of a virtqueue, whatever its format. Its whole state lies in guest memory and is consistent between any two calls, so
 * that memory alone carries a driver on. SplitDriver and PackedDriver are these.
 */
import type { QueueState } from './queue-state';

export interface DriverQueue {
  readonly size: number;
  readonly eventIdx: boolean;
  /** Descriptors that are free. */
  readonly free: number;
  /** Chains made available and not taken back. */
  readonly inFlight: number;
  /** The id that the next `post` or `chainBegin` gives; meaningless when nothing is free. */
  readonly nextId: number;
  /** A chain of one buffer. Answers its id, or -1 when no descriptor is free. */
  post(addressLow: number, addressHigh: number, length: number, writable: boolean): number;
  /**
   * Begins a chain of `buffers` buffers: that many `chainAdd` and a `chainEnd` follow. Answers its id, or -1 when there are not enough free
   * descriptors. A chain that is not ended leaves no trace.
   */
  chainBegin(buffers: number): number;
  /** Buffers the device reads come before those it writes. */
  chainAdd(addressLow: number, addressHigh: number, length: number, writable: boolean): void;
  chainEnd(): void;
  /** Shows the device everything made available since the last call. Answers whether the device must be kicked. */
  publish(): boolean;
  /** How many used chains wait to be taken back. Throws VHOST_ERR_RING when the device claims more than it was given. */
  pending(): number;
  /** The id of the `position`th used chain, 0 <= position < pending(). */
  usedId(position: number): number;
  /** Bytes the device wrote into it. */
  usedLength(position: number): number;
  /** Frees the descriptors of the first `count` used chains. Throws VHOST_ERR_RING for an id that is not in flight. */
  release(count: number): void;
  /** Makes the first `count` used chains available again with the buffers they had. Throws VHOST_ERR_RING like `release`. */
  repost(count: number): void;
  /** Takes up to `max` used chains back: ids and written lengths into the arrays, descriptors free. Answers how many. */
  reap(max: number, ids: Uint16Array, lengths: Uint32Array): number;
  /** Asks the device to call at the next used chain. Answers whether chains were used meanwhile: take them before sleeping. */
  enableCalls(): boolean;
  /** Asks the device not to call. */
  disableCalls(): void;
  /** The queue for a device that begins where the last one ended. */
  queueState(): QueueState;
  /** What of this queue lies where in guest memory. */
  ranges(name: string): { name: string; gpa: number; length: number }[];
}
