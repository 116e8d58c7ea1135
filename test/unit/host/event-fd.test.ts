import { readdirSync, readlinkSync } from 'node:fs';
import { EventFd } from '../../../lib/host/event-fd';
import { until } from '../../helpers/vhost-wait';

test('counts signals until drained', () => {
  const event = EventFd.create();
  expect(event.drain()).toBe(0);
  event.signal();
  event.signal();
  expect(event.drain()).toBe(2);
  expect(event.drain()).toBe(0);
  event.close();
  const preset = EventFd.create(5);
  expect(preset.drain()).toBe(5);
  preset.close();
});

test('calls back when signalled, until the watch is closed', async () => {
  const event = EventFd.create();
  const seen: number[] = [];
  const watch = event.onSignal((count) => seen.push(count));
  event.signal();
  event.signal();
  await until('the listener', () => seen.length > 0);
  expect(seen).toEqual([2]);
  event.signal();
  await until('again', () => seen.length > 1);
  watch.close();
  watch.close();
  event.signal();
  await new Promise((resolve) => setTimeout(resolve, 30));
  expect(seen).toEqual([2, 1]);
  expect(event.drain()).toBe(1);
  event.close();
});

test('is an eventfd, close-on-exec, gone after close; everything then says so', () => {
  const event = EventFd.create();
  const { fd } = event;
  expect(readlinkSync(`/proc/self/fd/${fd}`)).toBe('anon_inode:[eventfd]');
  event.onSignal(() => undefined);
  event.close();
  event.close();
  expect(event.closed).toBe(true);
  for (const use of [
    () => event.fd,
    () => event.signal(),
    () => event.drain(),
    () => event.onSignal(() => undefined),
  ]) {
    expect(use).toThrow(expect.objectContaining({ code: 'VHOST_ERR_CLOSED' }));
  }
});

test('adopts a descriptor and refuses one that is none', () => {
  expect(() => EventFd.adopt(1_000_000)).toThrow(expect.objectContaining({ code: 'EBADF' }));
});

test('1,000 with a watch each leave no descriptor behind', async () => {
  // What the tests before have closed goes when the loop comes round.
  await new Promise((resolve) => setTimeout(resolve, 50));
  const before = readdirSync('/proc/self/fd').length;
  for (let i = 0; i < 1000; i++) {
    const event = EventFd.create();
    event.onSignal(() => undefined).unref();
    event.close();
  }
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(readdirSync('/proc/self/fd').length).toBe(before);
});
