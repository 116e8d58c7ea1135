/**
 * The driver's side of virtio over MMIO (virtio 1.4 sections 3.1 and 4.2.3): finds a network device behind registers, negotiates, sets its
 * queues up and starts it, in the order of the specification.
 */
import * as mmio from '../constants/virtio-mmio';
import * as net from '../constants/virtio-net';
import * as status from '../constants/virtio-status';
import { VhostError } from '../errors';
import {
  CONFIG_DUPLEX,
  CONFIG_MAC,
  CONFIG_MAX_VIRTQUEUE_PAIRS,
  CONFIG_MTU,
  CONFIG_SPEED,
  CONFIG_STATUS,
  type NetConfig,
} from '../net/config-space';
import { formatMac } from '../net/ethernet';
import type { QueueState } from '../virtqueue/queue-state';
import { highWord, lowWord } from '../virtqueue/ring-memory';

/** Loads and stores of a driver; VirtioMmio is one. */
export interface MmioBus {
  read(offset: number, size: number): number;
  write(offset: number, size: number, value: number): void;
}

/** Looks at a register until a device in the same process has had time to act. */
const PATIENCE_MS = 10_000;

export class MmioDriver {
  readonly #bus: MmioBus;
  /** What was negotiated. */
  features = 0n;

  private constructor(bus: MmioBus) {
    this.#bus = bus;
  }

  /** Throws VHOST_ERR_STATE where there is no network device of version 2. */
  static probe(bus: MmioBus): MmioDriver {
    const found = [mmio.VIRTIO_MMIO_MAGIC_VALUE, mmio.VIRTIO_MMIO_VERSION, mmio.VIRTIO_MMIO_DEVICE_ID].map((offset) =>
      bus.read(offset, 4),
    );
    const expected = [mmio.VIRTIO_MMIO_MAGIC, mmio.VIRTIO_MMIO_VERSION_2, status.VIRTIO_ID_NET];
    if (found.some((value, index) => value !== expected[index])) {
      throw new VhostError(
        'VHOST_ERR_STATE',
        `no virtio network device: ${found.map((value) => `0x${value.toString(16)}`)}`,
      );
    }
    return new MmioDriver(bus);
  }

  read(offset: number): number {
    return this.#bus.read(offset, 4);
  }

  write(offset: number, value: number): void {
    this.#bus.write(offset, 4, value);
  }

  get status(): number {
    return this.read(mmio.VIRTIO_MMIO_STATUS);
  }

