/**
 * When to stop the guest, and why not yet. After each round of pre-copy:
 *
 *     downtime = what is left / bandwidth at its worst + what a switchover costs whatever is left
 *
 * Where that fits the limit the guest is stopped at once. Where rounds or time are over, or another round gains nothing, the strategy
 * decides, and the reason says in figures why. Only figures go in and come out: it has no clock of its own and can be simulated.
 */
import { invalidArgument } from '../errors';
import { PAGE_SIZE } from '../memory/address';
import { grouped, msText, pagesText, rateText, shareText } from '../observe/figures';
import { Bandwidth } from './bandwidth';
import { THROTTLE_STEPS } from './throttle';

/** Names and defaults of QEMU's, where QEMU has them (downtime-limit, avail-switchover-bandwidth). */
export interface ConvergenceOptions {
  /** Longest downtime wanted. Milliseconds, default 300. */
  downtimeLimitMs?: number | undefined;
  /** Rounds of pre-copy at most. Default 30. */
  maxRounds?: number | undefined;
  /** Pre-copy takes at most so long, as far as a round's end tells. Milliseconds, default no limit. */
  maxMs?: number | undefined;
  /** Bytes a second that the switchover is known to have, whatever was measured. */
  availSwitchoverBandwidth?: number | undefined;
  /**
   * When rounds or time are over, or it is plain that pre-copy does not converge: stop the guest whatever is left, leave it where it is, or
   * have less come to it. Default `switchover`.
   */
  strategy?: ConvergenceStrategy | undefined;
  /** How often `throttle` may be asked for; beyond that the migration is cancelled. Default 9, the steps of a ReceiveThrottle. */
  throttleSteps?: number | undefined;
}

export type ConvergenceStrategy = 'switchover' | 'cancel' | 'throttle';

/** What a switchover costs beside the last pages, as measured. Milliseconds. */
export interface ConstantCosts {
  /** Guest paused, device stopped, last sync of the logs. */
  stop: number;
  /** Device and guest state saved, sent and restored. */
  state: number;
  /** Device started at the destination. */
  start: number;
  /** Of all messages that wait for an answer while the guest stands. */
  roundTrips: number;
}

export interface RoundFigures {
  pages: number;
  /** As page data, before any compression: what is left is counted the same way. */
  bytes: number;
  ms: number;
  /** Pages that got dirty while the round was sent. */
  dirtyPages: number;
  /** Those of them that are dirty whenever one looks, such as rings. */
  hotPages?: number | undefined;
  /** Who made them dirty, in words: `vhost receive buffers`. */
  dirtyBy?: Readonly<Record<string, number>> | undefined;
}

export interface ConvergenceDecision {
  action: 'continue' | 'switchover' | 'cancel' | 'throttle';
  /** Downtime if the guest were stopped now. Infinity before anything was measured. */
  estimateMs: number;
  dirtyPages: number;
  /** Bytes a second that the estimate is made with. */
  bandwidth: number;
  reason: string;
}

/** Standard deviations below the average bandwidth: of a normal distribution 98 % is above. */
const DEVIATIONS = 2;
/** Rounds without progress after which there will be none, and what counts as progress. */
const PATIENCE = 3;
const PROGRESS = 0.9;
/** Dirty pages beside the hot ones, as a share of these, that another round will not get rid of. */
const NEAR_FLOOR = 1.1;
/** Rounds that must have found the floor: one alone may have been disturbed. */
const FLOOR_ROUNDS = 2;
/** From which share of the bandwidth on the dirty rate is what keeps pages dirty. */
const MEETS = 0.9;

export const NO_COSTS: ConstantCosts = { stop: 0, state: 0, start: 0, roundTrips: 0 };

export class Convergence {
  readonly #options: Required<{ [name in keyof ConvergenceOptions]: NonNullable<ConvergenceOptions[name]> }>;
  readonly #bandwidth = new Bandwidth();
  #rounds = 0;
  #ms = 0;
  #throttled = 0;
  /** Least pages that were left, and rounds since there were clearly fewer than before. */
  #fewest = Number.POSITIVE_INFINITY;
  #idle = 0;
  #atFloor = 0;

  /** Throws VHOST_ERR_INVALID_ARGUMENT. */
  constructor(options: ConvergenceOptions = {}) {
    const { downtimeLimitMs = 300, maxRounds = 30, maxMs = Number.POSITIVE_INFINITY } = options;
    const { availSwitchoverBandwidth = 0, strategy = 'switchover', throttleSteps = THROTTLE_STEPS } = options;
    for (const [name, value] of Object.entries({ downtimeLimitMs, maxRounds, maxMs, availSwitchoverBandwidth })) {
      if (typeof value !== 'number' || !(value >= 0)) throw invalidArgument(`${name} ${String(value)}`, 'from 0');
    }
    if (!['switchover', 'cancel', 'throttle'].includes(strategy)) {
      throw invalidArgument(`strategy ${String(strategy)}`, 'switchover, cancel or throttle');
    }
    this.#options = { downtimeLimitMs, maxRounds, maxMs, availSwitchoverBandwidth, strategy, throttleSteps };
  }

  /** Bytes a second that an estimate is made with now; 0 before the first round. */
  get bandwidth(): number {
    return this.#options.availSwitchoverBandwidth || this.#bandwidth.pessimistic(DEVIATIONS);
  }

  /** Bytes a second as measured, on average. */
  get measuredBandwidth(): number {
    return this.#bandwidth.mean;
  }

