import { crc32 } from '../../../lib/net/crc32';
import { etherType, formatMac, parseMac, swapAddresses } from '../../../lib/net/ethernet';
import { checkUdp, internetChecksum, parseIpv4 } from '../../../lib/net/ipv4';
import {
  checkFrame,
  encodeFrame,
  FRAME_CORRUPTED,
  FRAME_FOREIGN,
  FRAME_OK,
  type FrameShape,
  frameArea,
  frameFlow,
  frameLength,
  frameSequence,
  frameTime,
  isTestFrame,
  leastFrameSize,
  MAX_TEST_FRAME,
  prepareFrame,
  requireFrameSize,
  returnFrame,
  sealFrame,
} from '../../../lib/net/test-frame';

const SUMMED = frameArea(new Uint8Array(66));
const ADDRESSES = Uint8Array.from([...parseMac('02:00:00:00:00:01'), ...parseMac('02:00:00:00:00:02')]);

function frame(length: number, offset = 0, shape: FrameShape = {}) {
  const area = frameArea(new Uint8Array(offset + length + 3));
  encodeFrame(area, offset, length, 513, 0xfffffffe, 123456789.25, ADDRESSES, 0, 6, shape);
  return area;
}

test('CRC-32 gives the known values, in one go and in parts, at any offset', () => {
  const text = new TextEncoder().encode('.123456789');
  expect(crc32(text, 1, 9)).toBe(0xcbf43926);
  expect(crc32(text, 1, 0)).toBe(0);
  for (let cut = 0; cut <= 9; cut++) expect(crc32(text, 1 + cut, 9 - cut, crc32(text, 1, cut))).toBe(0xcbf43926);
  const letters = new TextEncoder().encode('The quick brown fox jumps over the lazy dog');
  expect(crc32(letters, 0, letters.length)).toBe(0x414fa339);
  expect(crc32(new Uint8Array(32).fill(255), 0, 32)).toBe(0xff6cab0b);
});

test.each([60, 61, 62, 63, 64, 128, 1514, 65535])('a frame of %i bytes says what it was made with', (length) => {
  const area = frame(length, 5);
  expect(checkFrame(area, 5, length)).toBe(FRAME_OK);
  expect(frameFlow(area, 5)).toBe(513);
  expect(frameSequence(area, 5)).toBe(0xfffffffe);
  expect(frameTime(area, 5)).toBe(123456789.25);
  expect(frameLength(area, 5)).toBe(length);
  expect(etherType(area.u8, 5)).toBe(0x88b5);
  expect([formatMac(area.u8, 5), formatMac(area.u8, 11)]).toEqual(['02:00:00:00:00:01', '02:00:00:00:00:02']);
});

test('every single bit counts', () => {
  const length = 64;
  for (let bit = 0; bit < length * 8; bit++) {
    const area = frame(length);
    area.u8[bit >>> 3]! ^= 1 << (bit & 7);
    const ours = bit < 12 * 8 || bit >= 18 * 8;
    expect(checkFrame(area, 0, length)).toBe(ours ? FRAME_CORRUPTED : FRAME_FOREIGN);
  }
});

test('a frame cut short or drawn out is corrupted; what is too short for one is foreign', () => {
  const area = frame(128);
  expect(checkFrame(area, 0, 127)).toBe(FRAME_CORRUPTED);
  expect(checkFrame(area, 0, 129)).toBe(FRAME_CORRUPTED);
  expect(checkFrame(area, 0, 37)).toBe(FRAME_FOREIGN);
  expect(checkFrame(area, 0, 0)).toBe(FRAME_FOREIGN);
  expect(isTestFrame(area, 0, 38)).toBe(true);
});

test('swapping addresses needs a new seal', () => {
  const area = frame(64, 2);
  swapAddresses(area.u8, 2);
  expect([formatMac(area.u8, 2), formatMac(area.u8, 8)]).toEqual(['02:00:00:00:00:02', '02:00:00:00:00:01']);
  expect(checkFrame(area, 2, 64)).toBe(FRAME_CORRUPTED);
  sealFrame(area, 2, 64);
  expect(checkFrame(area, 2, 64)).toBe(FRAME_OK);
});

test.each([59, 65536, 64.5, Number.NaN])('no frame has %d bytes', (length) => {
  expect(() => requireFrameSize(length)).toThrow('60 to 65535');
});

test.each(['', '02:00:00:00:00', '02:00:00:00:00:0g', '02-00-00-00-00-01', '02:00:00:00:00:01:'])(
  '%j is no MAC address',
  (text) => {
    expect(() => parseMac(text)).toThrow(expect.objectContaining({ code: 'VHOST_ERR_INVALID_ARGUMENT' }) as Error);
  },
);

test('MAC addresses are read in either case and written in lower', () => {
  expect(formatMac(parseMac('AA:bb:0C:00:ff:10'))).toBe('aa:bb:0c:00:ff:10');
});

const ENDS = {
  source: parseIpv4('10.0.0.2'),
  destination: parseIpv4('10.0.0.1'),
  sourcePort: 10003,
  destinationPort: 20003,
};
const shapes: [string, FrameShape, number][] = [
  ['raw', {}, 14],
  ['tagged', { vlan: 0x6123 }, 18],
  ['UDP', { udp: ENDS }, 42],
  ['UDP with a checksum', { udp: { ...ENDS, checksum: true } }, 42],
  ['tagged UDP', { udp: ENDS, vlan: 5 }, 46],
  ['tagged UDP with a checksum', { udp: { ...ENDS, checksum: true }, vlan: 5 }, 46],
];

