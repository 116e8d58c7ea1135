/** What stock front ends really send, in their order, with frames both ways in between. Emulated data path. */
import { setTimeout as sleep } from 'node:timers/promises';
import { EventFd } from '../../lib/host/event-fd';
import { memfd } from '../helpers/front-end';
import { BY_PROTOCOL, FrontEndGuest, LOG_ALL, PROTOCOL_FEATURES, ServeLab, VERSION_1 } from '../helpers/serve-lab';
import { clean } from '../helpers/vhost-frames';

let lab: ServeLab;
beforeEach(async () => {
  lab = await ServeLab.create();
});
afterEach(() => lab.close());

function expectClean(guest: FrontEndGuest): void {
  expect(lab.peer.tally.report(guest.guest.sent)).toEqual(clean(guest.guest.sent));
  expect(guest.guest.tally.report(lab.peer.sent)).toEqual(clean(lab.peer.sent));
}

test('QEMU connects, starts, stops, continues, reboots and leaves: no frame is lost', async () => {
  using guest = new FrontEndGuest();
  const front = await lab.connect();
  const features = await guest.connectLikeQemu(front);
  expect(features & (VERSION_1 | BY_PROTOCOL | LOG_ALL)).toBe(VERSION_1 | BY_PROTOCOL | LOG_ALL);
  await guest.enable(front, 1);
  await guest.startLikeQemu(front);
  await guest.exchange(lab.peer, 2000);

  // stop and cont: the same rings with the bases that were answered.
  const bases = await guest.stopLikeQemu(front);
  expect(bases[1]).toBe(2000);
  expect(bases[0]).toBe(guest.rx.usedIdx);
  await guest.startLikeQemu(front, bases);
  await guest.exchange(lab.peer, 500);

  // With memory slots the table is sent once a connection.
  const again = await guest.stopLikeQemu(front);
  await guest.startLikeQemu(front, again, false);
  await guest.exchange(lab.peer, 500);
  expectClean(guest);

  await guest.stopLikeQemu(front);
  await guest.enable(front, 1);
  front.close();
  await lab.gone(1);
  expect(lab.left).toEqual([null]);
});

test('a second front end after the first, and one beside it that is refused', async () => {
  using guest = new FrontEndGuest();
  const front = await lab.connect();
  await guest.connectLikeQemu(front);
  await guest.startLikeQemu(front);
  await guest.exchange(lab.peer, 100);
  const beside = await lab.connect();
  expect(await beside.closed()).toBe(true);
  beside.close();
  await guest.exchange(lab.peer, 100);

  // The process ends with its rings running.
  front.close();
  const next = await lab.connect();
  await guest.connectLikeQemu(next);
  await guest.startLikeQemu(next, [guest.rx.usedIdx, guest.tx.usedIdx]);
  await guest.exchange(lab.peer, 300);
  expectClean(guest);
  next.close();
  await lab.gone(2);
  expect(lab.left).toEqual([null, null]);
});

test('testpmd: calls first, status with answers, rings enabled last, bases asked while disabled', async () => {
  using guest = new FrontEndGuest();
  const front = await lab.connect();
  await front.tell('SET_OWNER', null);
  await front.ask('GET_FEATURES', null, 'u64');
  expect(await front.ask('GET_PROTOCOL_FEATURES', null, 'u64')).toBe(PROTOCOL_FEATURES);
  await front.tell('SET_PROTOCOL_FEATURES', 0x10009n);
  for (const index of [0, 1]) {
    await front.tell('SET_VRING_CALL', { index, noFd: false }, { fds: [guest.notifiers[index]!.call.handle] });
  }
  await front.tell('SET_FEATURES', VERSION_1 | BY_PROTOCOL);
  expect(await front.done('SET_STATUS', 0x0bn)).toBe(true);
  expect(await front.ask('GET_STATUS', null, 'u64')).toBe(0x0bn);
  expect(await front.done('SET_MEM_TABLE', [guest.region], [guest.fd])).toBe(true);
  for (const index of [0, 1]) {
    await front.tell('SET_VRING_NUM', { index, num: 256 });
    await front.tell('SET_VRING_BASE', { index, num: 0 });
    await front.tell('SET_VRING_ADDR', guest.addresses(index, { log: 0n }));
    await front.tell('SET_VRING_KICK', { index, noFd: false }, { fds: [guest.notifiers[index]!.kick.handle] });
  }
  guest.guest.transmit(5);
  await sleep(50);
  // Started, and not enabled: nothing moves.
  expect([guest.tx.usedIdx, lab.peer.receive()]).toEqual([0, 0]);
  await guest.enable(front, 1);
  expect(await front.done('SET_STATUS', 0x0fn)).toBe(true);
  await guest.exchange(lab.peer, 1000);

  await guest.enable(front, 0);
  // What stands in the request beside the index is left over.
  const base = await front.ask('GET_VRING_BASE', { index: 1, num: 0xdead }, 'vringState');
  expect(base).toEqual({ index: 1, num: guest.tx.usedIdx });
  expectClean(guest);
  front.close();
});