  /** Downtime with so many pages left. Milliseconds. */
  estimate(dirtyPages: number, costs: ConstantCosts = NO_COSTS): number {
    const constant = constantMs(costs);
    if (dirtyPages === 0) return constant;
    const { bandwidth } = this;
    return bandwidth === 0 ? Number.POSITIVE_INFINITY : constant + (dirtyPages * PAGE_SIZE * 1000) / bandwidth;
  }

  /** Counts one round and says what to do now. */
  decide(round: RoundFigures, costs: ConstantCosts = NO_COSTS): ConvergenceDecision {
    this.#rounds++;
    this.#ms += round.ms;
    this.#bandwidth.add(round.bytes, round.ms);
    this.#note(round, costs);
    const { dirtyPages } = round;
    const estimateMs = this.estimate(dirtyPages, costs);
    const told = { estimateMs, dirtyPages, bandwidth: this.bandwidth };
    const { downtimeLimitMs } = this.#options;
    const left = `${pagesText(dirtyPages)} ${dirtyPages === 1 ? 'is' : 'are'} left`;
    const downtime = `${msText(estimateMs)} of downtime where ${grouped(downtimeLimitMs)} are allowed`;
    if (estimateMs <= downtimeLimitMs) return { ...told, action: 'switchover', reason: `${left}: ${downtime}` };
    const hopeless = this.#hopeless(round, costs, downtime);
    const over = this.#over();
    if (hopeless === null && over === null) return { ...told, action: 'continue', reason: `${left}: ${downtime}` };
    return { ...told, ...this.#strategy(hopeless ?? `${over}: ${left}, ${downtime}`, costs) };
  }

  #note({ dirtyPages, hotPages = 0 }: RoundFigures, costs: ConstantCosts): void {
    if (dirtyPages <= this.#fewest * PROGRESS) {
      this.#fewest = dirtyPages;
      this.#idle = 0;
    } else this.#idle++;
    const least = this.estimate(hotPages, costs);
    const floor = hotPages > 0 && dirtyPages <= hotPages * NEAR_FLOOR && least > this.#options.downtimeLimitMs;
    this.#atFloor = floor ? this.#atFloor + 1 : 0;
  }

  /** Why no further round helps, or null. */
  #hopeless(round: RoundFigures, costs: ConstantCosts, downtime: string): string | null {
    const { dirtyPages, hotPages = 0, ms } = round;
    const constant = constantMs(costs);
    const { downtimeLimitMs, strategy } = this.#options;
    // Whoever stops the guest all the same still does so with as few pages as may be.
    const few = this.estimate(dirtyPages) <= constant * (1 - PROGRESS);
    if (constant > downtimeLimitMs && (strategy !== 'switchover' || few)) {
      const parts = Object.entries(costs).map(([name, cost]) => `${NAMES[name] ?? name} ${msText(Number(cost))}`);
      return `a switchover takes ${msText(constant)} without any page (${parts.join(', ')}), ${grouped(downtimeLimitMs)} are allowed`;
    }
    if (this.#atFloor >= FLOOR_ROUNDS) {
      return `${pagesText(hotPages)} are dirty whenever one looks, and only those are left: waiting gains nothing, ${downtime}`;
    }
    if (this.#idle < PATIENCE) return null;
    const dirtyRate = (dirtyPages * PAGE_SIZE * 1000) / Math.max(ms, 1);
    const gets = `guest memory gets dirty at ${rateText(dirtyRate)}${mostlyBy(round)}`;
    const carries = `the link carries ${rateText(this.measuredBandwidth)}`;
    const stay = `${pagesText(dirtyPages)} stay dirty, ${downtime}`;
    if (dirtyRate >= MEETS * this.measuredBandwidth) return `${gets}, ${carries}: ${stay}`;
    return `${gets}, which is less than the ${rateText(this.measuredBandwidth)} that the link carries, but no fewer pages were left for ${this.#idle} rounds: ${stay}`;
  }

  /** Which bound is reached, or null. */
  #over(): string | null {
    const { maxRounds, maxMs } = this.#options;
    if (this.#rounds >= maxRounds)
      return `${grouped(this.#rounds)} ${this.#rounds === 1 ? 'round is' : 'rounds are'} over`;
    if (this.#ms >= maxMs) return `${msText(this.#ms)} of pre-copy are over`;
    return null;
  }

  #strategy(why: string, costs: ConstantCosts): Pick<ConvergenceDecision, 'action' | 'reason'> {
    const { strategy, throttleSteps, downtimeLimitMs } = this.#options;
    if (strategy !== 'throttle') return { action: strategy, reason: why };
    // However little comes to the guest, it would not be enough.
    if (constantMs(costs) > downtimeLimitMs) return { action: 'cancel', reason: why };
    if (this.#throttled >= throttleSteps) {
      return { action: 'cancel', reason: `${why}; receive traffic is throttled as far as it goes` };
    }
    this.#throttled++;
    // What was learned of progress held for a guest that got more.
    this.#fewest = Number.POSITIVE_INFINITY;
    this.#idle = 0;
    this.#atFloor = 0;
    return { action: 'throttle', reason: why };
  }
}

const NAMES: Readonly<Record<string, string>> = { roundTrips: 'round trips' };

function constantMs({ stop, state, start, roundTrips }: ConstantCosts): number {
  return stop + state + start + roundTrips;
}

/** `, mostly by vhost receive buffers (92 %)`, or nothing where nobody is known to do most of it. */
function mostlyBy({ dirtyBy }: RoundFigures): string {
  const writers = Object.entries(dirtyBy ?? {});
  const total = writers.reduce((sum, [, pages]) => sum + pages, 0);
  const [name, pages] = writers.reduce((most, writer) => (writer[1] > most[1] ? writer : most), ['', 0]);
  return pages * 2 > total ? `, mostly by ${name} (${shareText(pages, total)})` : '';
}
