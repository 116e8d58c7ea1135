/** A device with several queue pairs moves under traffic on all of them: one tap queue for each, flows that stay apart. Emulated data path. */
import { moveDevice } from '../helpers/device-move';
import { DeviceRig } from '../helpers/device-rig';

test.each([2, 8, 32])('%i pairs', async (pairs) => {
  await using rig = await DeviceRig.create({ pairs, rate: 4000 });
  await rig.boot();
  expect(await rig.driver.usePairs(pairs)).toBe(true);
  await rig.flows(400);
  const { result, close } = await moveDevice(rig, pairs);
  expect(result.audit).toMatchObject({ differing: 0 });
  expect(result.vrings).toHaveLength(2 * pairs);
  expect(result.handover?.unproven).toEqual([]);
  await rig.flows(400);
  const { toNetwork, toGuest } = await rig.settle();
  for (const way of [toNetwork, toGuest]) {
    expect(way).toMatchObject({ lost: 0, duplicated: 0, reordered: 0, corrupted: 0 });
  }
  await close();
});
