/** Both ends of a control virtqueue over plain memory: a driver that kicks only when it must, a device that is woken only by kicks. */
import { ControlQueue } from '../../lib/device/control-queue';
import type { VhostError } from '../../lib/errors';
import { ControlDriver } from '../../lib/guest/control-driver';
import type { ControlCommand } from '../../lib/net/control-command';
import { Trace } from '../../lib/trace/trace';
import type { DeviceQueue } from '../../lib/virtqueue/device-queue';
import { alignUp, splitLayout } from '../../lib/virtqueue/layout';
import { highWord, lowWord, type WriteLog } from '../../lib/virtqueue/ring-memory';
import { SplitDevice } from '../../lib/virtqueue/split-device';
import { SplitDriver } from '../../lib/virtqueue/split-driver';
import { driverStateBytes } from '../../lib/virtqueue/split-driver-state';
import { ByteLog, TestMemory } from './ring-memory';

export const RINGS = 5 * 2 ** 30;
export const AREA = 0x10000;
export const AREA_BYTES = 0x1000;

export interface RigOptions {
  size?: number;
  eventIdx?: boolean;
  indirect?: boolean;
  /** Stands between the device and its ring. */
  around?: (device: SplitDevice) => DeviceQueue;
  /** Stands between the control queue and the log. */
  logOf?: (log: ByteLog) => WriteLog;
  /** Of more guest memory. */
  more?: readonly { gpa: number; size: number }[];
}

export const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

export class ControlRig {
  readonly memory: TestMemory;
  readonly log: ByteLog;
  readonly driver: SplitDriver;
  readonly control: ControlDriver;
  readonly trace = new Trace();
  /** Of the driver. */
  readonly stateAt: number;
  readonly layout: { readonly desc: number; readonly avail: number; readonly used: number };
  device: SplitDevice;
  queue: ControlQueue;
  /** What the device was asked to do, in order. */
  readonly handled: ControlCommand[] = [];
  readonly broken: VhostError[] = [];
  calls = 0;
  handler: (command: ControlCommand) => Promise<boolean> = () => Promise.resolve(true);
  readonly #options: RigOptions;

  constructor(options: RigOptions = {}) {
    const { size = 16, eventIdx = false, indirect = false, more = [] } = options;
    this.#options = options;
    this.layout = splitLayout(RINGS, size, eventIdx);
    this.stateAt = alignUp(RINGS + splitLayout(RINGS, size, eventIdx).bytes, 16);
    const tables = alignUp(this.stateAt + driverStateBytes(size), 16);
    const end = alignUp(tables + (indirect ? size * size * 16 : 0), 4096);
    this.memory = new TestMemory([{ gpa: AREA, size: AREA_BYTES }, { gpa: RINGS, size: end - RINGS }, ...more]);
    this.log = new ByteLog(this.memory);
    const parts = { size, ...this.layout, eventIdx, ...(indirect ? { indirect: { tables, entries: size } } : {}) };
    this.driver = SplitDriver.format(this.memory, this.stateAt, parts, this.log);
    this.control = new ControlDriver(this.driver, this.memory, { gpa: AREA, bytes: AREA_BYTES }, this.log);
    this.device = new SplitDevice(this.memory, this.driver.queueState(), { eventIdx, indirect, log: this.log });
    this.queue = this.#serve();
  }

  #serve(): ControlQueue {
    const { around = (device) => device, logOf = (log) => log } = this.#options;
    return new ControlQueue(
      around(this.device),
      logOf(this.log),
      (command) => {
        this.handled.push(command);
        return this.handler(command);
      },
      { onCall: () => this.calls++, onBroken: (error) => this.broken.push(error), trace: this.trace },
    );
  }

  /** Another device goes on where the last one stopped. */
  restart(): void {
    const { eventIdx = false, indirect = false } = this.#options;
    this.device = new SplitDevice(this.memory, this.device.state(), { eventIdx, indirect, log: this.log });
    this.queue = this.#serve();
  }

  /** Makes a chain of any buffers available, unpublished. */
  post(...buffers: { gpa: number; length: number; writable?: boolean }[]): void {
    if (this.driver.chainBegin(buffers.length) < 0) throw new Error('no descriptor is free');
    for (const { gpa, length, writable = false } of buffers) {
      this.driver.chainAdd(lowWord(gpa), highWord(gpa), length, writable);
    }
    this.driver.chainEnd();
  }

  write(gpa: number, bytes: ArrayLike<number>): void {
    this.memory.bytes(gpa, bytes.length).set(bytes);
    this.log.mark(gpa, bytes.length);
  }

  publish(): void {
    if (this.driver.publish()) this.queue.wake();
  }

  /** The ack of the command that was sent, and the bytes that the device says it wrote. Throws when none comes. */
  async ack(): Promise<{ ack: number; length: number }> {
    for (let turns = 0; turns < 100; turns++) {
      if (this.driver.pending() > 0) {
        const length = this.driver.usedLength(0);
        return { ack: this.control.poll()!, length };
      }
      await turn();
    }
    throw new Error('no ack came');
  }

  async used(count: number): Promise<void> {
    for (let turns = 0; this.driver.pending() < count; turns++) {
      if (turns === 100) throw new Error(`${this.driver.pending()} of ${count} chains were used`);
      await turn();
    }
  }
}
