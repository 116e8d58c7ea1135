import { EmulatedBackend } from '../../../lib/backend/emulated';
import { VIRTIO_RING_F_EVENT_IDX } from '../../../lib/constants/virtio-ring';
import { VirtioNetDevice } from '../../../lib/device/virtio-net-device';
import { Netns } from '../../../lib/host/netns';
import { Tap } from '../../../lib/host/tap';
import { GuestMemory } from '../../../lib/memory/guest-memory';
import { bits } from '../../../lib/net/features';
import { describeQueues } from '../../../lib/observe/describe-queues';
import { inspectDescription } from '../../../lib/observe/inspect-description';
import { parseDescription } from '../../../lib/observe/queue-description';
import { splitLayout } from '../../../lib/virtqueue/layout';
import { SplitDriver } from '../../../lib/virtqueue/split-driver';

test('a device has the parts of a description', async () => {
  const memory = GuestMemory.create([{ gpa: 0, size: 0x10000 }]);
  const rings = { size: 16, eventIdx: true, ...splitLayout(0, 16, true) };
  const queue = SplitDriver.format(memory, 0x8000, rings).queueState();
  await using netns = await Netns.create();
  await using tap = await Tap.open({ netns: netns.path });
  const device = new VirtioNetDevice({
    memory,
    backend: new EmulatedBackend({ taps: [tap] }),
    features: bits(VIRTIO_RING_F_EVENT_IDX),
    queues: [queue, queue],
    mac: '02:00:00:00:00:02',
  });
  const description = describeQueues(device);
  expect(parseDescription(JSON.parse(JSON.stringify(description)))).toEqual(description);
  expect(description).toMatchObject({ pid: process.pid, features: '0x20000000', running: false });
  expect(inspectDescription(description).map(({ inspection }) => inspection.diagnosis[0])).toEqual(
    Array(2).fill('no device runs: nothing is taken from the queue or called'),
  );
  await device.close();
  memory.close();
});
