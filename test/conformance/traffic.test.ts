/** A driver finds the device behind its registers, on every data path, and frames go both ways. */
import { DeviceRig, EVERYTHING, pathKinds } from '../helpers/device-rig';

const nothingWrong = { lost: 0, duplicated: 0, reordered: 0, corrupted: 0 };

describe.each(pathKinds())('%s', (kind) => {
  test.each([1, 4, 8])('%d queue pairs', async (pairs) => {
    await using rig = await DeviceRig.create({ kind, pairs });
    await rig.boot();
    if (pairs > 1) expect(await rig.driver.usePairs(pairs)).toBe(true);
    await rig.flows(500);
    const { toNetwork, toGuest } = await rig.settle();
    expect(rig.violations).toEqual([]);
    expect(rig.broken).toEqual([]);
    expect(toNetwork).toMatchObject(nothingWrong);
    expect(toGuest).toMatchObject(nothingWrong);
  });
});

test('packed virtqueues, on the data path that serves them', async () => {
  await using rig = await DeviceRig.create({ pairs: 2 });
  await rig.boot(EVERYTHING);
  expect(rig.device.queues[0]!.packed).toBeDefined();
  expect(await rig.driver.usePairs(2)).toBe(true);
  await rig.flows(500);
  const { toNetwork, toGuest } = await rig.settle();
  expect(toNetwork).toMatchObject(nothingWrong);
  expect(toGuest).toMatchObject(nothingWrong);
});
