/** One queue pair on the kernel data path: one vhost descriptor, one tap queue, the rings 2n (receive) and 2n + 1 (transmit). */
import { VHOST_NET_BATCH, VHOST_NET_VQ_RX, VHOST_NET_VQ_TX, VHOST_VRING_F_LOG } from '../constants/vhost';
import { VIRTIO_RING_F_EVENT_IDX } from '../constants/virtio-ring';
import { VhostError } from '../errors';
import { EventFd, type EventFdWatch } from '../host/event-fd';
import { NetDeviceCounters } from '../host/net-device-counters';
import type { Tap } from '../host/tap';
import type { VhostNet, VringAddresses } from '../host/vhost-net';
import type { DirtyLog } from '../memory/dirty-log';
import type { GuestMemory } from '../memory/guest-memory';
import { hasBit } from '../net/features';
import { emit, type Trace } from '../trace/trace';
import type { QueueState } from '../virtqueue/queue-state';
import type { BackendDevice, RingFault, RingPosition, StoppedRing } from './backend';
import { TapDiscard } from './tap-discard';
import { LOG_ALL } from './vhost-kernel-features';
import type { Step } from './vhost-kernel-steps';

const RINGS = [VHOST_NET_VQ_RX, VHOST_NET_VQ_TX] as const;
/** A queue is not made longer than this by repeated stops. */
const LONGEST_TX_QUEUE = 65_536;

/** Where the kernel finds a vring. The whole of each part must lie in one region: fails with VHOST_ERR_MEMORY_TABLE otherwise. */
export function vringAddresses(
  memory: GuestMemory,
  queue: QueueState,
  features: bigint,
  logged: boolean,
): VringAddresses {
  const event = hasBit(features, VIRTIO_RING_F_EVENT_IDX) ? 2 : 0;
  return {
    flags: logged ? VHOST_VRING_F_LOG : 0,
    desc: memory.hvaOf(queue.descTable, 16 * queue.size),
    avail: memory.hvaOf(queue.availRing, 4 + 2 * queue.size + event),
    used: memory.hvaOf(queue.usedRing, 4 + 8 * queue.size + event),
    logGuestAddr: queue.usedRing,
  };
}

export class VhostPair {
  readonly index: number;
  readonly tap: Tap;
  readonly vhost: VhostNet;
  readonly #trace: Trace | undefined;
  /** Signalled by the kernel when it cannot go on with a ring. */
  readonly #errors = RINGS.map(() => EventFd.create());
  #watches: EventFdWatch[] = [];
  #discard: TapDiscard | null = null;
  /** vrings that were attached, or may have been, since `configure`. */
  readonly #attached = new Set<number>();
  /** Frames that had found the tap's queue full when it was last looked at. */
  #dropsSeen = 0;
  #counters: NetDeviceCounters | null = null;

  constructor(index: number, tap: Tap, vhost: VhostNet, trace: Trace | undefined) {
    this.index = index;
    this.tap = tap;
    this.vhost = vhost;
    this.#trace = trace;
  }

  /** Throws away what reaches the tap, from now on or no longer. */
  discard(on: boolean): void {
    if (on) this.#discard ??= new TapDiscard(this.tap);
    else {
      this.#discard?.stop();
      this.#discard = null;
    }
  }

  /** Queue number of vring 0 or 1. */
  queueOf(ring: number): number {
    return this.index * 2 + ring;
  }

  /** vrings that the driver enabled, in the order in which they are attached. */
  readyRings(device: BackendDevice): number[] {
    return RINGS.filter((ring) => device.queues[this.queueOf(ring)]?.ready === true);
  }

  /** Everything the kernel must know before a ring is attached. */
  async configure(device: BackendDevice, features: bigint, log: DirtyLog | null): Promise<void> {
    const { vhost } = this;
    this.#attached.clear();
    // A log of an earlier run may be shorter than today's memory: it goes before the table comes.
    if (vhost.log !== null && vhost.log !== log) await vhost.setLogBase(null);
    await vhost.setFeatures(log === null ? features : features | LOG_ALL);
    await vhost.setMemTable(device.memory);
    if (log !== null) await vhost.setLogBase(log);
    for (const ring of this.readyRings(device)) await this.configureRing(device, ring, features, log);
  }

