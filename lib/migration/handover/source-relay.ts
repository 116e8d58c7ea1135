/**
 * The source's part in handing frames over. Shortly before the guest stops its device goes on with the emulated data path, so that every frame
 * from then on passes here: those that reached both taps are remembered. When the guest stands its tap is read on without pause, and what is for
 * the guest goes to the destination.
 *
 *     begin      emulated data path; frames are recorded
 *     collect    the device stands; frames go to the destination, and are kept for the guest here until it is gone
 *     finish     the destination runs: cut, grace period, nothing left
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Backend } from '../../backend/backend';
import { EmulatedBackend } from '../../backend/emulated';
import type { TransmitObserver } from '../../backend/frame-inlet';
import { ETH_ALEN } from '../../constants/if-ether';
import type { VirtioNetDevice } from '../../device/virtio-net-device';
import { ETHER_SOURCE } from '../../net/ethernet';
import { headerLength } from '../../net/header';
import { announce, carriesNonce } from '../announce';
import type { SourceAccount } from './account';
import { FrameBatch } from './frame-batch';
import { drainAll, emptied, FrameQueue, mostOf } from './frame-queue';
import { digest, GuestAddresses, streamKey, vlanOf } from './frame-sort';
import type { Grace } from './grace';
import { GroupEntries } from './group-record';
import { TapCounters } from './tap-counters';

/** How long the announcement may take to come back. */
const MARKER_MS = 200;
/** VLANs that are announced; a guest with more is found on the others when it sends there. */
const MOST_VLANS = 64;

/** Where frames go, and what the destination needs to know of them. */
export interface RelaySink {
  frames(payload: Buffer): void;
  group(entries: Buffer): void;
}

