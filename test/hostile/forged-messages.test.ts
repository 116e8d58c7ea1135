/** Messages that are well-formed and numbered, but say what cannot be: a source that means harm, field by field. */
import { FRAME_MAX_PAYLOAD, FrameType, frameName } from '../../lib/migration/frame';
import { decodePages, encodePages, type PagesPayload } from '../../lib/migration/page-frame';
import type { Place, Rig } from '../helpers/migration-rig';
import {
  jsonOf,
  leftovers,
  payloadOf,
  RECORDED_SIZE,
  type RecordedFrame,
  recordRuns,
  replay,
  resealed,
} from '../helpers/stream-replay';

let rig: Rig;
let target: Place;
let close: () => Promise<void>;
let frames: RecordedFrame[];
let seed: number;

beforeAll(async () => {
  ({ rig, target, close, frames, seed } = await recordRuns([{}]));
}, 60_000);

afterAll(() => close());

const firstOf = (type: number): number => frames.findIndex((frame) => frame.type === type);

/** With the first frame of that type saying something else; HELLO has no seed yet. */
function forged(type: number, payload: Uint8Array | string): RecordedFrame[] {
  const index = firstOf(type);
  return frames.with(index, resealed(frames[index]!, payload, type === FrameType.HELLO ? 0 : seed));
}

async function outcomeOf(type: number, payload: Uint8Array | string) {
  return replay(rig, target, forged(type, payload), { obedient: firstOf(type) });
}

async function refused(what: string, type: number, payload: Uint8Array | string): Promise<void> {
  const outcome = await outcomeOf(type, payload);
  expect({ what, wrong: leftovers(target, outcome) }).toEqual({ what, wrong: [] });
}

const WRONG = [null, true, -1, 1.5, 2 ** 53, 1e300, 'text', '', [], {}, [null], 'x'.repeat(100_000)];

type Bad = readonly unknown[];
const but = (...good: unknown[]): Bad => WRONG.filter((value) => !good.includes(value));
/** What of WRONG a field must refuse. Fields that decide nothing, such as what a side is called, refuse nothing. */
const FIELDS: readonly [type: number, field: string, bad: Bad][] = [
  [FrameType.HELLO, 'version', but(2 ** 53, 1e300)],
  [FrameType.HELLO, 'minVersion', ['text', 3, 2 ** 53, {}, 1e300]],
  [FrameType.HELLO, 'identity', WRONG],
  [FrameType.HELLO, 'channel', [...WRONG, 'pages', 'descriptors']],
  [FrameType.HELLO, 'index', [...WRONG, 1]],
  [FrameType.SETUP, 'regions', [...WRONG, Array(4097).fill({ gpa: 0, size: 4096 }), [{ gpa: 0, size: 0 }]]],
  [FrameType.SETUP, 'features', [...WRONG, '0xg', `0x${'f'.repeat(33)}`, `0x${'f'.repeat(32)}`]],
  [FrameType.SETUP, 'pairs', [...but(), 33, 1000]],
  [FrameType.SETUP, 'mtu', but()],
  [FrameType.SETUP, 'pageConnections', [...WRONG, 1, 17]],
  [FrameType.SETUP, 'local', [true]],
  [FrameType.SETUP, 'dryRun', [true]],
  [FrameType.ROUND_END, 'round', [...WRONG, 1]],
  [FrameType.ROUND_END, 'pages', [...WRONG, 0]],
  [FrameType.ROUND_END, 'final', but(true)],
  [FrameType.OPEN, 'device', WRONG],
  [FrameType.OPEN, 'addresses', [...WRONG, ['01:00:00:00:00:00'], Array(1025).fill('02:00:00:00:00:02')]],
  [FrameType.STATE, 'device', WRONG],
  [FrameType.STATE, 'guest', but()],
  [FrameType.STATE, 'addresses', WRONG],
  [
    FrameType.STATE,
    'vlans',
    [...WRONG.filter((value) => !Array.isArray(value) || value.length > 0), [4096], [-1], Array(4097).fill(1)],
  ],
];

test.each(FIELDS.map(([type, field, bad]) => [frameName(type), field, type, bad] as const))(
  '%s: %s',
  async (_name, field, type, bad) => {
    const good = jsonOf(frames[firstOf(type)]!);
    for (const value of bad) {
      if (
        type === FrameType.STATE &&
        field === 'guest' &&
        typeof value === 'object' &&
        value !== null &&
        !Array.isArray(value)
      )
        continue;
      const text = JSON.stringify({ ...good, [field]: value });
      await refused(`${field} is ${JSON.stringify(value).slice(0, 60)}`, type, text);
    }
  },
);

