import { closeAll } from '../../../lib/descriptors';
import { StreamSocket } from '../../../lib/host/socket';
import { native } from '../../../lib/native';
import { MessageChannel } from '../../../lib/vhost-user/channel';
import { checkRequestSize, emitRequest } from '../../../lib/vhost-user/message';
import { memfd, openDescriptors } from '../../helpers/front-end';
import { codeOf, errorOf } from '../../helpers/vhost-wait';

let there: StreamSocket;
let channel: MessageChannel;
let abort: AbortController;
beforeEach(() => {
  const [one, other] = StreamSocket.pair();
  there = one;
  abort = new AbortController();
  channel = new MessageChannel(other, { checkSize: checkRequestSize, signal: abort.signal });
});
afterEach(() => {
  there.close();
  channel.close();
});

const send = (bytes: Uint8Array, fds = 0): void => {
  const handles = Array.from({ length: fds }, () => memfd(4096));
  native().socketSendDescriptors(there.handle, bytes, handles);
  closeAll(handles);
};

test('messages one after the other, each with its own descriptors', async () => {
  const kick = emitRequest('SET_VRING_KICK', { index: 1, noFd: false });
  send(kick, 1);
  send(emitRequest('GET_FEATURES', null));
  const first = await channel.receive();
  expect(first).toMatchObject({ header: { request: 12, size: 8 } });
  expect(first!.fds).toHaveLength(1);
  closeAll(first!.fds);
  expect(await channel.receive()).toMatchObject({ header: { request: 1 }, fds: [] });
  there.close();
  expect(await channel.receive()).toBeNull();
});

test('a message that comes byte by byte', async () => {
  const message = emitRequest('SET_VRING_NUM', { index: 1, num: 256 });
  const received = channel.receive();
  for (const byte of message) {
    send(Uint8Array.of(byte));
    await new Promise((resolve) => setImmediate(resolve));
  }
  expect((await received)!.payload).toEqual(Uint8Array.from(message.subarray(12)));
});

test.each([1, 11, 12, 19])('a connection that ends after %i bytes is no end between messages', async (bytes) => {
  send(emitRequest('SET_VRING_NUM', { index: 1, num: 256 }).subarray(0, bytes));
  there.close();
  const error = await errorOf(channel.receive());
  expect(error).toMatchObject({
    code: 'VHOST_ERR_PROTOCOL',
    message: expect.stringContaining('ends inside a message'),
  });
});

test('what is refused leaves no descriptor open', async () => {
  const before = await openDescriptors();
  // Too many; with a header that cannot be; with one whose payload cannot be.
  send(emitRequest('GET_FEATURES', null), 9);
  expect(await codeOf(channel.receive())).toBe('VHOST_ERR_PROTOCOL');
  send(new Uint8Array(12), 8);
  expect(await codeOf(channel.receive())).toBe('VHOST_ERR_PROTOCOL');
  send(Uint8Array.from([1, 0, 0, 0, 1, 0, 0, 0, 255, 255, 255, 255]), 8);
  expect(await codeOf(channel.receive())).toBe('VHOST_ERR_PROTOCOL');
  expect(await openDescriptors()).toBe(before);
});

test('descriptors in the middle of a message are refused', async () => {
  const message = emitRequest('SET_VRING_NUM', { index: 1, num: 256 });
  const before = await openDescriptors();
  const received = codeOf(channel.receive());
  send(message.subarray(0, 12));
  await new Promise((resolve) => setImmediate(resolve));
  send(message.subarray(12), 1);
  expect(await received).toBe('VHOST_ERR_PROTOCOL');
  expect(await openDescriptors()).toBe(before);
});

test('a wait ends with its signal', async () => {
  const received = codeOf(channel.receive());
  abort.abort(new Error('enough'));
  expect(await received).toBe('VHOST_ERR_ABORTED');
});