  /** Everything the kernel must know of one ring. */
  async configureRing(device: BackendDevice, ring: number, features: bigint, log: DirtyLog | null): Promise<void> {
    const { vhost } = this;
    const queue = device.queues[this.queueOf(ring)]!;
    const { kick, call } = device.notifiers[this.queueOf(ring)]!;
    await vhost.setVringNum(ring, queue.size);
    await vhost.setVringBase(ring, queue.nextAvail);
    await vhost.setVringAddr(ring, vringAddresses(device.memory, queue, features, log !== null));
    await vhost.setVringErr(ring, this.#errors[ring]!);
    await vhost.setVringCall(ring, call);
    await vhost.setVringKick(ring, kick);
  }

  /** Tells the kernel where rings stand that another data path served since `configure`. */
  async rebase(device: BackendDevice): Promise<void> {
    for (const ring of this.readyRings(device)) {
      await this.vhost.setVringBase(ring, device.queues[this.queueOf(ring)]!.nextAvail);
    }
  }

  /** Attaches the rings and kicks each once: a kick that came while nobody listened must not be lost, nor a frame that did not fit. */
  async attach(device: BackendDevice, rings = this.readyRings(device)): Promise<void> {
    for (const ring of rings) {
      // Noted before: a call that fails may have had its effect.
      this.#attached.add(ring);
      await this.vhost.setBackend(ring, this.tap);
    }
    for (const ring of rings) {
      const queue = this.queueOf(ring);
      device.notifiers[queue]!.kick.signal();
      emit(this.#trace, { kind: 'eventfd', edge: 'signal', name: 'kick', queue, count: 1 });
    }
  }

  /** Calls back with what the kernel reports of a ring, until `unwatch`. Does not keep the process running. */
  watch(onFault: (fault: RingFault) => void): void {
    this.#watches = RINGS.map((ring) => {
      const watch = this.#errors[ring]!.onSignal((count) => this.#report(ring, count, onFault));
      watch.unref();
      return watch;
    });
  }

  #report(ring: number, count: number, onFault: (fault: RingFault) => void): void {
    if (count === 0) return;
    const queue = this.queueOf(ring);
    emit(this.#trace, { kind: 'eventfd', edge: 'wake', name: 'err', queue, count });
    onFault({ queue, message: `the kernel cannot go on with the ring (error eventfd, ${count} times)` });
  }

