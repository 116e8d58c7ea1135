/**
 * A whole network driver for a guest without an operating system: finds the device behind its registers, boots the guest with what was
 * negotiated, hands over all queues, and speaks to the control queue.
 */
import { VIRTIO_NET_F_MQ } from '../constants/virtio-net';
import { VIRTIO_NET_ERR, VIRTIO_NET_OK } from '../constants/virtio-net-ctrl';
import { VhostError } from '../errors';
import type { ControlCommand } from '../net/control-command';
import { hasBit } from '../net/features';
import { NO_WRITE_LOG, type RingMemory, type WriteLog } from '../virtqueue/ring-memory';
import type { ControlFraming } from './control-driver';
import { Guest, type GuestOptions, RECEIVE_QUEUE, TRANSMIT_QUEUE } from './guest';
import { type MmioBus, MmioDriver } from './mmio-driver';
import { DEFAULT_QUEUE_SIZE } from './options';

/** Longest wait for the ack of a command. Milliseconds. */
const PATIENCE_MS = 20_000;

export interface NetDriverOptions extends Omit<GuestOptions, 'features' | 'mac'> {
  /** Features to ack where they are offered. */
  wanted: bigint;
  log?: WriteLog | undefined;
}

export class NetDriver {
  readonly mmio: MmioDriver;
  readonly guest: Guest;

  private constructor(mmio: MmioDriver, guest: Guest) {
    this.mmio = mmio;
    this.guest = guest;
  }

  /** From reset to DRIVER_OK. The guest has the device's address, as many pairs as were asked for and are there, and queues as long. */
  static async start(bus: MmioBus, memory: RingMemory, options: NetDriverOptions): Promise<NetDriver> {
    const { wanted, log = NO_WRITE_LOG, ...rest } = options;
    const mmio = MmioDriver.probe(bus);
    await mmio.reset();
    const features = mmio.negotiate(wanted);
    const { mac, maxPairs } = mmio.config();
    const multiqueue = hasBit(features, VIRTIO_NET_F_MQ);
    const pairs = Math.min(rest.pairs ?? 1, multiqueue ? maxPairs : 1);
    const rxSize = Math.min(rest.rxSize ?? DEFAULT_QUEUE_SIZE, mmio.queueMax(RECEIVE_QUEUE));
    const txSize = Math.min(rest.txSize ?? DEFAULT_QUEUE_SIZE, mmio.queueMax(TRANSMIT_QUEUE));
    const guest = Guest.boot(memory, { ...rest, features, mac, pairs, rxSize, txSize }, { log });
    const driver = new NetDriver(mmio, guest);
    for (const [number, queue] of guest.queues.entries()) mmio.setUpQueue(number, queue);
    if (guest.controlQueue !== null) mmio.setUpQueue(driver.controlNumber, guest.controlQueue);
    mmio.driverOk();
    return driver;
  }

  /** Goes on with a driver and guest that guest memory has, on a device that has been given their state. */
  static resume(bus: MmioBus, memory: RingMemory, gpa: number, log: WriteLog = NO_WRITE_LOG): NetDriver {
    const guest = Guest.resume(memory, gpa, { log });
    const mmio = MmioDriver.probe(bus);
    mmio.features = guest.features;
    return new NetDriver(mmio, guest);
  }

  /** Number of the control queue (section 5.1.2), -1 without one. */
  get controlNumber(): number {
    if (this.guest.control === null) return -1;
    return 2 * (hasBit(this.mmio.features, VIRTIO_NET_F_MQ) ? this.mmio.config().maxPairs : 1);
  }

  /** Sends a control command and waits for its ack: VIRTIO_NET_OK or VIRTIO_NET_ERR. */
  async command(command: ControlCommand, framing?: ControlFraming): Promise<number> {
    const { control } = this.guest;
    if (control === null) throw new VhostError('VHOST_ERR_STATE', 'the device has no control queue');
    if (control.send(command, framing)) this.mmio.kick(this.controlNumber);
    let ack: number | null = null;
    await until(`no ack of ${command.kind}`, () => {
      ack ??= control.poll();
      return ack !== null;
    });
    return ack ?? VIRTIO_NET_ERR;
  }

  /**
   * Puts pairs to use while the guest runs: in the device first when there are more, in the guest first when there are fewer, so that it
   * sends on none that the device has ended.
   */
  async usePairs(pairs: number): Promise<boolean> {
    const { guest } = this;
    const before = guest.activePairs;
    if (pairs < before) {
      guest.activePairs = pairs;
      await until('the frames of the pairs to be left were not sent', () => guest.settled);
    }
    const done = (await this.command({ kind: 'mq-vq-pairs-set', pairs })) === VIRTIO_NET_OK;
    guest.activePairs = done ? pairs : before;
    return done;
  }
}

async function until(trouble: string, done: () => boolean): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS;
  while (!done()) {
    if (performance.now() > deadline) throw new VhostError('VHOST_ERR_TIMEOUT', trouble);
    await new Promise((resolve) => setImmediate(resolve));
  }
}
