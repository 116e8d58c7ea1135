/** A device with several queue pairs moves under traffic on all of them: one tap queue for each, flows that stay apart. Emulated data path. */
import { duplexPair } from 'node:stream';
import { EmulatedBackend } from '../../lib/backend/emulated';
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
import { DeviceRig } from '../helpers/device-rig';

test.each([2, 4, 8])('%i pairs', async (pairs) => {
  await using rig = await DeviceRig.create({ pairs, rate: 4000 });
  await rig.boot();
  expect(await rig.driver.usePairs(pairs)).toBe(true);
  await rig.flows(400);
  const taps = await Tap.openQueues(pairs, { name: 'there', netns: rig.netns.path });
  await rig.netns.ipBatch(['link set dev there txqueuelen 16384']);
  await rig.netns.attach('br0', 'there');
  const [near, far] = duplexPair();
  let moved: NetDriver | null = null;
  let mmio: VirtioMmio | null = null;
  const destination = new MigrationDestination<GuestRunner>({
    createMemory: ({ regions }) => GuestMemory.create(regions),
    createBackend: async () => new EmulatedBackend({ taps, prepareTaps: true }),
    createDevice: async (state, memory, backend) => VirtioNetDevice.restore(state, { memory, backend }),
    createGuest: async (saved, memory, restored) => {
      const log = new GuestWriteLog(memory.end / PAGE_SIZE);
      mmio = new VirtioMmio(restored, { watchCalls: false });
      moved = NetDriver.resume(mmio, memory, Number(saved.gpa), log);
      return new GuestRunner(moved.guest, restored, log);
    },
  });
  const [result, received] = await Promise.all([
    new MigrationSource({ device: rig.device, guest: rig.runner }).migrate(near),
    destination.receive(far),
  ]);
  expect(result.audit).toMatchObject({ differing: 0 });
  expect(result.vrings).toHaveLength(2 * pairs);
  expect(result.handover?.unproven).toEqual([]);
  rig.driver = moved!;
  rig.runner = received.guest;
  await rig.flows(400);
  const { toNetwork, toGuest } = await rig.settle();
  for (const way of [toNetwork, toGuest]) {
    expect(way).toMatchObject({ lost: 0, duplicated: 0, reordered: 0, corrupted: 0 });
  }
  await received.guest.pause();
  mmio!.close();
  await received.device.close();
  received.memory.close();
  for (const tap of taps.reverse()) await tap.close();
});
