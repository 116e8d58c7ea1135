/**
 * The emulated data path: this process walks the rings and moves frames between them and the taps by batched system calls. It serves what
 * the kernel serves, the same way, and packed virtqueues too; it needs no /dev/vhost-net.
 */
import { EventEmitter } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { VIRTIO_F_RING_PACKED } from '../constants/virtio-config';
import { invalidArgument, VhostError } from '../errors';
import type { Tap } from '../host/tap';
import type { DirtyLog } from '../memory/dirty-log';
import { DEVICE_FEATURES } from '../net/feature-rules';
import { bits, featureNames } from '../net/features';
import { emit, type Trace } from '../trace/trace';
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
import { DeviceWriteLog } from './emulated-log';
import { EmulatedPair, type ReceiveRoom } from './emulated-pair';
import type { KeptFrame } from './emulated-receive';
import { type FrameInlet, TapInlet, type TransmitObserver } from './frame-inlet';
import { ServedDevice } from './served-device';
import { TapDiscard } from './tap-discard';
import { BY_TAP } from './tap-features';
import { TapQueues } from './tap-queues';
import { EVERY_VHOST_NET } from './vhost-kernel-features';

export interface EmulatedOptions {
  /** One a queue pair. They belong to the caller: closing the backend leaves them open. */
  taps: readonly Tap[];
  trace?: Trace | undefined;
  /** Set header size and offloads of every tap at start. Default false: they are checked. */
  prepareTaps?: boolean | undefined;
  /** Where frames for the guest come from, by pair. Default: the taps. */
  inlets?: readonly FrameInlet[] | undefined;
  onTransmit?: TransmitObserver | undefined;
}

/** Longest wait at a stop for a guest to have room for a frame that was read. */
const KEPT_PATIENCE_MS = 50;

/** Whatever the taps carry of offloads. */
const BY_RINGS = EVERY_VHOST_NET | bits(VIRTIO_F_RING_PACKED);

export class EmulatedBackend extends EventEmitter<BackendEvents> implements Backend {
  readonly kind = 'emulated';
  readonly #trace: Trace | undefined;
  readonly #taps: TapQueues;
  readonly #inlets: readonly FrameInlet[];
  readonly #ownInlets: boolean;
  readonly #onTransmit: TransmitObserver | null;
  readonly #log = new DeviceWriteLog();
  #offered = BY_RINGS | BY_TAP | DEVICE_FEATURES;
  /** What is served, from start to stop. */
  #device: ServedDevice | null = null;
  /** One for each pair in use. */
  #pairs: EmulatedPair[] = [];
  /** By pair. */
  readonly #kept: readonly KeptFrame[];
  #prepared: BackendDevice | null = null;
  #discards: TapDiscard[] = [];
  #mtu = 0;
  #stoppedRings: readonly StoppedRing[] = [];
  #closed = false;

  constructor({ taps, trace, prepareTaps = false, inlets, onTransmit }: EmulatedOptions) {
    super();
    if (inlets !== undefined && inlets.length !== taps.length) {
      throw invalidArgument(`${inlets.length} inlets for ${taps.length} taps`);
    }
    this.#inlets = inlets ?? taps.map((tap) => new TapInlet(tap));
    this.#ownInlets = inlets === undefined;
    this.#onTransmit = onTransmit ?? null;
    this.#taps = new TapQueues(taps, 'emulated backend', prepareTaps);
    this.#kept = taps.map(() => ({ bytes: null, last: false }));
    this.#trace = trace;
  }

  get taps(): readonly Tap[] {
    return this.#taps.taps;
  }

  get offeredFeatures(): bigint {
    return this.#offered;
  }

  get running(): boolean {
    return this.#device !== null;
  }

  get stoppedRings(): readonly StoppedRing[] {
    return this.#stoppedRings;
  }

  /** By pair in use: where the driver stands with its receive buffers. Counting takes time. */
  get room(): readonly ReceiveRoom[] {
    return this.#pairs.map((pair) => pair.room);
  }

  /** Frames moved since the start, by pair. */
  get counters(): readonly EmulatedPair['counters'][] {
    return this.#pairs.map((pair) => pair.counters);
  }

  /** A frame was read for which the guest has no room yet. */
  get holding(): boolean {
    return this.#kept.some(({ bytes }) => bytes !== null);
  }

