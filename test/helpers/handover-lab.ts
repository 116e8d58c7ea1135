/** Places between which a recording guest moves, on one bridge with two stations that send to it in every way there is: natively or in the VM. */

import { type Duplex, duplexPair } from 'node:stream';
import type { Backend } from '../../lib/backend/backend';
import { EmulatedBackend } from '../../lib/backend/emulated';
import { VhostKernelBackend } from '../../lib/backend/vhost-kernel';
import { VIRTIO_F_VERSION_1, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_RING_F_EVENT_IDX } from '../../lib/constants/virtio-net';
import type { DeviceState } from '../../lib/device/device-state';
import { VirtioNetDevice } from '../../lib/device/virtio-net-device';
import { Netns } from '../../lib/host/netns';
import { Tap } from '../../lib/host/tap';
import { GuestMemory } from '../../lib/memory/guest-memory';
import { type DestinationHost, MigrationDestination, type ReceivedMigration } from '../../lib/migration/destination';
import type { HandoverAccount, SourceAccount } from '../../lib/migration/handover/account';
import type { MigrationOptions, MigrationResult } from '../../lib/migration/options';
import { MigrationSource } from '../../lib/migration/source';
import { bits } from '../../lib/net/features';
import type { LedgerReport } from '../../lib/observe/frame-ledger';
import type { PathKind } from './device-rig';
import { BROADCAST, type FlowPlan, MULTICAST, NOBODY } from './flow-plan';
import { GroupStation } from './group-station';
import { GuestRecord, RecordingGuest } from './recording-guest';
import { sleep, until } from './vhost-wait';

export const GUEST = '02:00:00:00:00:02';
/** A second address of the guest. */
export const GUEST_TOO = '02:00:00:00:00:12';
export const STATION = '02:00:00:00:00:01';
export const STATION_TOO = '02:00:00:00:00:03';
const MEMORY = 8 * 1024 * 1024;
export const PLAIN = bits(VIRTIO_F_VERSION_1);
export const MERGED = bits(VIRTIO_F_VERSION_1, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_RING_F_EVENT_IDX);
/** Set before any traffic, since a change of length may lose frames. */
const TX_QUEUE_LENGTH = 16_384;
/** Nothing is under way any more when nothing came for so long. */
const QUIET_MS = 300;

/** Everything that one station sends. */
export const STATION_FLOWS: readonly FlowPlan[] = [
  { flow: 1, kind: 'unicast', source: STATION, destination: GUEST },
  { flow: 2, kind: 'broadcast', source: STATION, destination: BROADCAST },
  { flow: 3, kind: 'multicast', source: STATION, destination: MULTICAST },
  { flow: 4, kind: 'vlan', source: STATION, destination: GUEST, vlan: 10 },
  { flow: 5, kind: 'vlan', source: STATION, destination: GUEST, vlan: 20 },
  { flow: 6, kind: 'unknown', source: STATION, destination: NOBODY },
  { flow: 7, kind: 'identical', source: STATION, destination: BROADCAST },
];
export const STATION_TOO_FLOWS: readonly FlowPlan[] = [
  { flow: 11, kind: 'broadcast', source: STATION_TOO, destination: BROADCAST },
  { flow: 12, kind: 'unicast', source: STATION_TOO, destination: GUEST },
];
export const GUEST_FLOWS: readonly FlowPlan[] = [
  { flow: 21, kind: 'unicast', source: GUEST, destination: STATION },
  { flow: 22, kind: 'broadcast', source: GUEST, destination: BROADCAST },
  { flow: 23, kind: 'vlan', source: GUEST, destination: STATION, vlan: 10 },
];

export interface LabOptions {
  kinds?: readonly PathKind[];
  features?: bigint;
  ringSize?: number;
  rxBuffer?: number;
  macs?: readonly string[];
  stationFlows?: readonly FlowPlan[];
  stationTooFlows?: readonly FlowPlan[];
  guestFlows?: readonly FlowPlan[];
  /** Of the places' taps; null leaves the kernel's default. */
  txQueueLength?: number | null;
  /** A bridge for each place, and nobody else on it. */
  bridges?: boolean;
}

/** Who sends to the guest and hears it. */
export type Correspondent = Pick<GroupStation, 'sources' | 'book'>;

export interface Moved {
  result: MigrationResult;
  received: ReceivedMigration<RecordingGuest>;
}

