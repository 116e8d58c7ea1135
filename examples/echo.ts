/**
 * A guest that sends every frame back, on the kernel's vhost-net, in a network namespace of its own; given away while it runs when an address
 * is named: node dist/examples/echo.js [tcp:HOST:PORT]
 */
import {
  bits,
  Guest,
  GuestMemory,
  GuestRunner,
  GuestWriteLog,
  MigrationSource,
  Netns,
  PAGE_SIZE,
  Tap,
  VhostKernelBackend,
  VirtioNetDevice,
  virtioNet,
} from '../lib';

async function main(address?: string): Promise<void> {
  const features = bits(virtioNet.VIRTIO_F_VERSION_1, virtioNet.VIRTIO_RING_F_EVENT_IDX);
  const netns = await Netns.create();
  const tap = await Tap.open({ netns: netns.path, name: 'tap0' });
  const memory = GuestMemory.create([{ gpa: 0, size: 64 << 20 }]);
  const log = new GuestWriteLog(memory.end / PAGE_SIZE);
  const guest = Guest.boot(memory, { gpa: 0x100000, program: 'echo', features, mac: '02:00:00:00:00:02' }, { log });
  const backend = new VhostKernelBackend({ taps: [tap], prepareTaps: true });
  const device = new VirtioNetDevice({ memory, backend, features, queues: guest.queues, mac: guest.mac });
  const runner = new GuestRunner(guest, device, log);
  await device.start();
  runner.resume();
  process.stdout.write(`${guest.mac} answers on ${tap.name} in ${netns.name}\n`);

  if (address !== undefined) {
    const { rounds, downtimeMs } = await new MigrationSource({ device, guest: runner }).migrate(address);
    process.stdout.write(`gone after ${rounds.length} rounds, ${downtimeMs} ms of downtime\n`);
  }
  await runner.pause();
  await device.close();
  memory.close();
  await tap.close();
  await netns.delete();
}

void main(...process.argv.slice(2));
