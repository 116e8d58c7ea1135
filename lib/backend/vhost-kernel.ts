/**
 * The kernel data path: /dev/vhost-net moves frames between rings and taps, kicks and calls go from eventfd to kernel and back, and
 * Node stands aside. One vhost descriptor a queue pair.
 */
import { EventEmitter } from 'node:events';
import { VHOST_NET_VQ_RX } from '../constants/vhost';
import { invalidArgument, VhostError } from '../errors';
import type { Tap } from '../host/tap';
import { VhostNet } from '../host/vhost-net';
import type { DirtyLog } from '../memory/dirty-log';
import type { FaultPlan } from '../trace/fault-plan';
import { emit, type Trace } from '../trace/trace';
import { Turns } from '../turns';
import type { QueueState } from '../virtqueue/queue-state';
import type {
  Backend,
  BackendDevice,
  BackendEvents,
  PrepareOptions,
  RingFault,
  RingPosition,
  StoppedRing,
} from './backend';
import { ServedDevice } from './served-device';
import { BY_TAP } from './tap-features';
import { TapQueues } from './tap-queues';
import { carried, EVERY_VHOST_NET, requireCarried, vhostFeatures } from './vhost-kernel-features';
import { VhostPair } from './vhost-kernel-pair';
import { allOrNothing, together } from './vhost-kernel-steps';

export interface VhostKernelOptions {
  /** One a queue pair. They belong to the caller: closing the backend leaves them open. */
  taps: readonly Tap[];
  trace?: Trace | undefined;
  faults?: FaultPlan | undefined;
  /** Default /dev/vhost-net. */
  devicePath?: string | undefined;
  /** Descriptors of /dev/vhost-net opened by somebody else, one a tap, of which ownership is taken. */
  vhostFds?: readonly number[] | undefined;
  /** Set header size and offloads of every tap at start. Default false: they are checked, and `prepareTap` sets them beforehand. */
  prepareTaps?: boolean | undefined;
  /** Microseconds the kernel worker polls before it sleeps. Default 0. */
  busyloopMicros?: number | undefined;
}

export class VhostKernelBackend extends EventEmitter<BackendEvents> implements Backend {
  readonly kind = 'vhost-kernel';
  readonly #options: VhostKernelOptions;
  readonly #trace: Trace | undefined;
  readonly #taps: TapQueues;
  #pairs: VhostPair[] = [];
  #offered: bigint | null = null;
  #byTap = BY_TAP;
  /** What is served, from start to stop. */
  #device: ServedDevice | null = null;
  /** VHOST_SET_FEATURES without logging, while running. */
  #features = 0n;
  /** What `prepare` was told of last, until the start; `shared` when another path has served it since. */
  #prepared: { device: BackendDevice; shared: boolean } | null = null;
  #log: DirtyLog | null = null;
  #stoppedRings: readonly StoppedRing[] = [];
  #closed = false;
  /** Pairs in use, from the first on, while running. */
  #active = 0;
  readonly #turns = new Turns();

  constructor(options: VhostKernelOptions) {
    super();
    const { taps, vhostFds, busyloopMicros = 0, prepareTaps = false } = options;
    this.#taps = new TapQueues(taps, 'vhost-kernel backend', prepareTaps);
    if (vhostFds !== undefined && vhostFds.length !== taps.length) {
      throw invalidArgument(`${vhostFds.length} vhost descriptors for ${taps.length} taps`);
    }
    if (!Number.isInteger(busyloopMicros) || busyloopMicros < 0)
      throw invalidArgument(`busyloopMicros is ${busyloopMicros}`);
    this.#options = options;
    this.#trace = options.trace;
  }

  /** A backend whose vhost descriptors are open, so that `offeredFeatures` is what this kernel offers. */
  static async open(options: VhostKernelOptions): Promise<VhostKernelBackend> {
    const backend = new VhostKernelBackend(options);
    await backend.open();
    return backend;
  }

  get taps(): readonly Tap[] {
    return this.#taps.taps;
  }

