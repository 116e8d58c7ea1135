import { closeSync, fstatSync, readlinkSync } from 'node:fs';
import { AF_INET, AF_INET6, AF_UNIX, SO_DOMAIN, SOCK_STREAM, SOL_SOCKET } from '../../lib/constants/socket';
import { native } from '../../lib/native';
import { EAGAIN, EINVAL, ENOENT, inChild, makeNetns, ok, until } from './support';

const create = async (family: number, netns: string | null = null) =>
  ok(await native().socketCreate(netns, family, SOCK_STREAM));

describe('sockets', () => {
  test.each([AF_UNIX, AF_INET, AF_INET6])('of family %d', async (family) => {
    const fd = await create(family);
    expect(native().socketGetOption(fd, SOL_SOCKET, SO_DOMAIN)).toBe(family);
    native().fdClose(fd);
  });

  test('of no other family, and of no namespace that is not there', async () => {
    expect(await native().socketCreate(null, 16, SOCK_STREAM)).toBe(-97);
    expect(await native().socketCreate('/run/netns/none', AF_INET, SOCK_STREAM)).toBe(ENOENT);
  });

  test('belong to the namespace that they were made in', async () => {
    const [one, other] = [makeNetns(), makeNetns()];
    try {
      const name = `@vhost-net-${process.pid}`;
      const listener = await create(AF_UNIX, one.path);
      expect(native().socketBind(listener, name, 0)).toBe(0);
      expect(native().socketListen(listener, 1)).toBe(0);
      const [inside, outside] = [await create(AF_UNIX, one.path), await create(AF_UNIX, other.path)];
      expect(native().socketConnect(inside, name, 0)).toBe(0);
      expect(native().socketConnect(outside, name, 0)).toBe(-111);
      for (const fd of [listener, inside, outside]) native().fdClose(fd);
    } finally {
      one.remove();
      other.remove();
    }
  });

  test('names come back as they were given', async () => {
    const fd = await create(AF_INET6);
    expect(native().socketLocalName(fd)).toEqual({ host: '::', port: 0 });
    expect(native().socketPeerName(fd)).toBe(-107);
    expect(native().socketBind(fd, '127.0.0.1', 0)).toBe(EINVAL);
    expect(() => native().socketBind(fd, '::1', 65_536)).toThrow(expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' }));
    expect(native().socketBind(fd, '::1', 0)).toBe(0);
    expect(native().socketLocalName(fd)).toEqual({ host: '::1', port: expect.any(Number) });
    native().fdClose(fd);
  });
});

describe('descriptors in messages', () => {
  test('arrive as handles, in order; what is no handle is refused', () => {
    const [one, other] = ok(native().socketPair());
    const fds = [ok(native().memfdCreate('a', 4096, 0)), ok(native().memfdCreate('b', 8192, 0))];
    expect(native().socketReceiveDescriptors(other, new Uint8Array(1), 1)).toBe(EAGAIN);
    expect(() => native().socketSendDescriptors(one, new Uint8Array(1), [7 as never])).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_ARG_TYPE' }),
    );
    expect(native().socketSendDescriptors(one, new Uint8Array(0), [])).toBe(EINVAL);
    expect(native().socketSendDescriptors(one, Uint8Array.of(1, 2), fds)).toBe(2);
    const target = new Uint8Array(8);
    const got = ok<{ bytes: number; fds: typeof fds }>(native().socketReceiveDescriptors(other, target, 2));
    expect(got.bytes).toBe(2);
    expect([...target.subarray(0, 2)]).toEqual([1, 2]);
    expect(got.fds.map((fd) => fstatSync(native().fdNumber(fd)).size)).toEqual([4096, 8192]);
    for (const fd of [one, other, ...fds, ...got.fds]) native().fdClose(fd);
  });

  test('1000 messages, half of them refused, leak no descriptor', () => {
    const { stdout, stderr } = inChild(`
      const [one, other] = ok(n.socketPair());
      const fd = ok(n.memfdCreate('m', 4096, 0));
      const before = fds();
      for (let i = 0; i < 1000; i++) {
        ok(n.socketSendDescriptors(one, new Uint8Array(1), [fd, fd, fd]));
        const got = n.socketReceiveDescriptors(other, new Uint8Array(1), i % 2 === 0 ? 3 : 2);
        if (i % 2 === 0) for (const each of ok(got).fds) n.fdClose(each);
        else if (got !== -90) throw new Error('refused with ' + got);
      }
      console.log(fds() - before);`);
    expect(stderr).toBe('');
    expect(stdout).toBe('0');
  });

  test('what nobody remembers is closed by the garbage collector', () => {
    const { stdout } = inChild(`
      const [one, other] = ok(n.socketPair());
      const before = fds();
      (() => {
        const fd = ok(n.memfdCreate('m', 4096, 0));
        for (let i = 0; i < 20; i++) {
          ok(n.socketSendDescriptors(one, new Uint8Array(1), [fd]));
          ok(n.socketReceiveDescriptors(other, new Uint8Array(1), 1));
        }
      })();
      await collect();
      console.log(fds() - before);`);
    expect(stdout).toBe('0');
  });
});

test('a released descriptor outlives its handle', async () => {
  const fd = await create(AF_INET);
  const number = native().fdRelease(fd);
  expect(readlinkSync(`/proc/self/fd/${number}`)).toMatch(/^socket:/);
  closeSync(number);
  await until(() => native().fdNumber(fd) < 0);
});
