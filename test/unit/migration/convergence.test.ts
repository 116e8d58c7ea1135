import { PAGE_SIZE } from '../../../lib/memory/address';
import {
  type ConstantCosts,
  Convergence,
  type ConvergenceDecision,
  type ConvergenceOptions,
  type RoundFigures,
} from '../../../lib/migration/convergence';

const COSTS: ConstantCosts = { stop: 4, state: 3, start: 2, roundTrips: 1 };

/** A round of so many pages over a link of so many bytes a second. */
function round(pages: number, bandwidth: number, dirtyPages: number, more: Partial<RoundFigures> = {}): RoundFigures {
  const bytes = pages * PAGE_SIZE;
  return { pages, bytes, ms: (bytes * 1000) / bandwidth, dirtyPages, ...more };
}

/** Rounds that leave what is listed, until it does not go on. */
function play(
  options: ConvergenceOptions,
  bandwidth: number,
  left: number[],
  more: Partial<RoundFigures> = {},
  costs = COSTS,
): ConvergenceDecision[] {
  const convergence = new Convergence(options);
  const decisions: ConvergenceDecision[] = [];
  for (let at = 1; at < left.length; at++) {
    decisions.push(convergence.decide(round(left[at - 1]!, bandwidth, left[at]!, more), costs));
    if (decisions.at(-1)!.action !== 'continue') break;
  }
  return decisions;
}

describe('downtime', () => {
  test('is what is left over the bandwidth at its worst, and the constant costs', () => {
    const convergence = new Convergence({ availSwitchoverBandwidth: 40_960_000 });
    const { estimateMs, bandwidth, dirtyPages } = convergence.decide(round(100_000, 1e9, 5000), COSTS);
    expect({ estimateMs, bandwidth, dirtyPages }).toEqual({ estimateMs: 510, bandwidth: 40_960_000, dirtyPages: 5000 });
  });

  test('a measured bandwidth is taken for less than its average', () => {
    const convergence = new Convergence();
    const { estimateMs, bandwidth } = convergence.decide(round(100_000, 1e8, 1000), COSTS);
    expect(convergence.measuredBandwidth).toBeCloseTo(1e8, 0);
    expect(bandwidth).toBeLessThan(0.8e8);
    expect(estimateMs).toBeGreaterThan(10 + 40.96);
  });

  test('without any page it is the constant costs, before any round unknown', () => {
    expect(new Convergence().estimate(0, COSTS)).toBe(10);
    expect(new Convergence().estimate(1, COSTS)).toBe(Number.POSITIVE_INFINITY);
  });

  test('a round of few pages does not spoil the bandwidth', () => {
    const convergence = new Convergence({ downtimeLimitMs: 1 });
    convergence.decide(round(100_000, 1e9, 20), COSTS);
    const before = convergence.bandwidth;
    convergence.decide({ pages: 20, bytes: 20 * PAGE_SIZE, ms: 50, dirtyPages: 20 }, COSTS);
    expect(convergence.bandwidth).toBe(before);
  });
});

describe('the guest is stopped', () => {
  test('at once when what is left fits, after the first round too', () => {
    const [decision, ...more] = play({}, 1e9, [100_000, 1000, 10]);
    expect(decision).toMatchObject({ action: 'switchover', dirtyPages: 1000 });
    expect(decision!.reason).toMatch(/^1,000 pages are left: [\d.]+ ms of downtime where 300 are allowed$/);
    expect(more).toEqual([]);
  });

  test('at once when only hot pages are left and they fit: waiting would gain nothing', () => {
    const [first, second] = play({ downtimeLimitMs: 30 }, 1e9, [1_000_000, 50_000, 100, 100], { hotPages: 100 });
    expect([first!.action, second!.action]).toEqual(['continue', 'switchover']);
  });

  test('not while the constant costs make it too long', () => {
    expect(play({ downtimeLimitMs: 17 }, 1e9, [1_000_000, 1000])[0]!.action).toBe('switchover');
    expect(play({ downtimeLimitMs: 17 }, 1e9, [1_000_000, 1000], {}, { ...COSTS, state: 9 })[0]!.action).toBe(
      'continue',
    );
  });

  test.each([
    ['rounds', { maxRounds: 2 }, '2 rounds are over: 40,000 pages are left'],
    ['time', { maxMs: 500 }, /^[\d,]+ ms of pre-copy are over: 40,000 pages are left/],
  ])('when its %s are over', (_name, options, reason) => {
    const decision = play({ ...options, downtimeLimitMs: 50 }, 1e9, [100_000, 60_000, 40_000, 20_000]).at(-1)!;
    expect(decision.action).toBe('switchover');
    if (typeof reason === 'string') expect(decision.reason).toContain(reason);
    else expect(decision.reason).toMatch(reason);
    expect(decision.estimateMs).toBeGreaterThan(50);
  });
});