  /** Before `open` (or the first start): what every kernel offers. */
  get offeredFeatures(): bigint {
    return carried(this.#offered ?? EVERY_VHOST_NET, this.#byTap);
  }

  async probe(): Promise<bigint> {
    await this.open();
    this.#byTap = await this.#taps.probe();
    return this.offeredFeatures;
  }

  requireFeatures(features: bigint): void {
    requireCarried(features, this.#offered ?? EVERY_VHOST_NET, this.#byTap);
  }

  get running(): boolean {
    return this.#device !== null;
  }

  get stoppedRings(): readonly StoppedRing[] {
    return this.#stoppedRings;
  }

  get dirtyLog(): DirtyLog | null {
    return this.#log;
  }

  /** The vhost devices, one a queue pair: for tests and for those who want to see inside. */
  get vhosts(): readonly VhostNet[] {
    return this.#pairs.map(({ vhost }) => vhost);
  }

  #throwIfClosed(): void {
    if (this.#closed) throw new VhostError('VHOST_ERR_CLOSED', 'VhostKernelBackend is closed');
  }

  #state(from: string, to: string): void {
    emit(this.#trace, { kind: 'state', object: 'vhost-kernel', from, to });
  }

  readonly #ringError = (fault: RingFault): void => {
    emit(this.#trace, { kind: 'fault', object: `vhost-kernel queue ${fault.queue}`, message: fault.message });
    this.emit('ringError', fault);
  };

  /** Opens and owns the vhost descriptors. Done by the first start if not before. */
  open(): Promise<void> {
    return this.#turns.run(() => this.#open());
  }

  async #open(): Promise<void> {
    this.#throwIfClosed();
    if (this.#pairs.length > 0) return;
    const { taps, devicePath: path, vhostFds, faults } = this.#options;
    const pairs: VhostPair[] = [];
    let offered = -1n;
    try {
      for (const [index, tap] of taps.entries()) {
        const vhost = await VhostNet.open({ path, fd: vhostFds?.[index], trace: this.#trace, faults });
        pairs.push(new VhostPair(index, tap, vhost, this.#trace));
        await this.#own(vhost);
        offered &= await vhost.getFeatures();
      }
    } catch (error) {
      for (const pair of pairs) await pair.close();
      // Descriptors that were handed in are gone now: there is nothing to try again with.
      if (vhostFds !== undefined) this.#closed = true;
      throw error;
    }
    this.#pairs = pairs;
    this.#offered = offered;
  }

  /** A descriptor that was handed in may be owned already, which is good if by this process: the next ioctl tells. */
  async #own(vhost: VhostNet): Promise<void> {
    try {
      await vhost.setOwner();
    } catch (error) {
      const owned = error instanceof VhostError && error.code === 'EBUSY';
      if (!owned || this.#options.vhostFds === undefined) throw error;
    }
  }

  prepare(device: BackendDevice, { shared = false }: PrepareOptions = {}): Promise<void> {
    return this.#turns.run(async () => {
      await this.#configure(device, shared);
      this.#prepared = { device, shared };
      if (!shared) for (const pair of this.#pairs) pair.discard(true);
    });
  }

  start(device: BackendDevice): Promise<void> {
    return this.#turns.run(async () => {
      // Without a prepare nothing is thrown away: what waits in the taps' queues is for this device.
      const prepared = this.#prepared?.device === device ? this.#prepared : null;
      const features = prepared === null ? await this.#configure(device, false) : this.#features;
      this.#prepared = null;
      const served = new ServedDevice(device);
      const pairs = this.#pairs.slice(0, this.#taps.activePairs(device));
      try {
        this.#taps.claim();
        // Each pair has a descriptor of its own, so they need not wait for each other; what is to be undone waits for all.
        await together(
          pairs.map(async (pair) => {
            pair.watch(this.#ringError);
            pair.discard(false);
            if (prepared?.shared === true) await pair.rebase(served);
            await pair.attach(served);
          }),
        );
      } catch (error) {
        await this.#detachAfterFailure(features, device);
        throw error;
      }
      this.#active = pairs.length;
      this.#device = served;
      this.#state('stopped', 'running');
    });
  }

  /** Tells the kernel everything but the taps. Answers the features it was told. */
  async #configure(device: BackendDevice, shared: boolean): Promise<bigint> {
    this.#throwIfClosed();
    if (this.#device !== null) throw new VhostError('VHOST_ERR_STATE', 'the backend runs already');
    this.#prepared = null;
    await this.#open();
    for (const pair of this.#pairs.slice(0, this.#taps.activePairs(device))) pair.requireQueues(device);
    this.#taps.requireQueues(device);
    this.requireFeatures(device.features);
    const features = vhostFeatures(device.features, this.#offered ?? 0n);
    try {
      if (!shared) this.#taps.claim();
      await this.#taps.configure(device);
      await together(this.#pairs.map((pair) => this.#configurePair(pair, device, features)));
    } catch (error) {
      await this.#detachAfterFailure(features);
      throw error;
    }
    this.#features = features;
    return features;
  }

  async #configurePair(pair: VhostPair, device: BackendDevice, features: bigint): Promise<void> {
    const { busyloopMicros = 0 } = this.#options;
    await pair.configure(device, features, this.#log);
    if (busyloopMicros === 0) return;
    for (const ring of pair.readyRings(device)) await pair.vhost.setVringBusyloopTimeout(ring, busyloopMicros);
  }

  /** `device` is told where rings stand that were attached before. */
  async #detachAfterFailure(features: bigint, device: BackendDevice | null = null): Promise<void> {
    let gone = false;
    for (const pair of this.#pairs) {
      if (pair.vhost.memTable !== null) gone = !(await pair.detachForced(features)) || gone;
      if (device !== null) await pair.takeBack(device);
      pair.unwatch(this.#ringError);
      pair.discard(false);
    }
    this.#taps.unclaim();
    if (gone) await this.#dropPairs();
  }

  /** After a descriptor had to be closed the next start opens all of them anew. */
  async #dropPairs(): Promise<void> {
    const pairs = this.#pairs;
    this.#pairs = [];
    for (const pair of pairs) await pair.close();
    if (this.#options.vhostFds !== undefined) this.#closed = true;
  }

  stop(): Promise<QueueState[]> {
    return this.#turns.run(() => this.#stop());
  }

  async #stop(): Promise<QueueState[]> {
    const device = this.#device;
    if (device === null) throw new VhostError('VHOST_ERR_STATE', 'the backend does not run');
    const pairs = this.#pairs.slice(0, this.#active);
    for (const pair of pairs) await pair.makeRoom(device);
    // Every ring stands before the first is asked where: a guest's frames leave by no pair any more.
    const held = await together(pairs.map((pair) => pair.detachForced(this.#features)));
    this.#stoppedRings = (await together(pairs.map((pair) => this.#stoppedPair(pair, device)))).flat();
    this.#taps.unclaim();
    this.#device = null;
    if (held.includes(false)) await this.#dropPairs();
    this.#state('running', 'stopped');
    return device.queues;
  }

  /** Where the rings of a detached pair stand, also for the device's queues. */
  async #stoppedPair(pair: VhostPair, device: ServedDevice): Promise<StoppedRing[]> {
    const stopped: StoppedRing[] = [];
    for (const ring of pair.readyRings(device)) {
      const queue = device.queues[pair.queueOf(ring)]!;
      const found = await this.#stoppedRing(pair, ring, device, queue);
      queue.nextAvail = found.base;
      stopped.push(found);
    }
    pair.unwatch(this.#ringError);
    return stopped;
  }

  async #stoppedRing(pair: VhostPair, ring: number, device: BackendDevice, queue: QueueState): Promise<StoppedRing> {
    try {
      const found = await pair.stopped(ring, device.memory, queue);
      if (found.base !== found.usedIdx) {
        const message = `base ${found.base} is not used->idx ${found.usedIdx}: buffers were consumed and never completed`;
        this.#ringError({ queue: found.queue, message });
      }
      return found;
    } catch (error) {
      // Neither kernel nor guest memory tells: the index it was started with is all there is.
      this.#ringError({ queue: pair.queueOf(ring), message: `where the ring stands cannot be read (${error})` });
      return { queue: pair.queueOf(ring), base: queue.nextAvail, usedIdx: queue.nextAvail };
    }
  }

  settingsChanged(): Promise<void> {
    return this.#turns.run(async () => {
      const device = this.#running();
      const pairs = this.#taps.activePairs(device);
      if (device.settings !== undefined) await this.#taps.apply(device.settings);
      while (this.#active > pairs) await this.#endPair(device, this.#pairs[this.#active - 1]!);
      while (this.#active < pairs) await this.#beginPair(device, this.#pairs[this.#active]!);
    });
  }

  async #beginPair(device: ServedDevice, pair: VhostPair): Promise<void> {
    pair.requireQueues(device);
    pair.watch(this.#ringError);
    try {
      await pair.rebase(device);
      await pair.attach(device);
      await this.#taps.use(pair.index);
    } catch (error) {
      if (!(await pair.detachForced(this.#features))) throw error;
      pair.unwatch(this.#ringError);
      throw error;
    }
    this.#active++;
  }

  /** No frame comes to a parked queue any more; those that vhost has taken ahead are delivered before it lets go, if there is room. */
  async #endPair(device: ServedDevice, pair: VhostPair): Promise<void> {
    await this.#taps.park(pair.index);
    this.#active--;
    await pair.makeRoom(device);
    if (!(await pair.detachForced(this.#features))) {
      throw new VhostError('VHOST_ERR_STATE', `pair ${pair.index} could not be detached and is closed`);
    }
    await this.#stoppedPair(pair, device);
  }

  stopQueue(queue: number): Promise<QueueState> {
    return this.#turns.run(async () => {
      const device = this.#running();
      const { pair, ring, state } = this.#ringOf(device, queue);
      if (state.ready && pair.index < this.#active) {
        if (ring === VHOST_NET_VQ_RX) await pair.makeRoom(device);
        await pair.vhost.setBackend(ring, null);
        state.nextAvail = (await this.#stoppedRing(pair, ring, device, state)).base;
      }
      const stood = { ...state };
      state.ready = false;
      return stood;
    });
  }

  startQueue(queue: number): Promise<void> {
    return this.#turns.run(async () => {
      const device = this.#running();
      const { pair, ring, state } = this.#ringOf(device, queue);
      if (state.ready) throw new VhostError('VHOST_ERR_STATE', `queue ${queue} is served already`);
      device.renew(queue);
      if (!device.queues[queue]!.ready) return;
      try {
        await pair.configureRing(device, ring, this.#features, this.#log);
        if (pair.index < this.#active) await pair.attach(device, [ring]);
      } catch (error) {
        device.queues[queue] = state;
        throw error;
      }
    });
  }

  notifiersChanged(queue: number): Promise<void> {
    return this.#turns.run(async () => {
      const device = this.#running();
      const { pair, ring, state } = this.#ringOf(device, queue);
      if (!state.ready) return;
      const { kick, call } = device.notifiers[queue]!;
      await pair.vhost.setVringCall(ring, call);
      await pair.vhost.setVringKick(ring, kick);
      // A kick between the two eventfds must not be lost.
      kick.signal();
    });
  }

  #ringOf(device: ServedDevice, queue: number): { pair: VhostPair; ring: number; state: QueueState } {
    const pair = this.#pairs[queue >> 1];
    const state = device.queues[queue];
    if (pair === undefined || state === undefined) throw invalidArgument(`the device has no queue ${queue}`);
    return { pair, ring: queue & 1, state };
  }

  positions(): Promise<(RingPosition | null)[]> {
    return this.#turns.run(async () => {
      const device = this.#running();
      return Promise.all(
        device.queues.map(async (queue, index) => {
          const pair = this.#pairs[index >> 1];
          if (pair === undefined || !queue.ready || pair.index >= this.#active) return null;
          return pair.position(index & 1, device.memory, queue);
        }),
      );
    });
  }

  #running(): ServedDevice {
    this.#throwIfClosed();
    if (this.#device === null) throw new VhostError('VHOST_ERR_STATE', 'the backend does not run');
    return this.#device;
  }

  /**
   * Into `log`, or off. While running it takes effect at once, in the order in which no bit is lost; when one of the calls fails, those
   * before it are undone and logging is as it was (bits written while it was off in between are not in the log: start over with all
   * pages). While stopped it is remembered for the next start.
   */
  setDirtyLog(log: DirtyLog | null): Promise<void> {
    return this.#turns.run(async () => {
      this.#throwIfClosed();
      if (log?.closed === true) throw new VhostError('VHOST_ERR_CLOSED', 'DirtyLog is closed');
      if (log === this.#log) return;
      const device = this.#device;
      if (device !== null) {
        await allOrNothing('dirty logging', VhostPair.logSteps(this.#pairs, device, this.#features, this.#log, log));
      } else if (log === null) {
        for (const { vhost } of this.#pairs) if (vhost.log !== null) await vhost.setLogBase(null);
      }
      // What was prepared was prepared for another log.
      this.#prepared = null;
      this.#log = log;
    });
  }

  memoryChanged(): Promise<void> {
    return this.#turns.run(async () => {
      this.#throwIfClosed();
      const device = this.#device;
      if (device === null) {
        this.#prepared = null;
        return;
      }
      await allOrNothing(
        'the memory table',
        VhostPair.tableSteps(this.#pairs, device, this.#features, this.#log !== null),
      );
    });
  }

  /** Rings, then the vhost descriptors, then the eventfds; memory is let go of by the last of them. */
  close(): Promise<void> {
    return this.#turns.run(async () => {
      if (this.#device !== null) await this.#stop();
      this.#closed = true;
      const pairs = this.#pairs;
      this.#pairs = [];
      for (const pair of pairs) await pair.close();
      this.#taps.unclaim();
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
