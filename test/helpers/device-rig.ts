/**
 * A device behind virtio-mmio registers on the queues of one tap, a driver that finds it there and boots a guest on it, and a station on
 * the other side of a bridge that talks with the guest: natively or in the VM.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Backend } from '../../lib/backend/backend';
import { EmulatedBackend } from '../../lib/backend/emulated';
import { VhostKernelBackend } from '../../lib/backend/vhost-kernel';
import type { OfferOptions } from '../../lib/device/device-options';
import { VirtioMmio, type VirtioMmioOptions } from '../../lib/device/virtio-mmio';
import { VirtioNetDevice } from '../../lib/device/virtio-net-device';
import { GuestRunner } from '../../lib/guest/guest-runner';
import { NetDriver, type NetDriverOptions } from '../../lib/guest/net-driver';
import { Netns } from '../../lib/host/netns';
import { Tap } from '../../lib/host/tap';
import { vhostNetUsable } from '../../lib/host/usable';
import { PAGE_SIZE } from '../../lib/memory/address';
import { GuestWriteLog } from '../../lib/memory/dirty-log';
import { GuestMemory } from '../../lib/memory/guest-memory';
import type { LedgerReport } from '../../lib/observe/frame-ledger';
import { sumReports } from '../../lib/observe/ledger-set';
import { Station } from '../../lib/observe/station';
import type { FaultPlan } from '../../lib/trace/fault-plan';
import { Trace } from '../../lib/trace/trace';

export type PathKind = 'emulated' | 'vhost-kernel';

export const GUEST_MAC = '02:00:00:00:00:02';
export const STATION_MAC = '02:00:00:00:00:01';
const BOOT_GPA = 0x10_0000;
const MEMORY = 64 * 1024 * 1024;
/** First flows of the first life. */
const TO_NETWORK = 1;
const TO_GUEST = 101;
/** Between those of one life and the next. */
const FLOWS = 200;
/** Frames of a flow that show where it comes from, whatever was under way before. */
const HEARD = 3;
/** Nothing is under way any more when nothing came for so long. */
const QUIET_MS = 1000;
/** Room for what a busy machine does not take at once: set before any traffic, since a change of length loses frames. */
const TX_QUEUE_LENGTH = 10_000;
/** All that is offered. */
export const EVERYTHING = (1n << 128n) - 1n;

export interface DeviceRigOptions {
  kind?: PathKind;
  /** Queue pairs of the device. */
  pairs?: number;
  /** Frames a second each way, over all flows. */
  rate?: number;
  frameSize?: number;
  device?: Partial<OfferOptions>;
  mmio?: VirtioMmioOptions;
  faults?: FaultPlan;
  /** Of the device's taps, rather than of vhost. */
  tapFaults?: FaultPlan;
}

export class DeviceRig {
  readonly netns: Netns;
  readonly taps: readonly Tap[];
  station: Station;
  readonly memory: GuestMemory;
  readonly device: VirtioNetDevice;
  readonly mmio: VirtioMmio;
  readonly trace: Trace;
  readonly options: DeviceRigOptions;
  readonly violations: string[] = [];
  readonly broken: string[] = [];
  driver!: NetDriver;
  runner!: GuestRunner;
  readonly #backends: Backend[];
  /** Of the driver: each has flows of its own, so that what is left of one is not taken for the next one's. */
  #life = 0;

  private constructor(parts: {
    netns: Netns;
    taps: readonly Tap[];
    station: Station;
    memory: GuestMemory;
    device: VirtioNetDevice;
    backend: Backend;
    trace: Trace;
    options: DeviceRigOptions;
  }) {
    this.netns = parts.netns;
    this.taps = parts.taps;
    this.station = parts.station;
    this.memory = parts.memory;
    this.device = parts.device;
    this.trace = parts.trace;
    this.options = { ...parts.options };
    this.#backends = [parts.backend];
    this.device.on('violation', (what) => this.violations.push(what));
    this.device.on('needsReset', (why) => this.broken.push(why));
    this.mmio = new VirtioMmio(this.device, parts.options.mmio ?? { watchCalls: false });
  }

  static async create(options: DeviceRigOptions = {}): Promise<DeviceRig> {
    const { kind = 'emulated', pairs = 1, faults, tapFaults } = options;
    const netns = await Netns.create();
    await netns.addBridge('br0');
    const trace = new Trace({ capacity: 20_000 });
    const open = { name: 'dev0', netns: netns.path, trace, faults: tapFaults };
    const taps = pairs === 1 ? [await Tap.open(open)] : await Tap.openQueues(pairs, open);
    await netns.ipBatch(['link set dev dev0 master br0', `link set dev dev0 txqueuelen ${TX_QUEUE_LENGTH}`]);
    const station = await openStation(netns, options, 0);
    const memory = GuestMemory.create([{ gpa: 0, size: MEMORY }]);
    const backend = makeBackend(kind, taps, trace, faults);
    const device = await VirtioNetDevice.offer({ memory, backend, trace, mac: GUEST_MAC, pairs, ...options.device });
    return new DeviceRig({ netns, taps, station, memory, device, backend, trace, options });
  }

  /** Another data path on the same taps; closed with the rig. */
  backend(kind: PathKind, faults?: FaultPlan): Backend {
    const backend = makeBackend(kind, this.taps, this.trace, faults);
    this.#backends.push(backend);
    return backend;
  }

  /** First flows of this life. */
  get toNetwork(): number {
    return TO_NETWORK + this.#life * FLOWS;
  }

