/** Who lets go of what, and when, on a real /dev/vhost-net: the device keeps whatever the kernel still has the address of. */
import { join } from 'node:path';
import { native } from '../../lib/native';
import { inChild, until } from '../addon/support';
import { AddonDevice, AddonGuest, AddonNetwork, MEMORY, ok, USED } from './addon-lab';

const LOG_ALL = 1n << 26n;
const VERSION_1 = 1n << 32n;
const ENOTSOCK = -88;

describe('a device under traffic', () => {
  let network: AddonNetwork;
  let guest: AddonGuest;
  let device: AddonDevice;
  let before: number;
  let idle: number;
  beforeAll(async () => {
    network = await AddonNetwork.create();
    idle = native().mappingsLive();
  });
  afterAll(() => network.remove());
  beforeEach(() => {
    guest = new AddonGuest();
    before = native().mappingsLive();
  });
  afterEach(async () => {
    await device.close();
    guest.close();
    // The finalizers of detached buffers run on a later turn of the loop.
    await until(() => native().mappingsLive() === idle);
  });

  test('goes on when the mapping of its memory is closed', async () => {
    const memory = guest.map();
    device = await AddonDevice.attach(network, memory);
    guest.post(60);
    native().eventFdSignal(device.kick);
    network.send(20);
    await guest.received(20);
    native().mappingClose(memory);
    expect(native().mappingsLive()).toBe(before + 1);
    network.send(20, 20);
    await guest.received(40);
    expect(Array.from({ length: 40 }, (_, i) => guest.frame(i))).toEqual(Array.from({ length: 40 }, (_, i) => i));
    expect(device.errors()).toBe(0);
    await device.close();
    expect(native().mappingsLive()).toBe(before);
  });

  test('lets the old memory go when table and ring have moved, not before', async () => {
    const first = guest.map();
    device = await AddonDevice.attach(network, first);
    guest.post(60);
    native().eventFdSignal(device.kick);
    network.send(10);
    await guest.received(10);
    const second = guest.map();
    await device.setMemory(second);
    native().mappingClose(first);
    expect(native().mappingsLive()).toBe(before + 2);
    network.send(10, 10);
    await guest.received(20);
    await device.setAddr(second);
    expect(native().mappingsLive()).toBe(before + 1);
    network.send(10, 20);
    await guest.received(30);
    expect(device.errors()).toBe(0);
    native().mappingClose(second);
    expect(native().mappingsLive()).toBe(before + 1);
    ok(await native().vhostResetOwner(device.vhost));
    expect(native().mappingsLive()).toBe(before);
    await device.close();
  });

  test('keeps the log it writes to until another took its place', async () => {
    const memory = guest.map();
    device = await AddonDevice.attach(network, memory);
    const logs = [0, 1].map(() => ok(native().mappingCreate(null, 0, 4096, 0, 3)));
    const [one, two] = logs;
    if (one === undefined || two === undefined) throw new Error('no logs');
    ok(await native().vhostSetLogBase(device.vhost, native().mappingAddress(one), one));
    ok(await native().vhostSetFeatures(device.vhost, VERSION_1 | LOG_ALL));
    await device.setAddr(memory, 1);
    guest.post(40);
    native().eventFdSignal(device.kick);
    network.send(4);
    await guest.received(4);
    ok(await native().vhostSetLogBase(device.vhost, native().mappingAddress(two), two));
    const bitmap = new BigUint64Array(MEMORY / 4096 / 64);
    expect(native().dirtyLogTake(one, bitmap)).toBeGreaterThanOrEqual(3);
    expect((bitmap[0] ?? 0n) & (1n << BigInt(USED / 4096))).not.toBe(0n);
    expect((bitmap[0] ?? 0n) >> 16n).toBe(3n);
    native().mappingClose(one);
    native().mappingClose(two);
    // Memory and the second log: the first had no other holder.
    expect(native().mappingsLive()).toBe(before + 2);
    network.send(4, 4);
    await guest.received(8);
    ok(await native().vhostSetFeatures(device.vhost, VERSION_1));
    await device.setAddr(memory, 0);
    ok(await native().vhostSetLogBase(device.vhost, 0, null));
    expect(native().mappingsLive()).toBe(before + 1);
    expect(device.errors()).toBe(0);
    native().mappingClose(memory);
    await device.close();
    expect(native().mappingsLive()).toBe(before);
  });

  test('keeps both logs when SET_LOG_BASE fails, as one ring may have either', async () => {
    const memory = guest.map();
    device = await AddonDevice.attach(network, memory);
    const logs = [0, 1].map(() => ok(native().mappingCreate(null, 0, 4096, 0, 3)));
    const [good, bad] = logs;
    if (good === undefined || bad === undefined) throw new Error('no logs');
    ok(await native().vhostSetLogBase(device.vhost, native().mappingAddress(good), good));
    ok(await native().vhostSetFeatures(device.vhost, VERSION_1 | LOG_ALL));
    expect(await native().vhostSetLogBase(device.vhost, 0xffff_8880_0000_0000n, bad)).toBe(-14);
    for (const log of logs) native().mappingClose(log);
    expect(native().mappingsLive()).toBe(before + 3);
    native().mappingClose(memory);
    await device.close();
    expect(native().mappingsLive()).toBe(before);
  });

  test('close waits for the calls before it', async () => {
    const memory = guest.map();
    device = await AddonDevice.attach(network, memory);
    const calls = Array.from({ length: 100 }, (_, i) =>
      i % 2 === 0 ? native().vhostGetVringBase(device.vhost, 0) : native().vhostSetFeatures(device.vhost, VERSION_1),
    );
    const closing = native().vhostClose(device.vhost);
    expect(await native().vhostSetOwner(device.vhost)).toBe(-9);
    expect(await Promise.all(calls)).toEqual(Array(100).fill(0));
    expect(await closing).toBe(0);
    native().mappingClose(memory);
    await device.close();
    expect(native().mappingsLive()).toBe(before);
  });

  test('descriptors may be closed as soon as the call is made', async () => {
    const memory = guest.map();
    device = await AddonDevice.attach(network, memory);
    ok(await native().vhostNetSetBackend(device.vhost, 0, -1));
    const kick = ok(native().eventFdCreate(0, 0));
    const kept = ok(native().fdDup(kick));
    const setting = native().vhostSetVringKick(device.vhost, 0, native().fdNumber(kick));
    native().fdClose(kick);
    expect(await setting).toBe(0);
    const tap = ok(native().fdDup(device.tap));
    const attaching = native().vhostNetSetBackend(device.vhost, 0, native().fdNumber(tap));
    native().fdClose(tap);
    expect(await attaching).toBe(0);
    guest.post(10);
    native().eventFdSignal(kept);
    network.send(5);
    await guest.received(5);
    expect(await native().vhostNetSetBackend(device.vhost, 0, 99999)).toBe(ENOTSOCK);
    expect(await native().vhostSetVringKick(device.vhost, 0, 99999)).toBe(-9);
    native().mappingClose(memory);
    await device.close();
  });
});

