/** A front end that means ill: nothing of what it says goes further than a refusal or the end of its own connection. */
import { openSync } from 'node:fs';
import fc from 'fast-check';
import { closeAll } from '../../lib/descriptors';
import { check } from '../../lib/errors';
import { EventFd } from '../../lib/host/event-fd';
import { type FdHandle, native } from '../../lib/native';
import { emitRequest } from '../../lib/vhost-user/message';
import type { VringAddr, WireRegion } from '../../lib/vhost-user/payload';
import { REQUESTS, type RequestName } from '../../lib/vhost-user/requests';
import { type FrontEnd, memfd, openDescriptors } from '../helpers/front-end';
import { FrontEndGuest, LOG_ALL, PROTOCOL_FEATURES, ServeLab, USER_BASE, VERSION_1 } from '../helpers/serve-lab';
import { LabPeer } from '../helpers/vhost-peer';

const BY_PROTOCOL = 1n << 30n;
const OVER = [2, 255, 2 ** 31, 2 ** 32 - 1];
const NEAR_THE_END = [1n << 53n, (1n << 63n) - 4096n, (1n << 64n) - 4096n, (1n << 64n) - 1n];

let lab: ServeLab;
let guest: FrontEndGuest;
let front: FrontEnd;

beforeAll(async () => {
  lab = await ServeLab.create();
});
afterAll(() => lab.close());
beforeEach(async () => {
  guest = new FrontEndGuest();
  // Each guest numbers its frames from 0.
  lab.peer = new LabPeer(lab.peer.tap);
  front = await greeted();
});
afterEach(async () => {
  front.close();
  // What a test counts of those that were left must not be of the one before.
  await lab.idle();
  guest.close();
});

async function greeted(): Promise<FrontEnd> {
  const connected = await lab.connect();
  await connected.tell('SET_PROTOCOL_FEATURES', PROTOCOL_FEATURES);
  return connected;
}

/** Says it without waiting for an answer: the reason for which the connection is closed. */
async function closedFor(say: () => Promise<void>): Promise<string | null> {
  const before = lab.left.length;
  await say();
  expect(await front.closed()).toBe(true);
  await lab.gone(before + 1);
  return lab.left[before]!;
}

/** Frames go both ways, whatever was refused before. */
async function works(): Promise<void> {
  await guest.startLikeQemu(front);
  const [sent, received] = [guest.guest.sent, lab.peer.sent];
  await guest.exchange(lab.peer, 50);
  expect(guest.guest.sent - sent).toBe(50);
  expect(guest.guest.tally.report(0)).toMatchObject({ duplicated: 0, reordered: 0 });
  expect(lab.peer.sent - received).toBe(50);
}

describe('vring indexes', () => {
  const requests: [RequestName, (index: number) => unknown][] = [
    ['SET_VRING_NUM', (index) => ({ index, num: 256 })],
    ['SET_VRING_BASE', (index) => ({ index, num: 0 })],
    ['SET_VRING_ENABLE', (index) => ({ index, num: 1 })],
    ['SET_VRING_ADDR', (index) => guest.addresses(0, { index })],
  ];

  test.each(requests)('%s of a ring that there is not', async (name, payload) => {
    for (const index of OVER) expect(await front.done(name, payload(index) as never)).toBe(false);
    for (let index = 2; index < 256; index++) expect(await front.done(name, payload(index) as never)).toBe(false);
    await works();
  });

  test.each(['SET_VRING_KICK', 'SET_VRING_CALL', 'SET_VRING_ERR'] as const)(
    '%s of a ring that there is not',
    async (name) => {
      const event = EventFd.create();
      const before = await openDescriptors();
      for (let index = 2; index < 256; index++)
        expect(await front.done(name, { index, noFd: false }, [event.handle])).toBe(false);
      expect(await openDescriptors()).toBe(before);
      event.close();
      await works();
    },
  );

  test.each(OVER)('GET_VRING_BASE of ring %i has no answer that says no', async (index) => {
    expect(await closedFor(() => front.tell('GET_VRING_BASE', { index, num: 0 }))).toMatch(
      /^vring \d+ \(there are 2\)$/,
    );
  });

  test('one that is not acknowledged closes the connection, with the reason', async () => {
    const reason = await closedFor(() => front.tell('SET_VRING_NUM', { index: 255, num: 256 }));
    expect(reason).toBe('vring 255 (there are 2)');
  });
});

