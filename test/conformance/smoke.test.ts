import { DeviceRig } from '../helpers/device-rig';

const nothingWrong = { lost: 0, duplicated: 0, reordered: 0, corrupted: 0 };

test('a driver finds the device and traffic flows', async () => {
  await using rig = await DeviceRig.create();
  await rig.boot();
  await rig.flows(500);
  const { toNetwork, toGuest } = await rig.settle();
  expect(rig.violations).toEqual([]);
  expect(toNetwork).toMatchObject(nothingWrong);
  expect(toGuest).toMatchObject(nothingWrong);
});

test('4 pairs', async () => {
  await using rig = await DeviceRig.create({ pairs: 4 });
  await rig.boot();
  expect(await rig.driver.usePairs(4)).toBe(true);
  await rig.flows(500);
  const { toNetwork, toGuest } = await rig.settle();
  expect(rig.violations).toEqual([]);
  expect(toNetwork).toMatchObject(nothingWrong);
  expect(toGuest).toMatchObject(nothingWrong);
  console.log(rig.driver.guest.counters, toGuest);
});

test('switch emulated to emulated', async () => {
  await using rig = await DeviceRig.create({ pairs: 2 });
  await rig.boot();
  expect(await rig.driver.usePairs(2)).toBe(true);
  await rig.flows(500);
  const next = rig.backend('emulated');
  const receipt = await rig.device.switchBackend(next);
  console.log(JSON.stringify(receipt));
  await rig.flows(500);
  const { toNetwork, toGuest } = await rig.settle();
  expect(toNetwork).toMatchObject(nothingWrong);
  expect(toGuest).toMatchObject(nothingWrong);
});

test('packed', async () => {
  await using rig = await DeviceRig.create({ pairs: 2 });
  await rig.boot((1n << 128n) - 1n);
  expect(await rig.driver.usePairs(2)).toBe(true);
  await rig.flows(500);
  const { toNetwork, toGuest } = await rig.settle();
  expect(toNetwork).toMatchObject(nothingWrong);
  expect(toGuest).toMatchObject(nothingWrong);
});
