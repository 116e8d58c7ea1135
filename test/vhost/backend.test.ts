/** The kernel backend as a whole: what it refuses, how it fails, and what it does when a guest breaks its rings. */

import { openSync, readlinkSync } from 'node:fs';
import { prepareTap } from '../../lib/backend/tap-features';
import { VhostKernelBackend } from '../../lib/backend/vhost-kernel';
import { IFF_NO_PI, IFF_TAP } from '../../lib/constants/if-tun';
import { Tap } from '../../lib/host/tap';
import { VhostNet } from '../../lib/host/vhost-net';
import { DirtyLog } from '../../lib/memory/dirty-log';
import { native } from '../../lib/native';
import { Trace } from '../../lib/trace/trace';
import { clean } from '../helpers/vhost-frames';
import { BUFFERS, HEADER, MRG_RXBUF, RAM, RAM_SIZE, VERSION_1, VhostLab } from '../helpers/vhost-lab';
import { VIRTQ_DESC_F_WRITE } from '../helpers/vhost-ring';
import { Traffic } from '../helpers/vhost-traffic';
import { codeOf, errorOf, sleep, until } from '../helpers/vhost-wait';

describe('before anything is attached', () => {
  test('a tap with another header size is refused, naming both sizes', async () => {
    await using lab = await VhostLab.create();
    await lab.tap.setVnetHdrSize(10);
    const error = await errorOf(lab.start());
    expect(error.code).toBe('VHOST_ERR_HEADER_SIZE');
    expect(error.message).toMatch(/headers of 10 bytes.* need 12/);
    expect(error.hint).toMatch(/prepareTap/);
    expect(lab.backend.running).toBe(false);
    await prepareTap(lab.tap, lab.features);
    expect(lab.tap.vnetHdrSize).toBe(12);
    await lab.start();
  });

  test('likewise a tap without any header; prepareTaps sets the size', async () => {
    await using lab = await VhostLab.create({ features: 0n, backend: { prepareTaps: true } });
    await lab.start();
    expect(lab.tap.vnetHdrSize).toBe(10);
    await using bare = await Tap.open({ netns: lab.netns.path, flags: IFF_TAP | IFF_NO_PI });
    const backend = new VhostKernelBackend({ taps: [bare] });
    expect((await errorOf(backend.start(lab))).message).toMatch(/0 bytes/);
    await backend.close();
  });

  test('the same tap is not given to two devices, nor read under one', async () => {
    await using lab = await VhostLab.create();
    await lab.start();
    const second = new VhostKernelBackend({ taps: [lab.tap] });
    const error = await errorOf(second.start(lab));
    expect([error.code, second.running]).toEqual(['VHOST_ERR_STATE', false]);
    expect(error.message).toMatch(/in use/);
    expect(() => lab.tap.readFrames(new Uint8Array(2048), 2048, 1, new Int32Array(1))).toThrow(/in use/);
    await lab.stop();
    await second.start(lab);
    expect(await codeOf(lab.start())).toBe('VHOST_ERR_STATE');
    await second.close();
    await lab.start();
    expect(() => new VhostKernelBackend({ taps: [lab.tap, lab.tap] })).toThrow(/one tap/);
  });

  test('features that the data path cannot carry, rings outside memory, a ring without memory', async () => {
    await using lab = await VhostLab.create({ features: VERSION_1 | (1n << 34n) });
    expect((await errorOf(lab.start())).code).toBe('VHOST_ERR_FEATURES');
    await using other = await VhostLab.create();
    other.queues = [other.rx.state({ descTable: (RAM + RAM_SIZE - 16) as never }), other.tx.state()];
    expect(await codeOf(other.start())).toBe('VHOST_ERR_MEMORY_TABLE');
    other.queues = [other.rx.state({ size: 3 }), other.tx.state()];
    expect(await codeOf(other.start())).toBe('EINVAL');
    other.queues = [other.rx.state(), other.tx.state()];
    await other.start();
    expect(await codeOf(other.start())).toBe('VHOST_ERR_STATE');
  });

  test('bits that are private to the host never reach the kernel from a driver', async () => {
    const trace = new Trace();
    await using lab = await VhostLab.create({ features: VERSION_1 | (1n << 27n) | 1n, backend: { trace } });
    await lab.start();
    const set = trace.records.find((record) => record.kind === 'ioctl' && record.name === 'VHOST_SET_FEATURES');
    expect(set).toMatchObject({ args: { features: VERSION_1 } });
    expect(lab.backend.offeredFeatures & ((1n << 26n) | (1n << 27n) | (1n << 33n) | (1n << 35n))).toBe(0n);
  });

  test('a descriptor of /dev/vhost-net that was handed in is used and closed', async () => {
    const fd = openSync('/dev/vhost-net', 'r+');
    await using lab = await VhostLab.create({ backend: { vhostFds: [fd] } });
    await lab.start();
    expect(lab.backend.vhosts[0]!.fd).toBe(fd);
    await lab.backend.close();
    expect(() => readlinkSync(`/proc/self/fd/${fd}`)).toThrow();
    expect(await codeOf(lab.start())).toBe('VHOST_ERR_CLOSED');
  });
});

