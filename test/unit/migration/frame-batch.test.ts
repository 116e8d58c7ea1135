import { decodeFrames, FrameBatch } from '../../../lib/migration/handover/frame-batch';

const LIMITS = { pairs: 2, largest: 2000 };

function decode(payload: Buffer): { pair: number; frame: number[] }[] {
  const found: { pair: number; frame: number[] }[] = [];
  decodeFrames(payload, 100, LIMITS, (pair, frame) => found.push({ pair, frame: [...frame] }));
  return found;
}

const frameOf = (length: number, fill: number): Uint8Array => new Uint8Array(length).fill(fill);

test('frames come out as they went in', () => {
  const batch = new FrameBatch();
  expect(batch.empty).toBe(true);
  batch.add(0, frameOf(24, 1));
  batch.add(1, frameOf(2000, 2));
  batch.add(0, frameOf(75, 3));
  expect(batch.empty).toBe(false);
  const found = decode(batch.take());
  expect(found.map(({ pair, frame }) => [pair, frame.length, frame[0]])).toEqual([
    [0, 24, 1],
    [1, 2000, 2],
    [0, 75, 3],
  ]);
  expect(batch.empty).toBe(true);
  expect(batch.take()).toHaveLength(0);
});

test('a batch is full at some time', () => {
  const batch = new FrameBatch();
  let frames = 0;
  for (; !batch.full && frames < 1000; frames++) batch.add(0, frameOf(1500, 0));
  expect(frames).toBeGreaterThan(50);
  expect(frames).toBeLessThan(1000);
  batch.take();
  expect(batch.full).toBe(false);
});

test('an entry: pair, zero, length, frame', () => {
  const batch = new FrameBatch();
  batch.add(1, frameOf(24, 0xaa));
  expect([...batch.take()]).toEqual([1, 0, 0, 0, 24, 0, 0, 0, ...frameOf(24, 0xaa)]);
});

describe('what a peer must not send', () => {
  const sound = (): Buffer => {
    const batch = new FrameBatch();
    batch.add(0, frameOf(60, 1));
    batch.add(1, frameOf(60, 2));
    return batch.take();
  };

  test('a batch cut anywhere but between two frames', () => {
    const payload = sound();
    for (let length = 1; length < payload.length; length++) {
      if (length === 68) expect(decode(payload.subarray(0, length))).toHaveLength(1);
      else
        expect(() => decode(payload.subarray(0, length))).toThrow(
          expect.objectContaining({ code: 'VHOST_ERR_PROTOCOL' }),
        );
    }
  });

  test.each([0, 1, 23, 61, 2001, 0x7fffffff, 0xffffffff])('a frame of %d bytes', (length) => {
    const payload = sound();
    payload.writeUInt32LE(length, 4);
    if (length === 61) expect(() => decode(payload)).toThrow(/pair 256|bytes/);
    else expect(() => decode(payload)).toThrow(/a frame of \d+ bytes/);
  });

  test('a frame longer than the rest', () => {
    const payload = sound();
    payload.writeUInt32LE(61, 68 + 4);
    expect(() => decode(payload)).toThrow(/a frame of 61 bytes/);
  });

  test('a pair that is not there, and where it was said', () => {
    const payload = sound();
    payload.writeUInt16LE(2, 68);
    expect(() => decode(payload)).toThrow(expect.objectContaining({ message: expect.stringContaining('168') }));
  });
});
