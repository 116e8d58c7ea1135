/** Where the emulated data path takes the frames of one queue pair from, and what it tells of those it sends. */
import { check } from '../errors';
import type { Tap } from '../host/tap';
import { native } from '../native';

const READABLE = 1;

export interface InletWatch {
  /** Idempotent. */
  close(): void;
}

export interface FrameInlet {
  /**
   * Up to `max` frames with their virtio-net headers: frame i at i * stride of `arena`, its length in lengths[i]. Answers how many; 0 or less
   * when there is none now.
   */
  read(arena: Uint8Array, stride: number, max: number, lengths: Int32Array): number;
  /** Calls back while frames may be there, until the watch is closed. */
  watch(callback: () => void): InletWatch;
  /**
   * Takes back a frame that was read and for which the driver had no room when the data path stopped: it is the next one again. Without it the
   * data path waits for room.
   */
  putBack?(frame: Uint8Array): void;
}

/** Hears of frames that were written to the tap: frame i, with its header, at i * stride of `arena`. Must not keep the arena. */
export type TransmitObserver = (arena: Uint8Array, stride: number, count: number, lengths: Int32Array) => void;

/** The tap itself. */
export class TapInlet implements FrameInlet {
  readonly #tap: Tap;

  constructor(tap: Tap) {
    this.#tap = tap;
  }

  read(arena: Uint8Array, stride: number, max: number, lengths: Int32Array): number {
    return native().framesRead(this.#tap.handle, arena, stride, max, lengths);
  }

  watch(callback: () => void): InletWatch {
    return watchTap(this.#tap, callback);
  }
}

/** Calls back while the tap has frames. */
export function watchTap(tap: Tap, callback: () => void): InletWatch {
  const poll = check(native().pollStart(tap.handle, READABLE, callback), 'epoll_ctl');
  return { close: () => native().pollStop(poll) };
}
