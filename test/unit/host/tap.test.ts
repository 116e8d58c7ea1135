/** Taps in a network namespace made for the purpose: needs root and /dev/net/tun. */
import { readdirSync } from 'node:fs';
import { IFF_NO_PI, IFF_TAP, IFF_VNET_HDR } from '../../../lib/constants/if-tun';
import { Netns } from '../../../lib/host/netns';
import { Tap } from '../../../lib/host/tap';
import { FaultPlan } from '../../../lib/trace/fault-plan';
import { Trace } from '../../../lib/trace/trace';
import { codeOf, errorOf, until } from '../../helpers/vhost-wait';

let netns: Netns;
beforeAll(async () => {
  netns = await Netns.create();
});
afterAll(() => netns.delete());

/** BPF: answer with a constant. */
function bpfReturn(value: number): Uint8Array {
  const program = new DataView(new ArrayBuffer(8));
  program.setUint16(0, 0x06, true);
  program.setUint32(4, value, true);
  return new Uint8Array(program.buffer);
}

test('opens up, in the namespace, with what it was asked for', async () => {
  await using tap = await Tap.open({ netns: netns.path, name: 'one' });
  expect([tap.name, tap.netns]).toEqual(['one', netns.path]);
  expect(tap.flags & (IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)).toBe(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR);
  expect(await tap.interface.isUp()).toBe(true);
  await tap.down();
  expect(await tap.interface.isUp()).toBe(false);
  await tap.up();
  expect(await netns.ip('-o', 'link')).toMatch(/ one: /);
  await tap.close();
  await tap.close();
  expect(await netns.ip('-o', 'link')).not.toMatch(/ one: /);
});

test('options are set and read', async () => {
  await using tap = await Tap.open({ netns: netns.path });
  expect(tap.vnetHdrSize).toBe(10);
  await tap.setVnetHdrSize(12);
  expect(tap.vnetHdrSize).toBe(12);
  expect((await errorOf(tap.setVnetHdrSize(9))).hint).toMatch(/at least 10/);
  expect(tap.features & IFF_TAP).toBe(IFF_TAP);
  expect(await codeOf(tap.setOffload(0x2))).toBe('EINVAL');
  expect((await tap.setBestOffload(0x1ff)) & 0x7).toBe(0x7);
  expect(await tap.setBestOffload(0)).toBe(0);
  expect(await tap.txQueueLen()).toBe(1000);
  await tap.setTxQueueLen(1064);
  expect(await tap.txQueueLen()).toBe(1064);
  await tap.setMtu(9000);
  expect(await tap.mtu()).toBe(9000);
  expect(tap.sndbuf).toBe(2 ** 31 - 1);
  await tap.setSndbuf(65536);
  expect(tap.sndbuf).toBe(65536);
  await tap.setMac(Uint8Array.of(2, 0, 0, 0, 0, 9));
  expect([...tap.mac]).toEqual([2, 0, 0, 0, 0, 9]);
  await tap.setVnetLittleEndian(true);
  expect(tap.vnetLittleEndian).toBe(true);
  await tap.setCarrier(false);
  await tap.setCarrier(true);
  await tap.setPersist(true);
  await tap.setPersist(false);
});

test('filters: what is attached can be read back; lists the kernel would not obey are refused', async () => {
  await using tap = await Tap.open({ netns: netns.path });
  await tap.attachFilter(bpfReturn(0));
  expect([...(await tap.filter())]).toEqual([...bpfReturn(0)]);
  await tap.detachFilter();
  expect(await codeOf(tap.attachFilter(new Uint8Array(0)))).toMatch(/EINVAL|VHOST_ERR_INVALID_ARGUMENT/);
  await tap.setTxFilter(0, Uint8Array.of(0xff, 0xff, 0xff, 0xff, 0xff, 0xff));
  await tap.setTxFilter(0, new Uint8Array(0));
  expect(await codeOf(tap.setTxFilter(0, new Uint8Array(54)))).toBe('VHOST_ERR_INVALID_ARGUMENT');
});