describe('what does not converge is said in figures', () => {
  test('the dirty rate meets the bandwidth: after three rounds without progress', () => {
    const left = [100_000, 12_400, 12_400, 12_400, 12_400, 12_400];
    const more = { dirtyBy: { guest: 992, 'vhost receive buffers': 11_408 } };
    const decisions = play({ strategy: 'cancel', downtimeLimitMs: 300 }, 24e6, left, more);
    expect(decisions.map(({ action }) => action)).toEqual(['continue', 'continue', 'continue', 'cancel']);
    expect(decisions.at(-1)!.reason).toMatch(
      /^guest memory gets dirty at 24\.0 MB\/s, mostly by vhost receive buffers \(92 %\), the link carries 24\.0 MB\/s: 12,400 pages stay dirty, [\d,]+ ms of downtime where 300 are allowed$/,
    );
  });

  test('slow progress is progress', () => {
    const left = Array.from({ length: 20 }, (_, index) => Math.round(100_000 * 0.95 ** index));
    expect(play({ maxRounds: 100 }, 24e6, left).every(({ action }) => action === 'continue')).toBe(true);
  });

  test('the link carries more than gets dirty, but something keeps pages dirty', () => {
    const more = { ms: 2000 };
    const decision = play({ strategy: 'cancel', downtimeLimitMs: 20 }, 1e9, [100_000, ...Array(5).fill(1000)], more);
    expect(decision.at(-1)).toMatchObject({ action: 'cancel' });
    expect(decision.at(-1)!.reason).toMatch(
      /which is less than the .* MB\/s that the link carries, but no fewer pages/,
    );
  });

  test('only hot pages are left and they are too many: no round is wasted', () => {
    const left = [100_000, 10_000, 10_000, 10_000, 10_000];
    const decisions = play({ strategy: 'cancel', downtimeLimitMs: 100 }, 1e8, left, { hotPages: 9500 });
    expect(decisions.map(({ action }) => action)).toEqual(['continue', 'cancel']);
    expect(decisions.at(-1)!.reason).toMatch(
      /^9,500 pages are dirty whenever one looks, and only those are left: waiting/,
    );
  });

  test('a switchover alone takes longer than allowed: said after the first round', () => {
    const [decision] = play({ strategy: 'cancel', downtimeLimitMs: 9 }, 1e9, [1000, 0]);
    expect(decision).toMatchObject({ action: 'cancel', estimateMs: 10 });
    expect(decision!.reason).toBe(
      'a switchover takes 10 ms without any page (stop 4 ms, state 3 ms, start 2 ms, round trips 1 ms), 9 are allowed',
    );
  });
});

test('a switchover alone takes too long: throttling is not tried, and who stops all the same waits for few pages', () => {
  const left = [100_000, 20_000, 4000, 800, 160, 30, 10];
  const actions = (strategy: ConvergenceOptions['strategy']) =>
    play({ strategy, downtimeLimitMs: 5 }, 1e9, left).map(({ action }) => action);
  expect(actions('throttle')).toEqual(['cancel']);
  expect(actions('switchover')).toEqual(['continue', 'continue', 'continue', 'switchover']);
});

describe('strategies', () => {
  const stuck = [100_000, ...Array<number>(60).fill(12_000)];

  test.each(['switchover', 'cancel', 'throttle'] as const)('%s', (strategy) => {
    expect(play({ strategy }, 24e6, stuck).at(-1)).toMatchObject({ action: strategy });
  });

  test('throttle gives each step some rounds, and is no promise: the last resort is to leave the guest where it is', () => {
    const convergence = new Convergence({ strategy: 'throttle', throttleSteps: 2, maxRounds: 100 });
    const actions: string[] = [];
    for (let at = 1; at < 30 && actions.at(-1) !== 'cancel'; at++) {
      actions.push(convergence.decide(round(stuck[at - 1]!, 24e6, stuck[at]!), COSTS).action);
    }
    const waits = ['continue', 'continue', 'continue'];
    expect(actions).toEqual([...waits, 'throttle', ...waits, 'throttle', ...waits, 'cancel']);
  });

  test('a guest that was throttled and then fits is stopped', () => {
    const convergence = new Convergence({ strategy: 'throttle' });
    for (let at = 1; at < 5; at++) convergence.decide(round(stuck[at - 1]!, 24e6, stuck[at]!), COSTS);
    expect(convergence.decide(round(12_000, 24e6, 500), COSTS).action).toBe('switchover');
  });
});

test('what is no option is refused', () => {
  for (const options of [{ downtimeLimitMs: -1 }, { maxRounds: Number.NaN }, { strategy: 'hope' as 'cancel' }]) {
    expect(() => new Convergence(options)).toThrow(expect.objectContaining({ code: 'VHOST_ERR_INVALID_ARGUMENT' }));
  }
});
