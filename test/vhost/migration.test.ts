/** Whole migrations over the real /dev/vhost-net: real taps, a real bridge, the kernel's own dirty log. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { AuditResult } from '../../lib/migration/messages';
import { explainPage } from '../../lib/observe/page-audit';
import { FaultPlan } from '../../lib/trace/fault-plan';
import { memoryChanges } from '../helpers/migration-layout';
import { type Machine, MEMORY, type Place, Rig, type RigOptions } from '../helpers/migration-rig';

let rig: Rig;
let here: Place;
let there: Place;
let machine: Machine;

/** 1,024 entries: each used ring has a page that nothing else lies in. */
const LARGE_RINGS: RigOptions = { rate: 500, ringSize: 1024 };

async function setUp(options: RigOptions = { rate: 500 }): Promise<void> {
  rig = await Rig.create(options);
  here = await rig.place('vhost-kernel');
  there = await rig.place('vhost-kernel');
}

async function boot(): Promise<void> {
  machine = await rig.boot(here);
  await rig.flows(machine);
}

afterEach(async () => {
  await rig.close();
});

const named = ({ pages }: AuditResult): string =>
  pages.map((page) => explainPage(page, machine.runner.guest.ranges)).join('; ');

test('A to B to A to B under load', async () => {
  await setUp();
  await boot();
  let at = machine;
  for (const to of [there, here, there]) {
    rig.slowToPause(at);
    const { result, machine: moved } = await rig.migrate(at, to);
    expect(result.audit).toEqual({ total: MEMORY / 4096, differing: 0, pages: [] });
    expect(result.vrings).toHaveLength(2);
    for (const { base, usedIdx } of result.vrings) expect(base).toBe(usedIdx);
    expect(result.vrings[1]!.base).toBeGreaterThan(0);
    // Both writers were seen.
    const dirtied = result.rounds.slice(1).map(({ dirtyBy }) => dirtyBy);
    expect(dirtied.some(({ vhost = 0 }) => vhost > 0)).toBe(true);
    expect(dirtied.some(({ guest = 0 }) => guest > 0)).toBe(true);
    await rig.flows(moved);
    at = moved;
  }
  const { toNetwork, toGuest } = await rig.settle(at);
  expect(toNetwork).toMatchObject({ lost: 0, duplicated: 0, reordered: 0, corrupted: 0 });
  expect(toGuest).toMatchObject({ duplicated: 0, reordered: 0, corrupted: 0 });
});

test('between the kernel and the emulated data path, both ways', async () => {
  await setUp();
  await boot();
  const emulated = await rig.place('emulated');
  const first = await rig.migrate(machine, emulated);
  expect(first.result.audit?.differing).toBe(0);
  await rig.flows(first.machine);
  const second = await rig.migrate(first.machine, here);
  expect(second.result.audit?.differing).toBe(0);
  await rig.flows(second.machine);
  const { toNetwork, toGuest } = await rig.settle(second.machine);
  expect(toNetwork).toMatchObject({ lost: 0, duplicated: 0, reordered: 0, corrupted: 0 });
  expect(toGuest).toMatchObject({ duplicated: 0, reordered: 0, corrupted: 0 });
});

/** Straight from the kernel's data path to the kernel's: nothing of this process stands in between and covers up for it. */
const STRAIGHT = { source: { handover: false } };

describe('planted faults are found and named', () => {
  test('the used rings are not logged', async () => {
    await setUp(LARGE_RINGS);
    // The first two set the rings up; the next two would turn VHOST_VRING_F_LOG on.
    here.faults = new FaultPlan().skip('VHOST_SET_VRING_ADDR', { nth: 3, times: 2 });
    await boot();
    rig.slowToPause(machine, 500);
    const { result } = await rig.migrate(machine, there, STRAIGHT);
    expect(here.faults.struck).toHaveLength(2);
    expect(named(result.audit!)).toMatch(/used ring/);
    expect(named(result.audit!)).not.toMatch(/receive buffers/);
  });

  test('the data is not logged', async () => {
    await setUp(LARGE_RINGS);
    // The first sets the device up; the second would turn VHOST_F_LOG_ALL on.
    here.faults = new FaultPlan().skip('VHOST_SET_FEATURES', { nth: 2 });
    await boot();
    rig.slowToPause(machine, 500);
    const { result } = await rig.migrate(machine, there, STRAIGHT);
    expect(here.faults.struck).toHaveLength(1);
    expect(named(result.audit!)).toMatch(/receive buffers/);
    expect(named(result.audit!)).not.toMatch(/used ring/);
  });

  test('the final sync is left out', async () => {
    await setUp();
    await boot();
    rig.slowToPause(machine, 1000);
    const faults = new FaultPlan().skip('migration:final-sync');
    const { result } = await rig.migrate(machine, there, { source: { faults } });
    expect(result.audit!.differing).toBeGreaterThan(0);
    expect(named(result.audit!)).toMatch(/boot block|ring|buffers|ledger/);
  });

  test('the destination begins at base 0: the kernel reports the rings, and the ledger counts what is lost', async () => {
    await setUp();
    await boot();
    await sleep(1500);
    there.faults = new FaultPlan().skip('VHOST_SET_VRING_BASE', { times: 2 });
    const before = machine.runner.guest.sent;
    expect(before).toBeGreaterThan(600);
    const { machine: moved } = await rig.migrate(machine, there, STRAIGHT);
    const reported: number[] = [];
    moved.device.backend.on('ringError', ({ queue }) => reported.push(queue));
    await sleep(1500);
    moved.device.notifiers[1]!.kick.signal();
    await sleep(200);
    const { toNetwork } = await rig.settle(moved);
    expect(toNetwork.lost + toNetwork.duplicated).toBeGreaterThan(0);
    expect(reported.length + moved.device.backend.stoppedRings.length).toBeGreaterThan(0);
  });

  test('a frame is dropped on its way: the ledger names it', async () => {
    await setUp();
    await boot();
    rig.station.dropNext(1);
    await rig.flows(machine);
    const { toGuest } = await rig.settle(machine);
    expect(toGuest.lost).toBe(1);
    expect(machine.runner.guest.ledger.lostSequences(10, toGuest.sent)).toHaveLength(1);
  });
});

describe('memory that changes', () => {
  beforeEach(async () => {
    await setUp();
    await boot();
  });

  memoryChanges(() => ({ rig, here, there, machine }));
});

test('cancelled in the middle: logging is off, traffic goes on, the next one succeeds', async () => {
  await setUp();
  await boot();
  const controller = new AbortController();
  const cancelled = rig.migrate(machine, there, {
    source: {
      signal: controller.signal,
      onEvent: (event) => {
        if (event.kind === 'round') controller.abort(new Error('not now'));
      },
    },
  });
  await expect(cancelled).rejects.toMatchObject({ code: 'VHOST_ERR_ABORTED' });
  expect(machine.device.dirtyLog).toBeNull();
  await rig.flows(machine);
  const { result, machine: moved } = await rig.migrate(machine, there);
  expect(result.audit?.differing).toBe(0);
  await rig.flows(moved);
});