describe('memory', () => {
  const good: WireRegion = { guestAddr: 0n, size: 0x10000n, userAddr: USER_BASE, mmapOffset: 0n };
  const tables: [string, Partial<WireRegion>[]][] = [
    ...NEAR_THE_END.flatMap((value): [string, Partial<WireRegion>[]][] =>
      (['guestAddr', 'size', 'mmapOffset'] as const).map((name) => [`${name} ${value}`, [{ [name]: value }]]),
    ),
    ['a size of 0', [{ size: 0n }]],
    ['a size of half a page', [{ size: 2048n }]],
    ['an address inside a page', [{ guestAddr: 0x800n }]],
    ['an offset inside a page', [{ mmapOffset: 0x800n }]],
    ['a user address that wraps around', [{ userAddr: (1n << 64n) - 0x1000n }]],
    ['a page more than the file has', [{ size: 0x11000n }]],
    ['an offset behind which the file ends', [{ mmapOffset: 0x1000n }]],
    ['regions that overlap', [{}, { guestAddr: 0xf000n, userAddr: 0n }]],
    ['a region twice', [{}, {}]],
    ['no region', []],
  ];

  test.each(tables)('a table with %s', async (_, changes) => {
    const before = await openDescriptors();
    const fds = changes.map(() => memfd(0x10000));
    expect(
      await front.done(
        'SET_MEM_TABLE',
        changes.map((change) => ({ ...good, ...change })),
        fds,
      ),
    ).toBe(false);
    if (changes.length === 1) expect(await front.done('ADD_MEM_REG', { ...good, ...changes[0] }, fds)).toBe(false);
    closeAll(fds);
    expect(await openDescriptors()).toBe(before);
    await works();
  });

  test.each([
    ['a socket', () => check<[FdHandle, FdHandle]>(native().socketPair(), 'socketpair')[0]],
    ['an eventfd', () => EventFd.create().handle],
    ['/dev/zero', () => check<FdHandle>(native().fdAdopt(openSync('/dev/zero', 'r+')), 'open')],
    ['a file that is only read', () => check<FdHandle>(native().fdAdopt(openSync(__filename, 'r')), 'open')],
    ['a folder', () => check<FdHandle>(native().fdAdopt(openSync('/tmp', 'r')), 'open')],
  ])('%s as memory', async (_, open) => {
    const fd = open();
    expect(await front.done('SET_MEM_TABLE', [{ ...good, size: 0x1000n }], [fd])).toBe(false);
    native().fdClose(fd);
    await works();
  });

  test('a region more, and one that is not there', async () => {
    const fd = memfd(0x10000);
    expect(await front.done('REM_MEM_REG', good)).toBe(false);
    expect(await front.done('ADD_MEM_REG', good, [fd])).toBe(true);
    expect(await front.done('ADD_MEM_REG', { ...good, guestAddr: 0xf000n }, [fd])).toBe(false);
    for (const change of [{ size: 0x1000n }, { guestAddr: 0x1000n }, { userAddr: 0n }]) {
      expect(await front.done('REM_MEM_REG', { ...good, ...change })).toBe(false);
    }
    expect(await front.done('REM_MEM_REG', good)).toBe(true);
    native().fdClose(fd);
    await works();
  });

  test('a table that is refused leaves the one before in force, with its rings running', async () => {
    await works();
    const fd = memfd(0x10000);
    // The rings are not in it.
    expect(await front.done('SET_MEM_TABLE', [good], [fd])).toBe(false);
    native().fdClose(fd);
    await guest.exchange(lab.peer, 50);
    expect(guest.guest.tally.duplicated).toBe(0);
  });
});

