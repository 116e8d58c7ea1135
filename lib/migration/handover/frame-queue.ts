/**
 * One tap queue during a hand-over, as the inlet of an emulated data path. While it collects, frames are read from the tap without pause and
 * sorted; what is to be delivered waits in a list. Afterwards the list is delivered and then the tap is read directly, in one order.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { BATCH, frameArena, STRIDE } from '../../backend/frame-arena';
import { type FrameInlet, type InletWatch, watchTap } from '../../backend/frame-inlet';
import type { Tap } from '../../host/tap';
import { native } from '../../native';

/** Hears of a frame, with its virtio-net header, at [at, end) of `arena`: of its own while a queue collects, otherwise nothing to keep. */
export type FrameListener = (arena: Uint8Array, at: number, end: number) => void;

/** Beyond it a tap is not read: its queue takes what it can, and what it cannot is counted by the kernel. */
export const MOST_BYTES = 256 * 1024 * 1024;
/** Batches read in one go. */
const BATCHES_PER_TURN = 8;

export class FrameQueue implements FrameInlet {
  readonly tap: Tap;
  /** Bytes of virtio-net header before each frame. */
  readonly header: number;
  readonly #lengths = new Int32Array(BATCH);
  #waiting: Uint8Array[] = [];
  #first = 0;
  #bytes = 0;
  #listener: FrameListener | null = null;
  /** What is done with the tap's frames; where it holds they stay in its queue. */
  #mode: 'collect' | 'pass' | 'hold' = 'pass';
  /** On the tap; while it collects, or while somebody waits for frames. */
  #tapWatch: InletWatch | null = null;
  #callback: (() => void) | null = null;
  /** Frames read from the tap so far. */
  taken = 0;
  /** Most frames read before the tap's queue was found empty: it never held more. */
  most = 0;
  #inOneGo = 0;
  /** When somebody was given a frame first; performance.now(). */
  firstReadAt: number | null = null;

  constructor(tap: Tap, header: number) {
    this.tap = tap;
    this.header = header;
  }

  /** Frames that wait in the list. */
  get waiting(): number {
    return this.#waiting.length - this.#first;
  }

  /** Of them. */
  get waitingBytes(): number {
    return this.#bytes;
  }

  /** Reads everything that comes, from now on, and gives it to `listener`, who keeps what it wants by `push`; null throws it away. */
  collect(listener: FrameListener | null): void {
    this.#listener = listener;
    this.#mode = 'collect';
    this.#watch();
    this.drain();
  }

  /** The list, then the tap. `listener` hears of what is read from the tap on its way. */
  passThrough(listener: FrameListener | null = null): void {
    this.#listener = listener;
    this.#mode = 'pass';
    this.#watch();
    this.#announce();
  }

  /** The list alone: the tap is not read. */
  hold(): void {
    this.#mode = 'hold';
    this.#watch();
  }

  /** While it collects: reads what is there now. Answers whether the tap's queue was found empty. */
  drain(): boolean {
    for (let batch = 0; batch < BATCHES_PER_TURN; batch++) {
      if (this.#bytes > MOST_BYTES) {
        this.#tapWatch?.close();
        this.#tapWatch = null;
        return true;
      }
      const count = this.#readTap(frameArena(), STRIDE, BATCH, this.#lengths);
      if (count < BATCH) return true;
    }
    return false;
  }

  #readTap(arena: Uint8Array, stride: number, max: number, lengths: Int32Array): number {
    const count = native().framesRead(this.tap.handle, arena, stride, max, lengths);
    this.#inOneGo += Math.max(0, count);
    this.most = Math.max(this.most, this.#inOneGo);
    if (count < max) this.#inOneGo = 0;
    if (count <= 0) return count;
    this.taken += count;
    if (this.#listener !== null) this.#tell(this.#listener, arena, stride, count, lengths);
    return count;
  }

  #tell(listener: FrameListener, arena: Uint8Array, stride: number, count: number, lengths: Int32Array): void {
    if (this.#mode !== 'collect') {
      for (let index = 0; index < count; index++) listener(arena, index * stride, index * stride + lengths[index]!);
      return;
    }
    // Of their own: who listens may read another queue meanwhile, into the same arena.
    const frames = Array.from({ length: count }, (_, index) =>
      arena.slice(index * stride, index * stride + lengths[index]!),
    );
    for (const frame of frames) listener(frame, 0, frame.length);
  }

