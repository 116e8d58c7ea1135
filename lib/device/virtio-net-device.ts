/**
 * A virtio-net device: a transport and a driver on one side, a backend that carries the frames on the other. It owns what must outlive any
 * backend (registers, queue states, control queue, eventfds, the dirty log), so that stopping one and starting another is all a change of
 * data path or of process takes.
 */
import { EventEmitter } from 'node:events';
import type { Backend, PrepareOptions, QueueNotifiers, RingFault, RingPosition } from '../backend/backend';
import * as net from '../constants/virtio-net';
import { reasonOf, VhostError } from '../errors';
import { EventFd } from '../host/event-fd';
import type { DirtySource } from '../memory/dirty-log';
import type { GuestMemory } from '../memory/guest-memory';
import { offeredFeatures, withoutUnmet } from '../net/feature-rules';
import { hasBit } from '../net/features';
import { vlanList } from '../net/receive-filter';
import { emit, type Trace } from '../trace/trace';
import { Turns } from '../turns';
import type { QueueState } from '../virtqueue/queue-state';
import { ControlService } from './control-service';
import { DeviceConfig } from './device-config';
import { DeviceLife } from './device-life';
import { DeviceLogging } from './device-logging';
import {
  type DeviceEvents,
  type DeviceTransport,
  type Made,
  negotiated,
  type OfferOptions,
  type VirtioNetDeviceOptions,
  type VirtioNetDeviceParts,
} from './device-options';
import { type DeviceProperties, deviceProperties, differingProperties } from './device-properties';
import { DeviceRegisters } from './device-registers';
import { type DeviceState, encodeDeviceState, validateDeviceState } from './device-state';
import { ReceivePause } from './receive-pause';
import { type SwitchReceipt, switchOver } from './switch-backend';

export class VirtioNetDevice extends EventEmitter<DeviceEvents> {
  readonly memory: GuestMemory;
  readonly properties: DeviceProperties;
  /** By queue, that of the control queue last. */
  readonly notifiers: readonly QueueNotifiers[];
  /** What was saved of the transport of a restored device, until a transport takes it. */
  transportState: Record<string, unknown> | null = null;
  /** Set by the transport. */
  transport: DeviceTransport | null = null;
  readonly #trace: Trace | undefined;
  readonly #turns = new Turns();
  /** For transports. */
  readonly registers: DeviceRegisters;
  readonly #control: ControlService;
  readonly #logging = new DeviceLogging();
  readonly #receivePause = new ReceivePause();
  /** As the device was made. */
  readonly #offered: bigint;
  #backend: Backend;
  #life: DeviceLife;
  /** The life that the data path serves: until a reset is complete, the one before. Null while none runs. */
  #served: DeviceLife | null = null;
  readonly #config: DeviceConfig;
  #closed = false;
  readonly #stopListening: () => void;

  /** Offers a device to a driver: what backend, taps, profile and device can do together. Nothing runs before DRIVER_OK. */
  static async offer(options: OfferOptions): Promise<VirtioNetDevice> {
    const { memory, backend, trace, profile, without, ...given } = options;
    const properties = deviceProperties({ ...given, profile: profile?.name ?? null });
    const carried = await backend.probe();
    const indirect = properties.indirect ? 0n : 1n << BigInt(net.VIRTIO_RING_F_INDIRECT_DESC);
    const offered = offeredFeatures({
      backend: carried,
      pairs: properties.pairs,
      profile,
      without: (without ?? 0n) | indirect,
    });
    return new VirtioNetDevice({ memory, backend, trace }, { properties, offered });
  }

  /** Builds the device that a source sent. `value` is validated; memory, backend and doorbells are this process's own. */
  static restore(
    value: unknown,
    parts: VirtioNetDeviceParts & { properties?: DeviceProperties | undefined },
  ): VirtioNetDevice {
    const state = validateDeviceState(value);
    if (parts.properties !== undefined) {
      const differences = differingProperties(state.properties, parts.properties);
      if (differences.length > 0) {
        throw new VhostError('VHOST_ERR_INCOMPATIBLE', `device properties differ: ${differences.join('; ')}`);
      }
    }
    const device = new VirtioNetDevice(parts, { properties: state.properties, offered: state.offered });
    device.#life.adopt(state);
    device.#config.restore(state.config);
    device.transportState = state.transport;
    return device;
  }