/** What a flow lacks or has too much of, both ways; all 0 when nothing is wrong. */
export interface Verdict {
  flows: Record<string, Pick<LedgerReport, 'lost' | 'duplicated' | 'reordered' | 'corrupted'>>;
  /** Came to the guest, less those sent. */
  identical: number;
  /** Frames of the guest that came back to it, and those of no flow. */
  own: number;
  foreign: number;
}

export class HandoverLab {
  readonly netns: Netns;
  readonly options: LabOptions;
  readonly places: { tap: Tap; kind: PathKind }[] = [];
  readonly record: GuestRecord;
  station!: GroupStation;
  stationToo!: GroupStation;
  guest!: RecordingGuest;
  device!: VirtioNetDevice;
  memory: GuestMemory;
  at = 0;

  private constructor(netns: Netns, options: LabOptions) {
    this.netns = netns;
    this.options = options;
    this.memory = GuestMemory.create([{ gpa: 0, size: MEMORY }]);
    const { features = MERGED, ringSize = 256, rxBuffer, macs = [GUEST], guestFlows = GUEST_FLOWS } = options;
    const plan = { features, ringSize, macs, flows: guestFlows };
    this.record = new GuestRecord(this.memory, rxBuffer === undefined ? plan : { ...plan, rxBuffer });
  }

  static async create(options: LabOptions = {}): Promise<HandoverLab> {
    const netns = await Netns.create();
    await netns.addBridge('br0');
    const lab = new HandoverLab(netns, options);
    const { kinds = ['emulated', 'emulated'], stationFlows, stationTooFlows } = options;
    for (const kind of kinds) await lab.#addPlace(kind);
    if (options.bridges === true) return lab;
    lab.station = await GroupStation.open(netns, 'station', [STATION], stationFlows ?? STATION_FLOWS);
    lab.stationToo = await GroupStation.open(netns, 'other', [STATION_TOO], stationTooFlows ?? STATION_TOO_FLOWS);
    return lab;
  }

