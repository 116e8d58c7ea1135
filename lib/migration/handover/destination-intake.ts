/**
 * The destination's part in handing frames over. Until the cut is near its tap is read and thrown away; from then on it is kept. The guest starts
 * on the emulated data path and is given the source's frames as they come. When those have ended, the frames of both taps are joined, what only
 * this tap had follows, and then the tap is read directly.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { EmulatedBackend } from '../../backend/emulated';
import { ProtocolError } from '../../errors';
import type { Tap } from '../../host/tap';
import type { DestinationAccount } from './account';
import { type FlowFrame, FlowOrder } from './flow-order';
import { drainAll, emptied, FrameQueue, MOST_BYTES, mostOf } from './frame-queue';
import { digest, GuestAddresses, streamKey } from './frame-sort';
import { type CutSide, GroupRecord } from './group-record';
import { type Join, join } from './join';
import type { TapCounters } from './tap-counters';

/** How long a frame that reached the source's tap may take to this one: two hosts have more between them than two queues. Milliseconds. */
const UNDER_WAY_MS = 100;

/** Of the source's frames that wait for the guest, and of its frames for groups: before GO nobody takes any of them. */
const MOST_FRAMES = 1 << 20;
const MOST_ENTRIES = 1 << 20;

/** A guest that has taken what it was given posts no more buffers for so many looks, each so long after the other. Milliseconds. */
const LOOKS = 5;
const LOOK_MS = 2;
/** Longest time for it: a driver may post buffers anew only when many are missing. */
const TAKE_MS = 100;

interface KeptFrame extends FlowFrame {
  readonly frame: Uint8Array;
  /** Not for one of the guest's addresses: it may have reached the source's tap too. */
  readonly group: boolean;
  readonly digest: bigint;
}

export class DestinationIntake {
  /** What the guest starts on. */
  readonly backend: EmulatedBackend;
  readonly queues: readonly FrameQueue[];
  readonly counters: TapCounters;
  #addresses = new GuestAddresses([]);
  /** In the order of each queue. */
  #kept: KeptFrame[] = [];
  /** What is read before the event loop goes on to something else is of one round. */
  #round = 0;
  #roundEnd: NodeJS.Immediate | null = null;
  #othersWait = false;
  /** Null for a single queue, which has one order. */
  readonly #flows: FlowOrder | null;
  readonly #before = new GroupRecord();
  readonly #after = new GroupRecord();
  readonly #late = new GroupRecord();
  readonly #expected = new GroupRecord();
  readonly #account = { discarded: 0, read: 0, own: 0, received: 0 };
  #startedAt = 0;
  #firstSentMs: number | null = null;
  weakGraces = 0;

  /** `header`: bytes of virtio-net header before each frame. */
  constructor(taps: readonly Tap[], header: number, counters: TapCounters) {
    this.counters = counters;
    this.queues = taps.map((tap) => new FrameQueue(tap, header));
    this.#flows = taps.length > 1 ? new FlowOrder() : null;
    this.backend = new EmulatedBackend({
      taps,
      prepareTaps: true,
      inlets: this.queues,
      onTransmit: () => {
        this.#firstSentMs ??= performance.now() - this.#startedAt;
      },
    });
    for (const queue of this.queues) queue.collect(null);
  }

  /** Throws away no more. `addresses` are the guest's. */
  open(addresses: readonly string[]): void {
    this.#addresses = new GuestAddresses(addresses);
    // What waited before this moment is as good as thrown away, and what found a queue full that nobody had read is no loss.
    drainAll(this.queues);
    this.counters.restart();
    for (const [pair, queue] of this.queues.entries()) {
      drainAll([queue]);
      this.#account.discarded += queue.taken;
      queue.most = 0;
      queue.collect((frame) => this.#keep(pair, frame));
    }
  }

  #keep(pair: number, frame: Uint8Array): void {
    const at = this.queues[pair]!.header;
    this.#account.read++;
    const sort = this.#addresses.sort(frame, at);
    if (sort === 'own') {
      this.#account.own++;
      return;
    }
    const group = sort === 'group';
    const kept = { pair, frame, group, stream: this.#stream(frame, at, group), round: this.#round };
    this.#kept.push({ ...kept, digest: group ? digest(frame, at, frame.length) : 0n });
    if (this.#flows?.saw(kept) === true) this.#readOthers();
    this.#roundEnd ??= setImmediate(() => {
      this.#roundEnd = null;
      this.#round++;
    });
  }

