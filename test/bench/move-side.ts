/** One of two processes between which a guest goes back and forth. */
import '../../lib/compile-eagerly';

import { readFileSync } from 'node:fs';
import {
  bootMachine,
  closeTaps,
  endMachine,
  type Machine,
  machineHost,
  openBackend,
  openTaps,
} from '../../lib/demo/machine';
import { type Obedience, obey } from '../../lib/demo/orders';
import type { GuestRunner } from '../../lib/guest/guest-runner';
import type { Tap } from '../../lib/host/tap';
import { GuestMemory, type RegionSpec } from '../../lib/memory/guest-memory';
import type { ReceivedMigration } from '../../lib/migration/destination';
import { MigrationListener } from '../../lib/migration/listener';
import { MigrationSource } from '../../lib/migration/source';
import {
  FRAME_SIZE,
  firstToGuest,
  GUEST_MAC,
  type MoveOrders,
  type MovePlan,
  STATION_MAC,
  TO_NETWORK,
} from './move-plan';

const RING_SIZE = 256;
const LARGEST_REGION = 2 ** 32;
const LOOK_EVERY_MS = 5;

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

async function discard(): Promise<void> {
  if (machine !== null) await endMachine(machine);
  machine = null;
}

const orders: Obedience<MoveOrders> = {
  open: async (given) => {
    plan = given;
    taps = await openTaps({ name: `place-${process.argv[2]}`, netns: plan.netns, pairs: plan.pairs });
    return { tap: taps[0]!.name };
  },
  boot: async () => {
    const memory = GuestMemory.create(regions(plan.memory));
    write(memory, plan.written);
    const { program, pairs, rate, capacity } = plan;
    machine = await bootMachine(memory, await openBackend(plan.path, taps), {
      program,
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
    });
    return null;
  },
  listen: async ({ address }) => {
    listener = await MigrationListener.listen<GuestRunner>(address, {
      ...machineHost(plan.path, taps),
      createBackend: async (_setup, passed) => {
        if (passed !== null && passed.length > 0) {
          await closeTaps(taps);
          taps = [...passed];
        }
        return openBackend(plan.path, taps);
      },
    });
    arrived = listener.arrived;
    arrived.catch(() => undefined);
    return null;
  },
  arrived: async () => {
    const { memory, device, guest } = await arrived;
    machine = { memory, device, guest };
    await listener?.close();
    return null;
  },
  migrate: async ({ address, local }) => {
    const { device, guest } = machine!;
    const source = new MigrationSource({ device, guest }, { local });
    const { downtimeMs, downtimeParts, totalMs, audit, handover } = await source.migrate(address);
    await discard();
    const unproven = handover?.unproven ?? ['no hand-over'];
    return { result: { downtimeMs, downtimeParts, totalMs }, differing: audit?.differing ?? null, unproven };
  },
  hush: async () => {
    const { guest } = machine!.guest;
    guest.setRate(0);
    return { sent: guest.ledgers.map((_, flow) => guest.sentOf(flow)) };
  },
  report: async ({ sent }) => ({
    frames: machine!.guest.guest.ledgers.map((ledger, flow) => ledger.report(sent[flow]!)),
  }),
  own: async () => ({ bytes: most }),
  end: async () => {
    await discard();
    await listener?.close();
    await closeTaps(taps);
    return null;
  },
};

obey(orders);
