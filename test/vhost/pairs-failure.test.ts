/** A start of several pairs of which one fails: nothing stays attached, and the next start serves all of them. */
import { FaultPlan } from '../../lib/trace/fault-plan';
import { DeviceRig } from '../helpers/device-rig';

test.each([1, 4, 8])('attach %d of 8 fails', async (nth) => {
  const faults = new FaultPlan();
  await using rig = await DeviceRig.create({ kind: 'vhost-kernel', pairs: 4, faults });
  await rig.boot();
  expect(await rig.driver.usePairs(4)).toBe(true);
  await rig.flows(100);
  await rig.device.stop();
  faults.fail('VHOST_NET_SET_BACKEND', { errno: 5, nth });
  await expect(rig.device.start()).rejects.toMatchObject({ code: 'EIO', syscall: 'VHOST_NET_SET_BACKEND' });
  expect(rig.device.running).toBe(false);
  const attached = new Set<string>();
  for (const record of rig.trace.records) {
    if (record.kind !== 'ioctl' || record.name !== 'VHOST_NET_SET_BACKEND' || record.result !== 0) continue;
    const ring = `${record.fd}/${record.args.index}`;
    if (record.args.fd === -1) attached.delete(ring);
    else attached.add(ring);
  }
  expect([...attached]).toEqual([]);
  await rig.device.start();
  await rig.flows(100);
  const { toNetwork, toGuest } = await rig.settle();
  expect(toNetwork).toMatchObject({ lost: 0, duplicated: 0, reordered: 0, corrupted: 0 });
  expect(toGuest).toMatchObject({ lost: 0, duplicated: 0, reordered: 0, corrupted: 0 });
});
