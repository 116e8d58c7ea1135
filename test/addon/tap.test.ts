import { statSync } from 'node:fs';
import {
  IFF_ATTACH_QUEUE,
  IFF_DETACH_QUEUE,
  IFF_MULTI_QUEUE,
  IFF_NO_PI,
  IFF_TAP,
  IFF_VNET_HDR,
  SIOCGIFFLAGS,
  SIOCGIFINDEX,
  SIOCGIFMTU,
  SIOCGIFTXQLEN,
  SIOCSIFMTU,
  SIOCSIFTXQLEN,
} from '../../lib/constants/if-tun';
import type { FdHandle } from '../../lib/native';
import { native } from '../../lib/native';
import { EAGAIN, EINVAL, ENOENT, inChild, ip, makeNetns, ok, until } from './support';

const FLAGS = IFF_TAP | IFF_NO_PI;
const DEVICE = '/dev/net/tun';

describe('taps in a network namespace', () => {
  const netns = makeNetns();
  afterAll(() => netns.remove());

  const open = async (name: string, flags = FLAGS): Promise<{ fd: FdHandle; name: string }> =>
    ok(await native().tapOpen(DEVICE, netns.path, name, flags));

  test('the interface appears there, up, and nowhere else', async () => {
    const { fd, name } = await open('vhnt%d');
    expect(ip('-n', netns.name, '-br', 'link', 'show', name)).toMatch(/UP/);
    expect(ip('-br', 'link')).not.toContain(name);
    expect(native().tunGetIff(fd)).toMatchObject({ name });
    expect(await native().netdevIoctl(netns.path, name, SIOCGIFFLAGS, 0)).toBeGreaterThan(0);
    expect(await native().netdevIoctl(null, name, SIOCGIFINDEX, 0)).toBe(-19);
    native().fdClose(fd);
    await until(() => !ip('-n', netns.name, 'link').includes(`${name}:`));
  });

  test('refusals', async () => {
    expect(await native().tapOpen(DEVICE, '/run/netns/none', 'x', FLAGS)).toBe(ENOENT);
    expect(await native().tapOpen('/dev/none', netns.path, 'x', FLAGS)).toBe(ENOENT);
    expect(await native().tapOpen(DEVICE, netns.path, 'sixteen-is-too-l', FLAGS)).toBe(EINVAL);
    expect(await native().tapOpen(DEVICE, netns.path, 'x', 0)).toBe(EINVAL);
    const { fd } = await open('once');
    expect(await native().tapOpen(DEVICE, netns.path, 'once', FLAGS)).toBe(-16);
    expect(await native().netdevIoctl(netns.path, 'once', 0x8927, 0)).toBe(EINVAL);
    native().fdClose(fd);
  });

  test('two queues of one interface', async () => {
    const one = await open('mq', FLAGS | IFF_MULTI_QUEUE);
    const two = await open('mq', FLAGS | IFF_MULTI_QUEUE);
    expect(two.name).toBe('mq');
    expect(await native().tunSetQueue(two.fd, IFF_DETACH_QUEUE)).toBe(0);
    expect(await native().tunSetQueue(two.fd, IFF_ATTACH_QUEUE)).toBe(0);
    expect(await native().tunSetQueue(two.fd, IFF_ATTACH_QUEUE)).toBe(EINVAL);
    native().fdClose(one.fd);
    native().fdClose(two.fd);
  });

  test('options are read back', async () => {
    const { fd, name } = await open('opt', FLAGS | IFF_VNET_HDR);
    expect(native().tunGetVnetHdrSz(fd)).toBe(10);
    expect(await native().tunSetVnetHdrSz(fd, 12)).toBe(0);
    expect(native().tunGetVnetHdrSz(fd)).toBe(12);
    expect(await native().tunSetVnetHdrSz(fd, 9)).toBe(EINVAL);
    expect(native().tunGetSndbuf(fd)).toBe(0x7fffffff);
    expect(await native().tunSetSndbuf(fd, 65536)).toBe(0);
    expect(native().tunGetSndbuf(fd)).toBe(65536);
    expect(await native().tunSetVnetLe(fd, 1)).toBe(0);
    expect(native().tunGetVnetLe(fd)).toBe(1);
    expect(native().tunGetVnetBe(fd)).toBeLessThanOrEqual(0);
    expect(await native().tunSetOffload(fd, 1)).toBe(0);
    expect(await native().tunSetOffload(fd, 2)).toBe(EINVAL);
    expect(native().tunGetFeatures(fd) & IFF_MULTI_QUEUE).toBe(IFF_MULTI_QUEUE);
    expect(await native().tunSetPersist(fd, 0)).toBe(0);
    expect(await native().tunSetOwner(fd, 1000)).toBe(0);
    expect(await native().tunSetGroup(fd, 1000)).toBe(0);
    const mac = new Uint8Array([2, 1, 2, 3, 4, 5]);
    expect(await native().tapSetHwaddr(fd, mac)).toBe(0);
    expect(native().tapGetHwaddr(fd)).toEqual(mac);
    expect(await native().tunSetTxFilter(fd, 0, mac)).toBe(1);
    expect(await native().tunSetTxFilter(fd, 0, new Uint8Array(0))).toBe(0);
    expect(() => native().tunSetTxFilter(fd, 0, new Uint8Array(5))).toThrow(/6 bytes/);
    expect(await native().netdevIoctl(netns.path, name, SIOCGIFTXQLEN, 0)).toBe(1000);
    expect(await native().netdevIoctl(netns.path, name, SIOCSIFTXQLEN, 1064)).toBe(0);
    expect(await native().netdevIoctl(netns.path, name, SIOCGIFTXQLEN, 0)).toBe(1064);
    expect(await native().netdevIoctl(netns.path, name, SIOCSIFMTU, 4000)).toBe(0);
    expect(await native().netdevIoctl(netns.path, name, SIOCGIFMTU, 0)).toBe(4000);
    expect(await native().tunSetSteeringEbpf(fd, -1)).toBe(0);
    expect(await native().tunSetFilterEbpf(fd, -1)).toBe(0);
    const where = ok(native().tunGetDevNetns(fd));
    expect(statSync(`/proc/self/fd/${native().fdNumber(where)}`).ino).toBe(statSync(netns.path).ino);
    native().fdClose(where);
    expect(await native().fdCloseAsync(fd)).toBe(0);
  });

  test('a filter is told by the handle that attached it, and its duplicates', async () => {
    const { fd } = await open('filter');
    const drop = new Uint8Array([6, 0, 0, 0, 0, 0, 0, 0]);
    expect(await native().tunGetFilter(fd)).toEqual(new Uint8Array(0));
    expect(await native().tunAttachFilter(fd, new Uint8Array(0))).toBe(EINVAL);
    expect(await native().tunAttachFilter(fd, drop)).toBe(0);
    const copy = ok(native().fdDup(fd));
    expect(await native().tunGetFilter(copy)).toEqual(drop);
    expect(await native().tunDetachFilter(copy)).toBe(0);
    expect(await native().tunGetFilter(fd)).toEqual(new Uint8Array(0));
    native().fdClose(copy);
    native().fdClose(fd);
  });

  test('opening and closing leaks no descriptor', () => {
    const { stdout } = inChild(`
      await n.membarrier();
      const before = fds();
      for (let i = 0; i < 30; i++) {
        const tap = ok(await n.tapOpen('${DEVICE}', '${netns.path}', 'leak', ${FLAGS}));
        await n.fdCloseAsync(tap.fd);
      }
      console.log(fds() - before);`);
    expect(stdout).toBe('0');
  });
});

