/**
 * The emulated data path: this process walks the rings and moves frames between them and the taps by batched system calls. It serves what
 * the kernel serves, the same way, and needs no /dev/vhost-net.
 */
import { EventEmitter } from 'node:events';
import { invalidArgument, VhostError } from '../errors';
import type { Tap } from '../host/tap';
import type { DirtyLog } from '../memory/dirty-log';
import { featureNames } from '../net/features';
import { emit, type Trace } from '../trace/trace';
import type { QueueState } from '../virtqueue/queue-state';
import type { Backend, BackendDevice, BackendEvents, RingFault, StoppedRing } from './backend';
import { DeviceWriteLog } from './emulated-log';
import { EmulatedPair } from './emulated-pair';
import { TapDiscard } from './tap-discard';
import { carried, EVERY_VHOST_NET, prepareTap, requireHeader } from './vhost-kernel-features';

export interface EmulatedOptions {
  /** One a queue pair. They belong to the caller: closing the backend leaves them open. */
  taps: readonly Tap[];
  trace?: Trace | undefined;
  /** Set header size and offloads of every tap at start. Default false: they are checked. */
  prepareTaps?: boolean | undefined;
}

export class EmulatedBackend extends EventEmitter<BackendEvents> implements Backend {
  readonly kind = 'emulated';
  readonly offeredFeatures = carried(EVERY_VHOST_NET);
  readonly #options: EmulatedOptions;
  readonly #log = new DeviceWriteLog();
  #device: BackendDevice | null = null;
  #pairs: EmulatedPair[] = [];
  #releases: (() => void)[] = [];
  #stoppedRings: readonly StoppedRing[] = [];
  #closed = false;

  constructor(options: EmulatedOptions) {
    super();
    if (options.taps.length === 0) throw invalidArgument('an emulated backend needs a tap for every queue pair');
    if (new Set(options.taps).size !== options.taps.length) {
      throw invalidArgument('two queue pairs on one tap queue', 'open a queue for each');
    }
    this.#options = options;
  }

  get running(): boolean {
    return this.#device !== null;
  }

  get stoppedRings(): readonly StoppedRing[] {
    return this.#stoppedRings;
  }

  /** Frames moved since the start, by pair. */
  get counters(): readonly EmulatedPair['counters'][] {
    return this.#pairs.map((pair) => pair.counters);
  }

  #prepared: BackendDevice | null = null;
  #discards: TapDiscard[] = [];

  async prepare(device: BackendDevice): Promise<void> {
    await this.#configure(device);
    this.#prepared = device;
    this.#discards = this.#options.taps.map((tap) => new TapDiscard(tap));
  }

  async #configure(device: BackendDevice): Promise<void> {
    this.#throwIfClosed();
    if (this.#device !== null) throw new VhostError('VHOST_ERR_STATE', 'the backend runs already');
    this.#unprepare();
    const { taps, prepareTaps = false } = this.#options;
    const refused = device.features & ~this.offeredFeatures;
    if (refused !== 0n) throw new VhostError('VHOST_ERR_FEATURES', `not served: ${featureNames(refused).join(', ')}`);
    if (device.queues.slice(taps.length * 2).some(({ ready }) => ready)) {
      throw invalidArgument(
        `${device.queues.length} queues need ${device.queues.length / 2} taps, there are ${taps.length}`,
      );
    }
    try {
      for (const [index, tap] of taps.entries()) this.#releases.push(tap.claim(`emulated backend, pair ${index}`));
      for (const [index, tap] of taps.entries()) {
        if (prepareTaps) await prepareTap(tap, device.features);
        requireHeader(tap, device.features);
        this.#pairs.push(new EmulatedPair(index, tap, device, this.#log, await tap.mtu(), this.#onFault));
      }
    } catch (error) {
      this.#unprepare();
      throw error;
    }
  }

  #unprepare(): void {
    this.#endDiscards();
    this.#prepared = null;
    this.#pairs = [];
    this.#unclaim();
  }

  #endDiscards(): void {
    for (const discard of this.#discards.splice(0)) discard.stop();
  }

  async start(device: BackendDevice): Promise<void> {
    // Without a prepare nothing is thrown away: what waits in the taps' queues is for this device.
    if (this.#prepared !== device) await this.#configure(device);
    this.#throwIfClosed();
    this.#endDiscards();
    this.#prepared = null;
    this.#device = device;
    emit(this.#options.trace, { kind: 'state', object: 'emulated', from: 'stopped', to: 'running' });
    for (const pair of this.#pairs) pair.start();
  }

  readonly #onFault = (fault: RingFault): void => {
    emit(this.#options.trace, { kind: 'fault', object: `emulated queue ${fault.queue}`, message: fault.message });
    this.emit('ringError', fault);
  };

  async stop(): Promise<QueueState[]> {
    const device = this.#device;
    if (device === null) throw new VhostError('VHOST_ERR_STATE', 'the backend does not run');
    const queues = device.queues.map((queue) => ({ ...queue }));
    const stopped: StoppedRing[] = [];
    for (const pair of this.#pairs) {
      pair.stop();
      for (const ring of [0, 1]) {
        const state = pair.state(ring);
        if (state === null) continue;
        queues[pair.index * 2 + ring] = state.queue;
        stopped.push(state.stopped);
      }
    }
    this.#pairs = [];
    this.#unclaim();
    this.#stoppedRings = stopped;
    this.#device = null;
    emit(this.#options.trace, { kind: 'state', object: 'emulated', from: 'running', to: 'stopped' });
    return queues;
  }

  #unclaim(): void {
    for (const release of this.#releases.splice(0)) release();
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

  #throwIfClosed(): void {
    if (this.#closed) throw new VhostError('VHOST_ERR_CLOSED', 'EmulatedBackend is closed');
  }
}
