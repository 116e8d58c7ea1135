/** A source that sends without end what a destination keeps before GO: refused with what it was and what may be, and nothing is left of it. */
import { encodeFrameHeader, FRAME_HEADER_SIZE, FrameType } from '../../lib/migration/frame';
import { FrameBatch } from '../../lib/migration/handover/frame-batch';
import { GroupEntries } from '../../lib/migration/handover/group-record';
import type { Place, Rig } from '../helpers/migration-rig';
import { leftovers, payloadOf, type RecordedFrame, recordRuns, replay, resealed } from '../helpers/stream-replay';

let rig: Rig;
let target: Place;
let close: () => Promise<void>;
let frames: RecordedFrame[];
let seed: number;

beforeAll(async () => {
  ({ rig, target, close, frames, seed } = await recordRuns([{}]));
}, 60_000);

afterAll(() => close());

/** `count` times the payload, in front of STATE; frames behind are numbered on. */
async function flooded(type: FrameType, payload: Uint8Array, count: number): Promise<string> {
  const state = frames.findIndex((frame) => frame.type === FrameType.STATE);
  const first = frames[state]!.bytes.readUInt32LE(8);
  const flood: RecordedFrame[] = [];
  for (let index = 0; index < count; index++) {
    const header = encodeFrameHeader(type, first + index, payload, seed);
    flood.push({ type, bytes: Buffer.concat([header, payload]) });
  }
  const last = Buffer.from(frames[state]!.bytes);
  last.writeUInt32LE(first + count, 8);
  const put = [
    ...frames.slice(0, state),
    ...flood,
    resealed({ type: FrameType.STATE, bytes: last }, payloadOf(frames[state]!), seed),
  ];
  const outcome = await replay(rig, target, put, { obedient: state });
  expect(leftovers(target, outcome)).toEqual([]);
  return (outcome.error as Error).message;
}

function batch(frame: number, count: number): Buffer {
  const made = new FrameBatch();
  for (let index = 0; index < count; index++) made.add(0, Buffer.alloc(frame));
  return made.take();
}

test('FRAMES of more bytes than may wait', async () => {
  expect(await flooded(FrameType.FRAMES, batch(65_000, 60), 70)).toMatch(
    /^FRAMES: 268\d{6} bytes wait at offset \d+: expected at most 268435456$/,
  );
}, 60_000);

test('FRAMES of more frames than may wait', async () => {
  expect(await flooded(FrameType.FRAMES, batch(24, 60_000), 18)).toMatch(
    /^FRAMES: 1048577 frames wait at offset \d+: expected at most 1048576$/,
  );
}, 60_000);

test('GROUP of more entries than a hand-over has', async () => {
  const entries = new GroupEntries('before');
  for (let index = 0; index < 65_000; index++) entries.add(BigInt(index), 1n);
  expect(await flooded(FrameType.GROUP, entries.take(), 17)).toMatch(
    /^GROUP: 1048577 entries at offset \d+: expected at most 1048576$/,
  );
}, 60_000);

test('LAYOUT of more memory than there is', async () => {
  const index = frames.findIndex((frame) => frame.type === FrameType.ROUND_END);
  const text = JSON.stringify({ kind: 'add', gpa: 2 ** 40, size: 2 ** 42 });
  const put = resealed(frames[index]!, text, seed, FrameType.LAYOUT);
  expect(put.bytes).toHaveLength(FRAME_HEADER_SIZE + text.length);
  const outcome = await replay(rig, target, frames.with(index, put), { obedient: index });
  expect(leftovers(target, outcome)).toEqual([]);
  expect(outcome.error).toMatchObject({
    code: 'VHOST_ERR_INCOMPATIBLE',
    message: expect.stringMatching(/bytes of memory: 4398059094016 here, \d+ available there/),
  });
});