  constructor(options: VirtioNetDeviceOptions);
  /** @internal */
  constructor(parts: VirtioNetDeviceParts, made: Made);
  constructor(options: VirtioNetDeviceParts | VirtioNetDeviceOptions, made: Made = negotiated(options)) {
    super();
    this.memory = options.memory;
    this.properties = made.properties;
    this.#offered = made.offered;
    this.#backend = options.backend;
    this.#trace = options.trace;
    const { pairs } = made.properties;
    this.#config = new DeviceConfig(made.properties);
    const queues = 2 * pairs + (hasBit(made.offered, net.VIRTIO_NET_F_CTRL_VQ) ? 1 : 0);
    this.notifiers = Array.from({ length: queues }, () => ({ kick: EventFd.create(), call: EventFd.create() }));
    this.#life = this.#newLife();
    if ('features' in options) {
      const { features, queues: adopted, controlQueue } = options;
      this.#life.adopt(
        controlQueue === undefined ? { features, queues: adopted } : { features, queues: adopted, controlQueue },
      );
      this.#life.control = { ...this.#life.control, activePairs: options.activePairs ?? pairs };
    }
    this.#control = new ControlService({
      log: this.#logging.writes,
      trace: this.#trace,
      pairs,
      notifiers: this.notifiers[2 * pairs] ?? null,
      effect: (life) => this.#settingsChanged(life),
      onBroken: (life, reason) => this.#break(life, reason),
    });
    this.registers = new DeviceRegisters({
      turns: this.#turns,
      control: this.#control,
      backend: () => this.#backend,
      life: () => this.#life,
      renew: () => {
        this.#life = this.#newLife();
        return this.#life;
      },
      start: (life) => this.#start(life),
      end: (life) => this.#end(life),
      taken: (index) => this.#receivePause.forget(index),
      kick: (index) => {
        if (!this.#closed) this.notifiers[index === 'control' ? 2 * pairs : index]?.kick.signal();
      },
      break: (life, reason) => this.#break(life, reason),
      violation: (what) => this.#violation(what),
    });
    this.#backend.on('ringError', this.#ringError);
    this.#stopListening = this.memory.onChange(() => this.#turns.run(() => this.#memoryChanged()));
  }

  #newLife(): DeviceLife {
    return new DeviceLife({
      memory: this.memory,
      properties: this.properties,
      offered: () => this.offeredFeatures,
      notifiers: this.notifiers,
      linkUp: () => this.#config.state.linkUp,
    });
  }

  /** What a driver may ack: what the device was made with, as far as the data path of today carries it. */
  get offeredFeatures(): bigint {
    return withoutUnmet(this.#offered & this.#backend.offeredFeatures);
  }

  get backend(): Backend {
    return this.#backend;
  }

  /** Bits the driver acked. */
  get features(): bigint {
    return this.#life.features;
  }

  /** Receive 2n, transmit 2n + 1. */
  get queues(): readonly QueueState[] {
    return this.#life.queues;
  }

  /** As it stands while the device does; not `ready` where the driver has set none up. */
  get controlQueue(): QueueState {
    return this.#life.controlQueue;
  }

  get running(): boolean {
    return this.#backend.running;
  }

  /** Whether the driver has come as far as DRIVER_OK. */
  get driverOk(): boolean {
    return this.#life.driverOk;
  }

  /** Where the data queues stand now: by queue, null for one that is not served. Of a kernel path, roughly. */
  positions(): Promise<(RingPosition | null)[]> {
    return this.#turns.run(() => (this.#backend.running ? this.#backend.positions() : this.queues.map(() => null)));
  }

  /** As the driver sees it now. */
  get mac(): string {
    return this.#life.control.receiveFilter.mac;
  }

  /** Unicast addresses that belong to the guest, as far as the device was told: with colons, its own first. */
  get addresses(): string[] {
    const { mac, unicast } = this.#life.control.receiveFilter;
    return [...new Set([mac, this.properties.mac, ...unicast])];
  }

  /** VLANs that the driver lets through; empty where it has not said. */
  get vlans(): number[] {
    const { vlans } = this.#life.control.receiveFilter;
    return vlans === null ? [] : vlanList(vlans);
  }

  get mtu(): number {
    return this.#config.state.mtu;
  }

  /** Queue pairs in use. */
  get activePairs(): number {
    return this.#life.control.activePairs;
  }

  /** When everything that register writes have begun has ended. */
  settled(): Promise<void> {
    return this.#turns.settled();
  }

  /** The configuration space as it is now (virtio 1.4 section 5.1.4). */
  readConfig(): Uint8Array {
    return this.#config.encode(this.mac, this.#life.control.announcePending);
  }

  /** Changes whenever the device itself has changed the configuration space. */
  get configGeneration(): number {
    return this.#config.state.generation;
  }

  #violation(what: string): void {
    emit(this.#trace, { kind: 'fault', object: 'driver', message: what });
    this.emit('violation', what);
  }

  readonly #ringError = ({ queue, message }: RingFault): void => {
    this.#break(this.#served, `queue ${queue}: ${message}`);
  };

  #break(life: DeviceLife | null, reason: string): void {
    emit(this.#trace, { kind: 'fault', object: 'device', message: reason });
    if (life === null || life !== this.#life || life.broken) return;
    life.break();
    this.emit('needsReset', reason);
    // Section 2.1.2: told only to a driver that has come as far as DRIVER_OK.
    if (life.driverOk) this.#configChanged();
  }

  /** Of a life that is over: rings are let go of whatever they look like, and no doorbell of it rings in the next. */
  async #end(life: DeviceLife): Promise<void> {
    try {
      await this.#stop(life);
    } catch (error) {
      emit(this.#trace, { kind: 'fault', object: 'device', message: `stopping for a reset failed (${error})` });
    }
    if (this.#closed) return;
    for (const { kick, call } of this.notifiers) {
      kick.drain();
      call.drain();
    }
  }

  get linkUp(): boolean {
    return this.#config.state.linkUp;
  }

  /** Plugs or pulls the cable: status bit, configuration interrupt, and no frame reaches a guest without a link. A failure changes nothing. */
  async setLink(up: boolean): Promise<void> {
    this.#throwIfClosed();
    if (this.linkUp === up) return;
    this.#config.setLink(up);
    try {
      await this.#settingsChanged(this.#life);
    } catch (error) {
      this.#config.setLink(!up);
      await this.#settingsChanged(this.#life).catch(() => undefined);
      throw error;
    }
    this.#configChanged();
  }

  /** Mbit/s, or SPEED_UNKNOWN; throws VHOST_ERR_INVALID_ARGUMENT. */
  setSpeed(speed: number, duplex = this.#config.state.duplex): void {
    this.#config.setSpeed(speed, duplex);
    this.#configChanged();
  }

  /** Tells the driver of another MTU, 68 to 65,535. The tap's own is its owner's business. */
  setMtu(mtu: number): void {
    this.#config.setMtu(mtu);
    this.#configChanged();
  }

  /** Asks the driver to announce itself to the network (section 5.1.6.5.4). Answers false where it has not acked GUEST_ANNOUNCE. */
  announce(): boolean {
    const life = this.#life;
    if (!hasBit(life.features, net.VIRTIO_NET_F_GUEST_ANNOUNCE) || !life.driverOk) return false;
    life.control = { ...life.control, announcePending: true };
    this.#configChanged();
    return true;
  }

  #configChanged(): void {
    this.#config.changed();
    this.emit('configChange');
  }

  /** Makes the data path do what the life's settings say, after all that was asked for before. */
  #settingsChanged(life: DeviceLife): Promise<void> {
    return this.#turns.run(async () => {
      if (life !== this.#life || !this.#backend.running) return;
      // Fewer pairs park a queue of the tap, and the kernel frees what waits there.
      await this.#resumeReceive();
      await this.#backend.settingsChanged();
    });
  }

  /**
   * Everything a start takes time for, before somebody waits for it; until the start its taps are kept empty. Nothing for a driver that has
   * not come as far as DRIVER_OK.
   */
  prepare(options: PrepareOptions = {}): Promise<void> {
    return this.#turns.run(async () => {
      this.#throwIfClosed();
      if (this.#life.driverOk) await this.#backend.prepare(this.#life, options);
    });
  }

  /** Serves the driver, now if it has come as far as DRIVER_OK, else when it does. */
  start(): Promise<void> {
    return this.#turns.run(async () => {
      this.#throwIfClosed();
      if (this.#life.driverOk) await this.#start(this.#life);
    });
  }

  async #start(life: DeviceLife): Promise<void> {
    this.#throwIfClosed();
    const before = this.#served;
    this.#served = life;
    try {
      await this.#backend.start(life);
    } catch (error) {
      this.#served = before;
      throw error;
    }
    try {
      this.#control.start(life);
    } catch (error) {
      await this.#stop(life);
      throw error;
    }
  }

  /** Nothing touches guest memory after this resolves; `queues` then holds where every ring stands. */
  stop(): Promise<void> {
    return this.#turns.run(() => this.#stop(this.#served ?? this.#life));
  }

  async #stop(life: DeviceLife): Promise<void> {
    await this.#control.stop();
    if (!this.#backend.running) return;
    const paused = [...this.#receivePause.queues];
    this.#receivePause.clear();
    const stopped = await this.#backend.stop();
    this.#served = null;
    // Of a queue out of service the data path knows nothing; the device does since its pause.
    for (const [index, queue] of stopped.entries()) {
      if (!paused.includes(index)) Object.assign(life.queues[index]!, queue);
    }
  }

  /**
   * Takes the receive queues out of service: frames wait in the taps' queues, and what these cannot hold is lost. Ended by `resumeReceive`,
   * and before that by a stop, a reset, a switch of data paths or a command that changes settings. Does nothing while no data path runs.
   */
  pauseReceive(): Promise<void> {
    return this.#turns.run(async () => {
      this.#throwIfClosed();
      const life = this.#served;
      if (life !== null && life === this.#life && !life.broken && this.#backend.running) {
        await this.#receivePause.begin(life, this.#backend);
      }
    });
  }

  /** Serves the receive queues again from where they stood. A queue that cannot be served makes the device need a reset. */
  resumeReceive(): Promise<void> {
    return this.#turns.run(() => this.#resumeReceive());
  }

  async #resumeReceive(): Promise<void> {
    const life = this.#served;
    if (life === null || !this.#backend.running) return;
    try {
      await this.#receivePause.end(life, this.#backend);
    } catch (error) {
      this.#break(life, `receive could not go on: ${reasonOf(error)}`);
      throw error;
    }
  }

  /** Whether receive queues are out of service for a pause. */
  get receivePaused(): boolean {
    return this.#receivePause.queues.size > 0;
  }

  /**
   * Goes on with another data path, under traffic: no frame is lost, doubled or reordered when both use the same tap queues. The backend
   * before is stopped and belongs to the caller again. When the next one cannot be started the old one goes on and the error is thrown.
   */
  switchBackend(next: Backend): Promise<SwitchReceipt> {
    return this.#turns.run(async () => {
      this.#throwIfClosed();
      const life = this.#served ?? this.#life;
      if (next === this.#backend) throw new VhostError('VHOST_ERR_INVALID_ARGUMENT', 'that backend serves it already');
      const from = this.#backend;
      await this.#resumeReceive();
      // Before it starts: it may meet a broken ring at once.
      next.on('ringError', this.#ringError);
      let receipt: SwitchReceipt;
      try {
        receipt = await switchOver(life, from, next, this.#logging.current);
      } catch (error) {
        next.off('ringError', this.#ringError);
        throw error;
      }
      from.off('ringError', this.#ringError);
      this.#backend = next;
      emit(this.#trace, { kind: 'state', object: 'device', from: from.kind, to: next.kind });
      return receipt;
    });
  }

  /** Turns dirty logging on, in a log that covers all of guest memory, while the device runs or stands. */
  startDirtyLog(): Promise<DirtySource> {
    return this.#turns.run(async () => {
      this.#throwIfClosed();
      return this.#logging.start(this.#backend, this.memory.end);
    });
  }

  /** The log in use, or null. */
  get dirtyLog(): DirtySource | null {
    return this.#logging.log;
  }

  stopDirtyLog(): Promise<void> {
    return this.#turns.run(() => this.#logging.stop(this.#backend));
  }

  save(): DeviceState {
    if (this.#backend.running)
      throw new VhostError('VHOST_ERR_STATE', 'the state of a running device is not final: stop it first');
    return this.outline();
  }

  /** As `save`, of a device that may be running: where its rings stand is not what it says. For whoever prepares for it. */
  outline(): DeviceState {
    const { status, features, driverFeatures, queues, controlQueue, control, resetQueues } = this.#life;
    return encodeDeviceState({
      status,
      features,
      offered: this.#offered,
      driverFeatures,
      properties: this.properties,
      queues,
      resetQueues,
      controlQueue,
      control,
      config: this.#config.state,
      transport: this.transport?.save() ?? this.transportState,
    });
  }

  /** Log first, then table: a table that outgrows the log would let the kernel write behind it. */
  async #memoryChanged(): Promise<void> {
    await this.#logging.grow(this.#backend, this.memory.end);
    if (this.#backend.running) await this.#backend.memoryChanged();
  }

  /** Stops, then closes backend and doorbells. Guest memory belongs to the caller. Idempotent. */
  close(): Promise<void> {
    return this.#turns.run(async () => {
      if (this.#closed) return;
      this.#closed = true;
      this.#receivePause.clear();
      this.#stopListening();
      await this.#control.stop();
      await this.#backend.close();
      this.#backend.off('ringError', this.#ringError);
      for (const { kick, call } of this.notifiers) {
        kick.close();
        call.close();
      }
      this.#logging.close();
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #throwIfClosed(): void {
    if (this.#closed) throw new VhostError('VHOST_ERR_CLOSED', 'VirtioNetDevice is closed');
  }
}