describe('rings', () => {
  const bad: [string, Partial<VringAddr>][] = [
    ...(['desc', 'avail', 'used'] as const).flatMap((name): [string, Partial<VringAddr>][] => [
      [`${name} in no region`, { [name]: 0n }],
      [`${name} before the first byte`, { [name]: USER_BASE + 0xf_fff0n }],
      [`${name} across the last byte`, { [name]: USER_BASE + 0x8f_fff0n }],
      [`${name} behind the last byte`, { [name]: USER_BASE + 0x90_0000n }],
      [`${name} at the end of all addresses`, { [name]: (1n << 64n) - 16n }],
      [`${name} misaligned`, { [name]: USER_BASE + 0x20_0001n }],
    ]),
    ['a flag nobody knows', { flags: 2 }],
    ['a used ring logged elsewhere', { flags: 1, log: 0n }],
  ];

  test.each(bad)('%s', async (_, change) => {
    await front.tell('SET_FEATURES', VERSION_1 | BY_PROTOCOL);
    expect(await front.done('SET_MEM_TABLE', [guest.region], [guest.fd])).toBe(true);
    expect(await front.done('SET_VRING_NUM', { index: 0, num: 256 })).toBe(true);
    expect(await front.done('SET_VRING_ADDR', guest.addresses(0, change))).toBe(false);
    await works();
  });

  test.each(bad.slice(0, 18))('%s, said before there is memory: the ring does not start', async (_, change) => {
    await front.tell('SET_FEATURES', VERSION_1 | BY_PROTOCOL);
    await front.tell('SET_VRING_NUM', { index: 0, num: 256 });
    expect(await front.done('SET_VRING_ADDR', guest.addresses(0, change))).toBe(true);
    await front.tell('SET_MEM_TABLE', [guest.region], { fds: [guest.fd] });
    await front.tell('SET_VRING_ENABLE', { index: 0, num: 1 });
    const { kick } = guest.notifiers[0]!;
    expect(await front.done('SET_VRING_KICK', { index: 0, noFd: false }, [kick.handle])).toBe(false);
  });

  test('sizes and bases that no ring has', async () => {
    for (const num of [0, 3, 257, 65536, 2 ** 31, 2 ** 32 - 1]) {
      expect(await front.done('SET_VRING_NUM', { index: 0, num })).toBe(false);
    }
    for (const num of [65536, 2 ** 32 - 1]) expect(await front.done('SET_VRING_BASE', { index: 0, num })).toBe(false);
    expect(await front.done('SET_VRING_ENABLE', { index: 0, num: 2 })).toBe(false);
    await works();
  });

  test('changes of a ring that runs', async () => {
    await works();
    expect(await front.done('SET_VRING_BASE', { index: 0, num: 0 })).toBe(false);
    expect(await front.done('SET_VRING_NUM', { index: 0, num: 128 })).toBe(false);
    expect(await front.done('SET_VRING_NUM', { index: 0, num: 256 })).toBe(true);
    await guest.exchange(lab.peer, 50);
  });

  test('descriptors that are no eventfds, and a ring without a kick', async () => {
    const fd = memfd(4096);
    for (const name of ['SET_VRING_KICK', 'SET_VRING_CALL', 'SET_VRING_ERR'] as const) {
      expect(await front.done(name, { index: 0, noFd: false }, [fd])).toBe(false);
    }
    expect(await front.done('SET_VRING_KICK', { index: 0, noFd: true })).toBe(false);
    native().fdClose(fd);
    await works();
  });

  test('a ring that its guest breaks stands still, its error eventfd tells, and the front end goes on', async () => {
    await guest.connectLikeQemu(front);
    await works();
    guest.errors[1]!.drain();
    guest.tx.post(0, 0xdead_0000_0000, 64, 0);
    guest.notifiers[1]!.kick.signal();
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(guest.errors[1]!.drain()).toBe(1);
    expect(guest.errors[0]!.drain()).toBe(0);
    expect(await front.ask('GET_VRING_BASE', { index: 1, num: 0 }, 'vringState')).toMatchObject({ index: 1 });
  });
});

describe('the log', () => {
  async function withMemory(): Promise<void> {
    await front.tell('SET_FEATURES', VERSION_1 | BY_PROTOCOL);
    expect(await front.done('SET_MEM_TABLE', [guest.region], [guest.fd])).toBe(true);
  }

  test.each([
    ['size 0', { size: 0n, offset: 0n }],
    ['a size that is no multiple of 8', { size: 4095n, offset: 0n }],
    ['too short for guest memory', { size: 256n, offset: 0n }],
    ['longer than its file', { size: 0x2000n, offset: 0n }],
    ['an offset behind its file', { size: 0x1000n, offset: 0x1000n }],
    ['an offset inside a page', { size: 0x800n, offset: 8n }],
    ...NEAR_THE_END.flatMap((value): [string, { size: bigint; offset: bigint }][] => [
      [`size ${value}`, { size: value, offset: 0n }],
      [`offset ${value}`, { size: 0x1000n, offset: value }],
      [`offset ${value} and a size that wraps around`, { size: (1n << 64n) - value + 0x1000n, offset: value }],
    ]),
  ])('%s', async (_, base) => {
    await withMemory();
    const before = await openDescriptors();
    const fd = memfd(0x1000);
    expect(
      await front.ask('SET_LOG_BASE', { ...base, size: BigInt.asUintN(64, base.size) }, 'u64', {
        fds: [fd],
        needReply: true,
      }),
    ).toBe(1n);
    native().fdClose(fd);
    expect(await openDescriptors()).toBe(before);
    await works();
  });

  test('memory that outgrows a log in use is refused, and its rings run on', async () => {
    await works();
    const fd = memfd(0x1000);
    expect(await front.ask('SET_LOG_BASE', { size: 0x1000n, offset: 0n }, 'u64', { fds: [fd] })).toBe(0n);
    expect(await front.done('SET_FEATURES', VERSION_1 | BY_PROTOCOL | LOG_ALL)).toBe(true);
    const far: WireRegion = { guestAddr: 0x1000_0000n, size: 0x1000n, userAddr: 0n, mmapOffset: 0n };
    expect(await front.done('ADD_MEM_REG', far, [fd])).toBe(false);
    expect(await front.done('SET_MEM_TABLE', [guest.region, far], [guest.fd, fd])).toBe(false);
    native().fdClose(fd);
    await guest.exchange(lab.peer, 50);
  });
});