  async #addPlace(kind: PathKind): Promise<void> {
    const tap = await Tap.open({ name: `place${this.places.length}`, netns: this.netns.path });
    const { txQueueLength = TX_QUEUE_LENGTH } = this.options;
    if (txQueueLength !== null) await tap.setTxQueueLen(txQueueLength);
    const bridge = this.options.bridges === true ? this.places.length : 0;
    if (bridge > 0) await this.netns.addBridge(`br${bridge}`);
    await this.netns.attach(`br${bridge}`, tap.name);
    this.places.push({ tap, kind });
  }

  async backend(place: number): Promise<Backend> {
    const { tap, kind } = this.places[place]!;
    if (kind === 'emulated') return new EmulatedBackend({ taps: [tap], prepareTaps: true });
    return VhostKernelBackend.open({ taps: [tap], prepareTaps: true });
  }

  /** The guest runs at the first place. `adjust` may change what the driver has made of the device. */
  async boot(adjust: (state: DeviceState) => void = () => undefined): Promise<void> {
    const { features = MERGED } = this.options;
    const { queues } = this.record;
    const made = new EmulatedBackend({ taps: [this.places[0]!.tap] });
    const device = new VirtioNetDevice({ memory: this.memory, backend: made, features, queues, mac: GUEST });
    const state = device.outline();
    await device.close();
    adjust(state);
    this.device = VirtioNetDevice.restore(state, { memory: this.memory, backend: await this.backend(0) });
    this.guest = new RecordingGuest(this.memory, this.record, this.device.notifiers);
    this.guest.postAll();
    await this.device.start();
    this.guest.resume();
  }

  /** Stations and guest send from now on; frames a second of each. The guest begins, so that the bridge knows where it is. */
  async traffic(rates: { station: number; stationToo?: number; guest: number }): Promise<void> {
    if (rates.guest > 0) {
      this.record.speak(rates.guest);
      await until('the guest is heard', () => this.station.book.total >= 2 * this.record.sources.length);
    }
    this.station.start(rates.station);
    if ((rates.stationToo ?? rates.station / 4) > 0) this.stationToo.start(rates.stationToo ?? rates.station / 4);
  }

  /** Frames come to the guest and, if it speaks, from it. */
  async flows(frames = 30): Promise<void> {
    const [toGuest, toNetwork] = [this.record.book.total + frames, this.station.book.total + frames];
    await until('traffic goes on', () => {
      if (this.guest.failure !== null) throw this.guest.failure;
      return this.record.book.total >= toGuest && (this.record.rate === 0 || this.station.book.total >= toNetwork);
    });
  }

  host(to: number): DestinationHost<RecordingGuest> {
    return {
      createMemory: (setup) => GuestMemory.create(setup.regions),
      createBackend: () => this.backend(to),
      createDevice: async (state, memory, backend) => VirtioNetDevice.restore(state, { memory, backend }),
      createGuest: async (_saved, memory, device) => new RecordingGuest(memory, this.record, device.notifiers),
    };
  }

  /** Moves the guest. `between` gets the ends of source and destination and answers those that are used. */
  async migrate(
    to: number,
    options: {
      source?: MigrationOptions;
      destination?: MigrationOptions;
      host?: Partial<DestinationHost<RecordingGuest>>;
      between?: (near: Duplex, far: Duplex) => [Duplex, Duplex];
    } = {},
  ): Promise<Moved> {
    const streams = duplexPair();
    const [near, far] = options.between?.(...streams) ?? streams;
    const common: MigrationOptions = { timeoutMs: 20_000, announceRounds: 1 };
    const source = new MigrationSource({ device: this.device, guest: this.guest }, { ...common, ...options.source });
    const host = { ...this.host(to), ...options.host };
    const destination = new MigrationDestination(host, { ...common, ...options.destination });
    const [result, received] = await Promise.allSettled([source.migrate(near), destination.receive(far)]);
    if (result.status === 'rejected') {
      if (received.status === 'fulfilled') await this.#adopt(received.value, to);
      throw result.reason;
    }
    if (received.status === 'rejected') throw received.reason;
    await this.#adopt(received.value, to);
    return { result: result.value, received: received.value };
  }

  async #adopt({ memory, device, guest }: ReceivedMigration<RecordingGuest>, to: number): Promise<void> {
    const old = { device: this.device, memory: this.memory };
    Object.assign(this, { memory, device, guest, at: to });
    await old.device.close();
    old.memory.close();
  }

  /** Everybody falls silent; what is under way arrives. */
  async settle(): Promise<Verdict> {
    this.record.speak(0);
    this.station.hush();
    this.stationToo.hush();
    let last = performance.now();
    for (let seen = -1; performance.now() - last < QUIET_MS; await sleep(5)) {
      const now = this.record.book.total + this.station.book.total + this.stationToo.book.total;
      if (now !== seen) last = performance.now();
      seen = now;
    }
    return this.verdict();
  }

  /** On what all stations have sent, and what the first of them has received. */
  verdict(...others: readonly Correspondent[]): Verdict {
    const { book, sources } = this.record;
    const flows: Verdict['flows'] = {};
    let identical = book.identical;
    const stations = others.length > 0 ? others : [this.station, this.stationToo];
    for (const station of stations) {
      for (const { plan, sent } of station.sources) {
        if (plan.kind === 'identical') identical -= sent;
        else flows[`${plan.kind} ${plan.flow} to guest`] = wrong(book.report(plan.flow, sent));
      }
    }
    for (const { plan, sent } of sources) {
      const report = stations[0]!.book.report(plan.flow, sent);
      flows[`${plan.kind} ${plan.flow} from guest`] = wrong(report);
    }
    return { flows, identical, own: book.own, foreign: book.foreign };
  }

  async close(): Promise<void> {
    await this.station?.close();
    await this.stationToo?.close();
    await this.guest?.pause();
    await this.device?.close();
    this.memory.close();
    for (const { tap } of this.places) await tap.close();
    await this.netns.delete();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

function wrong({ lost, duplicated, reordered, corrupted }: LedgerReport): Verdict['flows'][string] {
  return { lost, duplicated, reordered, corrupted };
}

/** Of a verdict, what is wrong: empty when nothing is. */
const AMBIGUOUS = /streams of repeated frames could be joined in several ways/;

/**
 * What a migration says of its frames, without what it cannot know of equal ones: seldom does a stream of them fit in several ways, and here
 * both ends count them, which decides it.
 */
export function proofOf(handover: HandoverAccount | null): { unproven: string[]; source?: SourceAccount | null } {
  const unproven = (handover?.unproven ?? ['no hand-over']).filter((reason) => !AMBIGUOUS.test(reason));
  return { ...handover, unproven };
}

export function faultsOf({ flows, identical, own, foreign }: Verdict): Record<string, unknown> {
  const found: Record<string, unknown> = {};
  for (const [name, report] of Object.entries(flows)) {
    if (Object.values(report).some((count) => count !== 0)) found[name] = report;
  }
  for (const [name, count] of Object.entries({ identical, own, foreign })) if (count !== 0) found[name] = count;
  return found;
}