  /** Ends the watching; what came in last is reported. */
  unwatch(onFault: (fault: RingFault) => void): void {
    for (const watch of this.#watches) watch.close();
    this.#watches = [];
    for (const ring of RINGS) this.#report(ring, this.#errors[ring]!.drain(), onFault);
  }

  /**
   * Detaching puts the frames that vhost has taken ahead back into the tap's queue, and frees without counting what does not fit. A queue
   * that overflowed while the guest had no buffers left is made longer first. No other is: while its length changes the interface drops
   * what arrives, so that this loses frames wherever there is room for them anyway. It stays that long, since shrinking would free
   * frames too. Without the permission it is left as it is.
   */
  async makeRoom(device: BackendDevice): Promise<void> {
    try {
      if (!this.#starved(device)) return;
      this.#counters ??= await NetDeviceCounters.open(this.tap.name, this.tap.netns);
      const dropped = this.#counters.read()?.tx.dropped ?? 0;
      if (dropped === this.#dropsSeen) return;
      this.#dropsSeen = dropped;
      const length = await this.tap.txQueueLen();
      if (length + VHOST_NET_BATCH <= LONGEST_TX_QUEUE) await this.tap.setTxQueueLen(length + VHOST_NET_BATCH);
    } catch (error) {
      const message = `the queue of the tap could not be made longer: a full one loses up to ${VHOST_NET_BATCH} frames (${error})`;
      emit(this.#trace, { kind: 'fault', object: `vhost-kernel pair ${this.index}`, message });
    }
  }

  /** The guest has next to no receive buffers in the ring: what has arrived since waits in the tap's queue. */
  #starved({ memory, queues }: BackendDevice): boolean {
    const queue = queues[this.queueOf(VHOST_NET_VQ_RX)];
    if (queue?.ready !== true) return false;
    const [available, used] = [queue.availRing, queue.usedRing].map((ring) => {
      const bytes = memory.read(ring + 2, 2);
      return bytes[0]! | (bytes[1]! << 8);
    });
    return ((available! - used!) & 0xffff) * 8 < queue.size;
  }

  /** Detaches both rings. The first failure is thrown after both were tried. */
  async detach(): Promise<void> {
    let failure: unknown;
    for (const ring of RINGS) {
      try {
        await this.vhost.setBackend(ring, null);
      } catch (error) {
        failure ??= error;
      }
    }
    if (failure !== undefined) throw failure;
  }

  /**
   * As `detach`, on a device that refuses: the kernel checks log and ring addresses even then (EFAULT). Logging goes first; what still
   * does not let go is closed, which the kernel never refuses. Answers false when the descriptor had to be closed.
   */
  async detachForced(features: bigint): Promise<boolean> {
    try {
      await this.detach();
      return true;
    } catch (error) {
      const message = `detach failed, logging is taken away and it is tried again (${error})`;
      emit(this.#trace, { kind: 'fault', object: `vhost-kernel pair ${this.index}`, message });
    }
    try {
      await this.vhost.setFeatures(features);
      await this.vhost.unchecked.setLogBase(0, null);
      await this.detach();
      return true;
    } catch (error) {
      const message = `detach failed again, the descriptor is closed (${error})`;
      emit(this.#trace, { kind: 'fault', object: `vhost-kernel pair ${this.index}`, message });
    }
    await this.vhost.close();
    return false;
  }

  /** After a start that failed and was undone: frames may have gone through rings that were attached for a moment. */
  async takeBack({ memory, queues }: BackendDevice): Promise<void> {
    for (const ring of this.#attached) {
      const queue = queues[this.queueOf(ring)]!;
      try {
        queue.nextAvail = (await this.stopped(ring, memory, queue)).base;
      } catch (error) {
        const message = `where the ring stands cannot be read (${error})`;
        emit(this.#trace, { kind: 'fault', object: `vhost-kernel queue ${this.queueOf(ring)}`, message });
      }
    }
    this.#attached.clear();
  }

  /** Where an attached ring stands, roughly: the kernel goes on meanwhile. */
  async position(ring: number, memory: GuestMemory, queue: QueueState): Promise<RingPosition> {
    const nextAvail = await this.vhost.getVringBase(ring, { attached: true });
    const bytes = memory.read(queue.usedRing, 4);
    return { nextAvail, usedIdx: bytes[2]! | (bytes[3]! << 8) };
  }

  /** Where a detached ring stands. Never fails for what a guest did to its ring. */
  async stopped(ring: number, memory: GuestMemory, queue: QueueState): Promise<StoppedRing> {
    let usedIdx: number | null = null;
    try {
      const bytes = memory.read(queue.usedRing, 4);
      usedIdx = bytes[2]! | (bytes[3]! << 8);
    } catch {
      // The ring left guest memory; its base is still good.
    }
    let base: number;
    try {
      base = await this.vhost.getVringBase(ring);
    } catch (error) {
      if (usedIdx === null) throw error;
      base = usedIdx;
      const message = `VHOST_GET_VRING_BASE failed, used->idx stands in for it (${error})`;
      emit(this.#trace, { kind: 'fault', object: `vhost-kernel queue ${this.queueOf(ring)}`, message });
    }
    return { queue: this.queueOf(ring), base, usedIdx: usedIdx ?? base };
  }

  /** Steps from logging into `from` to logging into `to`, on the whole device: what `allOrNothing` runs. */
  static logSteps(
    pairs: readonly VhostPair[],
    device: BackendDevice,
    features: bigint,
    from: DirtyLog | null,
    to: DirtyLog | null,
  ): Step[] {
    const base = (log: DirtyLog | null, before: DirtyLog | null): Step[] =>
      pairs.map(({ vhost }) => ({ run: () => vhost.setLogBase(log), undo: () => vhost.setLogBase(before) }));
    if (from !== null && to !== null) return base(to, from);
    const on = to !== null;
    const masks = (logging: boolean): bigint => (logging ? features | LOG_ALL : features);
    const data = pairs.map(({ vhost }) => ({
      run: () => vhost.setFeatures(masks(on)),
      undo: () => vhost.setFeatures(masks(!on)),
    }));
    const used = pairs.flatMap((pair) =>
      pair.readyRings(device).map((ring) => {
        const queue = device.queues[pair.queueOf(ring)]!;
        const set = (logging: boolean) =>
          pair.vhost.setVringAddr(ring, vringAddresses(device.memory, queue, features, logging));
        return { run: () => set(on), undo: () => set(!on) };
      }),
    );
    // On: a bit must find its log. Off: the log goes when no bit can come any more.
    return on ? [...base(to, from), ...data, ...used] : [...data, ...used, ...base(to, from)];
  }

  /** Steps to a changed memory table: table first, then where the rings lie in it. */
  static tableSteps(pairs: readonly VhostPair[], device: BackendDevice, features: bigint, logged: boolean): Step[] {
    return pairs.flatMap((pair) => {
      const { vhost } = pair;
      const before = vhost.memTable;
      const table: Step = {
        run: () => vhost.setMemTable(device.memory),
        undo: async () => {
          if (before !== null) await vhost.restoreMemTable(before);
        },
      };
      const rings = pair.readyRings(device).map((ring): Step => {
        const queue = device.queues[pair.queueOf(ring)]!;
        const was = vhost.vringAddresses(ring);
        return {
          run: () => vhost.setVringAddr(ring, vringAddresses(device.memory, queue, features, logged)),
          undo: async () => {
            if (was !== null) await vhost.setVringAddr(ring, was);
          },
        };
      });
      return [table, ...rings];
    });
  }

  async close(): Promise<void> {
    for (const watch of this.#watches) watch.close();
    this.#watches = [];
    await this.vhost.close();
    for (const event of this.#errors) event.close();
    this.discard(false);
    this.#counters?.close();
    this.#counters = null;
  }

  /** Throws unless the device has the queues and doorbells of this pair. */
  requireQueues(device: BackendDevice): void {
    for (const ring of RINGS) {
      const queue = this.queueOf(ring);
      if (device.queues[queue] === undefined || device.notifiers[queue] === undefined) {
        throw new VhostError('VHOST_ERR_INVALID_ARGUMENT', `the device has no queue ${queue}`);
      }
    }
  }
}