test('features, status and MTU that were not offered', async () => {
  for (const features of [1n << 33n, 1n << 63n, (1n << 64n) - 1n]) {
    expect(await front.done('SET_FEATURES', features)).toBe(false);
    expect(await front.done('SET_PROTOCOL_FEATURES', features)).toBe(false);
  }
  expect(await front.done('SET_STATUS', 256n)).toBe(false);
  for (const mtu of [0n, 67n, (1n << 64n) - 1n]) expect(await front.done('NET_SET_MTU', mtu)).toBe(false);
  await works();
});

test('requests that were not negotiated: refused, left alone, or the end where an answer would be waited for', async () => {
  for (const name of ['SET_VRING_ENDIAN', 'VRING_KICK'] as const) {
    expect(await front.done(name, { index: 0, num: 0 })).toBe(false);
    await front.tell(name, { index: 0, num: 0 });
  }
  await front.raw(Uint8Array.from([200, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]));
  expect((await front.answer()).payload[0]).toBe(1);
  await front.raw(Uint8Array.from([200, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]));
  await works();
  expect(await closedFor(() => front.tell('POSTCOPY_ADVISE', null))).toBe('POSTCOPY_ADVISE was not negotiated');
});

test('a connection that is cut inside a message', async () => {
  const before = lab.left.length;
  await front.raw(emitRequest('SET_VRING_NUM', { index: 0, num: 256 }).subarray(0, 17));
  front.close();
  await lab.gone(before + 1);
  expect(lab.left[before]).toMatch(/ends inside a message/);
  front = await greeted();
  await works();
});

test('no descriptor stays open over many bad messages, and the next front end is served', async () => {
  const names = Object.keys(REQUESTS) as RequestName[];
  const message = fc.record({
    request: fc.constantFrom(...names.map((name) => REQUESTS[name].request), 26, 27, 33, 41, 44, 0, 2 ** 32 - 1),
    flags: fc.constantFrom(1, 9, 0, 5, 13, 0xffff_ffff),
    size: fc.constantFrom(0, 8, 16, 20, 40, 48, 264, 4096, 4097, 2 ** 32 - 1),
    word: fc.constantFrom(0n, 1n, 2n, 255n, 1n << 31n, (1n << 32n) - 1n, (1n << 64n) - 4096n, (1n << 64n) - 1n),
    fds: fc.constantFrom(0, 1, 2, 8, 9),
  });
  front.close();
  const before = await openDescriptors();
  const spare = Array.from({ length: 9 }, (_, n) => (n % 2 === 0 ? memfd(4096) : EventFd.create().handle));
  let said = 0;
  let open: FrontEnd | null = null;
  for (const { request, flags, size, word, fds } of fc.sample(message, 2000)) {
    open ??= await greeted();
    const bytes = Buffer.alloc(12 + Math.min(size, 4096));
    for (const [at, value] of [request, flags, size].entries()) bytes.writeUInt32LE(value, 4 * at);
    for (let at = 12; at + 8 <= bytes.length; at += 8) bytes.writeBigUInt64LE(word, at);
    try {
      await open.raw(bytes, spare.slice(0, fds));
      said++;
    } catch {
      // It was left: another one comes.
      open.close();
      open = null;
    }
  }
  open?.close();
  closeAll(spare);
  expect(said).toBeGreaterThan(1000);
  front = await greeted();
  await works();
  front.close();
  await new Promise((resolve) => setTimeout(resolve, 300));
  expect(await openDescriptors()).toBe(before);
  front = await greeted();
  const start = guest.guest.sent;
  await guest.startLikeQemu(front, [guest.rx.usedIdx, guest.tx.usedIdx]);
  await guest.exchange(lab.peer, 50);
  expect(guest.guest.tally.duplicated).toBe(0);
  expect(guest.guest.sent).toBe(start + 50);
});
