/**
 * A process of its own that owns guest memory with rings in the state its argument names, writes their description to standard output and
 * stays until its standard input ends.
 */
import { VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC } from '../../lib/constants/virtio-ring';
import { EventFd } from '../../lib/host/event-fd';
import { GuestMemory } from '../../lib/memory/guest-memory';
import { bits } from '../../lib/net/features';
import { describeQueues } from '../../lib/observe/describe-queues';
import { splitLayout } from '../../lib/virtqueue/layout';
import { SplitDevice } from '../../lib/virtqueue/split-device';
import { SplitDriver } from '../../lib/virtqueue/split-driver';

const SIZE = 16;
const RECEIVE = 0x100000;
const TRANSMIT = 0x110000;
const DATA = 0x180000;

const memory = GuestMemory.create([
  { gpa: 0, size: 0x10000 },
  { gpa: 0x100000, size: 0x100000 },
]);

function driverAt(base: number): SplitDriver {
  return SplitDriver.format(memory, base + 0x8000, { size: SIZE, eventIdx: true, ...splitLayout(base, SIZE, true) });
}

const receive = driverAt(RECEIVE);
const transmit = driverAt(TRANSMIT);
const notifiers = [0, 1].map(() => ({ kick: EventFd.create(), call: EventFd.create() }));
const device = new SplitDevice(memory, transmit.queueState(), { eventIdx: true });

function send(count: number): void {
  for (let at = 0; at < count; at++) transmit.post(DATA + 0x800 * at, 0, 64, false);
  if (transmit.publish()) notifiers[1]!.kick.signal();
}

switch (process.argv[2]) {
  case 'healthy':
    receive.post(DATA, 0, 2048, true);
    receive.publish();
    send(3);
    for (let id = device.pop(); id >= 0; id = device.pop()) device.push(id, 0);
    device.publish();
    device.enableKicks();
    break;
  case 'stuck':
    send(3);
    break;
  case 'broken':
    send(3);
    // The second chain now leads to itself.
    memory.write(TRANSMIT + 16 + 12, Uint8Array.of(1, 0, 1, 0));
    break;
}

/** Chains of one to three buffers, made, taken, used and taken back as fast as it goes. */
function turn(): void {
  const ids = new Uint16Array(SIZE);
  const lengths = new Uint32Array(SIZE);
  for (let round = 0; round < 1000; round++) {
    for (let buffers = 1 + (round % 3); transmit.chainBegin(buffers) >= 0; buffers = 1 + (buffers % 3)) {
      for (let at = 0; at < buffers; at++) transmit.chainAdd(DATA + 0x800 * at, 0, 64 + round, false);
      transmit.chainEnd();
      if (round % 2 === 0) transmit.publish();
    }
    transmit.publish();
    for (let id = device.pop(); id >= 0; id = device.pop()) {
      device.push(id, 0);
      if (round % 5 !== 0) device.publish();
    }
    device.publish();
    transmit.reap(SIZE, ids, lengths);
  }
  setImmediate(turn);
}

const description = describeQueues({
  memory,
  features: bits(VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC),
  queues: [receive.queueState(), { ...transmit.queueState(), nextAvail: device.nextAvail }],
  notifiers,
});
process.stdout.write(`${JSON.stringify(description)}\n`);
if (process.argv[2] === 'moving') turn();
process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
