/** One of two processes between which a guest goes back and forth. */
import { readFileSync } from 'node:fs';
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
import { type Obedience, obey } from '../../lib/demo/orders';
import { VirtioNetDevice } from '../../lib/device/virtio-net-device';
import { Guest } from '../../lib/guest/guest';
import { GuestRunner } from '../../lib/guest/guest-runner';
import { Tap } from '../../lib/host/tap';
import { PAGE_SIZE } from '../../lib/memory/address';
import { GuestWriteLog } from '../../lib/memory/dirty-log';
import { GuestMemory, type RegionSpec } from '../../lib/memory/guest-memory';
import type { ReceivedMigration } from '../../lib/migration/destination';
import { MigrationListener } from '../../lib/migration/listener';
import { MigrationSource } from '../../lib/migration/source';
import { bits } from '../../lib/net/features';
import {
  FRAME_SIZE,
  firstToGuest,
  GUEST_MAC,
  type MoveOrders,
  type MovePlan,
  STATION_MAC,
  TO_NETWORK,
} from './move-plan';

const FEATURES = bits(VIRTIO_F_VERSION_1, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC);
const BOOT_GPA = 0x10_0000;
const RING_SIZE = 256;
const TX_QUEUE_LENGTH = 16_384;
const LARGEST_REGION = 2 ** 32;
const LOOK_EVERY_MS = 5;

interface Machine {
  memory: GuestMemory;
  device: VirtioNetDevice;
  runner: GuestRunner;
}

let plan: MovePlan;
let taps: Tap[] = [];
let machine: Machine | null = null;
let listener: MigrationListener<GuestRunner> | null = null;
let arrived: Promise<ReceivedMigration<GuestRunner>>;
let most = 0;

setInterval(() => {
  const found = /RssAnon:\s*(\d+) kB/.exec(readFileSync('/proc/self/status', 'utf8'));
  most = Math.max(most, Number(found?.[1] ?? 0) * 1024);
}, LOOK_EVERY_MS).unref();

function regions(size: number): RegionSpec[] {
  const list: RegionSpec[] = [];
  for (let gpa = 0; gpa < size; gpa += LARGEST_REGION) list.push({ gpa, size: Math.min(LARGEST_REGION, size - gpa) });
  return list;
}

/** From half of the first region on: the guest itself lies before it. */
function write({ regions: [first] }: GuestMemory, bytes: number): void {
  const { u32 } = first!;
  let state = 1;
  for (let at = u32.length / 2, end = Math.min(u32.length, at + bytes / 4); at < end; at++) {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    u32[at] = state;
  }
}

function backendOn(queues: readonly Tap[]): Promise<Backend> | Backend {
  return plan.path === 'emulated' ? new EmulatedBackend({ taps: queues }) : VhostKernelBackend.open({ taps: queues });
}

async function discard(): Promise<void> {
  await machine?.runner.pause();
  await machine?.device.close();
  machine?.memory.close();
  machine = null;
}

const orders: Obedience<MoveOrders> = {
  open: async (given) => {
    plan = given;
    const options = { name: `place-${process.argv[2]}`, netns: plan.netns };
    taps = plan.pairs === 1 ? [await Tap.open(options)] : await Tap.openQueues(plan.pairs, options);
    await taps[0]!.setTxQueueLen(TX_QUEUE_LENGTH);
    for (const tap of taps) await prepareTap(tap, FEATURES);
    return { tap: taps[0]!.name };
  },
  boot: async () => {
    const memory = GuestMemory.create(regions(plan.memory));
    write(memory, plan.written);
    const log = new GuestWriteLog(memory.end / PAGE_SIZE);
    const { pairs, rate, capacity } = plan;
    const guest = Guest.boot(
      memory,
      {
        gpa: BOOT_GPA,
        program: plan.program,
        features: FEATURES,
        mac: GUEST_MAC,
        peerMac: STATION_MAC,
        pairs,
        rate,
        frameSize: FRAME_SIZE,
        flow: TO_NETWORK,
        receiveFlow: firstToGuest(pairs),
        rxSize: RING_SIZE,
        txSize: RING_SIZE,
        ledgerCapacity: capacity,
      },
      { log },
    );
    const backend = await backendOn(taps);
    const device = new VirtioNetDevice({ memory, backend, features: FEATURES, queues: guest.queues, mac: GUEST_MAC });
    machine = { memory, device, runner: new GuestRunner(guest, device, log) };
    await device.start();
    machine.runner.resume();
    return null;
  },
  listen: async ({ address }) => {
    listener = await MigrationListener.listen<GuestRunner>(address, {
      createMemory: (setup) => GuestMemory.create(setup.regions),
      createBackend: async (_setup, passed) => {
        if (passed === null || passed.length === 0) return backendOn(taps);
        for (const tap of taps) await tap.close();
        taps = [...passed];
        return backendOn(taps);
      },
      createDevice: async (state, memory, backend) => VirtioNetDevice.restore(state, { memory, backend }),
      createGuest: async (saved, memory, device) => {
        const log = new GuestWriteLog(memory.end / PAGE_SIZE);
        return new GuestRunner(Guest.resume(memory, Number(saved.gpa), { log }), device, log);
      },
    });
    arrived = listener.arrived;
    arrived.catch(() => undefined);
    return null;
  },
  arrived: async () => {
    const { memory, device, guest } = await arrived;
    machine = { memory, device, runner: guest };
    await listener?.close();
    return null;
  },
  migrate: async ({ address, local }) => {
    const { device, runner } = machine!;
    const source = new MigrationSource({ device, guest: runner }, { local });
    const { downtimeMs, downtimeParts, totalMs, audit, handover } = await source.migrate(address);
    await discard();
    const unproven = handover?.unproven ?? ['no hand-over'];
    return { result: { downtimeMs, downtimeParts, totalMs }, differing: audit?.differing ?? null, unproven };
  },
  hush: async () => {
    const { guest } = machine!.runner;
    guest.setRate(0);
    return { sent: guest.ledgers.map((_, flow) => guest.sentOf(flow)) };
  },
  report: async ({ sent }) => ({
    frames: machine!.runner.guest.ledgers.map((ledger, flow) => ledger.report(sent[flow]!)),
  }),
  own: async () => ({ bytes: most }),
  end: async () => {
    await discard();
    await listener?.close();
    // The first is last: the others' filter program lies with it.
    for (const tap of taps.reverse()) await tap.close();
    return null;
  },
};

obey(orders);
