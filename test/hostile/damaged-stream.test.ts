/** The bytes of real migrations, damaged in every way that a wire or a disk can, against a real destination: refused, and nothing is left. */
import { readdirSync } from 'node:fs';
import { ProtocolError } from '../../lib/errors';
import { FRAME_HEADER_SIZE, FrameType, frameName } from '../../lib/migration/frame';
import { native } from '../../lib/native';
import type { Place, Rig } from '../helpers/migration-rig';
import { leftovers, type RecordedFrame, recordRuns, replay } from '../helpers/stream-replay';

let rig: Rig;
let target: Place;
let close: () => Promise<void>;
/** Of a run with frames handed over, and of one without. */
let relayed: RecordedFrame[];
let plain: RecordedFrame[];
let descriptors = 0;
let mappings = 0;

const descriptorsOpen = (): number => readdirSync('/proc/self/fd').length;

async function collected(): Promise<number> {
  for (let turn = 0; turn < 50 && native().mappingsLive() > mappings; turn++) {
    global.gc?.();
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  return native().mappingsLive();
}

beforeAll(async () => {
  const recorded = await recordRuns([{}, { handover: false }]);
  ({ rig, target, close } = recorded);
  [relayed, plain] = recorded.recordings as [RecordedFrame[], RecordedFrame[]];
  global.gc?.();
  descriptors = descriptorsOpen();
  mappings = native().mappingsLive();
}, 60_000);

afterAll(() => close());

const names = (frames: readonly RecordedFrame[]): string[] => frames.map(({ type }) => frameName(type));
const goOf = (frames: readonly RecordedFrame[]): number => frames.findIndex(({ type }) => type === FrameType.GO);

/** Sends it, which must be refused for what is wrong with it, saying where, and leave nothing. `changed`: number of the frame that is. */
async function refused(what: string, frames: readonly RecordedFrame[], changed: number): Promise<void> {
  const outcome = await replay(rig, target, frames, { obedient: changed });
  const wrong = leftovers(target, outcome);
  const { error } = outcome;
  const begin = frames.slice(0, changed).reduce((sum, { bytes }) => sum + bytes.length, 0);
  const told = error instanceof ProtocolError && error.expected !== '' && error.offset >= begin;
  if (!told) wrong.push(`not told where and what was expected: ${error}`);
  expect({ what, wrong }).toEqual({ what, wrong: [] });
}

async function nothingLeft(): Promise<void> {
  expect(await collected()).toBeLessThanOrEqual(mappings);
  expect(descriptorsOpen()).toBeLessThanOrEqual(descriptors);
}

test('both recordings are whole migrations, and one of them hands frames over', () => {
  expect(names(relayed)).toEqual(expect.arrayContaining(['SETUP', 'PAGES', 'OPEN', 'STATE', 'GO', 'DRAINED', 'END']));
  expect(names(plain)).toEqual(expect.arrayContaining(['SETUP', 'PAGES', 'STATE', 'GO', 'END']));
  expect(names(plain)).not.toContain('OPEN');
});

test.each(['relayed', 'plain'])(
  'unchanged it is taken: what follows is refused for its changes (%s)',
  async (which) => {
    const outcome = await replay(rig, target, which === 'plain' ? plain : relayed, { patient: true });
    expect(outcome).toMatchObject({ error: null, resumed: 1 });
    const { memory, device, guest } = outcome.received!;
    await rig.discard({ memory, device, runner: guest });
    await nothingLeft();
  },
);

test.each(['relayed', 'plain'])('cut at the edge of every frame before GO, and within (%s)', async (which) => {
  const frames = which === 'plain' ? plain : relayed;
  for (let index = 0; index <= goOf(frames); index++) {
    const { type, bytes } = frames[index]!;
    const cuts = [
      0,
      1,
      FRAME_HEADER_SIZE - 1,
      FRAME_HEADER_SIZE,
      FRAME_HEADER_SIZE + 1,
      bytes.length >> 1,
      bytes.length - 1,
    ];
    for (const length of new Set(cuts.filter((cut) => cut < bytes.length))) {
      const cut = [...frames.slice(0, index), { type, bytes: bytes.subarray(0, length) }];
      await refused(`${frameName(type)} ${index} cut after ${length}`, cut, index);
    }
  }
  await nothingLeft();
});

test.each<[string, (frames: readonly RecordedFrame[], index: number) => RecordedFrame[]]>([
  ['dropped', (frames, index) => frames.toSpliced(index, 1)],
  ['doubled', (frames, index) => frames.toSpliced(index, 0, frames[index]!)],
  ['swapped with the next', (frames, index) => frames.toSpliced(index, 2, frames[index + 1]!, frames[index]!)],
])('each frame before GO %s', async (what, change) => {
  for (let index = 0; index < goOf(relayed); index++) {
    const changed = what === 'doubled' ? index + 1 : index;
    await refused(`${frameName(relayed[index]!.type)} ${index} ${what}`, change(relayed, index), changed);
  }
  await nothingLeft();
});

test('each frame before GO from another run', async () => {
  for (let index = 0; index <= goOf(plain); index++) {
    if (index >= relayed.length) break;
    const spliced = plain.toSpliced(index, 1, relayed[index]!);
    // A HELLO of another run is a whole one; what follows is not of its run.
    await refused(
      `${frameName(plain[index]!.type)} ${index} of another run`,
      spliced,
      Math.max(index, 1) - (index === 0 ? 1 : 0),
    );
  }
  await nothingLeft();
});

test('a bit of every byte of every control frame, and of some of the pages', async () => {
  for (let index = 0; index <= goOf(relayed); index++) {
    const { type, bytes } = relayed[index]!;
    const step = type === FrameType.PAGES ? 40_009 : 37;
    const places = [...Array(FRAME_HEADER_SIZE).keys()];
    for (let at = FRAME_HEADER_SIZE; at < bytes.length; at += step) places.push(at);
    // Headers of pages are checked by the same code: the first and the last of them do.
    const some = type === FrameType.PAGES && index > 3 ? places.filter((at) => at % 7 === 0) : places;
    for (const at of some) {
      const damaged = Buffer.from(bytes);
      damaged[at]! ^= 1 << (at & 7);
      await refused(`${frameName(type)} ${index} byte ${at}`, relayed.with(index, { type, bytes: damaged }), index);
    }
  }
  await nothingLeft();
});
