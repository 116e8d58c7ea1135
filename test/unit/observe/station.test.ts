/** Stations with taps on one bridge in a network namespace made for the purpose: needs root and /dev/net/tun. */
import { Netns } from '../../../lib/host/netns';
import type { FrameKind } from '../../../lib/net/test-flows';
import { sumReports } from '../../../lib/observe/ledger-set';
import { Station, type StationOptions } from '../../../lib/observe/station';
import { codeOf, until } from '../../helpers/vhost-wait';

const NOTHING_WRONG = { lost: 0, duplicated: 0, reordered: 0, corrupted: 0 };
const MAC = ['02:00:00:00:00:01', '02:00:00:00:00:02'] as const;

let netns: Netns;
beforeAll(async () => {
  netns = await Netns.create();
  await netns.addBridge('br0');
});
afterAll(() => netns.delete());

function options(name: 'a' | 'b', changes: Partial<StationOptions> = {}): StationOptions {
  const second = name === 'b';
  return {
    netns: netns.path,
    name,
    mac: MAC[second ? 1 : 0],
    peerMac: MAC[second ? 0 : 1],
    sends: second ? 20 : 10,
    receives: second ? 10 : 20,
    rate: 20_000,
    frameSize: 128,
    capacity: 1 << 16,
    ...changes,
  };
}

async function pair(changes: Partial<StationOptions>): Promise<[Station, Station]> {
  const a = await Station.open(options('a', changes));
  const b = await Station.open(options('b', changes));
  await netns.attach('br0', 'a');
  await netns.attach('br0', 'b');
  return [a, b];
}

/** Everything that was sent has come, but for `missing` frames. */
async function arrived(from: Station, to: Station, missing = 0): Promise<void> {
  await until('all frames', () => to.ledgers.reduce((sum, ledger) => sum + ledger.received, 0) === from.sent - missing);
}

test.each<[number, FrameKind | undefined]>([
  [1, undefined],
  [1, 'udp'],
  [4, undefined],
  [4, 'raw'],
  [7, 'udp'],
])('%i flows each way, shape %s: each is counted by itself', async (flows, shape) => {
  const [a, b] = await pair({ flows, ...(shape === undefined ? {} : { shape }) });
  await using _a = a;
  await using _b = b;
  a.start();
  b.start();
  await until('traffic', () => a.sent > 2000 && b.sent > 2000);
  const sent = [a.hush(), b.hush()];
  expect(sent).toEqual([a.sent, b.sent]);
  await arrived(a, b);
  await arrived(b, a);
  for (const [from, to, first] of [
    [a, b, 10],
    [b, a, 20],
  ] as const) {
    expect(to.ledgers.map(({ flow }) => flow)).toEqual(Array.from({ length: flows }, (_, index) => first + index));
    const reports = to.ledgers.map((ledger, index) => ledger.report(from.sentOf(index)));
    for (const report of reports) expect(report).toMatchObject(NOTHING_WRONG);
    const counts = reports.map(({ received }) => received);
    expect(Math.max(...counts) - Math.min(...counts)).toBeLessThanOrEqual(1);
    expect(sumReports(reports)).toEqual({ sent: from.sent, received: from.sent, ...NOTHING_WRONG });
    expect(to.ledgers.every(({ foreign }) => foreign === 0)).toBe(true);
  }
});

test('a loss is found in its flow and nowhere else', async () => {
  const [a, b] = await pair({ flows: 4 });
  await using _a = a;
  await using _b = b;
  a.start();
  await until('traffic', () => a.sent > 500);
  const next = a.sentOf(2);
  a.dropNext(3, 2);
  await until('traffic', () => a.sent > 1000);
  a.hush();
  await arrived(a, b, 3);
  const reports = b.ledgers.map((ledger, index) => ledger.report(a.sentOf(index)));
  expect(reports.map(({ lost }) => lost)).toEqual([0, 0, 3, 0]);
  expect(b.ledgers[2]!.lostSequences(10)).toEqual([next, next + 1, next + 2]);
  expect(sumReports(reports)).toMatchObject({ ...NOTHING_WRONG, lost: 3 });
});

test.each<[string, Partial<StationOptions>]>([
  ['no flow', { flows: 0 }],
  ['65 flows', { flows: 65 }],
  ['half a flow', { flows: 1.5 }],
  ['flow numbers beyond 16 bits', { flows: 4, sends: 65533 }],
  ['frames too short for UDP', { flows: 2, frameSize: 65 }],
  ['frames longer than its buffers', { frameSize: 2049 }],
])('refuses %s', async (_what, changes) => {
  expect(await codeOf(Station.open(options('a', changes)))).toBe('VHOST_ERR_INVALID_ARGUMENT');
  expect(await netns.ip('-o', 'link')).not.toMatch(/ a: /);
});
