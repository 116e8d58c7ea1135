/**
 * The kernel data path: /dev/vhost-net moves frames between rings and taps, kicks and calls go from eventfd to kernel and back, and
 * Node stands aside. One vhost descriptor a queue pair.
 */
import { EventEmitter } from 'node:events';
import { invalidArgument, VhostError } from '../errors';
import type { Tap } from '../host/tap';
import { VhostNet } from '../host/vhost-net';
import type { DirtyLog } from '../memory/dirty-log';
import type { FaultPlan } from '../trace/fault-plan';
import { emit, type Trace } from '../trace/trace';
import type { QueueState } from '../virtqueue/queue-state';
import type { Backend, BackendDevice, BackendEvents, RingFault, StoppedRing } from './backend';
import { carried, EVERY_VHOST_NET, prepareTap, requireHeader, vhostFeatures } from './vhost-kernel-features';
import { VhostPair } from './vhost-kernel-pair';
import { allOrNothing } from './vhost-kernel-steps';

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
  #pairs: VhostPair[] = [];
  #offered: bigint | null = null;
  /** What is served, from start to stop. */
  #device: BackendDevice | null = null;
  /** VHOST_SET_FEATURES without logging, while running. */
  #features = 0n;
  /** What `prepare` was told of last, until the start. */
  #prepared: BackendDevice | null = null;
  #log: DirtyLog | null = null;
  #stoppedRings: readonly StoppedRing[] = [];
  #closed = false;
  /** The last of the calls that run one after the other. */
  #last: Promise<unknown> = Promise.resolve();

  constructor(options: VhostKernelOptions) {
    super();
    const { taps, vhostFds, busyloopMicros = 0 } = options;
    if (taps.length === 0) throw invalidArgument('a vhost-kernel backend needs a tap for every queue pair');
    if (new Set(taps).size !== taps.length)
      throw invalidArgument('two queue pairs on one tap queue', 'open a queue for each');
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

  /** Before `open` (or the first start): what every kernel offers. */
  get offeredFeatures(): bigint {
    return carried(this.#offered ?? EVERY_VHOST_NET);
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

  #oneAfterTheOther<T>(run: () => Promise<T>): Promise<T> {
    const result = this.#last.then(run);
    this.#last = result.catch(() => undefined);
    return result;
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
    return this.#oneAfterTheOther(() => this.#open());
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

  prepare(device: BackendDevice): Promise<void> {
    return this.#oneAfterTheOther(async () => {
      await this.#configure(device);
      this.#prepared = device;
      for (const pair of this.#pairs) pair.discard(true);
    });
  }

  start(device: BackendDevice): Promise<void> {
    return this.#oneAfterTheOther(async () => {
      // Without a prepare nothing is thrown away: what waits in the taps' queues is for this device.
      const features = this.#prepared === device ? this.#features : await this.#configure(device);
      this.#prepared = null;
      try {
        for (const pair of this.#pairs) {
          pair.watch(this.#ringError);
          pair.discard(false);
          await pair.attach(device);
        }
      } catch (error) {
        await this.#detachAfterFailure(features);
        throw error;
      }
      this.#device = device;
      this.#state('stopped', 'running');
      for (const pair of this.#pairs) {
        for (const ring of pair.readyRings(device)) this.#kick(device, pair.queueOf(ring));
      }
    });
  }

  /** Tells the kernel everything but the taps. Answers the features it was told. */
  async #configure(device: BackendDevice): Promise<bigint> {
    this.#throwIfClosed();
    if (this.#device !== null) throw new VhostError('VHOST_ERR_STATE', 'the backend runs already');
    this.#prepared = null;
    await this.#open();
    for (const pair of this.#pairs) pair.requireQueues(device);
    if (device.queues.slice(this.#pairs.length * 2).some(({ ready }) => ready)) {
      throw invalidArgument(
        `${device.queues.length} queues need ${device.queues.length / 2} taps, there are ${this.#pairs.length}`,
      );
    }
    const features = vhostFeatures(device.features, this.#offered ?? 0n);
    try {
      for (const pair of this.#pairs) pair.claim();
      await this.#configurePairs(device, features);
    } catch (error) {
      await this.#detachAfterFailure(features);
      throw error;
    }
    this.#features = features;
    return features;
  }

  async #configurePairs(device: BackendDevice, features: bigint): Promise<void> {
    const { prepareTaps = false, busyloopMicros = 0 } = this.#options;
    for (const pair of this.#pairs) {
      if (prepareTaps) await prepareTap(pair.tap, device.features);
      requireHeader(pair.tap, device.features);
    }
    for (const pair of this.#pairs) {
      await pair.configure(device, features, this.#log);
      if (busyloopMicros > 0) {
        for (const ring of pair.readyRings(device)) await pair.vhost.setVringBusyloopTimeout(ring, busyloopMicros);
      }
    }
  }

  /** A kick that came while nobody listened must not be lost, nor a frame that did not fit then: one costs nothing. */
  #kick(device: BackendDevice, queue: number): void {
    device.notifiers[queue]!.kick.signal();
    emit(this.#trace, { kind: 'eventfd', edge: 'signal', name: 'kick', queue, count: 1 });
  }

  async #detachAfterFailure(features: bigint): Promise<void> {
    let gone = false;
    for (const pair of this.#pairs) {
      if (pair.vhost.memTable !== null) gone = !(await pair.detachForced(features)) || gone;
      pair.unwatch(this.#ringError);
      pair.unclaim();
    }
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
    return this.#oneAfterTheOther(() => this.#stop());
  }

  async #stop(): Promise<QueueState[]> {
    const device = this.#device;
    if (device === null) throw new VhostError('VHOST_ERR_STATE', 'the backend does not run');
    for (const pair of this.#pairs) await pair.makeRoom(device);
    let gone = false;
    // Every ring stands before the first is asked where: a guest's frames leave by no pair any more.
    for (const pair of this.#pairs) gone = !(await pair.detachForced(this.#features)) || gone;
    const queues = device.queues.map((queue) => ({ ...queue }));
    const stopped: StoppedRing[] = [];
    for (const pair of this.#pairs) {
      for (const ring of pair.readyRings(device)) {
        const queue = queues[pair.queueOf(ring)]!;
        const found = await this.#stoppedRing(pair, ring, device, queue);
        queue.nextAvail = found.base;
        stopped.push(found);
      }
      pair.unwatch(this.#ringError);
      pair.unclaim();
    }
    this.#stoppedRings = stopped;
    this.#device = null;
    if (gone) await this.#dropPairs();
    this.#state('running', 'stopped');
    return queues;
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

  /**
   * Into `log`, or off. While running it takes effect at once, in the order in which no bit is lost; when one of the calls fails, those
   * before it are undone and logging is as it was (bits written while it was off in between are not in the log: start over with all
   * pages). While stopped it is remembered for the next start.
   */
  setDirtyLog(log: DirtyLog | null): Promise<void> {
    return this.#oneAfterTheOther(async () => {
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
    return this.#oneAfterTheOther(async () => {
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
    return this.#oneAfterTheOther(async () => {
      if (this.#device !== null) await this.#stop();
      this.#closed = true;
      const pairs = this.#pairs;
      this.#pairs = [];
      for (const pair of pairs) await pair.close();
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
