/**
 * A device as a transport shows it to a driver (virtio 1.4 section 2): status, features, queues, configuration space. Writes take effect at
 * once where they only note something; what touches the data path runs in turn, and reads say when it is done.
 */
import type { Backend } from '../backend/backend';
import * as net from '../constants/virtio-net';
import { reasonOf, VhostError } from '../errors';
import { hasBit } from '../net/features';
import type { Turns } from '../turns';
import { type QueueState, validateQueueState } from '../virtqueue/queue-state';
import type { ControlService } from './control-service';
import type { DeviceLife, QueueField } from './device-life';

/** What the registers need of the device behind them. */
export interface RegistersParts {
  readonly turns: Turns;
  readonly control: ControlService;
  backend(): Backend;
  life(): DeviceLife;
  /** Begins the next life, with everything as it is after a reset. */
  renew(): DeviceLife;
  start(life: DeviceLife): Promise<void>;
  /** Ends the life's data path and control queue. Never fails: there is no state left to be saved. */
  end(life: DeviceLife): Promise<void>;
  /** The driver takes a data queue back, whatever it was doing. */
  taken(index: number): void;
  kick(index: number | 'control'): void;
  break(life: DeviceLife, reason: string): void;
  violation(what: string): void;
}

export class DeviceRegisters {
  readonly #parts: RegistersParts;
  /** Status as it is read until the reset that has begun is complete. */
  #resetting: number | null = null;
  readonly #resettingQueues = new Set<number>();

  constructor(parts: RegistersParts) {
    this.#parts = parts;
  }

  get #life(): DeviceLife {
    return this.#parts.life();
  }

  /** The status register; of a reset that is under way, the status before. */
  get status(): number {
    return this.#resetting !== null && this.#life.status === 0 ? this.#resetting : this.#life.status;
  }

  /** A reset has begun and is not complete: what still comes from the queues belongs to the life before. */
  get resetting(): boolean {
    return this.#resetting !== null;
  }

  /** 0 resets: `status` is 0 when nothing touches guest memory any more. DRIVER_OK starts the data path. */
  writeStatus(value: number): void {
    if (value === 0) {
      this.#reset();
      return;
    }
    const life = this.#life;
    const before = life.driverOk;
    this.#violation(life.writeStatus(value));
    if (before || !life.driverOk) return;
    void this.#parts.turns.run(async () => {
      if (life !== this.#life || life.broken) return;
      try {
        await this.#parts.start(life);
      } catch (error) {
        this.#parts.break(life, `the data path could not be started: ${reasonOf(error)}`);
      }
    });
  }

  #reset(): void {
    const life = this.#life;
    this.#resetting = this.status;
    this.#resettingQueues.clear();
    const fresh = this.#parts.renew();
    void this.#parts.turns.run(async () => {
      await this.#parts.end(life);
      if (fresh === this.#life) this.#resetting = null;
    });
  }

  writeDriverFeatures(window: number, value: number): void {
    this.#violation(this.#life.writeDriverFeatures(window, value));
  }

  /** Largest size of a queue, 0 when there is none. */
  queueMax(number: number): number {
    return this.#life.queueMax(number);
  }

  /** Registers of a queue, or null when there is none. */
  queue(number: number): Readonly<QueueState> | null {
    return this.#life.queue(number);
  }

  /** Of a queue that is not enabled. */
  configureQueue(number: number, field: QueueField, value: number): void {
    this.#violation(this.#life.configureQueue(number, field, value));
  }

  /** A queue that no device could serve makes the device need a reset. */
  enableQueue(number: number): void {
    const life = this.#life;
    const trouble = life.notNow(number);
    if (trouble !== null) {
      this.violation(trouble);
      return;
    }
    const queue = life.queue(number)!;
    try {
      if (queue.size > life.queueMax(number)) throw new VhostError('VHOST_ERR_RING', `size ${queue.size}`);
      validateQueueState(queue, life.memory, hasBit(life.features, net.VIRTIO_RING_F_EVENT_IDX));
    } catch (error) {
      this.#parts.break(life, `queue ${number}: ${reasonOf(error)}`);
      return;
    }
    queue.ready = true;
    if (life.driverOk) void this.#parts.turns.run(() => this.#serve(life, number));
  }

  async #serve(life: DeviceLife, number: number): Promise<void> {
    const role = life.roleOf(number);
    const backend = this.#parts.backend();
    if (life !== this.#life || role === null || !backend.running) return;
    try {
      if (role.kind === 'control') this.#parts.control.start(life);
      else await backend.startQueue(role.index);
    } catch (error) {
      this.#parts.break(life, `queue ${number}: ${reasonOf(error)}`);
    }
  }

  /** Whether the device has not let go of the queue yet: its registers then still are those before. */
  queueResetting(number: number): boolean {
    return this.#resettingQueues.has(number);
  }

  /** Takes one queue away from the device (virtio 1.4 section 2.6.1); it may be set up again afterwards. */
  resetQueue(number: number): void {
    const life = this.#life;
    const may = hasBit(life.features, net.VIRTIO_F_RING_RESET) && life.driverOk;
    if (may && life.queue(number)?.ready === true) this.#take(life, number);
    else this.violation(`a reset of queue ${number}`);
  }

  /** A driver that wants to stop using a queue (section 4.2.2, QueueReady). */
  disableQueue(number: number): void {
    if (this.#life.queue(number)?.ready === true) this.#take(this.#life, number);
  }

  #take(life: DeviceLife, number: number): void {
    if (this.#resettingQueues.has(number)) return;
    this.#resettingQueues.add(number);
    void this.#parts.turns.run(async () => {
      const role = life.roleOf(number);
      if (life !== this.#life || role === null) return;
      try {
        const backend = this.#parts.backend();
        if (role.kind === 'control') await this.#parts.control.stop();
        else {
          this.#parts.taken(role.index);
          if (backend.running) await backend.stopQueue(role.index);
        }
      } catch (error) {
        this.#parts.break(life, `queue ${number} could not be taken out of service: ${reasonOf(error)}`);
      }
      if (life !== this.#life) return;
      life.forgetQueue(number);
      this.#resettingQueues.delete(number);
    });
  }

  /** A driver's kick by register. */
  notify(number: number): void {
    const role = this.#life.roleOf(number);
    if (role === null) this.violation(`a kick of queue ${number}, which is not there`);
    else this.#parts.kick(role.kind === 'control' ? 'control' : role.index);
  }

  /** A driver did what the specification forbids. */
  violation(what: string): void {
    this.#parts.violation(what);
  }

  #violation(what: string | null): void {
    if (what !== null) this.violation(what);
  }
}