const MESSAGES = [FrameType.HELLO, FrameType.SETUP, FrameType.ROUND_END, FrameType.OPEN, FrameType.STATE] as const;

test.each(MESSAGES.map((type) => [frameName(type), type] as const))(
  '%s that is no such message',
  async (name, type) => {
    const deep = `${'['.repeat(100_000)}${']'.repeat(100_000)}`;
    for (const text of ['', '{', 'null', '1', '"x"', '[]', '{}', '{"__proto__":{"final":true}}', '\u0000', deep]) {
      await refused(`${name} of ${text.slice(0, 30)}`, type, text);
    }
    await refused(`${name} of bytes`, type, Uint8Array.from([0xff, 0xfe, 0, 0x80]));
  },
);

test('every field of a state is checked before a device is made of it', async () => {
  const good = jsonOf(frames[firstOf(FrameType.STATE)]!);
  const device = good.device as Record<string, unknown>;
  const { queues } = device as { queues: Record<string, unknown>[] };
  const states: unknown[] = [
    { ...device, version: 3 },
    { ...device, mandatory: ['something new'] },
    { ...device, features: '0x1ffffffff' },
    { ...device, queues: [] },
    { ...device, queues: Array(70_000).fill(queues[0]) },
    { ...device, status: 256 },
    { ...device, properties: null },
  ];
  for (const field of ['size', 'descTable', 'availRing', 'usedRing', 'nextAvail']) {
    // Any place of a ring is one where a device may stand: a wrong one is that guest's own harm.
    const unaligned = field === 'nextAvail' ? [] : [3];
    for (const value of [-1, ...unaligned, 2 ** 40, 65536 * 3 + 1, null, '1']) {
      states.push({ ...device, queues: [{ ...queues[0], [field]: value }, ...queues.slice(1)] });
    }
  }
  for (const state of states) {
    const what = JSON.stringify(state).slice(0, 60);
    await refused(what, FrameType.STATE, JSON.stringify({ ...good, device: state }));
  }
});

test('regions beyond what there is are refused before any is made', async () => {
  const setup = jsonOf(frames[firstOf(FrameType.SETUP)]!);
  for (const regions of [
    [{ gpa: 0, size: 2 ** 50 }],
    [{ gpa: 0, size: 4095 }],
    [{ gpa: 1, size: 4096 }],
    [{ gpa: 2 ** 52, size: 2 ** 52 }],
    [
      { gpa: 0, size: 8192 },
      { gpa: 4096, size: 8192 },
    ],
  ]) {
    await refused(JSON.stringify(regions), FrameType.SETUP, JSON.stringify({ ...setup, regions }));
  }
});

describe('LAYOUT in place of the first ROUND_END', () => {
  async function layout(message: unknown): Promise<string[]> {
    const index = firstOf(FrameType.ROUND_END);
    const put = resealed(frames[index]!, JSON.stringify(message), seed, FrameType.LAYOUT);
    return leftovers(target, await replay(rig, target, frames.with(index, put), { obedient: index }));
  }

  test.each([
    [null],
    [{}],
    [{ kind: 'move', gpa: 0, size: 4096 }],
    [{ kind: 'add', gpa: 0, size: 4096 }],
    [{ kind: 'add', gpa: 1, size: 4096 }],
    [{ kind: 'add', gpa: 2 ** 32, size: 0 }],
    [{ kind: 'add', gpa: 2 ** 32, size: 2 ** 50 }],
    [{ kind: 'add', gpa: -4096, size: 4096 }],
    [{ kind: 'add', gpa: '4294967296', size: 4096 }],
    [{ kind: 'remove', gpa: 4096, size: 4096 }],
    [{ kind: 'remove', gpa: 0, size: RECORDED_SIZE }],
  ])('%j', async (message) => {
    expect(await layout(message)).toEqual([]);
  });
});

