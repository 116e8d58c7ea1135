/** Records of migrations that did not happen, for whatever shows them. */

import { PAGE_SIZE } from '../../lib/memory/address';
import { PageBitmap } from '../../lib/memory/page-bitmap';
import type { SideEnvironment } from '../../lib/migration/environment';
import { HeatMap } from '../../lib/migration/heat-map';
import type { Round } from '../../lib/migration/options';
import type { MigrationRecord, RateSample } from '../../lib/migration/record';

const MIB = 1024 ** 2;

const side = (host: string, kernel: string, backend: string, tap: string): SideEnvironment => ({
  host,
  kernel,
  node: 'v20.20.2',
  version: '0.1.0',
  backend,
  bootId: 'a boot of this host',
  offered: '0x1033d008000',
  pairs: 1,
  tap: { name: tap, features: '0x7f03', multiQueue: false, mtu: 1500, txQueueLen: 1000 },
  netns: null,
  maxRegions: 64,
  freeMemory: 2 ** 34,
  membarrier: true,
});

/** Numbers that look measured and are the same every time. */
function* noise(): Generator<number, never> {
  let state = 12345;
  for (;;) {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    yield state / 2 ** 32;
  }
}

function roundsOf(count: number): Round[] {
  const random = noise();
  const next = (): number => random.next().value;
  let startMs = 38.2;
  let dirty = 32_768;
  return Array.from({ length: count }, (_, round) => {
    const pages = dirty;
    dirty =
      round === count - 1 ? 0 : Math.max(40, Math.round((round === 0 ? 3400 : pages * 0.42) * (0.8 + next() * 0.4)));
    const zeroPages = round === 0 ? 21_044 : Math.round(pages * 0.03);
    const bytes = (pages - zeroPages) * (PAGE_SIZE + 10) + zeroPages;
    const ms = bytes / 410_000;
    const entry = {
      round,
      pages,
      zeroPages,
      bytes,
      ms,
      dirtyAfter: dirty,
      dirtyBy: round === 0 ? {} : { guest: Math.round(pages * 0.7), vhost: Math.round(pages * 0.3) },
      startMs,
      hotPages: Math.min(pages, 12),
    };
    startMs += ms + 1.4;
    return entry;
  });
}

function samplesOf(count: number, totalMs: number): RateSample[] {
  const random = noise();
  const next = (): number => random.next().value;
  return Array.from({ length: count }, (_, at) => ({
    atMs: ((at + 1) / count) * totalMs * 0.97,
    bytesPerSecond: 410e6 * (0.85 + next() * 0.2) * (at < 2 ? 0.4 : 1),
    dirtyPagesPerSecond: 21_000 * (0.7 + next() * 0.5) + (at > count / 2 ? 6000 : 0),
  }));
}

function heatOf(regions: readonly { gpa: number; size: number }[], rounds: readonly Round[]): HeatMap {
  const heat = new HeatMap(regions);
  const random = noise();
  const pages = Math.max(...regions.map(({ gpa, size }) => gpa + size)) / PAGE_SIZE;
  for (const { round, pages: dirty } of rounds) {
    const bitmap = new PageBitmap(pages);
    if (round === 0) bitmap.fill();
    else {
      bitmap.setRange(0, 24);
      for (let left = dirty; left > 0; left -= 16) {
        const area = random.next().value < 0.7 ? 0.08 : 0.6;
        const page = Math.floor(pages * (area + random.next().value ** 3 * 0.25));
        bitmap.setRange(page, 16);
      }
    }
    heat.count(bitmap, round);
  }
  return heat;
}

/** A migration that went well, under load. */
export function completedRecord({ rounds: count = 9, samples: points = 64 } = {}): MigrationRecord {
  const rounds = roundsOf(count);
  const last = rounds.at(-1);
  const beginning = last === undefined ? 40 : last.startMs;
  const guestMemory = [{ gpa: 0, size: 128 * MIB }];
  const totalMs = beginning + 31.6;
  return {
    version: 1,
    startedAt: '2026-03-01T12:34:56.789Z',
    outcome: 'completed',
    error: null,
    source: side('alder', '6.12.117+deb12-amd64', 'vhost-kernel', 'tap-a'),
    destination: { ...side('birch', '6.18.2-amd64', 'emulated', 'tap-b'), netns: 'destination' },
    guestMemory,
    differences: [
      { what: 'kernel', source: '6.12.117+deb12-amd64', destination: '6.18.2-amd64', severity: 'fine' },
      { what: 'mtu', source: '9000', destination: '1500', severity: 'degraded' },
    ],
    rounds,
    samples: samplesOf(points, totalMs),
    totalMs,
    downtimeMs: 8.437,
    downtimeParts: { stop: 1.212, sync: 0.384, lastPages: 2.91, state: 1.077, start: 2.401 },
    blackoutMs: { guestToNetwork: 9.118, networkToGuest: 11.904 },
    phases: [
      { phase: 'setup', atMs: 0 },
      { phase: 'precopy', atMs: 36.5 },
      { phase: 'switchover', atMs: beginning },
      { phase: 'ready', atMs: beginning + 6.1 },
      { phase: 'commit', atMs: beginning + 6.2 },
      { phase: 'running', atMs: beginning + 8.4 },
      { phase: 'done', atMs: totalMs },
    ],
    heat: heatOf(guestMemory, rounds).regions,
    handover: {
      source: {
        read: 412,
        sent: 330,
        own: 29,
        groupAfterCut: 52,
        markers: 1,
        late: 0,
        dropped: 0,
        cutBy: 'marker',
        weakGraces: 0,
      },
      destination: {
        discarded: 1207,
        read: 498,
        own: 30,
        matched: 61,
        kept: 407,
        received: 330,
        dropped: 0,
        ambiguous: 0,
        disagreeing: 0,
        missing: 0,
        unordered: 0,
        weakGraces: 0,
        complete: true,
        firstReceivedMs: 0.4,
        firstSentMs: 0.7,
      },
      unproven: [],
    },
    audit: { total: 32_768, differing: 0, pages: [] },
    decision: { reason: 'What is dirty fits the downtime limit of 10 ms at the bandwidth measured.', estimateMs: 7.9 },
  };
}

