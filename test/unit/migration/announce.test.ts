import type { Tap } from '../../../lib/host/tap';
import { announce, carriesNonce, NONCE_SIZE, newNonce, rarpFrame } from '../../../lib/migration/announce';
import { announceDelays } from '../../../lib/migration/announce-rounds';

const MAC = '02:11:22:33:44:55';
const MAC_BYTES = [0x02, 0x11, 0x22, 0x33, 0x44, 0x55];
const NONCE = Uint8Array.from({ length: NONCE_SIZE }, (_, index) => index + 1);
/** RFC 903: Ethernet, IPv4, 6 and 4 bytes, request reverse; who asks and whom for are the same, and have no IPv4 address. */
const RARP = [0, 1, 8, 0, 6, 4, 0, 3, ...MAC_BYTES, 0, 0, 0, 0, ...MAC_BYTES, 0, 0, 0, 0];
const HEAD = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, ...MAC_BYTES];
const zeros = (count: number): number[] => new Array<number>(count).fill(0);

test('byte by byte', () => {
  expect([...rarpFrame(MAC)]).toEqual([...HEAD, 0x80, 0x35, ...RARP, ...zeros(18)]);
  expect([...rarpFrame(MAC, null, NONCE)]).toEqual([...HEAD, 0x80, 0x35, ...RARP, ...NONCE, 0, 0]);
  expect([...rarpFrame(MAC, 0x123)]).toEqual([...HEAD, 0x81, 0, 0x01, 0x23, 0x80, 0x35, ...RARP, ...zeros(18)]);
});

test('the nonce is found where it is, and nowhere else', () => {
  const frame = rarpFrame(MAC, null, NONCE);
  const at = (bytes: Uint8Array, start = 0, end = bytes.length): boolean => carriesNonce(bytes, start, end, NONCE);
  expect(at(frame)).toBe(true);
  expect(at(Uint8Array.from([1, 2, ...frame]), 2)).toBe(true);
  expect(at(rarpFrame(MAC))).toBe(false);
  expect(at(rarpFrame(MAC, 5, NONCE))).toBe(false);
  for (let byte = 12; byte < 58; byte++) {
    const changed = Uint8Array.from(frame);
    changed[byte]! ^= 1;
    expect(at(changed)).toBe(byte >= 14 && byte < 42);
  }
  for (let length = 0; length < 58; length++) expect(at(frame, 0, length)).toBe(false);
});

test('nonces differ', () => {
  const nonces = new Set(Array.from({ length: 100 }, () => Buffer.from(newNonce()).toString('hex')));
  expect(nonces.size).toBe(100);
  expect([...nonces][0]).toHaveLength(2 * NONCE_SIZE);
});

test('every address on every VLAN and without one; the nonce goes last, without a VLAN and from the first address', () => {
  const written: Uint8Array[] = [];
  const tap = {
    vnetHdrSize: 12,
    writeFrames: (bytes: Uint8Array, _stride: number, _count: number, lengths: Int32Array) => {
      written.push(bytes.slice(0, lengths[0]));
      return 1;
    },
  } as unknown as Tap;
  const other = '02:00:00:00:00:09';
  announce(tap, { macs: [MAC, other], vlans: [7, 8], nonce: NONCE });
  const frames = [rarpFrame(MAC, 7), rarpFrame(other, 7), rarpFrame(MAC, 8), rarpFrame(other, 8), rarpFrame(other)];
  expect(written.map((bytes) => [...bytes])).toEqual(
    [...frames, rarpFrame(MAC, null, NONCE)].map((frame) => [...zeros(12), ...frame]),
  );
});

test("waits between announcements are QEMU's", () => {
  expect(announceDelays()).toEqual([50, 150, 250, 350, 450]);
  expect(announceDelays({ announceRounds: 8 })).toEqual([50, 150, 250, 350, 450, 550, 550, 550]);
  expect(announceDelays({ announceRounds: 0 })).toEqual([]);
  expect(announceDelays({ announceInitial: 10, announceStep: 5, announceMax: 17, announceRounds: 3 })).toEqual([
    10, 15, 17,
  ]);
});
