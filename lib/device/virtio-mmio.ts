/**
 * virtio over MMIO, version 2 (virtio 1.4 section 4.2): the register model between a driver's loads and stores and a device. A virtual
 * machine monitor hooks `read` and `write` to its exits and the interrupt line to its controller. No access throws: what a driver must not
 * do reads as 0, or changes nothing, and is told as a violation.
 */
import * as mmio from '../constants/virtio-mmio';
import { VIRTIO_ID_NET } from '../constants/virtio-status';
import type { EventFdWatch } from '../host/event-fd';
import type { QueueField } from './device-life';
import type { DeviceTransport } from './device-options';
import { fields, Reader, shown } from './state-reader';
import type { VirtioNetDevice } from './virtio-net-device';

/** 'VHNT' in memory order: nothing depends on it. */
const VENDOR = 0x544e4856;
/** Bytes of the window: registers and configuration space. */
export const VIRTIO_MMIO_BYTES = 0x200;

/** A level: high as long as the interrupt status has a bit. */
export interface InterruptLine {
  set(high: boolean): void;
}

export interface VirtioMmioOptions {
  /** Where interrupts go. */
  interrupt?: InterruptLine | undefined;
  /**
   * Whether this process notices call eventfds and shows them in the interrupt status (the default). False where they go to the guest by
   * themselves, such as to an irqfd: the vring bit then always reads as 1, which tells a driver to look at its rings.
   */
  watchCalls?: boolean | undefined;
}

const ADDRESSES: Readonly<Record<number, readonly [QueueField, 'low' | 'high']>> = {
  [mmio.VIRTIO_MMIO_QUEUE_DESC_LOW]: ['descTable', 'low'],
  [mmio.VIRTIO_MMIO_QUEUE_DESC_HIGH]: ['descTable', 'high'],
  [mmio.VIRTIO_MMIO_QUEUE_AVAIL_LOW]: ['availRing', 'low'],
  [mmio.VIRTIO_MMIO_QUEUE_AVAIL_HIGH]: ['availRing', 'high'],
  [mmio.VIRTIO_MMIO_QUEUE_USED_LOW]: ['usedRing', 'low'],
  [mmio.VIRTIO_MMIO_QUEUE_USED_HIGH]: ['usedRing', 'high'],
};
const HIGH_WORD = 0x1_0000_0000;
/** Above it addresses are no safe integers: no memory is there either way, and the low half must stay what it is. */
const MOST_HIGH = 0x1fffff;

export class VirtioMmio implements DeviceTransport {
  readonly device: VirtioNetDevice;
  readonly #line: InterruptLine | undefined;
  readonly #watchCalls: boolean;
  #watches: EventFdWatch[] = [];
  #deviceFeaturesSel = 0;
  #driverFeaturesSel = 0;
  #queueSel = 0;
  #interruptStatus = 0;
  readonly #onConfig = (): void => this.#raise(mmio.VIRTIO_MMIO_INT_CONFIG);

  constructor(device: VirtioNetDevice, { interrupt, watchCalls = true }: VirtioMmioOptions = {}) {
    this.device = device;
    this.#line = interrupt;
    this.#watchCalls = watchCalls;
    if (device.transportState !== null) this.#restore(device.transportState);
    device.transport = this;
    device.transportState = null;
    device.on('configChange', this.#onConfig);
    if (watchCalls) {
      this.#watches = device.notifiers.map(({ call }) => {
        const watch = call.onSignal((count) => {
          // After a reset no bit is set; what was called before it belongs to rings that are gone (section 4.2.2.1).
          if (count > 0 && !device.registers.resetting) this.#raise(mmio.VIRTIO_MMIO_INT_VRING);
        });
        watch.unref();
        return watch;
      });
    }
    if (this.#interruptStatus !== 0) this.#line?.set(true);
  }

  /** Keeps the process running while calls are watched for, or not (the default). */
  ref(on: boolean): void {
    for (const watch of this.#watches) {
      if (on) watch.ref();
      else watch.unref();
    }
  }