/** The destination was never reached. */
export function failedEarlyRecord(): MigrationRecord {
  return {
    ...completedRecord({ rounds: 0, samples: 0 }),
    outcome: 'failed',
    error: {
      code: 'ECONNREFUSED',
      message: 'connect ECONNREFUSED 192.0.2.7:4444',
      hint: 'Is `vhost-net receive` running there?',
    },
    destination: null,
    differences: [],
    samples: [],
    totalMs: 3.2,
    downtimeMs: 0,
    downtimeParts: {},
    blackoutMs: { guestToNetwork: null, networkToGuest: null },
    phases: [{ phase: 'setup', atMs: 0 }],
    heat: [],
    handover: null,
    audit: null,
    decision: null,
  };
}

/** GO was sent, and nothing came back; what can be told of the frames is not enough. */
export function uncertainRecord(): MigrationRecord {
  const record = completedRecord();
  return {
    ...record,
    outcome: 'uncertain',
    error: {
      code: 'VHOST_ERR_UNCERTAIN',
      message: 'the destination was told to start and has not said that it runs',
      hint: 'Look whether the guest runs there before it is started anywhere.',
    },
    handover: {
      ...record.handover!,
      source: { ...record.handover!.source!, dropped: 7, cutBy: 'timeout' },
      destination: { ...record.handover!.destination!, ambiguous: 2 },
      unproven: ['No marker came back within 200 ms.'],
    },
    audit: { total: 32_768, differing: 3, pages: [0x1000, 0x2f000, 0x7ff_f000] },
  };
}

/** More of everything than a page can show. */
export function extremeRecord(): MigrationRecord {
  const record = completedRecord({ rounds: 10_000, samples: 100_000 });
  const random = noise();
  const regions = Array.from({ length: 40 }, (_, at) => ({ gpa: at * 256 * MIB, size: 64 * MIB }));
  // Every cell in a level of its own is what makes a map largest.
  const heat = regions.slice(0, 8).map(({ gpa, size }) => ({
    gpa,
    total: size / PAGE_SIZE,
    pages: 32,
    rounds: 40,
    counts: Array.from({ length: 250 }, () => Array.from({ length: 512 }, () => Math.floor(random.next().value * 33))),
  }));
  const long = 'x'.repeat(100_000);
  return {
    ...record,
    guestMemory: regions,
    heat,
    differences: Array.from({ length: 5000 }, (_, at) => ({
      what: `feature ${at}`,
      source: long.slice(0, 500),
      destination: long.slice(0, 500),
      severity: 'degraded',
    })),
    error: { code: 'VHOST_ERR_MIGRATION', message: long, hint: long },
    audit: { total: 2 ** 31, differing: 1000, pages: Array.from({ length: 1000 }, (_, at) => at * PAGE_SIZE) },
    handover: { ...record.handover!, unproven: Array.from({ length: 1000 }, (_, at) => `reason ${at}: ${long}`) },
  };
}

export const HOSTILE =
  '"><script>alert(1)</script><img src="https://evil.example/x.png" onerror=alert(1)>&\u202e\u0000\ud800\'</style></title>';

/** Every text of a record says something hostile. */
export function hostileRecord(): MigrationRecord {
  const poison = (value: unknown): unknown => {
    if (typeof value === 'string') return HOSTILE;
    if (Array.isArray(value)) return value.map(poison);
    if (typeof value !== 'object' || value === null) return value;
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, poison(inner)]));
  };
  const record = poison(uncertainRecord()) as MigrationRecord;
  record.downtimeParts = { [HOSTILE]: 4, '</svg><script>': 2 };
  for (const round of record.rounds) round.dirtyBy = { [HOSTILE]: 3 };
  return record;
}
