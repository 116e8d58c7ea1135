/** Two or more places on one bridge between which a guest can move, and a station that talks with it: natively or in the VM. */
import { type Duplex, duplexPair } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Backend } from '../../lib/backend/backend';
import { EmulatedBackend } from '../../lib/backend/emulated';
import { prepareTap } from '../../lib/backend/tap-features';
import { VhostKernelBackend } from '../../lib/backend/vhost-kernel';
import {
  VIRTIO_F_VERSION_1,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
} from '../../lib/constants/virtio-net';
import { VirtioNetDevice } from '../../lib/device/virtio-net-device';
import { Guest } from '../../lib/guest/guest';
import { GuestRunner } from '../../lib/guest/guest-runner';
import { Netns } from '../../lib/host/netns';
import { Tap } from '../../lib/host/tap';
import { PAGE_SIZE } from '../../lib/memory/address';
import { GuestWriteLog } from '../../lib/memory/dirty-log';
import { GuestMemory } from '../../lib/memory/guest-memory';
import { type DestinationHost, MigrationDestination } from '../../lib/migration/destination';
import type { MigrationOptions, MigrationResult } from '../../lib/migration/options';
import { MigrationSource } from '../../lib/migration/source';
import { bits } from '../../lib/net/features';
import { Station } from '../../lib/observe/station';
import type { FaultPlan } from '../../lib/trace/fault-plan';

export const FEATURES = bits(
  VIRTIO_F_VERSION_1,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
);
export const MEMORY = 32 * 1024 * 1024;
export const BOOT_GPA = 0x10_0000;
const GUEST_MAC = '02:00:00:00:00:02';
const STATION_MAC = '02:00:00:00:00:01';
const TO_NETWORK = 1;
const TO_GUEST = 2;

export type PlaceKind = 'emulated' | 'vhost-kernel';

/** A guest with everything under it. */
export interface Machine {
  memory: GuestMemory;
  device: VirtioNetDevice;
  runner: GuestRunner;
}

/** Where a guest can run: a tap on the bridge. */
export class Place {
  readonly tap: Tap;
  readonly kind: PlaceKind;
  /** For the backends made here from now on. */
  faults: FaultPlan | undefined;

  constructor(tap: Tap, kind: PlaceKind) {
    this.tap = tap;
    this.kind = kind;
  }

  async backend(): Promise<Backend> {
    if (this.kind === 'emulated') return new EmulatedBackend({ taps: [this.tap] });
    return VhostKernelBackend.open({ taps: [this.tap], faults: this.faults });
  }

  /** What a destination here does; tests change parts of it. */
  host(): DestinationHost<GuestRunner> {
    return {
      createMemory: (setup) => GuestMemory.create(setup.regions),
      createBackend: () => this.backend(),
      createDevice: async (state, memory, backend) => VirtioNetDevice.restore(state, { memory, backend }),
      createGuest: async (saved, memory, device) => {
        const log = new GuestWriteLog(memory.end / PAGE_SIZE);
        return new GuestRunner(Guest.resume(memory, Number(saved.gpa), { log }), device, log);
      },
    };
  }
}

export interface RigOptions {
  rate?: number;
  frameSize?: number;
  features?: bigint;
  ringSize?: number;
}

export class Rig {
  readonly netns: Netns;
  readonly station: Station;
  readonly options: RigOptions;
  readonly #places: Place[] = [];
  readonly #machines = new Set<Machine>();

  private constructor(netns: Netns, station: Station, options: RigOptions) {
    this.netns = netns;
    this.station = station;
    this.options = options;
  }

  static async create(options: RigOptions = {}): Promise<Rig> {
    const netns = await Netns.create();
    await netns.addBridge('br0');
    const { rate = 2000, frameSize = 128 } = options;
    const station = await Station.open({
      netns: netns.path,
      name: 'station',
      mac: STATION_MAC,
      peerMac: GUEST_MAC,
      sends: TO_GUEST,
      receives: TO_NETWORK,
      rate,
      frameSize,
      capacity: 1 << 18,
    });
    await netns.attach('br0', station.name);
    return new Rig(netns, station, options);
  }

  async place(kind: PlaceKind): Promise<Place> {
    const tap = await Tap.open({ name: `place${this.#places.length}`, netns: this.netns.path });
    await prepareTap(tap, this.options.features ?? FEATURES);
    await this.netns.attach('br0', tap.name);
    const place = new Place(tap, kind);
    this.#places.push(place);
    return place;
  }