  get toGuest(): number {
    return TO_GUEST + this.#life * FLOWS;
  }

  /**
   * Ends what the driver does, as a crash would; the device is not told. The next `boot` begins new accounts on both sides, with other
   * frames where `changes` say so.
   */
  async crash(changes: Pick<DeviceRigOptions, 'rate' | 'frameSize'> = {}): Promise<void> {
    await this.runner?.pause();
    await this.station.close();
    this.violations.length = 0;
    this.broken.length = 0;
    Object.assign(this.options, changes);
    this.station = await openStation(this.netns, this.options, ++this.#life);
  }

  /** A driver finds the device and boots a guest, which runs. */
  async boot(wanted = EVERYTHING & ~(1n << 34n), options: Partial<NetDriverOptions> = {}): Promise<NetDriver> {
    const { pairs = 1, rate = 2000, frameSize = 128 } = this.options;
    const log = new GuestWriteLog(this.memory.end / PAGE_SIZE);
    this.driver = await NetDriver.start(this.mmio, this.memory, {
      wanted,
      log,
      gpa: BOOT_GPA,
      program: 'traffic',
      peerMac: STATION_MAC,
      pairs,
      activePairs: 1,
      rate,
      frameSize,
      flow: this.toNetwork,
      receiveFlow: this.toGuest,
      shape: pairs > 1 ? 'udp' : 'raw',
      ledgerCapacity: 1 << 16,
      ...options,
    });
    await this.device.settled();
    this.runner = new GuestRunner(this.driver.guest, this.device, log);
    this.runner.resume();
    return this.driver;
  }

  /** Waits for frames each way; the network speaks only when the guest has been heard. */
  async flows(frames = 50): Promise<void> {
    const { guest } = this.driver;
    // Every flow is heard from the queue it is sent on now: the tap sends its answers there, and would move them later, out of order.
    await this.#until('flows do not move', () => guest.settled);
    const before = this.station.ledgers.map(({ received }) => received);
    await this.#until('the guest is not heard', () =>
      this.station.ledgers.every(({ received }, flow) => received >= before[flow]! + HEARD),
    );
    this.station.start();
    const count = (ledgers: readonly { received: number }[]): number =>
      ledgers.reduce((sum, { received }) => sum + received, 0);
    const [toGuest, toNetwork] = [count(guest.ledgers), count(this.station.ledgers)];
    await this.#until(
      'traffic stands still',
      () => count(guest.ledgers) >= toGuest + frames && count(this.station.ledgers) >= toNetwork + frames,
    );
  }

  async #until(what: string, done: () => boolean): Promise<void> {
    const deadline = Date.now() + 20_000;
    while (!done()) {
      if (Date.now() > deadline || this.runner.failure !== null) {
        throw new Error(`${what} (${this.runner.failure ?? 'in 20 s'}; device ${this.broken.join()})`);
      }
      await sleep(2);
    }
  }

  /** Both fall silent; what is under way arrives. Both accounts, over all flows. */
  async settle(): Promise<{ toNetwork: LedgerReport; toGuest: LedgerReport }> {
    const { guest } = this.driver;
    this.station.hush();
    guest.setRate(0);
    const reports = () => ({
      toNetwork: sumReports(this.station.ledgers.map((ledger, flow) => ledger.report(guest.sentOf(flow)))),
      toGuest: sumReports(guest.ledgers.map((ledger, flow) => ledger.report(this.station.sentOf(flow)))),
    });
    // What is under way arrives, on a busy machine later; when nothing has come for a while nothing will.
    let last = Date.now();
    for (let seen = -1; Date.now() - last < QUIET_MS; await sleep(5)) {
      const { toNetwork, toGuest } = reports();
      if (toNetwork.lost + toGuest.lost === 0) break;
      if (toNetwork.received + toGuest.received !== seen) last = Date.now();
      seen = toNetwork.received + toGuest.received;
    }
    // A frame too many comes last.
    await sleep(100);
    return reports();
  }

  async close(): Promise<void> {
    await this.runner?.pause();
    await this.station.close();
    this.mmio.close();
    await this.device.close();
    for (const backend of this.#backends) await backend.close();
    this.memory.close();
    for (const tap of [...this.taps].reverse()) await tap.close();
    await this.netns.delete();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

async function openStation(netns: Netns, options: DeviceRigOptions, life: number): Promise<Station> {
  const { pairs = 1, rate = 2000, frameSize = 128 } = options;
  // A name of its own: the kernel may hold the one before for a moment after its close.
  const name = life === 0 ? 'station' : `station${life}`;
  const station = await Station.open({
    netns: netns.path,
    name,
    mac: STATION_MAC,
    peerMac: GUEST_MAC,
    sends: TO_GUEST + life * FLOWS,
    receives: TO_NETWORK + life * FLOWS,
    flows: pairs,
    rate,
    frameSize,
    capacity: 1 << 18,
  });
  await netns.attach('br0', name);
  return station;
}

function makeBackend(kind: PathKind, taps: readonly Tap[], trace: Trace, faults?: FaultPlan): Backend {
  return kind === 'emulated'
    ? new EmulatedBackend({ taps, trace, prepareTaps: true })
    : new VhostKernelBackend({ taps, trace, faults, prepareTaps: true });
}

/** Every data path that can run here. */
export function pathKinds(): PathKind[] {
  return vhostNetUsable() === null ? ['emulated', 'vhost-kernel'] : ['emulated'];
}
