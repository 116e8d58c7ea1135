/**
 * Runs a guest on a device: the part that a processor has elsewhere. It polls while there is work, sleeps on the call eventfds and until the
 * guest wants to do something by itself, and stands still for a migration.
 */
import type { QueueNotifiers } from '../backend/backend';
import { invalidArgument, VhostError } from '../errors';
import type { EventFdWatch } from '../host/event-fd';
import type { GuestWriteLog } from '../memory/dirty-log';
import type { MigratableGuest } from '../migration/options';
import { native } from '../native';
import type { Guest } from './guest';

/** Between two looks at the event loop: polls, and microseconds after which it is not polled again. */
const POLLS_PER_TURN = 16;
const TURN_MICROS = 500;
/** Node's timers have milliseconds. */
const SHORTEST_SLEEP_MS = 1;

export interface GuestDevice {
  /** By queue. Those behind the guest's queue pairs, such as a control queue's, are left to others. */
  readonly notifiers: readonly QueueNotifiers[];
}

export class GuestRunner implements MigratableGuest {
  readonly guest: Guest;
  /** What the guest writes; the same log that the guest was booted or resumed with. */
  readonly dirtySource: GuestWriteLog;
  readonly #device: GuestDevice;
  #watches: EventFdWatch[] = [];
  #next: NodeJS.Immediate | null = null;
  #timer: NodeJS.Timeout | null = null;
  #running = false;
  /** A ring that the device broke: the guest stands still, as a driver would. */
  #failure: unknown = null;

  /** Throws VHOST_ERR_INVALID_ARGUMENT for a device with fewer queues than the guest has. */
  constructor(guest: Guest, device: GuestDevice, log: GuestWriteLog) {
    const queues = 2 * guest.pairs;
    if (device.notifiers.length < queues) {
      throw invalidArgument(`a device with ${device.notifiers.length} queues`, `the guest has ${queues}`);
    }
    this.guest = guest;
    this.#device = device;
    this.dirtySource = log;
    guest.onKick = (queue) => device.notifiers[queue]!.kick.signal();
  }

  get running(): boolean {
    return this.#running;
  }

  /** What ended the guest, or null. */
  get failure(): unknown {
    return this.#failure;
  }

  /** Executes from now on. */
  resume(): void {
    if (this.#running) return;
    if (this.#failure !== null)
      throw new VhostError('VHOST_ERR_STATE', 'the guest met a broken ring', { cause: this.#failure });
    this.#running = true;
    const notifiers = this.#device.notifiers.slice(0, 2 * this.guest.pairs);
    this.#watches = notifiers.map(({ call }) => call.onSignal(() => this.#run()));
    this.#run();
  }

  /** Executes nothing after this resolves. A poll is never cut: guest memory is complete. */
  async pause(): Promise<void> {
    this.#halt();
  }

  #halt(): void {
    this.#running = false;
    if (this.#next !== null) clearImmediate(this.#next);
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#next = null;
    this.#timer = null;
    for (const watch of this.#watches) watch.close();
    this.#watches = [];
  }

  #run(): void {
    if (!this.#running || this.#next !== null) return;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    try {
      this.#turn();
    } catch (error) {
      this.#failure = error;
      this.#halt();
    }
  }

  #turn(): void {
    const { guest } = this;
    const clock = native();
    const end = clock.monotonicMicros() + TURN_MICROS;
    let now = 0;
    for (let poll = 0; poll < POLLS_PER_TURN && now < end; poll++) {
      now = clock.monotonicMicros();
      if (guest.poll(now) > 0) continue;
      if (guest.armInterrupts()) continue;
      this.#sleep(guest.dueIn(clock.monotonicMicros()));
      return;
    }
    this.#next = setImmediate(() => {
      this.#next = null;
      this.#run();
    });
  }

  #sleep(micros: number): void {
    if (micros === Number.POSITIVE_INFINITY) return;
    this.#timer = setTimeout(
      () => {
        this.#timer = null;
        this.#run();
      },
      Math.max(SHORTEST_SLEEP_MS, Math.floor(micros / 1000)),
    );
  }

  startDirtyLog(): void {
    this.dirtySource.enabled = true;
  }

  stopDirtyLog(): void {
    this.dirtySource.enabled = false;
  }

  /** Where the guest is found again. */
  save(): Record<string, unknown> {
    return { gpa: this.guest.gpa };
  }
}
