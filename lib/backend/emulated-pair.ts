/** One queue pair on the emulated data path: wakes on kicks and on frames, and moves batches until there is nothing left to move. */

import {
  VIRTIO_NET_F_GUEST_CSUM,
  VIRTIO_NET_F_GUEST_ECN,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
} from '../constants/virtio-net';
import { reasonOf } from '../errors';
import type { EventFdWatch } from '../host/event-fd';
import type { Tap } from '../host/tap';
import { GUEST_OFFLOADS } from '../net/feature-rules';
import { bits, hasBit } from '../net/features';
import { headerLength } from '../net/header';
import type { DeviceQueue } from '../virtqueue/device-queue';
import { openDeviceQueue } from '../virtqueue/open-queue';
import type { QueueState } from '../virtqueue/queue-state';
import type { BackendDevice, RingFault, RingPosition, StoppedRing } from './backend';
import type { DeviceWriteLog } from './emulated-log';
import { EmulatedReceive, type KeptFrame } from './emulated-receive';
import { EmulatedTransmit } from './emulated-transmit';
import type { FrameInlet, InletWatch, TransmitObserver } from './frame-inlet';

/** Batches between two looks at the event loop: timers and other pairs are not kept waiting. */
const BATCHES_PER_TURN = 4;
/** Ethernet header and two VLAN tags beside the MTU; the largest GSO frame when the guest takes those. */
const ETHERNET_OVERHEAD = 22;
const LARGEST_GSO = 65_536;
/** Those of the receive offloads with which frames come unsegmented. */
const GUEST_GSO = GUEST_OFFLOADS & ~bits(VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN);

/** Both ends of a pair beside its rings. */
export interface PairEnds {
  readonly tap: Tap;
  readonly inlet: FrameInlet;
  readonly onTransmit: TransmitObserver | null;
  readonly kept: KeptFrame;
  readonly mtu: number;
}

/**
 * Chains that the driver has posted for received frames and that are not used yet, none in a ring that is broken, and how many there can be. All
 * of them: it has certainly taken every frame. An event index that it left behind would prove nothing.
 */
export interface ReceiveRoom {
  readonly posted: number;
  readonly size: number;
}

export class EmulatedPair {
  readonly index: number;
  readonly inlet: FrameInlet;
  readonly #device: BackendDevice;
  readonly #rings: (DeviceQueue | null)[];
  readonly #transmit: EmulatedTransmit | null;
  readonly #receive: EmulatedReceive | null;
  readonly #onFault: (fault: RingFault) => void;
  /** By ring; null for one that is not served. */
  readonly #watches: (EventFdWatch | null)[] = [null, null];
  #inletWatch: InletWatch | null = null;
  #next: NodeJS.Immediate | null = null;
  #running = false;