test('the order of what the kernel is told', async () => {
  const trace = new Trace();
  await using lab = await VhostLab.create({ backend: { trace } });
  await lab.start();
  await lab.stop();
  await lab.backend.close();
  const ring = ['NUM', 'BASE', 'ADDR', 'ERR', 'CALL', 'KICK'].map((what) => `VHOST_SET_VRING_${what}`);
  expect(trace.ioctls()).toEqual([
    'open',
    'VHOST_SET_OWNER',
    'VHOST_GET_FEATURES',
    'VHOST_SET_FEATURES',
    'VHOST_SET_MEM_TABLE',
    ...ring,
    ...ring,
    'VHOST_NET_SET_BACKEND',
    'VHOST_NET_SET_BACKEND',
    'VHOST_NET_SET_BACKEND',
    'VHOST_NET_SET_BACKEND',
    'VHOST_GET_VRING_BASE',
    'VHOST_GET_VRING_BASE',
    'close',
  ]);
});

test('two queue pairs: every ioctl goes to both descriptors, frames go over both', async () => {
  const trace = new Trace();
  await using lab = await VhostLab.create();
  await using two = await VhostLab.create();
  await using backend = new VhostKernelBackend({ taps: [lab.tap, two.tap], trace });
  // The second pair's rings are another lab's: its memory comes in as one more region would, at the same place in the first.
  const copy = two.memory.read(RAM, two.tx.end - RAM);
  lab.memory.write(BUFFERS - 0x100000, copy);
  const moved = two.queues.map((queue) => ({
    ...queue,
    descTable: (queue.descTable + 0x100000) as typeof queue.descTable,
    availRing: (queue.availRing + 0x100000) as typeof queue.availRing,
    usedRing: (queue.usedRing + 0x100000) as typeof queue.usedRing,
  }));
  await backend.start({
    ...lab,
    memory: lab.memory,
    queues: [...lab.queues, ...moved],
    notifiers: [...lab.notifiers, ...two.notifiers],
  });
  const [first, second] = backend.vhosts.map((vhost) => trace.ioctls(vhost.fd));
  expect(second).toEqual(first);
  lab.guest.refill();
  lab.peer.send(5);
  await until('frames on pair 0', () => lab.guest.receive() > 0 || lab.guest.tally.received === 5);
  const queues = await backend.stop();
  expect(queues.map(({ nextAvail }) => nextAvail)).toEqual([lab.rx.usedIdx, 0, 0, 0]);
  expect(
    await codeOf(
      new VhostKernelBackend({ taps: [lab.tap] }).start({
        ...lab,
        queues: [...lab.queues, ...moved],
        notifiers: [...lab.notifiers, ...two.notifiers],
      }),
    ),
  ).toBe('VHOST_ERR_INVALID_ARGUMENT');
});

test('mergeable receive buffers: a frame over several of them', async () => {
  await using lab = await VhostLab.create({ features: VERSION_1 | MRG_RXBUF });
  await lab.start();
  for (let id = 0; id < 8; id++) lab.rx.post(id, BUFFERS + id * 4096, 256, VIRTQ_DESC_F_WRITE);
  lab.kick(0);
  lab.peer.sendLong(1000);
  await until('four buffers are used', () => lab.rx.usedIdx === 4);
  expect([0, 1, 2, 3].reduce((sum, index) => sum + lab.rx.usedLength(index), 0)).toBe(1000 + HEADER);
  expect(lab.memory.read(BUFFERS + 10, 2)[0]).toBe(4);
});