  async probe(): Promise<bigint> {
    this.#offered = BY_RINGS | (await this.#taps.probe()) | DEVICE_FEATURES;
    return this.#offered;
  }

  requireFeatures(features: bigint): void {
    const refused = features & ~this.#offered;
    if (refused !== 0n) {
      throw new VhostError(
        'VHOST_ERR_FEATURES',
        `the emulated data path does not carry ${featureNames(refused).join(', ')}`,
      );
    }
  }

  async prepare(device: BackendDevice, { shared = false }: PrepareOptions = {}): Promise<void> {
    await this.#configure(device, shared);
    this.#prepared = device;
    // Whoever gives inlets reads the taps.
    if (!shared && this.#ownInlets) this.#discards = this.#taps.taps.map((tap) => new TapDiscard(tap));
  }

  async #configure(device: BackendDevice, shared: boolean): Promise<void> {
    this.#throwIfClosed();
    if (this.#device !== null) throw new VhostError('VHOST_ERR_STATE', 'the backend runs already');
    this.#endDiscards();
    this.#prepared = null;
    if (shared) this.#taps.unclaim();
    // Taps of newer kernels carry more than is taken for granted.
    if ((device.features & ~this.#offered) !== 0n) await this.probe();
    this.requireFeatures(device.features);
    this.#taps.requireQueues(device);
    try {
      if (!shared) this.#taps.claim();
      if (await this.#taps.configure(device)) this.#mtu = await this.#taps.taps[0]!.mtu();
    } catch (error) {
      this.#unprepare();
      throw error;
    }
  }

  #unprepare(): void {
    this.#endDiscards();
    this.#prepared = null;
    this.#taps.unclaim();
  }

  #endDiscards(): void {
    for (const discard of this.#discards.splice(0)) discard.stop();
  }

  async start(device: BackendDevice): Promise<void> {
    // Without a prepare nothing is thrown away: what waits in the taps' queues is for this device.
    if (this.#prepared !== device) await this.#configure(device, false);
    this.#throwIfClosed();
    this.#taps.claim();
    this.#endDiscards();
    this.#prepared = null;
    const served = new ServedDevice(device);
    try {
      for (let pair = 0; pair < this.#taps.activePairs(device); pair++) this.#pairs.push(this.#pair(served, pair));
    } catch (error) {
      this.#pairs = [];
      this.#taps.unclaim();
      throw error;
    }
    this.#device = served;
    emit(this.#trace, { kind: 'state', object: 'emulated', from: 'stopped', to: 'running' });
    try {
      for (const pair of this.#pairs) pair.start();
    } catch (error) {
      for (const [index, queue] of (await this.stop()).entries()) Object.assign(device.queues[index]!, queue);
      throw error;
    }
  }

  #pair(device: ServedDevice, index: number): EmulatedPair {
    const ends = {
      tap: this.#taps.taps[index]!,
      inlet: this.#inlets[index]!,
      onTransmit: this.#onTransmit,
      kept: this.#kept[index]!,
      mtu: this.#mtu,
    };
    return new EmulatedPair(index, ends, device, this.#log, this.#onFault);
  }

  readonly #onFault = (fault: RingFault): void => {
    emit(this.#trace, { kind: 'fault', object: `emulated queue ${fault.queue}`, message: fault.message });
    this.emit('ringError', fault);
  };

  async stop(): Promise<QueueState[]> {
    const { queues } = this.#running();
    await this.#deliverKept(this.#pairs);
    this.#stoppedRings = this.#pairs.flatMap((pair) => this.#halt(pair, queues));
    this.#pairs = [];
    this.#taps.unclaim();
    this.#device = null;
    emit(this.#trace, { kind: 'state', object: 'emulated', from: 'running', to: 'stopped' });
    return queues;
  }

  /** Nothing of the pair runs after this; its queues then say where they stand. */
  #halt(pair: EmulatedPair, queues: QueueState[]): StoppedRing[] {
    pair.stop();
    const kept = this.#kept[pair.index]!;
    if (kept.bytes !== null && pair.inlet.putBack !== undefined) {
      pair.inlet.putBack(kept.bytes);
      kept.bytes = null;
    }
    const stopped: StoppedRing[] = [];
    for (const ring of [0, 1]) {
      const state = pair.state(ring);
      if (state === null) continue;
      queues[pair.index * 2 + ring] = state.queue;
      stopped.push(state.stopped);
    }
    return stopped;
  }

  /**
   * A tap takes no frame back that was read. One for which the guest had no room yet is waited for, while no other is read; a guest that
   * posts no buffers meanwhile loses it.
   */
  async #deliverKept(all: readonly EmulatedPair[]): Promise<void> {
    const pairs = all.filter(({ inlet }) => inlet.putBack === undefined);
    const kept = pairs.map(({ index }) => this.#kept[index]!);
    for (const frame of kept) frame.last = true;
    const deadline = performance.now() + KEPT_PATIENCE_MS;
    while (kept.some(({ bytes }) => bytes !== null) && performance.now() < deadline) await sleep(1);
    for (const [at, frame] of kept.entries()) {
      frame.last = false;
      if (frame.bytes === null) continue;
      const message = `a frame of ${frame.bytes.length} bytes for which the guest has no room is dropped`;
      emit(this.#trace, { kind: 'fault', object: `emulated pair ${pairs[at]!.index}`, message });
      frame.bytes = null;
    }
  }

  async settingsChanged(): Promise<void> {
    const device = this.#running();
    const pairs = this.#taps.activePairs(device);
    if (device.settings !== undefined) await this.#taps.apply(device.settings);
    while (this.#pairs.length > pairs) {
      const last = this.#pairs.length - 1;
      await this.#taps.park(last);
      await this.#deliverKept(this.#pairs.slice(last));
      this.#halt(this.#pairs[last]!, device.queues);
      this.#pairs.pop();
    }
    while (this.#pairs.length < pairs) {
      const pair = this.#pair(device, this.#pairs.length);
      pair.start();
      this.#pairs.push(pair);
      await this.#taps.use(pair.index);
    }
  }

  async stopQueue(queue: number): Promise<QueueState> {
    const { queues } = this.#running();
    return this.#rebuild(queue, () => {
      const state = queues[queue]!;
      queues[queue] = { ...state, ready: false };
      return state;
    });
  }

  async startQueue(queue: number): Promise<void> {
    const device = this.#running();
    this.#rebuild(queue, () => device.renew(queue));
  }

  /** Changes the state of one queue while its pair stands still; a state that cannot be served is taken back. */
  #rebuild<T>(queue: number, change: () => T): T {
    const device = this.#running();
    const index = queue >> 1;
    const pair = this.#pairs[index];
    if (device.queues[queue] === undefined) throw invalidArgument(`the device has no queue ${queue}`);
    if (pair !== undefined) this.#halt(pair, device.queues);
    const before = device.queues[queue];
    const result = change();
    if (pair !== undefined) this.#restart(device, index, queue, before);
    return result;
  }

  #restart(device: ServedDevice, index: number, queue: number, before: QueueState): void {
    let pair: EmulatedPair;
    try {
      pair = this.#pair(device, index);
    } catch (error) {
      device.queues[queue] = before;
      this.#pairs[index] = this.#pair(device, index);
      this.#pairs[index].start();
      throw error;
    }
    this.#pairs[index] = pair;
    pair.start();
  }

  async notifiersChanged(queue: number): Promise<void> {
    const { notifiers } = this.#running();
    this.#pairs[queue >> 1]?.watchKicks(queue & 1);
    // A kick between the two eventfds must not be lost.
    notifiers[queue]!.kick.signal();
  }

  async positions(): Promise<(RingPosition | null)[]> {
    return this.#running().queues.map((_, queue) => this.#pairs[queue >> 1]?.position(queue & 1) ?? null);
  }

  async setDirtyLog(log: DirtyLog | null): Promise<void> {
    this.#throwIfClosed();
    if (log !== null && this.#device !== null && !log.covers(this.#device.memory.end)) {
      throw new VhostError('VHOST_ERR_LOG_SIZE', `a log of ${log.pages} pages is shorter than guest memory`);
    }
    this.#log.use(log);
  }

  /** Rings and buffers are looked up in guest memory as it is; there is no table to tell. */
  async memoryChanged(): Promise<void> {
    this.#throwIfClosed();
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    if (this.#device !== null) await this.stop();
    this.#unprepare();
    this.#closed = true;
    this.#log.use(null);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #running(): ServedDevice {
    if (this.#device === null) throw new VhostError('VHOST_ERR_STATE', 'the backend does not run');
    return this.#device;
  }

  #throwIfClosed(): void {
    if (this.#closed) throw new VhostError('VHOST_ERR_CLOSED', 'EmulatedBackend is closed');
  }
}
