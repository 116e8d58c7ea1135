import { digest, GuestAddresses, streamKey, vlanOf } from '../../../lib/migration/handover/frame-sort';
import { parseMac } from '../../../lib/net/ethernet';

const GUEST = '02:00:00:00:00:02';
const OTHER = '02:00:00:00:00:01';
const BROADCAST = 'ff:ff:ff:ff:ff:ff';

/** At offset 3 of a larger buffer, so that nothing counts from 0. */
function frame(destination: string, source: string, tail: readonly number[]): { bytes: Uint8Array; end: number } {
  const bytes = Uint8Array.from([9, 9, 9, ...parseMac(destination), ...parseMac(source), ...tail, 7, 7, 7, 7]);
  return { bytes, end: bytes.length - 4 };
}

const IPV4 = [0x08, 0x00, 1, 2, 3, 4];
const tagged = (tci: number): number[] => [0x81, 0x00, tci >> 8, tci & 0xff, ...IPV4];

describe('sorts', () => {
  const addresses = new GuestAddresses([GUEST, '02:00:00:00:00:12']);
  test.each([
    ['to the guest', GUEST, OTHER, 'unicast'],
    ['to its other address', '02:00:00:00:00:12', OTHER, 'unicast'],
    ['to everybody', BROADCAST, OTHER, 'group'],
    ['to a group', '01:00:5e:00:00:05', OTHER, 'group'],
    ['to somebody else', '02:00:00:00:99:99', OTHER, 'group'],
    ['of the guest to everybody', BROADCAST, GUEST, 'own'],
    ['of the guest to itself', GUEST, GUEST, 'own'],
  ])('%s', (_name, destination, source, expected) => {
    const { bytes } = frame(destination, source, IPV4);
    expect(addresses.sort(bytes, 3)).toBe(expected);
  });
});

test('addresses come back as they went in, in order, once; group addresses and those beyond the limit do not', () => {
  const macs = [GUEST, 'fe:ff:ff:ff:ff:ff', '00:00:00:00:00:00', 'a0:b1:c2:d3:e4:f5', GUEST];
  const addresses = new GuestAddresses(macs, 4);
  expect(addresses.list).toEqual(macs.slice(0, 4));
  addresses.add(parseMac(BROADCAST), 0);
  addresses.add(parseMac(OTHER), 0);
  expect(addresses.list).toEqual(macs.slice(0, 4));
  for (const mac of addresses.list) expect(addresses.has(parseMac(mac), 0)).toBe(true);
  expect(addresses.has(parseMac(OTHER), 0)).toBe(false);
  expect(new GuestAddresses(addresses.list).list).toEqual(addresses.list);
});

test('VLAN: the identifier without priority, and nothing where there is no tag or no room for one', () => {
  const of = (tail: readonly number[]): number | null => {
    const { bytes, end } = frame(GUEST, OTHER, tail);
    return vlanOf(bytes, 3, end);
  };
  expect(of(tagged(10))).toBe(10);
  expect(of(tagged(0xf00a))).toBe(10);
  expect(of(tagged(4095))).toBe(4095);
  expect(of(tagged(0))).toBe(0);
  expect(of(IPV4)).toBeNull();
  expect(of([0x81, 0x00])).toBeNull();
  expect(of([0x81, 0x00, 5])).toBeNull();
  expect(of([])).toBeNull();
});

describe('streams', () => {
  const key = (destination: string, source: string, tail: readonly number[], queues = 1): bigint => {
    const { bytes, end } = frame(destination, source, tail);
    return streamKey(bytes, 3, end, queues);
  };

  test('one source and VLAN is one, whatever the frame', () => {
    expect(key(BROADCAST, OTHER, IPV4)).toBe(key('01:00:5e:00:00:05', OTHER, [0x88, 0xb5, 1]));
    expect(key(BROADCAST, OTHER, tagged(0x200a))).toBe(key(BROADCAST, OTHER, tagged(10)));
  });

  test('another source, another VLAN or none is another', () => {
    const keys = [
      key(BROADCAST, OTHER, IPV4),
      key(BROADCAST, '02:00:00:00:00:03', IPV4),
      key(BROADCAST, OTHER, tagged(10)),
      key(BROADCAST, OTHER, tagged(20)),
      key(BROADCAST, OTHER, tagged(0)),
    ];
    expect(new Set(keys).size).toBe(keys.length);
    for (const one of keys) expect(BigInt.asUintN(64, one)).toBe(one);
  });

  test('with several queues the flow counts too', () => {
    const udp = (id: number, port: number, fragment = 0): number[] => [
      ...[0x08, 0x00, 0x45, 0, 0, 40, 0, id, fragment, 0, 64, 17, id, id, 10, 0, 0, 1, 10, 0, 0, 255],
      ...[0, port, 0, 9, 0, 20, id, id, id],
    ];
    const one = key(BROADCAST, OTHER, udp(1, 7), 2);
    expect(key(BROADCAST, OTHER, udp(2, 7), 2)).toBe(one);
    expect(key(BROADCAST, OTHER, udp(1, 8), 2)).not.toBe(one);
    expect(key(BROADCAST, '02:00:00:00:00:03', udp(1, 7), 2)).not.toBe(one);
    // Of a fragment nobody knows the ports.
    expect(key(BROADCAST, OTHER, udp(1, 7, 0x20), 2)).toBe(key(BROADCAST, OTHER, udp(1, 8, 0x20), 2));
    const six = (port: number): number[] => [
      0x86,
      0xdd,
      0x60,
      0,
      0,
      0,
      0,
      8,
      17,
      64,
      ...Array(32).fill(1),
      0,
      port,
      0,
      9,
    ];
    expect(key(BROADCAST, OTHER, six(1), 2)).not.toBe(key(BROADCAST, OTHER, six(2), 2));
    // One queue has one order.
    expect(key(BROADCAST, OTHER, udp(1, 7))).toBe(key(BROADCAST, OTHER, udp(1, 8)));
  });
});

test('a digest is of the frame alone', () => {
  const { bytes, end } = frame(GUEST, OTHER, IPV4);
  const before = digest(bytes, 3, end);
  bytes[0] = 1;
  bytes[end] = 1;
  expect(digest(bytes, 3, end)).toBe(before);
  expect(digest(bytes, 3, end + 1)).not.toBe(before);
  bytes[end - 1]! ^= 1;
  expect(digest(bytes, 3, end)).not.toBe(before);
});