export class SourceRelay {
  readonly addresses: GuestAddresses;
  readonly #device: VirtioNetDevice;
  readonly #before: Backend;
  readonly #relay: EmulatedBackend;
  readonly #queues: readonly FrameQueue[];
  readonly #counters: TapCounters;
  readonly #vlans = new Set<number>();
  readonly #group = {
    before: new GroupEntries('before'),
    after: new GroupEntries('after'),
    late: new GroupEntries('late'),
  };
  readonly #batch = new FrameBatch();
  /** While the guest runs here: what was not for one of its addresses, as far as they were known then. */
  #recorded: { to: Uint8Array; stream: bigint; hash: bigint }[] = [];
  /** For the guest here, should it go on. */
  #kept: { pair: number; frame: Uint8Array }[] = [];
  #sink: RelaySink | null = null;
  #nonce: Uint8Array | null = null;
  /** By queue: whether it has come to the cut. */
  readonly #cut: boolean[];
  #cutBy: SourceAccount['cutBy'] | null = null;
  #onCut: (() => void) | null = null;
  /** The last grace period has begun: what comes from now on may still be on its way to the other tap when it is over. */
  #late = false;
  #drained = false;
  #weakGraces = 0;
  #flushing: NodeJS.Immediate | null = null;
  readonly #account = { read: 0, sent: 0, own: 0, groupAfterCut: 0, markers: 0, late: 0 };

  private constructor(device: VirtioNetDevice, counters: TapCounters) {
    this.#device = device;
    this.#before = device.backend;
    const taps = this.#before.taps!;
    this.#counters = counters;
    const header = headerLength(device.features);
    this.addresses = new GuestAddresses(device.addresses);
    for (const vlan of device.vlans.slice(0, MOST_VLANS)) this.#vlans.add(vlan);
    this.#queues = taps.map((tap) => new FrameQueue(tap, header));
    this.#cut = taps.map(() => false);
    for (const queue of this.#queues) {
      queue.passThrough((arena, at, end) => this.#recordGroup(arena, at + header, end));
    }
    this.#relay = new EmulatedBackend({ taps, inlets: this.#queues, onTransmit: this.#learn(header) });
  }

  /** Puts the device on the emulated data path. On failure it goes on as before. */
  static async begin(device: VirtioNetDevice, grace: Grace): Promise<SourceRelay> {
    const counters = await TapCounters.begin(device.backend.taps![0]!);
    const relay = new SourceRelay(device, counters);
    try {
      await device.switchBackend(relay.#relay);
    } catch (error) {
      counters.close();
      throw error;
    }
    relay.#tellNetwork();
    // What was put into this tap alone before anything was recorded is forwarded to no other any more when it ends.
    if (!(await grace())) relay.#weakGraces++;
    return relay;
  }

  /** A guest that is silent may have been forgotten, and what is for it would reach both taps. */
  #tellNetwork(): void {
    if (this.#device.linkUp) announce(this.#queues[0]!.tap, { macs: this.addresses.list, vlans: this.vlans });
  }

  /** What the guest sends says under which addresses, and in which VLANs, the network knows it. */
  #learn(header: number): TransmitObserver {
    return (arena, stride, count, lengths) => {
      for (let index = 0; index < count; index++) {
        const at = index * stride + header;
        const end = index * stride + lengths[index]!;
        if (end - at < 14) continue;
        this.addresses.add(arena, at + ETHER_SOURCE);
        const vlan = vlanOf(arena, at, end);
        if (vlan !== null && this.#vlans.size < MOST_VLANS) this.#vlans.add(vlan);
      }
    };
  }

  get vlans(): number[] {
    return [...this.#vlans];
  }

  #recordGroup(arena: Uint8Array, at: number, end: number): void {
    if (this.addresses.sort(arena, at) !== 'group') return;
    this.#recorded.push({
      to: arena.slice(at, at + ETH_ALEN),
      stream: streamKey(arena, at, end, this.#queues.length),
      hash: digest(arena, at, end),
    });
  }

  /** The device has stopped. From now on every frame that is read goes to `sink`; `nonce` is that of the destination's announcement. */
  collect(sink: RelaySink, nonce: Uint8Array): void {
    this.#sink = sink;
    this.#nonce = nonce;
    for (const { to, stream, hash } of this.#recorded) {
      if (this.addresses.has(to, 0)) continue;
      this.#group.before.add(stream, hash);
      if (this.#group.before.full) this.#flush();
    }
    this.#recorded = [];
    for (const [pair, queue] of this.#queues.entries()) {
      for (const frame of queue.takeAll()) this.#hand(pair, frame);
      queue.collect((frame) => this.#sort(pair, frame));
    }
    // Ahead of the state: a destination that says it is ready knows what must not be given twice, whatever becomes of this side.
    this.#flush();
  }

  #sort(pair: number, frame: Uint8Array): void {
    const at = this.#queues[pair]!.header;
    const account = this.#account;
    if (carriesNonce(frame, at, frame.length, this.#nonce!)) {
      account.read++;
      account.markers++;
      this.#reachedCut(pair);
      return;
    }
    const sort = this.addresses.sort(frame, at);
    if (this.#drained) {
      if (sort === 'unicast') account.late++;
      return;
    }
    if (sort === 'own') {
      account.read++;
      account.own++;
      return;
    }
    if (sort === 'group') {
      const side = this.#cut[pair] !== true ? 'before' : this.#late ? 'late' : 'after';
      this.#group[side].add(streamKey(frame, at, frame.length, this.#queues.length), digest(frame, at, frame.length));
      if (this.#cut[pair] === true) {
        account.read++;
        account.groupAfterCut++;
        this.#kept.push({ pair, frame });
        this.#flushSoon();
        return;
      }
    }
    this.#hand(pair, frame);
  }

  #hand(pair: number, frame: Uint8Array): void {
    this.#account.read++;
    this.#account.sent++;
    this.#kept.push({ pair, frame });
    this.#batch.add(pair, frame);
    if (this.#batch.full) this.#flush();
    else this.#flushSoon();
  }

  #flushSoon(): void {
    this.#flushing ??= setImmediate(() => this.#flush());
  }

  #flush(): void {
    if (this.#flushing !== null) clearImmediate(this.#flushing);
    this.#flushing = null;
    for (const entries of Object.values(this.#group)) if (entries.length > 0) this.#sink?.group(entries.take());
    if (!this.#batch.empty) this.#sink?.frames(this.#batch.take());
  }

  /** The position in one queue is the cut there; in the others it is where they are empty next. */
  #reachedCut(pair: number): void {
    this.#cutBy ??= 'marker';
    this.#cut[pair] = true;
    setImmediate(() => this.#cutOthers());
  }

  #cutOthers(): void {
    for (const [pair, queue] of this.#queues.entries()) {
      if (this.#cut[pair] === true) continue;
      queue.drain();
      this.#cut[pair] = true;
    }
    this.#onCut?.();
  }

  /** The destination runs. Resolves when everything for the guest has been sent; the tap is read on. */
  async finish(grace: Grace): Promise<SourceAccount> {
    drainAll(this.#queues);
    if (!this.#cut.every((cut) => cut)) {
      await Promise.race([
        new Promise<void>((resolve) => {
          this.#onCut = resolve;
        }),
        sleep(MARKER_MS),
      ]);
    }
    // It may have come while this process did not get to run.
    drainAll(this.#queues);
    if (this.#cutBy === null) {
      this.#cutBy = 'timeout';
      this.#cutOthers();
    }
    this.#late = true;
    // A forward that ran beside the announcement may still put its frame behind it.
    if (!(await grace())) this.#weakGraces++;
    drainAll(this.#queues);
    this.#drained = true;
    this.#flush();
    this.#kept = [];
    return this.account;
  }

  get account(): SourceAccount {
    return {
      ...this.#account,
      dropped: this.#counters.dropped(mostOf(this.#queues)),
      cutBy: this.#cutBy ?? 'timeout',
      weakGraces: this.#weakGraces,
    };
  }

  /**
   * The guest is to go on here, on the emulated data path, and to be given first what was collected for it. The device may be started when this
   * returns.
   */
  giveBack(): void {
    this.#sink = null;
    if (this.#flushing !== null) clearImmediate(this.#flushing);
    this.#flushing = null;
    const kept = this.#kept;
    this.#kept = [];
    for (const { pair, frame } of kept) this.#queues[pair]!.push(frame);
    for (const queue of this.#queues) queue.passThrough();
  }

  /** The device, running or not, goes back to the data path that it had, when nothing waits for the guest any more. */
  async end(): Promise<void> {
    if (this.#device.running) await emptied(this.#queues, this.#relay);
    else for (const queue of this.#queues) queue.close();
    for (const queue of this.#queues) queue.leave();
    await this.#device.switchBackend(this.#before);
    this.#counters.close();
    await this.#relay.close();
  }
}
