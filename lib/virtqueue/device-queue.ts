/**
 * The device's half of a virtqueue, whatever its format: what a data path works with. SplitDevice and PackedDevice are these; their docs
 * say how. Nothing of the driver is trusted: a ring that breaks the rules throws VHOST_ERR_RING and stays broken, alone.
 */
import type { VhostError } from '../errors';
import type { QueueState } from './queue-state';
import type { RegionView } from './ring-memory';

/** The chain that was taken last, each word of it read once. Used again for the next. */
export interface DescriptorChain {
  /** One that crosses into an adjacent region counts as two. */
  readonly buffers: number;
  /** The first of them that the device may write: those before are for reading. */
  readonly firstWritable: number;
  readonly readableBytes: number;
  readonly writableBytes: number;
  /** Of buffer i: guest physical address, bytes, and the region it lies in. */
  readonly addresses: Float64Array;
  readonly lengths: Uint32Array;
  readonly regions: readonly RegionView[];
}

export interface DeviceQueue {
  readonly size: number;
  readonly eventIdx: boolean;
  readonly chain: DescriptorChain;
  /** What broke the ring, or null. */
  readonly error: VhostError | null;
  /** Where the next `pop` takes from: free-running modulo 65536 in a split ring, an index of the descriptor ring in a packed one. */
  readonly nextAvail: number;
  /** Where the next used element will stand, as the driver sees it. Equal to `nextAvail` when everything taken was given back. */
  readonly usedIdx: number;
  /** Takes the next chain into `chain` and answers its id, or -1 when there is none. Throws VHOST_ERR_RING. */
  pop(): number;
  /** Gives the last `count` chains taken back untouched, as if they had not been taken; none of them may have been pushed. */
  unpop(count: number): void;
  /** Gives a chain back; the driver sees it after `publish`. `length` is the bytes written to it. */
  push(id: number, length: number): void;
  /** Shows the driver everything pushed since the last call. Answers whether the driver must be called. */
  publish(): boolean;
  /** Asks to be kicked at the next available chain. Answers whether there is one meanwhile: take it before sleeping. */
  enableKicks(): boolean;
  /** Asks to be kicked when the driver adds to what is available now. Answers whether it added meanwhile. */
  enableKicksForMore(): boolean;
  /** Asks not to be kicked. */
  disableKicks(): void;
  /** Breaks the ring for a rule that only the kind of device knows, and answers the error to throw. */
  fail(what: string): VhostError;
  /** For whoever serves the queue next. Every chain taken must have been pushed and published, or given back. */
  state(): QueueState;
}