  /** Appends a frame of its own to the list. */
  push(frame: Uint8Array): void {
    this.#waiting.push(frame);
    this.#bytes += frame.length;
    this.#announce();
  }

  /** Until the tap is left to others: from then on a data path that stops waits for the guest to have room, since nobody would read the list. */
  putBack?: (frame: Uint8Array) => void = (frame) => {
    if (this.#first > 0) this.#waiting[--this.#first] = frame;
    else this.#waiting.unshift(frame);
    this.#bytes += frame.length;
  };

  /** The tap is about to be left to another data path. */
  leave(): void {
    delete this.putBack;
  }

  /** Takes the list away. */
  takeAll(): Uint8Array[] {
    const frames = this.#waiting.slice(this.#first);
    this.#waiting = [];
    this.#first = 0;
    this.#bytes = 0;
    return frames;
  }

  read(arena: Uint8Array, stride: number, max: number, lengths: Int32Array): number {
    const count =
      this.waiting > 0
        ? this.#readList(arena, stride, max, lengths)
        : this.#mode === 'pass'
          ? this.#readTap(arena, stride, max, lengths)
          : 0;
    if (count > 0) this.firstReadAt ??= performance.now();
    return count;
  }

  #readList(arena: Uint8Array, stride: number, max: number, lengths: Int32Array): number {
    const count = Math.min(max, this.waiting);
    for (let index = 0; index < count; index++) {
      const frame = this.#waiting[this.#first++]!;
      arena.set(frame, index * stride);
      lengths[index] = frame.length;
      this.#bytes -= frame.length;
    }
    if (this.waiting === 0) {
      this.#waiting = [];
      this.#first = 0;
    }
    this.#watch();
    return count;
  }

  watch(callback: () => void): InletWatch {
    this.#callback = callback;
    this.#watch();
    this.#announce();
    return {
      close: () => {
        if (this.#callback !== callback) return;
        this.#callback = null;
        this.#watch();
      },
    };
  }

  /** Somebody waits for frames and there are some. Not at once: it may be in the middle of a batch. */
  #announce(): void {
    if (this.#callback === null || this.waiting === 0) return;
    const callback = this.#callback;
    setImmediate(() => {
      if (this.#callback === callback) callback();
    });
  }

  #watch(): void {
    const wanted =
      this.#mode === 'collect' ? this.#bytes <= MOST_BYTES : this.#mode === 'pass' && this.#callback !== null;
    if (wanted === (this.#tapWatch !== null)) return;
    if (wanted)
      this.#tapWatch = watchTap(this.tap, () => (this.#mode === 'collect' ? this.drain() : this.#callback?.()));
    else {
      this.#tapWatch!.close();
      this.#tapWatch = null;
    }
  }

  /** Reads no more. Idempotent. */
  close(): void {
    this.#mode = 'hold';
    this.#callback = null;
    this.#watch();
  }
}

/** Longest time for a guest to take what waits for it. */
const PATIENCE_MS = 10_000;

/** While they collect: reads until each was found empty. */
export function drainAll(queues: readonly FrameQueue[]): void {
  for (const queue of queues) while (!queue.drain());
}

/** Over several queues. */
export const mostOf = (queues: readonly FrameQueue[]): number => Math.max(...queues.map(({ most }) => most));

/** Resolves when nothing waits in the lists, nor in the data path that reads them; with false when the guest has not taken it in time. */
export async function emptied(queues: readonly FrameQueue[], path: { readonly holding: boolean }): Promise<boolean> {
  const deadline = performance.now() + PATIENCE_MS;
  while (path.holding || queues.some(({ waiting }) => waiting > 0)) {
    if (performance.now() > deadline) return false;
    await sleep(1);
  }
  return true;
}
