/** Receive that is throttled on several queue pairs, of either format, while the driver changes how many are in use. */
import { setTimeout as sleep } from 'node:timers/promises';
import { ReceiveThrottle } from '../../lib/migration/throttle';
import { DeviceRig, EVERYTHING } from '../helpers/device-rig';

const nothingWrong = { lost: 0, duplicated: 0, reordered: 0, corrupted: 0 };

test.each([
  ['split', EVERYTHING & ~(1n << 34n)],
  ['packed', EVERYTHING],
])('%s rings, several pairs: every flow keeps its order', async (format, wanted) => {
  await using pairs = await DeviceRig.create({ pairs: 2, rate: 1000 });
  await pairs.boot(wanted);
  await pairs.driver.command({ kind: 'mq-vq-pairs-set', pairs: 2 });
  await pairs.flows();
  const slowed = new ReceiveThrottle(pairs.device);
  slowed.set(0.8);
  await sleep(400);
  // A command takes its effect on queues that are out of service, too.
  for (const count of [1, 2]) await pairs.driver.command({ kind: 'mq-vq-pairs-set', pairs: count });
  await sleep(400);
  await slowed.stop();
  await pairs.flows();
  const { toGuest, toNetwork } = await pairs.settle();
  expect(toGuest).toMatchObject(nothingWrong);
  expect(toNetwork).toMatchObject(nothingWrong);
  expect([pairs.broken, pairs.violations]).toEqual([[], []]);
  expect(pairs.device.queues.map(({ packed }) => packed !== undefined)).toContain(format === 'packed');
});
