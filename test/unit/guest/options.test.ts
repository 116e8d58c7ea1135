import { VIRTIO_F_VERSION_1, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_RING_F_EVENT_IDX } from '../../../lib/constants/virtio-net';
import { Guest, type GuestOptions } from '../../../lib/guest/guest';
import { bits } from '../../../lib/net/features';
import { TestMemory } from '../../helpers/ring-memory';

const BASE = 5 * 2 ** 30;
const SIZE = 2 ** 19;
const traffic: GuestOptions = {
  gpa: BASE,
  program: 'traffic',
  features: bits(VIRTIO_F_VERSION_1, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_RING_F_EVENT_IDX),
  mac: '02:00:00:00:00:02',
  rxSize: 32,
  txSize: 32,
};

test('every byte of the guest has a name', () => {
  const memory = new TestMemory([{ gpa: BASE, size: SIZE }]);
  const guest = Guest.boot(memory, traffic);
  const names = guest.ranges.filter(({ length }) => length > 0).map(({ name }) => name);
  expect(names).toEqual(
    expect.arrayContaining(['boot block', 'receive used ring', 'transmit driver state', 'receive buffers']),
  );
  const sorted = guest.ranges.filter(({ length }) => length > 0).sort((a, b) => a.gpa - b.gpa);
  for (let at = 1; at < sorted.length; at++) {
    expect(sorted[at]!.gpa).toBeGreaterThanOrEqual(sorted[at - 1]!.gpa + sorted[at - 1]!.length);
  }
});

test.each<[string, Partial<GuestOptions>]>([
  ['program', { program: 'dance' as never }],
  ['boot block', { gpa: BASE + 8 }],
  ['MAC address', { mac: 'nonsense' }],
  ['split virtqueue', { rxSize: 3 }],
  ['split virtqueue', { txSize: 65536 }],
  ['frame of 59 bytes', { frameSize: 59 }],
  ['receive buffer size', { rxBufferSize: 1024, features: bits(VIRTIO_F_VERSION_1) }],
  ['buffer size', { rxBufferSize: 2050 }],
  ['flow', { flow: 65536 }],
  ['rate', { rate: Number.NaN }],
  ['buffers at', { buffersGpa: BASE + 4096 }],
])('refuses a wrong %s', (what, changes) => {
  const memory = new TestMemory([{ gpa: BASE, size: SIZE }]);
  expect(() => Guest.boot(memory, { ...traffic, ...changes })).toThrow(what);
  expect(memory.regions[0]!.u8.every((byte) => byte === 0)).toBe(true);
});

test('refuses memory that is too small, and memory without a guest', () => {
  const memory = new TestMemory([{ gpa: BASE, size: 4096 * 16 }]);
  expect(() => Guest.boot(memory, traffic)).toThrow(
    expect.objectContaining({ code: 'VHOST_ERR_MEMORY_TABLE' }) as Error,
  );
  expect(() => Guest.resume(memory, BASE)).toThrow(expect.objectContaining({ code: 'VHOST_ERR_STATE' }) as Error);
  const { control, buffers } = Guest.bytes(traffic);
  const exact = new TestMemory([{ gpa: BASE, size: control + buffers }]);
  expect(Guest.boot(exact, traffic).sent).toBe(0);
});