test('frames go over a bridge from tap to tap, and are counted', async () => {
  const flags = IFF_TAP | IFF_NO_PI;
  await using a = await Tap.open({ netns: netns.path, name: 'left', flags });
  await using b = await Tap.open({ netns: netns.path, name: 'right', flags });
  await netns.addBridge('bridge', ['left']);
  await netns.attach('bridge', 'right');
  const out = new Uint8Array(3 * 64);
  for (let i = 0; i < 3; i++) out.set([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x88, 0xb5, i], i * 64);
  const arena = new Uint8Array(4 * 2048);
  const lengths = new Int32Array(4);
  expect(b.readFrames(arena, 2048, 4, lengths)).toBe(0);
  expect(a.writeFrames(out, 64, 3, Int32Array.of(60, 61, 62))).toBe(3);
  let count = 0;
  await until('three frames', () => {
    count += b.readFrames(arena.subarray(count * 2048), 2048, 4 - count, lengths.subarray(count));
    return count === 3;
  });
  expect([...lengths.subarray(0, 3)]).toEqual([60, 61, 62]);
  expect([arena[14], arena[2048 + 14], arena[4096 + 14]]).toEqual([0, 1, 2]);
  expect((await b.stats()).tx.packets).toBe(3);
  expect((await a.stats()).rx.bytes).toBe(60 + 61 + 62);
});

test('queues of a multiqueue tap; one without is opened once', async () => {
  const queues = await Tap.openQueues(3, { netns: netns.path, name: 'many' });
  expect(queues.map(({ name }) => name)).toEqual(['many', 'many', 'many']);
  expect(queues.every(({ multiQueue }) => multiQueue)).toBe(true);
  await queues[1]!.setQueue('detach');
  await queues[1]!.setQueue('attach');
  expect(await codeOf(queues[1]!.setQueue('attach'))).toBe('EINVAL');
  const before = readdirSync('/proc/self/fd').length;
  const error = await errorOf(Tap.open({ netns: netns.path, name: 'many' }));
  expect([error.code, error.syscall]).toEqual(['EINVAL', 'TUNSETIFF']);
  expect(error.hint).toMatch(/IFF_MULTI_QUEUE/);
  expect(readdirSync('/proc/self/fd').length).toBe(before);
  for (const queue of queues) await queue.close();
  await using single = await Tap.open({ netns: netns.path, name: 'single' });
  expect(single.multiQueue).toBe(false);
  expect(await codeOf(Tap.open({ netns: netns.path, name: 'single' }))).toBe('EBUSY');
  expect(await codeOf(single.setQueue('detach'))).toBe('EINVAL');
});

test('one user at a time', async () => {
  await using tap = await Tap.open({ netns: netns.path });
  const release = tap.claim('the first');
  expect(() => tap.claim('the second')).toThrow(/in use by the first/);
  expect(() => tap.readFrames(new Uint8Array(64), 64, 1, new Int32Array(1))).toThrow(/in use by the first/);
  release();
  release();
  const again = tap.claim('the second');
  release();
  expect(() => tap.claim('the third')).toThrow(/in use by the second/);
  again();
  const [one, two] = await Tap.openQueues(2, { netns: netns.path });
  const releases = [one!.claim('one'), two!.claim('two')];
  expect(() => one!.claim('three')).toThrow(/in use by one/);
  for (const give of releases) give();
  await one!.close();
  await two!.close();
});

test('failures have code, ioctl, interface; a closed tap says so; every ioctl is traced and can fail', async () => {
  const trace = new Trace();
  const faults = new FaultPlan().fail('TUNSETVNETHDRSZ', { errno: 1 });
  const tap = await Tap.open({ netns: netns.path, name: 'watched', trace, faults });
  const error = await errorOf(tap.setVnetHdrSize(12));
  expect([error.code, error.syscall, error.path]).toEqual(['EPERM', 'TUNSETVNETHDRSZ', 'watched']);
  await tap.close();
  expect(trace.ioctls()).toEqual(['TUNSETIFF', 'TUNSETVNETHDRSZ', 'close']);
  for (const use of [() => tap.fd, () => tap.name, () => tap.vnetHdrSize, () => tap.claim('x')]) {
    expect(use).toThrow(expect.objectContaining({ code: 'VHOST_ERR_CLOSED' }));
  }
  expect(await codeOf(tap.setCarrier(true))).toBe('VHOST_ERR_CLOSED');
  expect(await codeOf(Tap.open({ name: 'a-name-that-is-too-long' }))).toBe('VHOST_ERR_INVALID_ARGUMENT');
  const missing = await errorOf(Tap.open({ netns: netns.path, device: '/dev/no-such-tun' }));
  expect([missing.code, missing.path]).toEqual(['ENOENT', '/dev/no-such-tun']);
  const nowhere = await errorOf(Tap.open({ netns: '/run/netns/no-such-namespace' }));
  expect([nowhere.code, nowhere.syscall, nowhere.path]).toEqual(['ENOENT', 'open', '/run/netns/no-such-namespace']);
});
