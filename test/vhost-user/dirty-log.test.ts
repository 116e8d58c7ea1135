/** Dirty pages in the front end's own log, in the order in which QEMU turns logging on, off and on again. Emulated data path. */
import { check } from '../../lib/errors';
import { type FdHandle, native } from '../../lib/native';
import { type FrontEnd, memfd } from '../helpers/front-end';
import { BY_PROTOCOL, FrontEndGuest, LOG_ALL, ServeLab, VERSION_1 } from '../helpers/serve-lab';

const LOG_BYTES = 0x1000;
const PAGE = 4096;

/** Pages whose bits are set, as the front end reads its file. */
function pagesOf(fd: FdHandle): Set<number> {
  const bytes = new Uint8Array(LOG_BYTES);
  expect(check(native().fdPread(fd, bytes, 0), 'pread')).toBe(LOG_BYTES);
  const pages = new Set<number>();
  for (const [at, byte] of bytes.entries()) {
    for (let bit = 0; bit < 8; bit++) if ((byte & (1 << bit)) !== 0) pages.add(at * 8 + bit);
  }
  return pages;
}

async function setLog(front: FrontEnd, fd: FdHandle): Promise<void> {
  expect(await front.ask('SET_LOG_BASE', { size: BigInt(LOG_BYTES), offset: 0n }, 'u64', { fds: [fd] })).toBe(0n);
}

async function setLogging(front: FrontEnd, guest: FrontEndGuest, on: boolean): Promise<void> {
  expect(await front.done('SET_FEATURES', VERSION_1 | BY_PROTOCOL | (on ? LOG_ALL : 0n))).toBe(true);
  for (const queue of [0, 1]) {
    expect(await front.done('SET_VRING_ADDR', guest.addresses(queue, { flags: on ? 1 : 0 }))).toBe(true);
  }
}

test('every page written is in the log in force, in no other, and in none when logging is off', async () => {
  await using lab = await ServeLab.create();
  using guest = new FrontEndGuest();
  const [first, second] = [memfd(LOG_BYTES), memfd(LOG_BYTES)];
  const front = await lab.connect();
  await guest.connectLikeQemu(front);
  await guest.startLikeQemu(front);
  await guest.exchange(lab.peer, 10);

  await setLog(front, first);
  await guest.exchange(lab.peer, 10);
  expect(pagesOf(first).size).toBe(0);
  await setLogging(front, guest, true);
  const from = guest.rx.taken;
  await guest.exchange(lab.peer, 40);
  const dirty = pagesOf(first);
  const used = [guest.rx, guest.tx].map((ring) => Math.floor(ring.used / PAGE));
  for (const page of used) expect(dirty).toContain(page);
  for (let index = from; index < guest.rx.taken; index++) {
    expect(dirty).toContain(Math.floor(guest.guest.rxBuffer(guest.rx.usedId(index)) / PAGE));
  }
  // Two buffers a page, and nothing else of the guest's memory.
  const buffers = Math.ceil((guest.rx.taken - from) / 2) + 1;
  expect(dirty.size).toBeLessThanOrEqual(buffers + used.length);

  // Swapped under traffic: what is written after the answer is in the new one.
  await setLog(front, second);
  await guest.exchange(lab.peer, 10);
  expect(pagesOf(first)).toEqual(dirty);
  expect(pagesOf(second)).toContain(used[0]);

  // A cancelled migration.
  await setLogging(front, guest, false);
  const left = pagesOf(second);
  await guest.exchange(lab.peer, 40);
  expect(pagesOf(second)).toEqual(left);

  // Another one, to its end: the last bits are there when the base is answered.
  await setLog(front, first);
  await setLogging(front, guest, true);
  await guest.exchange(lab.peer, 10);
  const bases = await guest.stopLikeQemu(front);
  expect(bases[0]).toBe(guest.rx.usedIdx);
  for (const fd of [first, second]) native().fdClose(fd);
  front.close();
});
