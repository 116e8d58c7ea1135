/** A device that a driver found behind registers moves with everything the driver has made of it. */
import { duplexPair } from 'node:stream';
import { EmulatedBackend } from '../../lib/backend/emulated';
import { VIRTIO_NET_OK } from '../../lib/constants/virtio-net-ctrl';
import { VirtioMmio } from '../../lib/device/virtio-mmio';
import { VirtioNetDevice } from '../../lib/device/virtio-net-device';
import { GuestRunner } from '../../lib/guest/guest-runner';
import { NetDriver } from '../../lib/guest/net-driver';
import { Tap } from '../../lib/host/tap';
import { PAGE_SIZE } from '../../lib/memory/address';
import { GuestWriteLog } from '../../lib/memory/dirty-log';
import { GuestMemory } from '../../lib/memory/guest-memory';
import { MigrationDestination } from '../../lib/migration/destination';
import { MigrationSource } from '../../lib/migration/source';
import { DeviceRig, EVERYTHING } from '../helpers/device-rig';

test.each([
  ['split', EVERYTHING & ~(1n << 34n)],
  ['packed', EVERYTHING],
])('two pairs, a filter and %s virtqueues, to another tap', async (_format, wanted) => {
  await using rig = await DeviceRig.create({ pairs: 2 });
  await rig.boot(wanted);
  const { driver, device, runner } = rig;
  expect(await driver.usePairs(2)).toBe(true);
  expect(await driver.command({ kind: 'rx-mode', mode: 'promisc', on: false })).toBe(VIRTIO_NET_OK);
  expect(await driver.command({ kind: 'vlan-add', vid: 7 })).toBe(VIRTIO_NET_OK);
  rig.mmio.write(0x014, 4, 1);
  await rig.flows(200);
  const before = device.save.bind(device);

  const taps = await Tap.openQueues(2, { name: 'there', netns: rig.netns.path });
  await rig.netns.attach('br0', 'there');
  const [near, far] = duplexPair();
  const log = { there: null as GuestWriteLog | null };
  let mmio: VirtioMmio | null = null;
  let moved: NetDriver | null = null;
  const destination = new MigrationDestination<GuestRunner>({
    createMemory: ({ regions }) => GuestMemory.create(regions),
    createBackend: async () => new EmulatedBackend({ taps, prepareTaps: true }),
    createDevice: async (state, memory, backend) =>
      VirtioNetDevice.restore(state, { memory, backend, properties: device.properties }),
    createGuest: async (saved, memory, restored) => {
      log.there = new GuestWriteLog(memory.end / PAGE_SIZE);
      mmio = new VirtioMmio(restored, { watchCalls: false });
      moved = NetDriver.resume(mmio, memory, Number(saved.gpa), log.there);
      return new GuestRunner(moved.guest, restored, log.there);
    },
  });
  const [{ audit }, received] = await Promise.all([
    new MigrationSource({ device, guest: runner }).migrate(near),
    destination.receive(far),
  ]);
  expect(audit).toMatchObject({ differing: 0 });
  const there = received.device;
  const saved = before();
  expect(saved).toMatchObject({ control: { promiscuous: false, vlans: [7], activePairs: 2 } });
  expect(saved.transport).toMatchObject({ kind: 'virtio-mmio', deviceFeaturesSel: 1 });
  expect(there.activePairs).toBe(2);
  expect(mmio!.read(0x010, 4)).toBe(Number((device.offeredFeatures >> 32n) & 0xffffffffn));
  expect(taps[0]!.attachedFilter).toEqual(rig.taps[0]!.attachedFilter);

  // The driver goes on where it was: commands, traffic, and at last a second life.
  rig.driver = moved!;
  rig.runner = received.guest;
  await rig.flows(200);
  expect(await moved!.usePairs(1)).toBe(true);
  expect(await moved!.usePairs(2)).toBe(true);
  await rig.flows(200);
  const { toNetwork, toGuest } = await rig.settle();
  expect(toNetwork).toMatchObject({ lost: 0, duplicated: 0, reordered: 0, corrupted: 0 });
  expect(toGuest).toMatchObject({ duplicated: 0, corrupted: 0 });
  await received.guest.pause();
  await moved!.mmio.reset();
  expect(there.running).toBe(false);
  mmio!.close();
  await there.close();
  received.memory.close();
  for (const tap of taps.reverse()) await tap.close();
});
