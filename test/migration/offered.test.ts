/** A device that a driver found behind registers moves with everything the driver has made of it. */
import { VIRTIO_NET_OK } from '../../lib/constants/virtio-net-ctrl';
import { moveDevice } from '../helpers/device-move';
import { DeviceRig, EVERYTHING } from '../helpers/device-rig';

test.each([
  ['split', EVERYTHING & ~(1n << 34n)],
  ['packed', EVERYTHING],
])('two pairs, a filter and %s virtqueues, to another tap', async (_format, wanted) => {
  await using rig = await DeviceRig.create({ pairs: 2 });
  await rig.boot(wanted);
  const { driver, device } = rig;
  expect(await driver.usePairs(2)).toBe(true);
  expect(await driver.command({ kind: 'rx-mode', mode: 'promisc', on: false })).toBe(VIRTIO_NET_OK);
  expect(await driver.command({ kind: 'vlan-add', vid: 7 })).toBe(VIRTIO_NET_OK);
  rig.mmio.write(0x014, 4, 1);
  await rig.flows(200);
  const before = device.save.bind(device);

  const move = await moveDevice(rig, 2, {}, device.properties);
  const { device: there, mmio, taps } = move;
  const { audit } = move.result;
  expect(audit).toMatchObject({ differing: 0 });
  const saved = before();
  expect(saved).toMatchObject({ control: { promiscuous: false, vlans: [7], activePairs: 2 } });
  expect(saved.transport).toMatchObject({ kind: 'virtio-mmio', deviceFeaturesSel: 1 });
  expect(there.activePairs).toBe(2);
  expect(mmio.read(0x010, 4)).toBe(Number((device.offeredFeatures >> 32n) & 0xffffffffn));
  expect(taps[0]!.attachedFilter).toEqual(rig.taps[0]!.attachedFilter);

  // The driver goes on where it was: commands, traffic, and at last a second life.
  const moved = rig.driver;
  await rig.flows(200);
  expect(await moved.usePairs(1)).toBe(true);
  expect(await moved.usePairs(2)).toBe(true);
  await rig.flows(200);
  const { toNetwork, toGuest } = await rig.settle();
  expect(toNetwork).toMatchObject({ lost: 0, duplicated: 0, reordered: 0, corrupted: 0 });
  expect(toGuest).toMatchObject({ duplicated: 0, corrupted: 0 });
  await rig.runner.pause();
  await moved.mmio.reset();
  expect(there.running).toBe(false);
  await move.close();
});