  #addStatus(bits: number): void {
    this.write(mmio.VIRTIO_MMIO_STATUS, this.status | bits);
  }

  async #until(what: string, done: () => boolean): Promise<void> {
    const deadline = performance.now() + PATIENCE_MS;
    while (!done()) {
      if (performance.now() > deadline) throw new VhostError('VHOST_ERR_TIMEOUT', `the device did not ${what}`);
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  /** Memory of the queues is the driver's again when this resolves. */
  async reset(): Promise<void> {
    this.write(mmio.VIRTIO_MMIO_STATUS, 0);
    await this.#until('reset', () => this.status === 0);
    this.features = 0n;
  }

  get deviceFeatures(): bigint {
    let features = 0n;
    for (let window = 3; window >= 0; window--) {
      this.write(mmio.VIRTIO_MMIO_DEVICE_FEATURES_SEL, window);
      features = (features << 32n) | BigInt(this.read(mmio.VIRTIO_MMIO_DEVICE_FEATURES));
    }
    return features;
  }

  /** Acks what is both wanted and offered, VERSION_1 always. Throws VHOST_ERR_FEATURES when the device does not go along with it. */
  negotiate(wanted: bigint): bigint {
    this.#addStatus(status.VIRTIO_CONFIG_S_ACKNOWLEDGE);
    this.#addStatus(status.VIRTIO_CONFIG_S_DRIVER);
    const features = this.deviceFeatures & (wanted | (1n << BigInt(net.VIRTIO_F_VERSION_1)));
    this.acknowledge(features);
    if ((this.status & status.VIRTIO_CONFIG_S_FEATURES_OK) === 0) {
      this.#addStatus(status.VIRTIO_CONFIG_S_FAILED);
      throw new VhostError('VHOST_ERR_FEATURES', `the device refused 0x${features.toString(16)}`);
    }
    this.features = features;
    return features;
  }

  /** Writes features, whatever they are, and asks for FEATURES_OK. */
  acknowledge(features: bigint): void {
    for (let window = 0; window < 4; window++) {
      this.write(mmio.VIRTIO_MMIO_DRIVER_FEATURES_SEL, window);
      this.write(mmio.VIRTIO_MMIO_DRIVER_FEATURES, Number((features >> BigInt(32 * window)) & 0xffffffffn));
    }
    this.#addStatus(status.VIRTIO_CONFIG_S_FEATURES_OK);
  }

  #select(queue: number): void {
    this.write(mmio.VIRTIO_MMIO_QUEUE_SEL, queue);
  }

  /** Largest size, 0 when there is no such queue. */
  queueMax(queue: number): number {
    this.#select(queue);
    return this.read(mmio.VIRTIO_MMIO_QUEUE_NUM_MAX);
  }

  /** Tells the device where a queue lies, and enables it. */
  setUpQueue(queue: number, { size, descTable, availRing, usedRing }: QueueState): void {
    this.#select(queue);
    if (this.read(mmio.VIRTIO_MMIO_QUEUE_READY) !== 0)
      throw new VhostError('VHOST_ERR_STATE', `queue ${queue} is in use`);
    this.write(mmio.VIRTIO_MMIO_QUEUE_NUM, size);
    const parts: [number, number][] = [
      [mmio.VIRTIO_MMIO_QUEUE_DESC_LOW, descTable],
      [mmio.VIRTIO_MMIO_QUEUE_AVAIL_LOW, availRing],
      [mmio.VIRTIO_MMIO_QUEUE_USED_LOW, usedRing],
    ];
    for (const [low, address] of parts) {
      this.write(low, lowWord(address));
      this.write(low + 4, highWord(address));
    }
    this.write(mmio.VIRTIO_MMIO_QUEUE_READY, 1);
  }

  /** Takes one queue back (RING_RESET): its memory is the driver's again when this resolves. */
  async resetQueue(queue: number): Promise<void> {
    this.#select(queue);
    this.write(mmio.VIRTIO_MMIO_QUEUE_RESET, 1);
    await this.#until(`reset queue ${queue}`, () => {
      this.#select(queue);
      return this.read(mmio.VIRTIO_MMIO_QUEUE_RESET) === 0;
    });
  }

  driverOk(): void {
    this.#addStatus(status.VIRTIO_CONFIG_S_DRIVER_OK);
  }

  get needsReset(): boolean {
    return (this.status & status.VIRTIO_CONFIG_S_NEEDS_RESET) !== 0;
  }

  kick(queue: number): void {
    this.write(mmio.VIRTIO_MMIO_QUEUE_NOTIFY, queue);
  }

  /** What interrupts stand for, acknowledged. */
  takeInterrupts(): number {
    const bits = this.read(mmio.VIRTIO_MMIO_INTERRUPT_STATUS);
    if (bits !== 0) this.write(mmio.VIRTIO_MMIO_INTERRUPT_ACK, bits);
    return bits;
  }

  /** The configuration space, read again until it did not change meanwhile (section 2.5.1). */
  config(): NetConfig {
    for (;;) {
      const before = this.read(mmio.VIRTIO_MMIO_CONFIG_GENERATION);
      const config = this.#readConfig();
      if (this.read(mmio.VIRTIO_MMIO_CONFIG_GENERATION) === before) return config;
    }
  }

  #readConfig(): NetConfig {
    const field = (offset: number, size: number): number => this.#bus.read(mmio.VIRTIO_MMIO_CONFIG + offset, size);
    const mac = Uint8Array.from({ length: 6 }, (_, index) => field(CONFIG_MAC + index, 1));
    const flags = field(CONFIG_STATUS, 2);
    return {
      mac: formatMac(mac),
      linkUp: (flags & net.VIRTIO_NET_S_LINK_UP) !== 0,
      announce: (flags & net.VIRTIO_NET_S_ANNOUNCE) !== 0,
      maxPairs: field(CONFIG_MAX_VIRTQUEUE_PAIRS, 2),
      mtu: field(CONFIG_MTU, 2),
      speed: field(CONFIG_SPEED, 4),
      duplex: field(CONFIG_DUPLEX, 1),
    };
  }
}
