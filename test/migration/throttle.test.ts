/** Receive that is throttled under real traffic: emulated data path, real taps on a real bridge. */
import { setTimeout as sleep } from 'node:timers/promises';
import { EmulatedBackend } from '../../lib/backend/emulated';
import { ReceiveThrottle } from '../../lib/migration/throttle';
import { measureDirtyRate } from '../../lib/observe/dirty-rate';
import { type Machine, type Place, Rig, type RigOptions } from '../helpers/migration-rig';

let rig: Rig;
let here: Place;
let machine: Machine;
let throttle: ReceiveThrottle;

async function boot(options: RigOptions = {}): Promise<void> {
  rig = await Rig.create(options);
  here = await rig.place('emulated');
  machine = await rig.boot(here);
  await rig.flows(machine);
  throttle = new ReceiveThrottle(machine.device);
}

afterEach(async () => {
  await throttle.stop();
  await rig.close();
});

const nothingWrong = { lost: 0, duplicated: 0, reordered: 0, corrupted: 0 };

async function expectNothingLost(): Promise<void> {
  const { toGuest, toNetwork } = await rig.settle(machine);
  expect(toGuest).toMatchObject(nothingWrong);
  expect(toNetwork).toMatchObject(nothingWrong);
}

async function paused(): Promise<void> {
  while (!machine.device.receivePaused) await sleep(1);
}

test.each([0.2, 0.5, 0.9])('at %p of the time frames keep their order and none is lost', async (fraction) => {
  await boot({ rate: 1000 });
  throttle.set(fraction);
  const before = machine.runner.guest.ledger.received;
  await sleep(800);
  expect(machine.runner.guest.ledger.received).toBeGreaterThan(before + 100);
  await throttle.stop();
  expect(machine.device.receivePaused).toBe(false);
  await rig.flows(machine);
  await expectNothingLost();
});

test('fewer pages get dirty', async () => {
  await boot({ rate: 8000 });
  const { device, runner } = machine;
  const pages = async (): Promise<number> => {
    const { byQueue } = await measureDirtyRate({ device, guest: runner, seconds: 1, intervalMs: 20 });
    return byQueue.find(({ queue }) => queue === 0)?.buffers ?? 0;
  };
  const free = await pages();
  throttle.set(0.9);
  await sleep(200);
  const throttled = await pages();
  expect(free).toBeGreaterThan(500);
  expect(throttled).toBeLessThan(free * 0.8);
  await throttle.stop();
  await rig.flows(machine);
});

test('the device stopped and started in the middle: it goes on from where it stood', async () => {
  await boot({ rate: 1000 });
  throttle.set(0.9);
  for (let round = 0; round < 3; round++) {
    await paused();
    await machine.device.stop();
    expect(machine.device.receivePaused).toBe(false);
    expect(machine.device.queues.every(({ ready }) => ready)).toBe(true);
    await machine.device.start();
  }
  await throttle.stop();
  await rig.flows(machine);
  await expectNothingLost();
});

test('another data path in the middle: no frame is lost', async () => {
  await boot({ rate: 1000 });
  throttle.set(0.8);
  const first = machine.device.backend;
  const next = new EmulatedBackend({ taps: [here.tap] });
  for (const backend of [next, first, next, first]) {
    await paused();
    await machine.device.switchBackend(backend);
  }
  await throttle.stop();
  await next.close();
  await rig.flows(machine);
  await expectNothingLost();
});

test('a migration of a guest that is throttled: no page differs, and receive goes on there', async () => {
  await boot({ rate: 1000 });
  const there = await rig.place('emulated');
  throttle.set(0.9);
  await paused();
  let stopped: Promise<void> = Promise.resolve();
  const { result, machine: moved } = await rig.migrate(machine, there, {
    source: {
      onEvent: (event) => {
        if (event.kind === 'phase' && event.phase === 'running') stopped = throttle.stop();
      },
    },
  });
  await stopped;
  expect(result.audit?.differing).toBe(0);
  await rig.flows(moved);
  const { toGuest, toNetwork } = await rig.settle(moved);
  expect(toNetwork).toMatchObject(nothingWrong);
  expect(toGuest).toMatchObject({ duplicated: 0, reordered: 0, corrupted: 0 });
});

test('a device that is closed under it: the stop says so, once', async () => {
  await boot();
  throttle.set(0.5);
  await paused();
  await machine.device.close();
  while (throttle.failure === null) await sleep(5);
  await expect(throttle.stop()).rejects.toMatchObject({ code: 'VHOST_ERR_CLOSED' });
  await throttle.stop();
});
