/** Bugs that others had with what is under way when a guest stops, and with memory that comes meanwhile: docs/bug-cases.md. Emulated data path. */
import { setTimeout as sleep } from 'node:timers/promises';
import { EmulatedBackend } from '../../lib/backend/emulated';
import { PAGE_SIZE } from '../../lib/memory/address';
import { GuestMemory } from '../../lib/memory/guest-memory';
import { PageBitmap } from '../../lib/memory/page-bitmap';
import { expectWhole, type Machine, type Place, Rig } from '../helpers/migration-rig';
import { until } from '../helpers/vhost-wait';

const AT = 0x1_0000_0000;
const SIZE = 1 << 20;

let rig: Rig;
let here: Place;
let there: Place;
let machine: Machine;

beforeEach(async () => {
  rig = await Rig.create();
  [here, there] = [await rig.place('emulated'), await rig.place('emulated')];
});

afterEach(async () => {
  await rig.close();
});

async function boot(): Promise<void> {
  machine = await rig.boot(here, GuestMemory.create([{ gpa: 0, size: 16 << 20 }]));
  await rig.flows(machine);
}

test('M17: stopped after the driver published and before the device saw the kick: both rings go on by themselves', async () => {
  await boot();
  const { guest } = machine.runner;
  // Until the device has used every buffer: only then it wants to hear of more.
  await machine.runner.pause();
  await sleep(300);
  const swallowed = new Set<number>();
  guest.onKick = (queue) => swallowed.add(queue);
  machine.runner.resume();
  await until('a kick of each queue is lost', () => swallowed.size === 2);
  // What was asked for in vain stands still now.
  await sleep(100);
  const stuck = [rig.station.ledger.received, guest.ledger.received];
  await sleep(50);
  expect([rig.station.ledger.received, guest.ledger.received]).toEqual(stuck);
  expect(guest.sent).toBeGreaterThan(stuck[0]!);

  const host = there.host();
  host.createGuest = async (...given) => {
    const runner = await there.host().createGuest(...given);
    // Nobody kicks there either, so what moves does so by itself.
    runner.guest.onKick = () => undefined;
    runner.guest.setRate(0);
    return runner;
  };
  const { result, machine: moved } = await rig.migrate(machine, there, { host });
  expect(result.audit).toMatchObject({ differing: 0 });
  await until('what was published is sent', () => rig.station.ledger.received === moved.runner.guest.sent, 3000);
  const { ledger } = moved.runner.guest;
  await until('frames come into the buffers published', () => ledger.received >= stuck[1]! + 200, 3000);
  await rig.discard(moved);
});

test('M21: long idle, then a frame each way after a migration: at once', async () => {
  await boot();
  rig.station.hush();
  machine.runner.guest.setRate(0);
  await sleep(2000);
  const { machine: moved } = await rig.migrate(machine, there);
  machine = moved;
  await sleep(500);
  const { guest } = machine.runner;
  const arrives = async (what: string, count: () => number, send: () => void): Promise<number> => {
    const [before, began] = [count(), performance.now()];
    send();
    await until(what, () => count() > before);
    return performance.now() - began;
  };
  const toGuest = await arrives(
    'a frame comes',
    () => guest.ledger.received,
    () => rig.station.start(),
  );
  rig.station.hush();
  const toNetwork = await arrives(
    'a frame goes',
    () => rig.station.ledger.received,
    () => {
      guest.setRate(2000);
      // Its processor was asleep: that it is to send is told to it by whoever wants that.
      machine.device.notifiers[0]!.call.signal();
    },
  );
  // Far below any time-out that would bring a stuck flow back, and above what a busy machine takes.
  expect(toGuest).toBeLessThan(250);
  expect(toNetwork).toBeLessThan(250);
  rig.station.start();
  await expectWhole(rig, machine);
});

test('M23: regions come and go under load and logging', async () => {
  await boot();
  for (const logging of [false, true]) {
    const log = logging ? await machine.device.startDirtyLog() : null;
    for (let turn = 0; turn < 20; turn++) {
      await machine.memory.addRegion({ gpa: AT + turn * 4 * SIZE, size: SIZE });
      await rig.flows(machine, 5);
    }
    const covered = new PageBitmap(machine.memory.end / PAGE_SIZE);
    const marked = (machine.device.dirtyLog ?? log)?.takeInto(covered);
    if (logging) expect(marked).toBeGreaterThan(0);
    for (let turn = 0; turn < 20; turn++) {
      await machine.memory.removeRegion(AT + turn * 4 * SIZE);
      await rig.flows(machine, 5);
    }
    if (logging) await machine.device.stopDirtyLog();
  }
  await expectWhole(rig, machine);
});

test('M50: a region that comes from within the transmission of a frame, logging on and off', async () => {
  const changes: Promise<unknown>[] = [];
  let adding = false;
  const backend = new EmulatedBackend({
    taps: [here.tap],
    onTransmit: () => {
      if (!adding || changes.length >= 10) return;
      changes.push(machine.memory.addRegion({ gpa: AT + changes.length * SIZE, size: SIZE }));
      changes.push(machine.device.startDirtyLog().then(() => machine.device.stopDirtyLog()));
    },
  });
  here.backend = async () => backend;
  await boot();
  adding = true;
  await until('all changes were asked for', () => changes.length >= 10);
  await Promise.all(changes);
  expect(machine.memory.regions).toHaveLength(6);
  const { result, machine: moved } = await rig.migrate(machine, there);
  machine = moved;
  expect(result.audit).toMatchObject({ differing: 0, total: (16 << 20) / PAGE_SIZE + (5 * SIZE) / PAGE_SIZE });
  await expectWhole(rig, machine);
});
