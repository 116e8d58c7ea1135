/** Receive paused while something else happens to the device: always ended by it or after it, and never told twice to a data path. */
import { VirtioMmio } from '../../../lib/device/virtio-mmio';
import { VirtioNetDevice } from '../../../lib/device/virtio-net-device';
import { NetDriver } from '../../../lib/guest/net-driver';
import { GuestMemory } from '../../../lib/memory/guest-memory';
import { EVERYTHING, GUEST_MAC } from '../../helpers/device-rig';
import { StubBackend } from '../../helpers/stub-backend';
import { errorOf } from '../../helpers/vhost-wait';

const STATUS = 0x70;

let memory: GuestMemory;
let backend: StubBackend;
let device: VirtioNetDevice;
let mmio: VirtioMmio;
let driver: NetDriver;
let broken: string[];

beforeEach(async () => {
  memory = GuestMemory.create([{ gpa: 0, size: 8 * 2 ** 20 }]);
  backend = new StubBackend();
  device = await VirtioNetDevice.offer({ memory, backend, mac: GUEST_MAC, pairs: 2 });
  mmio = new VirtioMmio(device);
  const sizes = { rxSize: 16, txSize: 16, ledgerCapacity: 1024 };
  driver = await NetDriver.start(mmio, memory, {
    wanted: EVERYTHING,
    gpa: 0x10_0000,
    program: 'sink',
    pairs: 2,
    ...sizes,
  });
  await device.settled();
  await driver.command({ kind: 'mq-vq-pairs-set', pairs: 2 });
  broken = [];
  device.on('needsReset', (why) => broken.push(why));
  backend.calls.length = 0;
});

afterEach(async () => {
  mmio.close();
  await device.close();
  memory.close();
});

test('the receive queues of all pairs in use, once; resumed from where they stood', async () => {
  const stopQueue = backend.stopQueue.bind(backend);
  backend.stopQueue = async (queue) => ({ ...(await stopQueue(queue)), nextAvail: 7 + queue });
  await device.pauseReceive();
  await device.pauseReceive();
  expect(device.receivePaused).toBe(true);
  expect(device.queues.map(({ ready }) => ready)).toEqual([true, true, true, true]);
  expect([device.queues[0]!.nextAvail, device.queues[2]!.nextAvail]).toEqual([7, 9]);
  await device.resumeReceive();
  await device.resumeReceive();
  expect(device.receivePaused).toBe(false);
  expect(backend.calls).toEqual(['stopQueue 0', 'stopQueue 2', 'startQueue 0', 'startQueue 2']);
});

test('a stop in the middle: the state has the receive queues as they stood, enabled', async () => {
  const stopQueue = backend.stopQueue.bind(backend);
  backend.stopQueue = async (queue) => ({ ...(await stopQueue(queue)), nextAvail: 5 });
  await device.pauseReceive();
  // What a data path says of a queue that is out of its service is of no use.
  const stop = backend.stop.bind(backend);
  backend.stop = async () => (await stop()).map((queue, index) => ({ ...queue, ready: index % 2 === 1, nextAvail: 3 }));
  await device.stop();
  expect(device.receivePaused).toBe(false);
  expect(device.queues.map(({ ready, nextAvail }) => [ready, nextAvail])).toEqual([
    [true, 5],
    [true, 3],
    [true, 5],
    [true, 3],
  ]);
  await device.resumeReceive();
  expect(backend.calls).not.toContain('startQueue 0');
});

test('a switch serves them first, and the next data path serves them all', async () => {
  const next = new StubBackend();
  await device.pauseReceive();
  await device.switchBackend(next);
  const order = ['startQueue 0', 'startQueue 2', 'stop'];
  expect(backend.calls.filter((call) => order.includes(call))).toEqual(order);
  await device.resumeReceive();
  expect(next.calls).not.toContain('startQueue 0');
  expect(device.queues.every(({ ready }) => ready)).toBe(true);
});

test('a command that changes settings: queues that it may park are served before', async () => {
  await device.pauseReceive();
  await driver.command({ kind: 'mq-vq-pairs-set', pairs: 1 });
  expect(device.receivePaused).toBe(false);
  const order = ['startQueue 0', 'startQueue 2', 'settingsChanged'];
  expect(backend.calls.filter((call) => order.includes(call))).toEqual(order);
});

test('a reset in the middle: the next life knows nothing of it', async () => {
  await device.pauseReceive();
  mmio.write(STATUS, 4, 0);
  await device.settled();
  expect(device.receivePaused).toBe(false);
  await device.resumeReceive();
  await device.pauseReceive();
  expect(backend.calls).not.toContain('startQueue 0');
});

test('a queue that the driver takes back is not served behind its back', async () => {
  await device.pauseReceive();
  device.registers.resetQueue(0);
  await device.settled();
  await device.resumeReceive();
  expect(backend.calls.filter((call) => call.startsWith('startQueue'))).toEqual(['startQueue 2']);
  expect(device.queues[0]!.ready).toBe(false);
});

test('a pause that fails half way is undone', async () => {
  backend.fail('stopQueue 2');
  await errorOf(device.pauseReceive());
  expect(device.receivePaused).toBe(false);
  expect(backend.calls).toEqual(['stopQueue 0', 'stopQueue 2', 'startQueue 0']);
  expect(broken).toEqual([]);
});

test('a queue that cannot be served again makes the device need a reset; the others are served', async () => {
  await device.pauseReceive();
  backend.fail('startQueue 0');
  await errorOf(device.resumeReceive());
  expect(broken).toEqual(['receive could not go on: planted: startQueue 0']);
  expect(backend.calls.slice(-2)).toEqual(['startQueue 0', 'startQueue 2']);
  expect(device.receivePaused).toBe(false);
});

test('nothing to pause while nothing runs; a closed device says so', async () => {
  await device.stop();
  await device.pauseReceive();
  expect(device.receivePaused).toBe(false);
  await device.close();
  expect((await errorOf(device.pauseReceive())).code).toBe('VHOST_ERR_CLOSED');
});
