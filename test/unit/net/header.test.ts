import * as virtio from '../../../lib/constants/virtio-net';
import { bits, featureNames } from '../../../lib/net/features';
import { headerLength, readHeader, writeHeader } from '../../../lib/net/header';

test.each<[number, bigint]>([
  [10, 0n],
  [10, bits(virtio.VIRTIO_F_ANY_LAYOUT, virtio.VIRTIO_RING_F_EVENT_IDX)],
  [12, bits(virtio.VIRTIO_NET_F_MRG_RXBUF)],
  [12, bits(virtio.VIRTIO_F_VERSION_1)],
  [20, bits(virtio.VIRTIO_F_VERSION_1, virtio.VIRTIO_NET_F_HASH_REPORT)],
  [24, bits(virtio.VIRTIO_F_VERSION_1, virtio.VIRTIO_NET_F_HOST_UDP_TUNNEL_GSO)],
  [24, bits(virtio.VIRTIO_NET_F_HASH_REPORT, virtio.VIRTIO_NET_F_GUEST_UDP_TUNNEL_GSO)],
])('a header of %i bytes', (length, features) => {
  expect(headerLength(features)).toBe(length);
});

test('fields lie where the specification puts them', () => {
  const header = {
    flags: 1,
    gsoType: 4,
    hdrLen: 0x0203,
    gsoSize: 0x0405,
    csumStart: 0x0607,
    csumOffset: 0x0809,
    numBuffers: 0x0a0b,
  };
  const bytes = new Uint8Array(16).fill(0xee);
  const view = new DataView(bytes.buffer);
  writeHeader(view, 2, 12, header);
  expect([...bytes]).toEqual([0xee, 0xee, 1, 4, 3, 2, 5, 4, 7, 6, 9, 8, 0xb, 0xa, 0xee, 0xee]);
  expect(readHeader(view, 2, 12)).toEqual(header);
  bytes.fill(0xee);
  writeHeader(view, 2, 10, header);
  expect([...bytes.subarray(12)]).toEqual([0xee, 0xee, 0xee, 0xee]);
  expect(readHeader(view, 2, 10)).toEqual({ ...header, numBuffers: undefined });
});

test('features have the names of the specification', () => {
  expect(featureNames(bits(0, 15, 28, 29, 32, 65))).toEqual([
    'VIRTIO_NET_F_CSUM',
    'VIRTIO_NET_F_MRG_RXBUF',
    'VIRTIO_RING_F_INDIRECT_DESC',
    'VIRTIO_RING_F_EVENT_IDX',
    'VIRTIO_F_VERSION_1',
    'VIRTIO_NET_F_GUEST_UDP_TUNNEL_GSO',
  ]);
  expect(featureNames(bits(26))).toEqual(['bit 26']);
  expect(featureNames(0n)).toEqual([]);
});

test('no two features share a number', () => {
  const numbers = Object.entries(virtio)
    .filter(([name]) => /_F_/.test(name) && !name.includes('HDR'))
    .map(([, number]) => number);
  expect(numbers.length).toBeGreaterThan(50);
  expect(new Set(numbers).size).toBe(numbers.length);
});