  constructor(
    index: number,
    ends: PairEnds,
    device: BackendDevice,
    log: DeviceWriteLog,
    onFault: (fault: RingFault) => void,
  ) {
    const { tap, inlet, onTransmit, kept, mtu } = ends;
    this.index = index;
    this.inlet = inlet;
    this.#device = device;
    this.#onFault = onFault;
    const { memory, features } = device;
    this.#rings = [0, 1].map((ring) => {
      const queue = device.queues[index * 2 + ring];
      if (queue === undefined || !queue.ready) return null;
      return openDeviceQueue(memory, queue, {
        eventIdx: hasBit(features, VIRTIO_RING_F_EVENT_IDX),
        indirect: hasBit(features, VIRTIO_RING_F_INDIRECT_DESC),
        log,
      });
    });
    const [rx, tx] = this.#rings;
    const header = headerLength(features);
    const ordinary = header + mtu + ETHERNET_OVERHEAD;
    const largest = (features & GUEST_GSO) === 0n ? ordinary : header + LARGEST_GSO;
    this.#receive = rx ? new EmulatedReceive(rx, inlet, log, kept, { features, header, largest, ordinary }) : null;
    this.#transmit = tx ? new EmulatedTransmit(tx, tap, onTransmit) : null;
  }

  start(): void {
    this.#running = true;
    for (const ring of [0, 1]) this.watchKicks(ring);
    // What waits is moved when all pairs are there, and whoever starts the guest has done so.
    this.#soon();
  }

  /** Listens to the kicks of a ring that is served, by whatever eventfd they come now. */
  watchKicks(ring: number): void {
    this.#watches[ring]?.close();
    this.#watches[ring] = null;
    if (!this.#running || this.#rings[ring] === null) return;
    this.#watches[ring] = this.#device.notifiers[this.index * 2 + ring]!.kick.onSignal(() => this.#run());
  }

  /** One turn: some batches of both directions, then either another turn or sleep until a kick or a frame. */
  #run(): void {
    if (!this.#running || this.#next !== null) return;
    let more = false;
    for (let batch = 0; batch < BATCHES_PER_TURN; batch++) {
      const transmitted = this.#guarded(1, () => this.#transmitBatch());
      const received = this.#guarded(0, () => this.#receiveBatch());
      more = transmitted || received;
      if (!more) return;
    }
    this.#soon();
  }

  #soon(): void {
    this.#next = setImmediate(() => {
      this.#next = null;
      this.#run();
    });
  }

  /** A broken ring stands still for good; the other one goes on. */
  #guarded(ring: number, run: () => boolean): boolean {
    if (this.#rings[ring]?.error !== null) return false;
    try {
      return run();
    } catch (error) {
      if (ring === 0) this.#watchInlet(false);
      this.#onFault({ queue: this.index * 2 + ring, message: reasonOf(error) });
      return false;
    }
  }

  #transmitBatch(): boolean {
    const ring = this.#rings[1]!;
    ring.disableKicks();
    if (this.#transmit!.run(() => this.#device.notifiers[this.index * 2 + 1]!.call.signal()) > 0) return true;
    return ring.enableKicks();
  }

  #receiveBatch(): boolean {
    const ring = this.#rings[0]!;
    ring.disableKicks();
    const { frames, starved } = this.#receive!.run(() => this.#device.notifiers[this.index * 2]!.call.signal());
    if (frames > 0) return true;
    // Without buffers the inlet's readiness would wake us for nothing: then only the driver's kick does.
    this.#watchInlet(!starved);
    return starved && ring.enableKicksForMore();
  }

  #watchInlet(on: boolean): void {
    if (on === (this.#inletWatch !== null)) return;
    if (on) {
      this.#inletWatch = this.inlet.watch(() => this.#run());
    } else {
      this.#inletWatch!.close();
      this.#inletWatch = null;
    }
  }

  /** Nothing of this pair runs after it returns. */
  stop(): void {
    this.#running = false;
    if (this.#next !== null) clearImmediate(this.#next);
    this.#next = null;
    for (const ring of [0, 1]) this.watchKicks(ring);
    this.#watchInlet(false);
  }

  /** Where ring 0 or 1 of the pair stands, or null when it was not served. */
  state(ring: number): { queue: QueueState; stopped: StoppedRing } | null {
    const device = this.#rings[ring];
    if (device == null) return null;
    const queue = device.state();
    return { queue, stopped: { queue: this.index * 2 + ring, base: queue.nextAvail, usedIdx: device.usedIdx } };
  }

  /** Where ring 0 or 1 stands, or null when it is not served. */
  position(ring: number): RingPosition | null {
    const device = this.#rings[ring];
    return device == null ? null : { nextAvail: device.nextAvail, usedIdx: device.usedIdx };
  }

  get room(): ReceiveRoom {
    const ring = this.#rings[0];
    if (ring == null) return { posted: 0, size: 0 };
    const { size } = ring;
    if (ring.error !== null) return { posted: 0, size };
    let posted = 0;
    try {
      while (posted < size && ring.pop() >= 0) posted++;
      ring.unpop(posted);
    } catch {
      // Whoever serves the ring meets the error and reports it.
      return { posted: 0, size };
    }
    return { posted, size };
  }

  get counters(): { sent: number; refused: number; received: number; dropped: number } {
    return {
      sent: this.#transmit?.sent ?? 0,
      refused: this.#transmit?.refused ?? 0,
      received: this.#receive?.received ?? 0,
      dropped: this.#receive?.dropped ?? 0,
    };
  }
}