describe('PAGES', () => {
  const good = (): PagesPayload => decodePages(payloadOf(frames[firstOf(FrameType.PAGES)]!));
  const changes: [string, (pages: PagesPayload) => PagesPayload][] = [
    ['of another round', (pages) => ({ ...pages, round: 1 })],
    ['of an encoding nobody knows', (pages) => ({ ...pages, encoding: 3 as never })],
    ['said to be deflated', (pages) => ({ ...pages, encoding: 1 })],
    [
      'of a kind nobody knows',
      ({ runs, ...pages }) => ({ ...pages, runs: runs.with(0, { ...runs[0]!, kind: 2 as never }) }),
    ],
    [
      'outside of memory',
      ({ runs, ...pages }) => ({ ...pages, runs: runs.with(0, { ...runs[0]!, page: RECORDED_SIZE >> 12 }) }),
    ],
    [
      'at the end of the address space',
      ({ runs, ...pages }) => ({ ...pages, runs: runs.with(0, { ...runs[0]!, page: 2 ** 32 - 1 }) }),
    ],
    ['in no pages', ({ runs, ...pages }) => ({ ...pages, runs: runs.with(0, { ...runs[0]!, pages: 0 }) })],
    ['with another hash', ({ hashes, ...pages }) => ({ ...pages, hashes: hashes.with(0, 1n) })],
    ['with a hash too few', ({ hashes, ...pages }) => ({ ...pages, hashes: hashes.slice(1) })],
    ['with data too short', ({ data, ...pages }) => ({ ...pages, data: data.subarray(1) })],
    ['with other data', ({ data, ...pages }) => ({ ...pages, data: data.map((byte) => byte ^ 1) })],
    ['with too many runs', (pages) => ({ ...pages, runs: Array(1025).fill({ page: 0, pages: 1, kind: 0 }) })],
  ];

  test.each(changes)('%s', async (what, change) => {
    await refused(what, FrameType.PAGES, encodePages(change(good())));
  });

  test('of no bytes, and of the most a frame can have', async () => {
    await refused('no bytes', FrameType.PAGES, '');
    await refused('most bytes', FrameType.PAGES, Buffer.alloc(FRAME_MAX_PAYLOAD));
  });
});

test('each type out of its place', async () => {
  for (const index of [
    firstOf(FrameType.SETUP),
    firstOf(FrameType.ROUND_END),
    firstOf(FrameType.STATE),
    firstOf(FrameType.GO),
  ]) {
    for (const type of Object.values(FrameType)) {
      // These may come at any time, or there.
      if (type === frames[index]!.type || type === FrameType.KEEPALIVE) continue;
      const put = frames.with(index, resealed(frames[index]!, payloadOf(frames[index]!), seed, type));
      const what = `${frameName(type)} for ${frameName(frames[index]!.type)}`;
      const outcome = await replay(rig, target, put, { obedient: index });
      expect({ what, wrong: leftovers(target, outcome) }).toEqual({ what, wrong: [] });
    }
  }
});

describe('after GO the guest runs, whatever comes', () => {
  const account = { read: 1, sent: 'x' };
  test.each<[string, number, string | Uint8Array]>([
    ['FRAMES of a byte', FrameType.FRAMES, Buffer.alloc(1)],
    ['FRAMES for a pair that is not there', FrameType.FRAMES, Buffer.from('ffff00001a000000'.padEnd(68, '0'), 'hex')],
    ['GROUP of a byte', FrameType.GROUP, Buffer.alloc(1)],
    ['GROUP of another kind', FrameType.GROUP, Buffer.alloc(24, 9)],
    ['DRAINED of null', FrameType.DRAINED, 'null'],
    ['an account of text', FrameType.DRAINED, JSON.stringify({ account })],
    ['STATE once more', FrameType.STATE, '{}'],
    ['GO once more', FrameType.GO, ''],
    ['ERROR', FrameType.ERROR, '{"reason":5}'],
  ])('%s', async (_name, type, payload) => {
    const index = firstOf(FrameType.GO) + 1;
    const put = resealed(frames[index]!, payload, seed, type);
    const outcome = await replay(rig, target, frames.with(index, put), { obedient: index, patient: true });
    expect(outcome).toMatchObject({ error: null, resumed: 1 });
    const { memory, device, guest, handover } = outcome.received!;
    expect(device.running).toBe(true);
    expect(handover?.unproven).not.toEqual([]);
    await rig.discard({ memory, device, runner: guest });
  });

  test('an audit that cannot be is none', async () => {
    for (const audit of [
      { audit: { total: 'x' } },
      { audit: 5 },
      { audit: { total: 1, differing: 0, pages: [{}] } },
      null,
    ]) {
      const outcome = await replay(rig, target, forged(FrameType.END, JSON.stringify(audit)), { patient: true });
      expect(outcome).toMatchObject({ error: null, received: { audit: null } });
      const { memory, device, guest } = outcome.received!;
      await rig.discard({ memory, device, runner: guest });
    }
  });
});
