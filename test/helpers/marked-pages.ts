/** A device on the emulated data path whose rings a test fills beforehand, so that nobody but the device writes: which pages it marks, and which it wrote. */
import { EmulatedBackend } from '../../lib/backend/emulated';
import { VirtioNetDevice } from '../../lib/device/virtio-net-device';
import { attachQueue, formatQueue, planQueue } from '../../lib/guest/rings';
import { Netns } from '../../lib/host/netns';
import { Tap } from '../../lib/host/tap';
import { PAGE_SIZE } from '../../lib/memory/address';
import { GuestMemory } from '../../lib/memory/guest-memory';
import { PageBitmap } from '../../lib/memory/page-bitmap';
import { headerLength } from '../../lib/net/header';
import { hashPages } from '../../lib/observe/page-audit';
import { Station } from '../../lib/observe/station';
import type { DriverQueue } from '../../lib/virtqueue/driver-queue';
import { alignUp } from '../../lib/virtqueue/layout';
import { NO_WRITE_LOG } from '../../lib/virtqueue/ring-memory';
import { indirectTableBytes } from '../../lib/virtqueue/split-driver-state';
import { pagesOf } from './vhost-pages';

const MAC = '02:00:00:00:00:02';
const STATION_MAC = '02:00:00:00:00:01';
const SIZE = 256;
const MEMORY = 8 << 20;
/** Buffers of one queue begin here, of the other behind them. */
const BUFFERS = 2 << 20;
/** Far apart, so that a page that is marked for its neighbour's sake shows. */
const STEP = 2 * PAGE_SIZE;

export interface MarkedOptions {
  features: bigint;
  frameSize?: number;
  /** Lengths of the pieces of each receive buffer's chain. */
  pieces: readonly number[];
  /** Whether chains lie in indirect tables. */
  indirect?: boolean;
}

/** Pages, ascending. */
export interface Marks {
  marked: number[];
  written: number[];
}

export class MarkedPages {
  readonly memory = GuestMemory.create([{ gpa: 0, size: MEMORY }]);
  readonly device: VirtioNetDevice;
  readonly station: Station;
  readonly #netns: Netns;
  readonly #tap: Tap;
  readonly #rx: DriverQueue;
  readonly #tx: DriverQueue;
  readonly #options: MarkedOptions;

  private constructor(netns: Netns, tap: Tap, station: Station, options: MarkedOptions) {
    this.#netns = netns;
    this.#tap = tap;
    this.station = station;
    this.#options = options;
    let next = PAGE_SIZE;
    const take = (bytes: number, alignment: number): number => {
      const at = alignUp(next, Math.max(alignment, PAGE_SIZE));
      next = at + bytes;
      return at;
    };
    const queue = (): DriverQueue => {
      const plan = planQueue(options.features, SIZE, false, take);
      const entries = options.pieces.length;
      if (options.indirect === true) {
        plan.driver.indirect = { tables: take(indirectTableBytes(SIZE, entries), 64), entries };
      }
      formatQueue(this.memory, plan, NO_WRITE_LOG);
      return attachQueue(this.memory, plan.state, NO_WRITE_LOG);
    };
    [this.#rx, this.#tx] = [queue(), queue()];
    this.device = new VirtioNetDevice({
      memory: this.memory,
      backend: new EmulatedBackend({ taps: [tap], prepareTaps: true }),
      features: options.features,
      queues: [this.#rx.queueState(), this.#tx.queueState()],
      mac: MAC,
    });
  }

  static async create(options: MarkedOptions): Promise<MarkedPages> {
    const netns = await Netns.create();
    await netns.addBridge('br0');
    const tap = await Tap.open({ name: 'device', netns: netns.path });
    await netns.attach('br0', tap.name);
    const { frameSize = 128 } = options;
    const [mac, rest] = [
      STATION_MAC,
      { peerMac: MAC, sends: 2, receives: 1, rate: 4000, frameSize, capacity: 1 << 16 },
    ];
    const station = await Station.open({ netns: netns.path, name: 'station', mac, ...rest });
    await netns.attach('br0', station.name);
    return new MarkedPages(netns, tap, station, options);
  }

  /** All receive chains that there is room for. */
  postReceive(): void {
    const { pieces } = this.#options;
    const rx = this.#rx;
    for (let chain = 0; chain < SIZE && rx.free >= (this.#options.indirect === true ? 1 : pieces.length); chain++) {
      let at = BUFFERS + chain * STEP;
      if (rx.chainBegin(pieces.length) < 0) break;
      for (const length of pieces) {
        rx.chainAdd(at, 0, length, true);
        at += length;
      }
      rx.chainEnd();
    }
    rx.publish();
  }

  postTransmit(frames: number): void {
    const length = headerLength(this.#options.features) + 64;
    for (let index = 0; index < frames; index++) {
      const at = BUFFERS + SIZE * STEP + index * STEP;
      this.memory.write(at + length - 52, Uint8Array.from([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5]));
      this.#tx.post(at, 0, length, false);
    }
    this.#tx.publish();
  }

  get used(): { rx: number; tx: number } {
    return { rx: this.#rx.pending(), tx: this.#tx.pending() };
  }

  /** From the start of the device to its stop. */
  async during(work: () => Promise<void>): Promise<Marks> {
    const before = await hashPages(this.memory);
    const log = await this.device.startDirtyLog();
    await this.device.start();
    await work();
    await this.device.stop();
    const bitmap = new PageBitmap(MEMORY / PAGE_SIZE);
    log.takeInto(bitmap);
    await this.device.stopDirtyLog();
    const after = await hashPages(this.memory);
    const written = [...before.keys()].filter((page) => before[page] !== after[page]);
    return { marked: pagesOf(bitmap), written };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.station.close();
    await this.device.close();
    this.memory.close();
    await this.#tap.close();
    await this.#netns.delete();
  }
}