  /** Soon, and in this round. Not at once: whoever tells of a frame may be in the middle of a batch. */
  #readOthers(): void {
    if (this.#othersWait) return;
    this.#othersWait = true;
    queueMicrotask(() => {
      if (this.#othersWait) this.#readAll();
    });
  }

  #readAll(): void {
    do {
      this.#othersWait = false;
      drainAll(this.queues);
    } while (this.#othersWait);
  }

  /** Of group frames, and with several queues of all. */
  #stream(frame: Uint8Array, at: number, group: boolean): bigint | null {
    return group || this.#flows !== null ? streamKey(frame, at, frame.length, this.queues.length) : null;
  }

  /** More of the guest's addresses have become known: what was kept is sorted anew. */
  setAddresses(addresses: readonly string[]): void {
    this.#addresses = new GuestAddresses(addresses);
    this.#kept = this.#kept.flatMap((kept) => {
      const sort = this.#addresses.sort(kept.frame, this.queues[kept.pair]!.header);
      if (sort === 'own') this.#account.own++;
      if (sort === 'own') return [];
      return sort === 'unicast' ? { ...kept, group: false } : kept;
    });
  }

  /** The guest runs. */
  started(): void {
    this.#startedAt = performance.now();
  }

  /** A frame of the source's tap, for the guest; `offset` is where it came in the stream. Throws ProtocolError when too much waits. */
  receive(pair: number, frame: Uint8Array, offset: number): void {
    if (this.waiting >= MOST_FRAMES) {
      throw new ProtocolError(`FRAMES: ${this.waiting + 1} frames wait`, offset, `at most ${MOST_FRAMES}`);
    }
    const bytes = this.queues.reduce((sum, { waitingBytes }) => sum + waitingBytes, frame.length);
    if (bytes > MOST_BYTES) throw new ProtocolError(`FRAMES: ${bytes} bytes wait`, offset, `at most ${MOST_BYTES}`);
    this.#account.received++;
    this.#give(pair, Uint8Array.from(frame), this.#stream(frame, this.queues[pair]!.header, false));
  }

  #give(pair: number, frame: Uint8Array, stream: bigint | null): void {
    const queue = stream === null || this.#flows === null ? pair : this.#flows.queueFor(stream, pair);
    this.queues[queue]!.push(frame);
  }

  /** A frame that reached the source's tap, and perhaps this one. Throws ProtocolError when there are too many. */
  seen(side: CutSide, stream: bigint, hash: bigint, offset: number): void {
    const entries = this.#before.length + this.#after.length + this.#late.length + 1;
    if (entries > MOST_ENTRIES) throw new ProtocolError(`GROUP: ${entries} entries`, offset, `at most ${MOST_ENTRIES}`);
    ({ before: this.#before, after: this.#after, late: this.#late })[side].add(stream, hash);
  }

  /**
   * The source has sent everything (`complete`), or is lost. Joins, and lets the guest have what only this tap had. Resolves when the tap is read
   * directly and nothing waits in between.
   */
  async finish(complete: boolean): Promise<DestinationAccount> {
    this.#readAll();
    this.#flows?.sort(this.#kept);
    const joins = this.#joins();
    const positions = new Map<bigint, number>();
    let matched = 0;
    let kept = 0;
    for (const { pair, frame, stream, group } of this.#kept) {
      if (group && this.#isMatched(joins, positions, stream!)) {
        matched++;
        continue;
      }
      this.#give(pair, frame, stream);
      kept++;
    }
    this.#kept = [];
    // Nothing is kept any more, so nothing may be read before it passes.
    for (const queue of this.queues) queue.hold();
    const unordered = await this.#unordered();
    for (const [pair, queue] of this.queues.entries()) {
      queue.passThrough((arena, at, end) => this.#sawExpected(pair, arena, at, end));
    }
    this.#expect(joins, positions);
    const emptyNow = await emptied(this.queues, this.backend);
    const missing = await this.#missing();
    for (const queue of this.queues) queue.leave();
    const all = [...joins.values()];
    const account: DestinationAccount = {
      ...this.#account,
      matched,
      kept,
      dropped: this.counters.dropped(mostOf(this.queues)),
      ambiguous: all.filter(({ ambiguous }) => ambiguous).length,
      disagreeing: all.filter(({ disagrees }) => disagrees).length,
      missing,
      unordered,
      weakGraces: this.weakGraces,
      complete: emptyNow && complete,
      firstReceivedMs: this.#firstReceivedMs(),
      firstSentMs: this.#firstSentMs,
    };
    return account;
  }

  /**
   * From here on each flow comes in the queue where its tap has it: only when the guest has taken what it got in another one. Answers of how
   * many flows the order is not certain.
   */
  async #unordered(): Promise<number> {
    const flows = this.#flows;
    if (flows === null) return 0;
    const { elsewhere, unknown } = flows;
    if (elsewhere === 0) return unknown;
    await emptied(this.queues, this.backend);
    return (await this.#taken()) ? unknown : unknown + elsewhere;
  }

  /** When the guest has taken what is in its rings. Answers whether it is certain, or only that it posts no more buffers. */
  async #taken(): Promise<boolean> {
    const deadline = performance.now() + TAKE_MS;
    for (let same = 0, before = -1; ; ) {
      const { room } = this.backend;
      if (room.every(({ posted, size }) => posted === size)) return true;
      const now = room.reduce((sum, { posted }) => sum + posted, 0);
      same = now === before ? same + 1 : 0;
      before = now;
      if (same >= LOOKS || performance.now() >= deadline) return false;
      await sleep(LOOK_MS);
    }
  }

  #firstReceivedMs(): number | null {
    const times = this.queues.flatMap(({ firstReadAt }) => (firstReadAt === null ? [] : [firstReadAt]));
    return times.length === 0 ? null : Math.min(...times) - this.#startedAt;
  }

  /** By stream, over all queues: with several of them a stream is in one. */
  #joins(): Map<bigint, Join> {
    const kept = new Map<bigint, bigint[]>();
    for (const { stream, group, digest: hash } of this.#kept) {
      if (!group) continue;
      const list = kept.get(stream!);
      if (list === undefined) kept.set(stream!, [hash]);
      else list.push(hash);
    }
    const joins = new Map<bigint, Join>();
    for (const [stream, list] of kept) {
      const after = this.#after.of(stream);
      joins.set(stream, join(this.#before.of(stream), [...after, ...this.#late.of(stream)], list, after.length));
    }
    return joins;
  }

  /** Frames that the source's tap had after the cut, beyond those that came here too: they are on their way, or never come. */
  #expect(joins: ReadonlyMap<bigint, Join>, kept: ReadonlyMap<bigint, number>): void {
    for (const stream of new Set([...this.#after.streams, ...this.#late.streams])) {
      const there = [...this.#after.of(stream), ...this.#late.of(stream)];
      const here = (kept.get(stream) ?? 0) - (joins.get(stream)?.matched ?? 0);
      for (const hash of there.slice(here)) this.#expected.add(stream, hash);
    }
  }

  readonly #sawExpected = (pair: number, arena: Uint8Array, start: number, end: number): void => {
    if (this.#expected.length === 0) return;
    const at = start + this.queues[pair]!.header;
    this.#expected.remove(streamKey(arena, at, end, this.queues.length), digest(arena, at, end));
  };

  async #missing(): Promise<number> {
    const deadline = performance.now() + UNDER_WAY_MS;
    while (this.#expected.length > 0 && performance.now() < deadline) await sleep(1);
    return this.#expected.length;
  }

  #isMatched(joins: ReadonlyMap<bigint, Join>, positions: Map<bigint, number>, stream: bigint): boolean {
    const position = positions.get(stream) ?? 0;
    positions.set(stream, position + 1);
    return joins.get(stream)!.isMatched(position);
  }

  /** Frames that the guest has not taken yet. */
  get waiting(): number {
    return this.queues.reduce((sum, { waiting }) => sum + waiting, 0);
  }

  /** Nothing of it reads the tap any more. The backend is closed by whoever has it. */
  close(): void {
    if (this.#roundEnd !== null) clearImmediate(this.#roundEnd);
    for (const queue of this.queues) queue.close();
  }
}
