/** The inspector of recorded streams reads anything to its end, and says what is wrong with it. */
import * as fc from 'fast-check';
import { type InspectedLine, StreamInspector } from '../../lib/migration/inspect-stream';
import { builtStream } from '../helpers/built-stream';

async function* inPieces(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

async function inspected(bytes: Uint8Array, size = 1000) {
  const inspector = new StreamInspector();
  const lines: InspectedLine[] = [];
  for await (const line of inspector.lines(inPieces(bytes, size))) lines.push(line);
  return { lines, summary: inspector.summary };
}

const frames = builtStream();
const whole = Buffer.concat(frames);

test.each([1, 19, 21, 1000, 1 << 20])('a good stream in pieces of %d bytes: every frame, in sum too', async (size) => {
  const { lines, summary } = await inspected(whole, size);
  expect(lines.map(({ name }) => name).join(' ')).toBe(
    'HELLO SETUP PAGES ROUND_END KEEPALIVE FRAMES GROUP STATE GO END',
  );
  expect(lines.every(({ checksum, errors }) => checksum === 'ok' && errors.length === 0)).toBe(true);
  expect(summary).toMatchObject({
    whole: true,
    errors: 0,
    bytes: whole.length,
    rounds: { 0: { pages: 5, zeroPages: 3 } },
  });
  expect(lines[2]!.what).toContain('2 runs, 2 data and 3 zero pages, plain');
  expect(lines[5]!.what).toBe('1 for pair 1');
  expect(lines[6]!.what).toBe('1 frames after');
  expect(lines[7]!.device).toEqual({ version: 2 });
});

test('what is wrong is said, and what follows is read all the same', async () => {
  const errorsOf = async (bytes: Uint8Array): Promise<string> =>
    (await inspected(bytes)).lines.flatMap(({ errors }) => errors).join('; ');
  const flipped = (index: number, at: number): Buffer => {
    const frame = Buffer.from(frames[index]!);
    frame[at < 0 ? frame.length + at : at]! ^= 64;
    return Buffer.concat(frames.with(index, frame));
  };
  expect(await errorsOf(flipped(1, 30))).toBe('the checksum is another');
  expect(await errorsOf(flipped(2, -1))).toBe('1 data pages have another hash, the first is number 1');
  expect(await errorsOf(Buffer.concat(frames.toSpliced(3, 1)))).toBe('number 4, 3 was due');
  expect(await errorsOf(Buffer.concat(frames.toSpliced(3, 0, Buffer.from('garbage'))))).toMatch(/7 bytes are left out/);
  expect(await errorsOf(whole.subarray(0, -1))).toMatch(/END ends after \d+ of \d+ bytes/);
  expect(await errorsOf(whole.subarray(0, -frames.at(-1)!.length))).toBe('');
  expect((await inspected(whole.subarray(0, -frames.at(-1)!.length))).summary.whole).toBe(false);
  const long = await inspected(flipped(1, 13));
  expect(long.lines.at(-1)!.name).toBe('END');
  expect(await errorsOf(Buffer.alloc(0))).toBe('');
});

test('any changes: it ends, throws nothing, and leaves out no byte', async () => {
  let wrong = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.nat(whole.length - 1), fc.nat(255), fc.nat(40), fc.uint8Array({ maxLength: 40 })), {
        minLength: 1,
        maxLength: 6,
      }),
      fc.integer({ min: 1, max: 5000 }),
      async (changes, size) => {
        let bytes: Buffer = Buffer.from(whole);
        for (const [at, value, removed, added] of changes) {
          if (at >= bytes.length) continue;
          bytes[at] = value;
          bytes = Buffer.concat([bytes.subarray(0, at), added, bytes.subarray(at + (removed > 20 ? removed : 0))]);
        }
        const { lines, summary } = await inspected(bytes, size);
        expect(summary.bytes).toBe(bytes.length);
        let next = 0;
        for (const { offset, name, length } of lines) {
          expect(offset).toBe(next);
          next += name === null ? length : length + 20;
        }
        if (!bytes.equals(whole)) wrong += summary.errors > 0 || !summary.whole ? 1 : 0;
      },
    ),
    { numRuns: 300 },
  );
  expect(wrong).toBeGreaterThan(250);
});