describe('a device that nobody closes', () => {
  /** In a child process: `lab` is the module of this folder, attached devices under traffic are one call away. */
  const run = (script: string) =>
    inChild(`
      const lab = require(${JSON.stringify(join(__dirname, 'addon-lab.js'))});
      const network = await lab.AddonNetwork.create();
      const attach = async () => {
        const guest = new lab.AddonGuest();
        const device = await lab.AddonDevice.attach(network, guest.map());
        guest.post(lab.RING_SIZE);
        n.eventFdSignal(device.kick);
        network.send(30);
        return n.fdDup(device.error);
      };
      ${script}`);

  test('is closed by the collector, device before memory', () => {
    const result = run(`
      const open = fds();
      for (let round = 0; round < 5; round++) {
        const error = await (async () => await attach())();
        network.send(20);
        await collect();
        const errors = n.eventFdDrain(error);
        if (errors !== -11) console.log('errors', errors);
        n.fdClose(error);
        while (network.interfaces().includes('vdev')) { await collect(); }
      }
      console.log(n.mappingsLive(), fds() - open);
      await network.remove();`);
    expect(result).toMatchObject({ status: 0, signal: null, stdout: '0 0' });
  });

  test('ends with its worker', () => {
    const result = run(`
      const { Worker } = require('worker_threads');
      const code = \`
        const lab = require(${JSON.stringify(join(__dirname, 'addon-lab.js'))});
        const { workerData, parentPort } = require('worker_threads');
        (async () => {
          const network = Object.create(lab.AddonNetwork.prototype, { name: { value: workerData.name }, path: { value: workerData.path } });
          const guest = new lab.AddonGuest();
          const device = await lab.AddonDevice.attach(network, guest.map());
          guest.post(lab.RING_SIZE);
          require(${JSON.stringify(join(__dirname, '../../lib/native.js'))}).native().pollStart(device.call, 1, () => {});
          parentPort.postMessage('attached');
        })();\`;
      for (let round = 0; round < 3; round++) {
        const worker = new Worker(code, { eval: true, workerData: { name: network.name, path: network.path } });
        await new Promise((resolve, reject) => { worker.once('message', resolve); worker.once('error', reject); });
        network.send(20);
        await worker.terminate();
        if (network.interfaces().includes('vdev')) console.log('the tap is still there');
      }
      console.log(n.mappingsLive());
      await network.remove();`);
    expect(result).toMatchObject({ status: 0, signal: null, stdout: '0' });
  });

  test('ends with its process', async () => {
    const result = run(`
      await attach();
      console.log(network.name);
      process.exit(0);`);
    expect(result).toMatchObject({ status: 0, signal: null });
    const network = Object.create(AddonNetwork.prototype, { name: { value: result.stdout } }) as AddonNetwork;
    expect(network.interfaces()).not.toContain('vdev');
    expect(network.interfaces()).toContain('br0');
  });

  test('20 devices, closed in turn, leave nothing behind', () => {
    const result = run(`
      const guest = new lab.AddonGuest();
      await (await lab.AddonDevice.attach(network, guest.map())).close();
      await collect();
      const open = fds();
      for (let round = 0; round < 20; round++) {
        const memory = guest.map();
        const device = await lab.AddonDevice.attach(network, memory);
        n.mappingClose(memory);
        await device.close();
      }
      console.log(n.mappingsLive(), fds() - open);
      await network.remove();`);
    expect(result).toMatchObject({ status: 0, signal: null, stdout: '1 0' });
  });
});