describe('a guest that breaks its rings', () => {
  test('a transmit buffer outside memory: reported, the rest runs on; repaired and kicked it goes on', async () => {
    await using lab = await VhostLab.create();
    await lab.start();
    lab.tx.post(0, RAM + RAM_SIZE + 4096, 72, 0);
    lab.kick(1);
    await until('the error', () => lab.faults.some(({ queue }) => queue === 1));
    expect(lab.faults[0]!.message).toMatch(/error eventfd/);
    expect(lab.tx.usedIdx).toBe(0);
    lab.guest.refill();
    lab.peer.send(20);
    await until('the other ring serves', () => lab.rx.waiting === 20);
    lab.tx.setDescriptor(0, lab.guest.txBuffer(0), 72, 0);
    lab.kick(1);
    await until('it goes on', () => lab.tx.usedIdx === 1);
    await lab.stop();
    expect(lab.backend.stoppedRings.map(({ base, usedIdx }) => base - usedIdx)).toEqual([0, 0]);
  });

  test.each([
    ['a head beyond the ring', (lab: VhostLab) => lab.tx.offer(1000)],
    [
      'a chain that loops',
      (lab: VhostLab) => {
        lab.tx.setDescriptor(0, BUFFERS, 12, 1, 1);
        lab.tx.setDescriptor(1, BUFFERS, 60, 1, 0);
        lab.tx.offer(0);
      },
    ],
    [
      'an indirect table that was not negotiated',
      (lab: VhostLab) => {
        lab.tx.setDescriptor(0, BUFFERS, 20, 4);
        lab.tx.offer(0);
      },
    ],
  ])('%s: reported, nothing consumed', async (_name, breakIt) => {
    await using lab = await VhostLab.create();
    await lab.start();
    breakIt(lab);
    lab.tx.publish();
    lab.kick(1);
    await until('the error', () => lab.faults.some(({ queue }) => queue === 1));
    await lab.stop();
    expect(lab.backend.stoppedRings[1]).toEqual({ queue: 1, base: 0, usedIdx: 0 });
  });

  test('a writable transmit buffer is consumed and never completed: stop says so and goes on', async () => {
    await using lab = await VhostLab.create();
    await lab.start();
    lab.tx.post(0, lab.guest.txBuffer(0), 72, VIRTQ_DESC_F_WRITE);
    lab.kick(1);
    await until('the error', () => lab.faults.some(({ queue }) => queue === 1));
    await lab.stop();
    expect(lab.backend.stoppedRings[1]).toEqual({ queue: 1, base: 1, usedIdx: 0 });
    expect(lab.faults.at(-1)!.message).toMatch(/base 1 is not used->idx 0/);
    expect(lab.queues[1]!.nextAvail).toBe(1);
  });

  test('an available index far ahead', async () => {
    await using lab = await VhostLab.create();
    await lab.start();
    for (let i = 0; i < 1000; i++) lab.tx.offer(0);
    lab.tx.publish();
    lab.kick(1);
    await until('the error', () => lab.faults.some(({ queue }) => queue === 1));
    await lab.stop();
    expect(lab.backend.stoppedRings[1]!.base).toBe(0);
  });
});

describe('memory that comes and goes while the device runs', () => {
  test('a buffer in a new region is filled; the region leaves again', async () => {
    await using lab = await VhostLab.create();
    const stopListening = lab.memory.onChange(() => lab.backend.memoryChanged());
    await lab.start();
    const far = 0x1_4000_0000;
    await lab.memory.addRegion({ gpa: far, size: 0x10000 });
    lab.rx.post(0, far + 4096, 2048, VIRTQ_DESC_F_WRITE);
    lab.kick(0);
    lab.peer.send(1);
    await until('the frame is used', () => lab.rx.usedIdx === 1);
    expect([...lab.memory.read(far + 4096 + HEADER, 6)]).toEqual([0x52, 0x54, 0, 0, 0, 1]);
    await lab.memory.removeRegion(far);
    lab.rx.post(1, far + 4096, 2048, VIRTQ_DESC_F_WRITE);
    lab.kick(0);
    lab.peer.send(1);
    await until('the region is gone for the kernel too', () => lab.faults.length > 0);
    expect(lab.rx.usedIdx).toBe(1);
    stopListening();
  });

  test('under traffic, with logging on: the log must have grown first', async () => {
    await using lab = await VhostLab.create();
    const stopListening = lab.memory.onChange(() => lab.backend.memoryChanged());
    const small = DirtyLog.create(lab.memory.end);
    await lab.backend.setDirtyLog(small);
    await lab.start();
    const traffic = new Traffic(lab);
    traffic.start();
    const far = 0x1_4000_0000;
    expect(await codeOf(lab.memory.addRegion({ gpa: far, size: 0x10000 }))).toBe('VHOST_ERR_LOG_SIZE');
    const large = DirtyLog.create(far + 0x10000);
    await lab.backend.setDirtyLog(large);
    for (let round = 0; round < 10; round++) {
      await lab.memory.addRegion({ gpa: far, size: 0x10000 });
      await lab.memory.removeRegion(far);
    }
    await traffic.drain();
    expect(lab.guest.tally.report(lab.peer.sent)).toEqual(clean(lab.peer.sent));
    expect(lab.peer.tally.report(lab.guest.sent)).toEqual(clean(lab.guest.sent));
    stopListening();
    small.close();
    large.close();
  });
});

test('guest memory is unmapped only after the device has let go of it', async () => {
  const before = native().mappingsLive();
  const lab = await VhostLab.create();
  await lab.start();
  lab.guest.refill();
  // The owner forgets the order: what the device holds stays mapped, and frames still find their place.
  lab.memory.close();
  lab.peer.send(10);
  await sleep(100);
  expect(native().mappingsLive()).toBeGreaterThan(before);
  await lab.close();
  expect(native().mappingsLive()).toBe(before);
});

test('VhostNet and backend close in any order, twice', async () => {
  const lab = await VhostLab.create();
  await lab.start();
  const [vhost] = lab.backend.vhosts;
  await Promise.all([lab.backend.close(), lab.backend.close()]);
  expect(vhost!.closed).toBe(true);
  await lab.close();
  expect(await VhostNet.open().then(async (other) => other.close().then(() => 'ok'))).toBe('ok');
});
