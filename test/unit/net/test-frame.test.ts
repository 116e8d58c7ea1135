import { crc32 } from '../../../lib/net/crc32';
import { etherType, formatMac, parseMac, swapAddresses } from '../../../lib/net/ethernet';
import {
  checkFrame,
  encodeFrame,
  FRAME_CORRUPTED,
  FRAME_FOREIGN,
  FRAME_OK,
  frameArea,
  frameFlow,
  frameLength,
  frameSequence,
  frameTime,
  isTestFrame,
  requireFrameSize,
  sealFrame,
} from '../../../lib/net/test-frame';

const ADDRESSES = Uint8Array.from([...parseMac('02:00:00:00:00:01'), ...parseMac('02:00:00:00:00:02')]);

function frame(length: number, offset = 0) {
  const area = frameArea(new Uint8Array(offset + length + 3));
  encodeFrame(area, offset, length, 513, 0xfffffffe, 123456789.25, ADDRESSES, 0, 6);
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