  /** Boots a guest that sends and accounts, and lets it run. */
  async boot(place: Place, memory = GuestMemory.create([{ gpa: 0, size: MEMORY }])): Promise<Machine> {
    const { rate = 2000, frameSize = 128, features = FEATURES, ringSize = 256 } = this.options;
    const log = new GuestWriteLog(memory.end / PAGE_SIZE);
    const guest = Guest.boot(
      memory,
      {
        gpa: BOOT_GPA,
        program: 'traffic',
        features,
        mac: GUEST_MAC,
        peerMac: STATION_MAC,
        rate,
        frameSize,
        flow: TO_NETWORK,
        receiveFlow: TO_GUEST,
        rxSize: ringSize,
        txSize: ringSize,
        ledgerCapacity: 1 << 18,
      },
      { log },
    );
    const backend = await place.backend();
    const device = new VirtioNetDevice({ memory, backend, features, queues: guest.queues, mac: GUEST_MAC });
    const machine = { memory, device, runner: new GuestRunner(guest, device, log) };
    this.#machines.add(machine);
    await device.start();
    machine.runner.resume();
    this.station.start();
    return machine;
  }

  /**
   * Moves the guest. The machine at the source is closed when it went well. `between` may stand in the way: it gets both ends' streams
   * and answers those that are used.
   */
  async migrate(
    machine: Machine,
    to: Place,
    options: { source?: MigrationOptions; destination?: MigrationOptions; host?: DestinationHost<GuestRunner> } = {},
  ): Promise<{ result: MigrationResult; machine: Machine }> {
    const [near, far] = duplexPair();
    const [result, received] = await Promise.allSettled([
      this.source(machine, options.source).migrate(near),
      this.destination(to, options.host, options.destination).receive(far),
    ]);
    if (result.status === 'rejected') throw result.reason;
    if (received.status === 'rejected') throw received.reason;
    await this.discard(machine);
    const { memory, device, guest } = received.value;
    const moved = { memory, device, runner: guest };
    this.#machines.add(moved);
    return { result: result.value, machine: moved };
  }

  source(machine: Machine, options: MigrationOptions = {}): MigrationSource {
    return new MigrationSource({ device: machine.device, guest: machine.runner }, { timeoutMs: 20_000, ...options });
  }

  destination(
    place: Place,
    host: DestinationHost<GuestRunner> = place.host(),
    options: MigrationOptions = {},
  ): MigrationDestination<GuestRunner> {
    return new MigrationDestination(host, { timeoutMs: 20_000, ...options });
  }

  /** Makes the guest take its time to stand still: it goes on writing after the last round was planned. */
  slowToPause({ runner }: Machine, ms = 200): void {
    const pause = runner.pause.bind(runner);
    runner.pause = async () => {
      await sleep(ms);
      await pause();
    };
  }

  /** For streams that tests cut, record or replace. */
  streams(): [Duplex, Duplex] {
    return duplexPair();
  }

  async discard(machine: Machine): Promise<void> {
    this.#machines.delete(machine);
    await machine.runner.pause();
    await machine.device.close();
    machine.memory.close();
  }

  /** Traffic both ways goes on: fails when it does not within the bound. */
  async flows(machine: Machine, frames = 50): Promise<void> {
    const { ledger } = machine.runner.guest;
    const [toGuest, toNetwork] = [ledger.received, this.station.ledger.received];
    const deadline = Date.now() + 20_000;
    while (ledger.received < toGuest + frames || this.station.ledger.received < toNetwork + frames) {
      if (Date.now() > deadline || machine.runner.failure !== null) {
        throw new Error(
          `traffic stands still: ${ledger.received - toGuest} frames to the guest, ` +
            `${this.station.ledger.received - toNetwork} to the network, ${machine.runner.failure}`,
        );
      }
      await sleep(5);
    }
  }

  /** Both fall silent; what is under way arrives. Both accounts. */
  async settle(machine: Machine) {
    const sentToGuest = this.station.hush();
    machine.runner.guest.setRate(0);
    await sleep(300);
    const sentToNetwork = machine.runner.guest.sent;
    return {
      toNetwork: this.station.ledger.report(sentToNetwork),
      toGuest: machine.runner.guest.ledger.report(sentToGuest),
    };
  }

  async close(): Promise<void> {
    await this.station.close();
    for (const machine of [...this.#machines]) await this.discard(machine);
    for (const place of this.#places) await place.tap.close();
    await this.netns.delete();
  }
}

/** A source's guest after an attempt that failed is as before: it runs, frames flow, and nothing logs. */
export async function expectGoesOn(rig: Rig, machine: Machine): Promise<void> {
  expect(machine.device.running).toBe(true);
  expect(machine.runner.failure).toBeNull();
  // A log that were on still would refuse to be turned on.
  await machine.device.startDirtyLog();
  await machine.device.stopDirtyLog();
  await rig.flows(machine, 10);
}

/** Frames flow on, and in the end every one of both ways came, once, in order and whole. */
export async function expectWhole(rig: Rig, machine: Machine): Promise<void> {
  await rig.flows(machine);
  const { toNetwork, toGuest } = await rig.settle(machine);
  for (const way of [toNetwork, toGuest]) {
    expect(way).toMatchObject({ lost: 0, duplicated: 0, reordered: 0, corrupted: 0, received: way.sent });
  }
}