describe.each(shapes)('a %s frame', (_name, shape, body) => {
  const least = leastFrameSize(shape);

  test.each([least, least + 1, least + 2, least + 3, 128, 1514, MAX_TEST_FRAME])('of %i bytes', (length) => {
    const area = frame(length, 5, shape);
    expect(checkFrame(area, 5, length)).toBe(FRAME_OK);
    expect([frameFlow(area, 5), frameSequence(area, 5)]).toEqual([513, 0xfffffffe]);
    expect([frameTime(area, 5), frameLength(area, 5)]).toEqual([123456789.25, length]);
    expect(new TextDecoder().decode(area.u8.subarray(5 + body, 5 + body + 4))).toBe('VHNF');
    expect([...area.u8.subarray(5 + length)]).toEqual([0, 0, 0]);
  });

  test('has room for its body, and every length within belongs to it', () => {
    expect(least).toBe(Math.max(60, body + 24));
    requireFrameSize(least, shape);
    expect(() => requireFrameSize(least - 1, shape)).toThrow(`${least} to 65535`);
    const area = frame(128, 0, shape);
    for (let length = 0; length < 128; length++) {
      expect(checkFrame(area, 0, length)).toBe(length < body + 24 ? FRAME_FOREIGN : FRAME_CORRUPTED);
    }
  });

  test('every single bit counts', () => {
    const length = 96;
    const ours = (byte: number): boolean => {
      const tag = shape.vlan === undefined ? 0 : 4;
      const ip = 14 + tag;
      const type = byte >= 12 + tag && byte < 14 + tag;
      if ((tag > 0 && (byte === 12 || byte === 13)) || type) return false;
      if (shape.udp !== undefined && (byte === ip || byte === ip + 9)) return false;
      return byte < body || byte >= body + 4;
    };
    for (let bit = 0; bit < length * 8; bit++) {
      const area = frame(length, 0, shape);
      area.u8[bit >>> 3]! ^= 1 << (bit & 7);
      expect([bit, checkFrame(area, 0, length)]).toEqual([bit, ours(bit >>> 3) ? FRAME_CORRUPTED : FRAME_FOREIGN]);
    }
  });

  test('goes back turned and sound', () => {
    const area = frame(129, 3, shape);
    returnFrame(area, 3, 129);
    expect(checkFrame(area, 3, 129)).toBe(FRAME_OK);
    expect([formatMac(area.u8, 3), formatMac(area.u8, 9)]).toEqual(['02:00:00:00:00:02', '02:00:00:00:00:01']);
    if (shape.udp === undefined) return;
    const { source, destination, sourcePort, destinationPort } = shape.udp;
    const udp = { ...shape.udp, source: destination, destination: source };
    const turned = { ...shape, udp: { ...udp, sourcePort: destinationPort, destinationPort: sourcePort } };
    const expected = frameArea(new Uint8Array(129));
    encodeFrame(expected, 0, 129, 513, 0xfffffffe, 123456789.25, ADDRESSES, 6, 0, turned);
    expect(area.u8.subarray(3, 132)).toEqual(expected.u8);
  });
});

test('a UDP frame has the headers that a network wants', () => {
  const area = frame(100, 0, { udp: ENDS });
  const header = area.view;
  expect(etherType(area.u8, 0)).toBe(0x0800);
  expect([header.getUint8(14), header.getUint16(16), header.getUint8(22), header.getUint8(23)]).toEqual([
    0x45, 86, 64, 17,
  ]);
  expect([header.getUint32(26), header.getUint32(30)]).toEqual([0x0a000002, 0x0a000001]);
  expect([header.getUint16(34), header.getUint16(36), header.getUint16(38), header.getUint16(40)]).toEqual([
    10003, 20003, 66, 0,
  ]);
  expect(internetChecksum(area.u8, 14, 20)).toBe(0);
  area.u8[22]! ^= 1;
  expect(internetChecksum(area.u8, 14, 20)).not.toBe(0);
});

test('UDP checksums are right whatever the frame holds, also where the sum is 0', () => {
  const shape = { udp: { ...ENDS, checksum: true } };
  let longForms = 0;
  for (let sequence = 0; sequence < 200_000; sequence++) {
    const area = SUMMED;
    if (sequence === 0) prepareFrame(area, 0, 66, 1, ADDRESSES, 0, 6, shape);
    area.view.setUint32(50, sequence, true);
    sealFrame(area, 0, 66);
    if (area.view.getUint16(40) === 0xffff) longForms++;
    if (area.view.getUint16(40) === 0 || checkFrame(area, 0, 66) !== FRAME_OK) throw new Error(`sequence ${sequence}`);
  }
  expect(longForms).toBeGreaterThan(0);
  expect(checkUdp(SUMMED.u8, 14, 52)).toBe(true);
  SUMMED.view.setUint16(40, 0);
  expect(checkUdp(SUMMED.u8, 14, 52)).toBe(false);
  expect(checkFrame(SUMMED, 0, 66)).toBe(FRAME_CORRUPTED);
});

test('the Internet checksum gives the known value, at any offset, of an odd length too', () => {
  const known = Uint8Array.of(9, 0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7);
  expect(internetChecksum(known, 1, 8)).toBe(~0xddf2 & 0xffff);
  expect(internetChecksum(known, 1, 7)).toBe(~0xdcfb & 0xffff);
  expect(internetChecksum(new Uint8Array(40).fill(255), 0, 40)).toBe(0);
});

test.each(['', '10.0.0', '10.0.0.256', '10.0.0.1.1', 'a.b.c.d', '10.0.0.-1'])('%j is no IPv4 address', (text) => {
  expect(() => parseIpv4(text)).toThrow(expect.objectContaining({ code: 'VHOST_ERR_INVALID_ARGUMENT' }) as Error);
});