  /** Ends the watching; the device stays. */
  close(): void {
    for (const watch of this.#watches.splice(0)) watch.close();
    this.device.off('configChange', this.#onConfig);
    if (this.device.transport === this) this.device.transport = null;
  }

  /** A load of `size` bytes: 4 of a register, 1, 2 or 4 of the configuration space. One of 8 bytes is two of 4. */
  read(offset: number, size: number): number {
    if (offset >= mmio.VIRTIO_MMIO_CONFIG) return this.#readConfig(offset - mmio.VIRTIO_MMIO_CONFIG, size);
    if (size !== 4 || offset % 4 !== 0) return this.#violation(`a load of ${size} bytes at 0x${hex(offset)}`);
    const { registers } = this.device;
    const queue = registers.queue(this.#queueSel);
    switch (offset) {
      case mmio.VIRTIO_MMIO_MAGIC_VALUE:
        return mmio.VIRTIO_MMIO_MAGIC;
      case mmio.VIRTIO_MMIO_VERSION:
        return mmio.VIRTIO_MMIO_VERSION_2;
      case mmio.VIRTIO_MMIO_DEVICE_ID:
        return VIRTIO_ID_NET;
      case mmio.VIRTIO_MMIO_VENDOR_ID:
        return VENDOR;
      case mmio.VIRTIO_MMIO_DEVICE_FEATURES:
        return featureWord(this.device.offeredFeatures, this.#deviceFeaturesSel);
      case mmio.VIRTIO_MMIO_QUEUE_NUM_MAX:
        return registers.queueMax(this.#queueSel);
      case mmio.VIRTIO_MMIO_QUEUE_READY:
        return queue?.ready === true ? 1 : 0;
      case mmio.VIRTIO_MMIO_QUEUE_RESET:
        return registers.queueResetting(this.#queueSel) ? 1 : 0;
      case mmio.VIRTIO_MMIO_INTERRUPT_STATUS:
        return this.#watchCalls ? this.#interruptStatus : this.#interruptStatus | mmio.VIRTIO_MMIO_INT_VRING;
      case mmio.VIRTIO_MMIO_STATUS:
        return registers.status;
      case mmio.VIRTIO_MMIO_CONFIG_GENERATION:
        return this.device.configGeneration;
      // No shared memory regions: their length reads as all ones (section 4.2.2).
      case mmio.VIRTIO_MMIO_SHM_LEN_LOW:
      case mmio.VIRTIO_MMIO_SHM_LEN_HIGH:
      case mmio.VIRTIO_MMIO_SHM_BASE_LOW:
      case mmio.VIRTIO_MMIO_SHM_BASE_HIGH:
        return 0xffffffff;
      default:
        return this.#violation(`a load at 0x${hex(offset)}`);
    }
  }

  /** A store likewise. What it starts runs on: `device.settled()`. */
  write(offset: number, size: number, value: number): void {
    if (offset >= mmio.VIRTIO_MMIO_CONFIG) {
      // Nothing in it is the driver's to write once VERSION_1 is negotiated: addresses go through the control queue.
      this.#violation(`a store to the configuration space at ${offset - mmio.VIRTIO_MMIO_CONFIG}`);
      return;
    }
    if (size !== 4 || offset % 4 !== 0) {
      this.#violation(`a store of ${size} bytes at 0x${hex(offset)}`);
      return;
    }
    const word = value >>> 0;
    const { registers } = this.device;
    const address = ADDRESSES[offset];
    if (address !== undefined) {
      this.#writeAddress(...address, word);
      return;
    }
    switch (offset) {
      case mmio.VIRTIO_MMIO_DEVICE_FEATURES_SEL:
        this.#deviceFeaturesSel = word;
        return;
      case mmio.VIRTIO_MMIO_DRIVER_FEATURES_SEL:
        this.#driverFeaturesSel = word;
        return;
      case mmio.VIRTIO_MMIO_DRIVER_FEATURES:
        registers.writeDriverFeatures(this.#driverFeaturesSel, word);
        return;
      case mmio.VIRTIO_MMIO_QUEUE_SEL:
        this.#queueSel = word;
        return;
      case mmio.VIRTIO_MMIO_QUEUE_NUM:
        registers.configureQueue(this.#queueSel, 'size', word);
        return;
      case mmio.VIRTIO_MMIO_QUEUE_READY:
        if (word === 1) registers.enableQueue(this.#queueSel);
        else if (word === 0) registers.disableQueue(this.#queueSel);
        else this.#violation(`QueueReady ${word}`);
        return;
      case mmio.VIRTIO_MMIO_QUEUE_NOTIFY:
        registers.notify(word & 0xffff);
        return;
      case mmio.VIRTIO_MMIO_INTERRUPT_ACK:
        this.#acknowledge(word);
        return;
      case mmio.VIRTIO_MMIO_STATUS:
        this.#writeStatus(word);
        return;
      case mmio.VIRTIO_MMIO_QUEUE_RESET:
        if (word === 1) registers.resetQueue(this.#queueSel);
        else this.#violation(`QueueReset ${word}`);
        return;
      case mmio.VIRTIO_MMIO_SHM_SEL:
        return;
      default:
        this.#violation(`a store at 0x${hex(offset)}`);
    }
  }

  #writeStatus(value: number): void {
    const status = value & 0xff;
    this.device.registers.writeStatus(status);
    if (status !== 0) return;
    this.#deviceFeaturesSel = 0;
    this.#driverFeaturesSel = 0;
    this.#queueSel = 0;
    this.#acknowledge(this.#interruptStatus);
  }

  #writeAddress(field: QueueField, half: 'low' | 'high', word: number): void {
    const { registers } = this.device;
    const before = (registers.queue(this.#queueSel)?.[field] as number | undefined) ?? 0;
    const low = half === 'low' ? word : before % HIGH_WORD;
    const high = half === 'high' ? Math.min(word, MOST_HIGH) : Math.floor(before / HIGH_WORD);
    registers.configureQueue(this.#queueSel, field, high * HIGH_WORD + low);
  }

  #readConfig(at: number, size: number): number {
    if (![1, 2, 4].includes(size)) return this.#violation(`a load of ${size} bytes of the configuration space`);
    const bytes = this.device.readConfig();
    let value = 0;
    for (let index = size - 1; index >= 0; index--) value = value * 256 + (bytes[at + index] ?? 0);
    return value;
  }

  /** 0, 1 or both of the interrupt status bits. */
  get interruptStatus(): number {
    return this.#interruptStatus;
  }

  #raise(bits: number): void {
    this.#interruptStatus |= bits;
    this.#line?.set(true);
  }

  #acknowledge(bits: number): void {
    if (this.#interruptStatus === 0) return;
    this.#interruptStatus &= ~bits;
    if (this.#interruptStatus === 0) this.#line?.set(false);
  }

  #violation(what: string): 0 {
    this.device.registers.violation(what);
    return 0;
  }

  save(): Record<string, unknown> {
    this.#takeCalls();
    return {
      kind: 'virtio-mmio',
      deviceFeaturesSel: this.#deviceFeaturesSel,
      driverFeaturesSel: this.#driverFeaturesSel,
      queueSel: this.#queueSel,
      interruptStatus: this.#interruptStatus,
    };
  }

  /** Calls that the event loop has not come to yet: wherever the driver goes on it must hear of them. */
  #takeCalls(): void {
    if (!this.#watchCalls) return;
    for (const { call } of this.device.notifiers) {
      if (!call.closed && call.drain() > 0) this.#raise(mmio.VIRTIO_MMIO_INT_VRING);
    }
  }

  #restore(value: Record<string, unknown>): void {
    const reader = new Reader('transport state');
    const saved = fields(reader, value, 'transport');
    if (saved.kind !== 'virtio-mmio') reader.refuse(`kind is ${shown(saved.kind)}`, 'virtio-mmio');
    const word = (name: string): number => reader.integer(saved[name] ?? 0, name, 0, 0xffffffff);
    this.#deviceFeaturesSel = word('deviceFeaturesSel');
    this.#driverFeaturesSel = word('driverFeaturesSel');
    this.#queueSel = word('queueSel');
    this.#interruptStatus = reader.integer(saved.interruptStatus ?? 0, 'interruptStatus', 0, 3);
  }
}

function featureWord(features: bigint, window: number): number {
  return window < 4 ? Number((features >> BigInt(32 * window)) & 0xffffffffn) : 0;
}

const hex = (offset: number): string => offset.toString(16);
