/** Bugs that others had in migrations, and what shows that they are not here: docs/bug-cases.md. */
import { setTimeout as sleep } from 'node:timers/promises';
import { validateDeviceState } from '../../lib/device/device-state';
import { VirtioNetDevice } from '../../lib/device/virtio-net-device';
import { GuestMemory } from '../../lib/memory/guest-memory';
import { hashPages } from '../../lib/observe/page-audit';
import { expectWhole, type Machine, type Place, Rig } from '../helpers/migration-rig';

let rig: Rig;
let here: Place;
let there: Place;
let machine: Machine;

beforeEach(async () => {
  rig = await Rig.create();
  [here, there] = [await rig.place('emulated'), await rig.place('emulated')];
  machine = await rig.boot(here, GuestMemory.create([{ gpa: 0, size: 16 << 20 }]));
  await rig.flows(machine);
});

afterEach(async () => {
  await rig.close();
});

test('M28: logging on and off 1,000 times under load costs nothing', async () => {
  for (let turn = 0; turn < 1000; turn++) {
    await machine.device.startDirtyLog();
    await machine.device.stopDirtyLog();
  }
  await expectWhole(rig, machine);
});

test('M10, M20: stopped and started 200 times under load, each time where it stood', async () => {
  for (let turn = 0; turn < 200; turn++) {
    await machine.device.stop();
    for (const { base, usedIdx } of machine.device.backend.stoppedRings) expect(base).toBe(usedIdx);
    await machine.device.start();
    await sleep(1);
  }
  await expectWhole(rig, machine);
});

test('M12, M14, M15: a restored device stands where the saved one stood, in whatever order its fields come, and writes no ring', async () => {
  await machine.runner.pause();
  await machine.device.stop();
  const before = await hashPages(machine.memory);
  const state = machine.device.save();
  const turned = Object.fromEntries(Object.entries(state).reverse());
  expect(validateDeviceState(JSON.parse(JSON.stringify(turned)))).toEqual(validateDeviceState(state));
  const backend = await there.backend();
  const device = VirtioNetDevice.restore(turned, { memory: machine.memory, backend });
  await device.prepare();
  expect(await hashPages(machine.memory)).toEqual(before);
  expect(device.save().queues).toEqual(state.queues);
  await device.close();
  expect(await hashPages(machine.memory)).toEqual(before);
  await backend.close();
  await machine.device.start();
  machine.runner.resume();
  await expectWhole(rig, machine);
});

test('M35, M40, M46: every failure is followed by a migration that takes all pages along', async () => {
  for (const phase of ['setup', 'precopy', 'relay', 'switchover', 'ready'] as const) {
    const controller = new AbortController();
    const cancelled = rig.migrate(machine, there, {
      source: {
        signal: controller.signal,
        onEvent: (event) => event.kind === 'phase' && event.phase === phase && controller.abort(),
      },
    });
    await expect(cancelled).rejects.toMatchObject({ code: 'VHOST_ERR_ABORTED' });
    expect(machine.device.running).toBe(true);
    await rig.flows(machine);
  }
  const { result, machine: moved } = await rig.migrate(machine, there);
  machine = moved;
  expect(result.audit).toMatchObject({ differing: 0 });
  await expectWhole(rig, machine);
});