test('testpmd after a restart of its back end: bases and enables before anything else, no SET_OWNER', async () => {
  const front = await lab.connect();
  using guest = new FrontEndGuest();
  await guest.enable(front, 0);
  for (const index of [0, 1]) {
    expect(await front.ask('GET_VRING_BASE', { index, num: 7 }, 'vringState')).toEqual({ index, num: 0 });
  }
  await front.ask('GET_FEATURES', null, 'u64');
  await front.tell('SET_PROTOCOL_FEATURES', await front.ask('GET_PROTOCOL_FEATURES', null, 'u64'));
  await guest.startLikeQemu(front);
  await guest.exchange(lab.peer, 100);
  expectClean(guest);
  front.close();
});

test('a ring keeps its index while it is disabled, and other doorbells are taken while it runs', async () => {
  using guest = new FrontEndGuest();
  const front = await lab.connect();
  await guest.connectLikeQemu(front);
  await guest.startLikeQemu(front);
  await guest.exchange(lab.peer, 300);
  expect(await front.done('SET_VRING_ENABLE', { index: 1, num: 0 })).toBe(true);
  guest.guest.transmit(3);
  await sleep(50);
  expect(lab.peer.receive()).toBe(0);
  await guest.enable(front, 1, [1]);
  await guest.exchange(lab.peer, 100);

  const call = EventFd.create();
  expect(await front.done('SET_VRING_CALL', { index: 1, noFd: false }, [call.handle])).toBe(true);
  const kick = EventFd.create();
  expect(await front.done('SET_VRING_KICK', { index: 1, noFd: false }, [kick.handle])).toBe(true);
  const before = guest.notifiers[1]!;
  guest.notifiers[1] = { kick, call };
  before.kick.close();
  before.call.close();
  await guest.exchange(lab.peer, 300);
  expectClean(guest);
  expect(await front.done('SET_VRING_CALL', { index: 1, noFd: true })).toBe(true);
  await guest.exchange(lab.peer, 100);
  front.close();
});

test('memory that comes and goes while rings run', async () => {
  using guest = new FrontEndGuest();
  const front = await lab.connect();
  await guest.connectLikeQemu(front);
  await guest.startLikeQemu(front);
  await guest.exchange(lab.peer, 100);
  const more = { guestAddr: 0x4000_0000n, size: 0x20_0000n, userAddr: 0x7e00_0000_0000n, mmapOffset: 0x1000n };
  const fd = memfd(0x20_1000);
  expect(await front.done('ADD_MEM_REG', more, [fd])).toBe(true);
  expect(await front.done('ADD_MEM_REG', more, [fd])).toBe(false);
  await guest.exchange(lab.peer, 100);
  expect(await front.done('REM_MEM_REG', more)).toBe(true);
  expect(await front.done('REM_MEM_REG', more)).toBe(false);
  // The one with the rings in it.
  expect(await front.done('REM_MEM_REG', guest.region)).toBe(false);
  // Hot-plug without memory slots: all regions again, rings stay.
  expect(await front.done('SET_MEM_TABLE', [guest.region, more], [guest.fd, fd])).toBe(true);
  await guest.exchange(lab.peer, 300);
  expectClean(guest);
  front.close();
});

test('SEND_RARP reaches the network, unanswered; the MTU is that of the tap at most', async () => {
  using guest = new FrontEndGuest();
  const front = await lab.connect();
  await guest.connectLikeQemu(front);
  await front.tell('SEND_RARP', 0x563412005452n);
  expect(await front.done('NET_SET_MTU', 1500n)).toBe(true);
  expect(await front.done('NET_SET_MTU', 1501n)).toBe(false);
  await sleep(50);
  const arena = new Uint8Array(2048);
  const lengths = new Int32Array(1);
  const frames: string[] = [];
  while (lab.peer.tap.readFrames(arena, 2048, 1, lengths) === 1) {
    frames.push(Buffer.from(arena.subarray(0, 22)).toString('hex'));
  }
  expect(frames).toContain('ffffffffffff525400123456803500010800060400 03'.replace(' ', ''));
  expect(front.unread()).toBe(0);
  front.close();
});