describe('frames between two taps on a bridge', () => {
  const STRIDE = 2048;
  const MAX = 64;
  /** Broadcast from an address that a bridge forwards, local experimental EtherType. */
  const HEADER = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x88, 0xb5];
  const netns = makeNetns();
  let left: FdHandle;
  let right: FdHandle;

  beforeAll(async () => {
    ip(
      '-n',
      netns.name,
      'link',
      'add',
      'br0',
      'type',
      'bridge',
      'forward_delay',
      '0',
      'stp_state',
      '0',
      'mcast_snooping',
      '0',
    );
    ip('-n', netns.name, 'link', 'set', 'br0', 'up');
    left = ok(await native().tapOpen(DEVICE, netns.path, 'left', FLAGS)).fd;
    right = ok(await native().tapOpen(DEVICE, netns.path, 'right', FLAGS)).fd;
    for (const port of ['left', 'right']) ip('-n', netns.name, 'link', 'set', port, 'master', 'br0');
  });
  afterAll(async () => {
    await Promise.all([native().fdCloseAsync(left), native().fdCloseAsync(right)]);
    netns.remove();
  });

  test('arrive whole and in order, in batches', async () => {
    const out = new Uint8Array(MAX * STRIDE);
    const into = new Uint8Array(MAX * STRIDE);
    const lengths = new Int32Array(MAX);
    const got = new Int32Array(MAX);
    expect(native().framesRead(right, into, STRIDE, MAX, got)).toBe(EAGAIN);
    let sent = 0;
    let received = 0;
    for (let batch = 0; batch < 10; batch++) {
      for (let i = 0; i < MAX; i++) {
        const frame = out.subarray(i * STRIDE, i * STRIDE + 60 + ((sent + i) % 1400));
        frame.fill((sent + i) & 0xff);
        frame.set(HEADER);
        new DataView(frame.buffer, frame.byteOffset).setUint32(14, sent + i);
        lengths[i] = frame.length;
      }
      expect(native().framesWrite(left, out, STRIDE, MAX, lengths)).toBe(MAX);
      sent += MAX;
      await until(() => {
        const count = native().framesRead(right, into, STRIDE, MAX, got);
        for (let i = 0; i < count; i++) {
          const view = new DataView(into.buffer, i * STRIDE);
          expect([view.getUint32(14), got[i]]).toEqual([received, 60 + (received % 1400)]);
          expect(view.getUint8((got[i] ?? 0) - 1)).toBe(received & 0xff);
          received++;
        }
        return received === sent;
      });
    }
    expect(received).toBe(640);
    expect(native().framesRead(right, into, STRIDE, MAX, got)).toBe(EAGAIN);
  });

  test('a frame that the tap refuses ends the batch', () => {
    const arena = new Uint8Array(3 * STRIDE).fill(0xff);
    expect(native().framesWrite(left, arena, STRIDE, 3, new Int32Array([60, 3, 60]))).toBe(1);
    expect(native().framesWrite(left, arena, STRIDE, 1, new Int32Array([3]))).toBe(EINVAL);
    expect(native().framesWrite(left, arena, STRIDE, 1, new Int32Array([STRIDE + 1]))).toBe(EINVAL);
    expect(native().framesWrite(left, arena, STRIDE, 0, new Int32Array(0))).toBe(0);
  });

  test('an attached filter drops what it says, and only until it is detached', async () => {
    const arena = new Uint8Array(STRIDE);
    arena.set(HEADER);
    const got = new Int32Array(1);
    const send = () => native().framesWrite(left, arena, STRIDE, 1, new Int32Array([60]));
    while (native().framesRead(right, new Uint8Array(STRIDE), STRIDE, 1, got) > 0);
    expect(await native().tunAttachFilter(right, new Uint8Array([6, 0, 0, 0, 0, 0, 0, 0]))).toBe(0);
    expect(send()).toBe(1);
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(native().framesRead(right, new Uint8Array(STRIDE), STRIDE, 1, got)).toBe(EAGAIN);
    expect(await native().tunDetachFilter(right)).toBe(0);
    expect(send()).toBe(1);
    await until(() => native().framesRead(right, new Uint8Array(STRIDE), STRIDE, 1, got) === 1);
    expect(got[0]).toBe(60);
  });
});
