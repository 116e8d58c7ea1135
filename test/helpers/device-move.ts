/** Moves the guest of a DeviceRig, with the driver that found its device behind registers, to taps of their own. Emulated data path. */
import { duplexPair } from 'node:stream';
import { EmulatedBackend } from '../../lib/backend/emulated';
import type { DeviceProperties } from '../../lib/device/device-properties';
import { VirtioMmio } from '../../lib/device/virtio-mmio';
import { VirtioNetDevice } from '../../lib/device/virtio-net-device';
import { GuestRunner } from '../../lib/guest/guest-runner';
import { NetDriver } from '../../lib/guest/net-driver';
import { Tap } from '../../lib/host/tap';
import { PAGE_SIZE } from '../../lib/memory/address';
import { GuestWriteLog } from '../../lib/memory/dirty-log';
import { GuestMemory } from '../../lib/memory/guest-memory';
import { MigrationDestination } from '../../lib/migration/destination';
import type { MigrationOptions } from '../../lib/migration/options';
import { MigrationSource } from '../../lib/migration/source';
import type { DeviceRig } from './device-rig';

/** What follows is asked of the rig, which has driver and guest from there then; the rest is answered, and `close` closes it. */
export async function moveDevice(
  rig: DeviceRig,
  pairs: number,
  options: MigrationOptions = {},
  /** Of the device there; by default what comes with its state. */
  properties?: DeviceProperties,
) {
  const taps = await Tap.openQueues(pairs, { name: 'there', netns: rig.netns.path });
  await rig.netns.ipBatch(['link set dev there txqueuelen 16384']);
  await rig.netns.attach('br0', 'there');
  const [near, far] = duplexPair();
  let driver: NetDriver | null = null;
  let bus: VirtioMmio | null = null;
  const destination = new MigrationDestination<GuestRunner>({
    createMemory: ({ regions }) => GuestMemory.create(regions),
    createBackend: async () => new EmulatedBackend({ taps, prepareTaps: true }),
    createDevice: async (state, memory, backend) => VirtioNetDevice.restore(state, { memory, backend, properties }),
    createGuest: async (saved, memory, restored) => {
      const log = new GuestWriteLog(memory.end / PAGE_SIZE);
      bus = new VirtioMmio(restored, { watchCalls: false });
      driver = NetDriver.resume(bus, memory, Number(saved.gpa), log);
      return new GuestRunner(driver.guest, restored, log);
    },
  });
  const source = new MigrationSource({ device: rig.device, guest: rig.runner }, options);
  const [result, { device, guest, memory }] = await Promise.all([source.migrate(near), destination.receive(far)]);
  const mmio: VirtioMmio = bus!;
  rig.driver = driver!;
  rig.runner = guest;
  const close = async (): Promise<void> => {
    await guest.pause();
    mmio.close();
    await device.close();
    memory.close();
    for (const tap of taps.reverse()) await tap.close();
  };
  return { result, device, mmio, taps, close };
}
