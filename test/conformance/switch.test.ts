import { DeviceRig } from '../helpers/device-rig';

const nothingWrong = { lost: 0, duplicated: 0, reordered: 0, corrupted: 0 };

test.each([1, 4])('kernel: %d pairs', async (pairs) => {
  await using rig = await DeviceRig.create({ pairs, kind: 'vhost-kernel' });
  await rig.boot();
  if (pairs > 1) expect(await rig.driver.usePairs(pairs)).toBe(true);
  await rig.flows(500);
  const { toNetwork, toGuest } = await rig.settle();
  console.log(JSON.stringify([toNetwork, toGuest, rig.broken, rig.violations]));
  expect(rig.violations).toEqual([]);
  expect(toNetwork).toMatchObject(nothingWrong);
  expect(toGuest).toMatchObject(nothingWrong);
});

test.each([1, 2, 8])('switch, %d pairs', async (pairs) => {
  await using rig = await DeviceRig.create({ pairs });
  await rig.boot();
  if (pairs > 1) expect(await rig.driver.usePairs(pairs)).toBe(true);
  await rig.flows(500);
  const kernel = rig.backend('vhost-kernel');
  const emulated = rig.device.backend;
  for (let i = 0; i < 6; i++) {
    const receipt = await rig.device.switchBackend(i % 2 === 0 ? kernel : emulated);
    console.log(JSON.stringify({ ...receipt, vrings: 0 }));
    await rig.flows(100);
  }
  const { toNetwork, toGuest } = await rig.settle();
  console.log(JSON.stringify([toNetwork, toGuest, rig.broken, rig.violations]));
  expect(toNetwork).toMatchObject(nothingWrong);
  expect(toGuest).toMatchObject(nothingWrong);
});
