/**
 * Keeps one queue as busy as it goes, with buffers and descriptors that never change: a frame costs a used element to read and an available
 * entry to write. A device that is looked at after every frame spends its time on the cache lines of the ring, so a batch is waited for,
 * though not for long.
 */
import type { DriverQueue } from '../virtqueue/driver-queue';
import type { BootBlock } from './boot-block';
import type { Program } from './program';

/** Longest wait for a batch. Microseconds. */
const PATIENCE = 50;

export class Flood implements Program {
  readonly #queue: DriverQueue;
  readonly #block: BootBlock;
  readonly #counter: number;
  readonly #batch: number;
  readonly #enough: number;
  #last = Number.NEGATIVE_INFINITY;

  /** `counter` is the field of the boot block that counts the frames the device has used. */
  constructor(queue: DriverQueue, block: BootBlock, counter: number, batch: number) {
    this.#queue = queue;
    this.#block = block;
    this.#counter = counter;
    this.#batch = batch;
    this.#enough = Math.max(1, Math.min(batch >>> 1, queue.size >>> 2));
  }

  poll(nowMicros: number): number {
    const queue = this.#queue;
    const pending = queue.pending();
    if (pending === 0) return 0;
    if (pending < this.#enough && pending < queue.inFlight && Math.abs(nowMicros - this.#last) < PATIENCE) return 0;
    this.#last = nowMicros;
    const count = Math.min(pending, this.#batch);
    queue.repost(count);
    this.#block.fields[this.#counter]! += count;
    return count;
  }

  dueIn(): number {
    return this.#queue.pending() > 0 ? PATIENCE : Number.POSITIVE_INFINITY;
  }

  /** There is nothing to do but what the queue gives back. */
  readonly waitsForRoom = true;
}
