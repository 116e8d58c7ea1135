/**
 * How a migration would go, without one: rounds, time, downtime and bytes for a guest that makes memory dirty as it was measured or as is
 * assumed, over a link of a given bandwidth, by the rules of this package and of others. A simulator: figures in, figures out.
 */
import { invalidArgument } from '../errors';
import { PAGE_SIZE } from '../memory/address';
import { grouped, msText, pagesText, rateText } from '../observe/figures';
import { type ConstantCosts, Convergence, type ConvergenceOptions, NO_COSTS } from './convergence';
import { nextFraction } from './throttle';

/** How a guest makes memory dirty. A page counts once for a look at the log, whoever wrote it and how often. */
export interface DirtyModel {
  /** At a constant rate, */
  pagesPerSecond?: number | undefined;
  /** or as measured: pages that were found dirty after each interval, from the beginning again when they are through. */
  samples?: readonly number[] | undefined;
  /** Of the samples, and the time over which a rate was found. Milliseconds, default 100. */
  intervalMs?: number | undefined;
  /** Pages that ever get dirty: what is left is at most these. Default: all of memory. */
  workingSetPages?: number | undefined;
  /** Those of them that are dirty whenever one looks. Default 0. */
  hotPages?: number | undefined;
}

/**
 * - `ours`: Convergence
 * - `qemu`: pages are sent until those left fit downtime limit x average bandwidth; a sync then adds what got dirty, and if that still
 *   fits the guest is stopped. There is no end otherwise, and no account of what a switchover costs beside the pages
 * - `cloud-hypervisor`: whole rounds until those left fit the downtime by the bandwidth of the last round, or one hour is over: then it
 *   cancels, or with the strategy `switchover`, which it calls ignore, stops the guest all the same
 */
export type MigrationRule = 'ours' | 'qemu' | 'cloud-hypervisor';

export interface WhatIf extends ConvergenceOptions {
  /** Pages that are sent in the first round. */
  memoryPages: number;
  dirty: DirtyModel;
  /** Bytes a second. */
  bandwidth: number;
  costs?: ConstantCosts | undefined;
  /** Default `ours`. */
  rule?: MigrationRule | undefined;
}

export interface Prediction {
  rule: MigrationRule;
  /** Bytes a second. */
  bandwidth: number;
  /** Passes over dirty pages that begin with the guest running. */
  rounds: number;
  /** Until the guest runs at the destination, or until it was given up. Milliseconds. */
  totalMs: number;
  /** Where it is given up: of a stop at that moment. Milliseconds. */
  downtimeMs: number;
  /** Page data over the link, with the last pages. */
  bytes: number;
  /** The guest was stopped within the downtime limit, as the rule reckons it. */
  converged: boolean;
  reason: string;
}

/** Passes after which a rule without an end is taken for one that has none. */
const ENOUGH = 1000;
/** Of cloud-hypervisor (timeout_s). */
const ONE_HOUR_MS = 3_600_000;
const DEFAULT_INTERVAL_MS = 100;

/** Throws VHOST_ERR_INVALID_ARGUMENT. */
export function predict(question: WhatIf): Prediction {
  const { rule = 'ours', bandwidth, memoryPages } = question;
  if (!(bandwidth > 0 && Number.isFinite(bandwidth))) throw invalidArgument(`bandwidth ${bandwidth}`, 'above 0');
  if (!Number.isInteger(memoryPages) || memoryPages < 0) throw invalidArgument(`${memoryPages} pages of memory`);
  const run = new Simulation(question, new DirtyGuest(question.dirty, memoryPages));
  if (rule === 'ours') return run.ours();
  if (rule === 'qemu') return run.qemu();
  if (rule === 'cloud-hypervisor') return run.cloudHypervisor();
  throw invalidArgument(`rule ${String(rule)}`, 'ours, qemu or cloud-hypervisor');
}

/** What `measureDirtyRate` found: everything that a prediction is made of. */
export interface MeasuredDirtyRate {
  intervalMs: number;
  samples: readonly number[];
  distinctPages: number;
  alwaysDirtyPages: number;
  memoryPages: number;
}

/** How a migration of the guest that was measured would go. */
export function predictMeasured(
  rate: MeasuredDirtyRate,
  options: Omit<WhatIf, 'dirty' | 'memoryPages'> & { memoryPages?: number },
): Prediction {
  const { samples, intervalMs, distinctPages: workingSetPages, alwaysDirtyPages: hotPages, memoryPages } = rate;
  return predict({ memoryPages, ...options, dirty: { samples, intervalMs, workingSetPages, hotPages } });
}

/**
 * Pages that get dirty in a stretch of time. Hot ones always do; of the others each write meets any, so that fewer and fewer are new: of W
 * pages W (1 - exp(-n / W)) are found after n writes.
 */
class DirtyGuest {
  readonly #perMs: (from: number, to: number) => number;
  readonly #hot: number;
  readonly #others: number;
  /** Part of the time that nothing comes to it. */
  throttled = 0;

  constructor(model: DirtyModel, memoryPages: number) {
    const { samples, pagesPerSecond = 0, intervalMs = DEFAULT_INTERVAL_MS, hotPages = 0 } = model;
    const { workingSetPages = memoryPages } = model;
    for (const value of [pagesPerSecond, hotPages, workingSetPages, ...(samples ?? [])]) {
      if (!(value >= 0 && Number.isFinite(value))) throw invalidArgument(`${value} dirty pages`, 'from 0');
    }
    if (!(intervalMs > 0)) throw invalidArgument(`an interval of ${intervalMs} ms`, 'above 0');
    const set = Math.min(memoryPages, workingSetPages);
    this.#hot = Math.min(set, hotPages);
    this.#others = set - this.#hot;
    const writes = (found: number): number => this.#writes(found);
    if (samples === undefined || samples.length === 0) {
      const each = writes((pagesPerSecond * intervalMs) / 1000) / intervalMs;
      this.#perMs = (from, to) => (to - from) * each;
    } else {
      const trace = new Trace(samples.map(writes), intervalMs);
      this.#perMs = (from, to) => trace.until(to) - trace.until(from);
    }
  }

  /** Writes to pages that are not hot after which so many pages are found in an interval. */
  #writes(found: number): number {
    const others = Math.max(0, found - this.#hot);
    if (others >= this.#others) return others;
    return -this.#others * Math.log(1 - others / this.#others);
  }

  get hotPages(): number {
    return this.#hot;
  }

  /** Pages found dirty at `to` that were clean at `from`. Milliseconds. */
  found(from: number, to: number): number {
    if (to <= from) return 0;
    const writes = (1 - this.throttled) * this.#perMs(from, to);
    const others = this.#others === 0 ? 0 : this.#others * -Math.expm1(-writes / this.#others);
    return Math.round(this.#hot + others);
  }
}

/** Sum of a trace that begins again at its end. */
class Trace {
  readonly #sums: number[] = [0];
  readonly #intervalMs: number;

  constructor(samples: readonly number[], intervalMs: number) {
    this.#intervalMs = intervalMs;
    for (const sample of samples) this.#sums.push(this.#sums[this.#sums.length - 1]! + sample);
  }

  until(ms: number): number {
    const intervals = this.#sums.length - 1;
    const at = ms / this.#intervalMs;
    const laps = Math.floor(at / intervals);
    const within = at - laps * intervals;
    const whole = Math.min(Math.floor(within), intervals - 1);
    const [below, above] = [this.#sums[whole]!, this.#sums[whole + 1]!];
    return laps * this.#sums[intervals]! + below + (within - whole) * (above - below);
  }
}

class Simulation {
  readonly #question: WhatIf;
  readonly #guest: DirtyGuest;
  readonly #costs: ConstantCosts;
  readonly #limitMs: number;
  #now = 0;
  #pages = 0;
  #rounds = 0;

  constructor(question: WhatIf, guest: DirtyGuest) {
    this.#question = question;
    this.#guest = guest;
    this.#costs = question.costs ?? NO_COSTS;
    this.#limitMs = question.downtimeLimitMs ?? 300;
  }

  ours(): Prediction {
    const convergence = new Convergence(this.#question);
    for (let left = this.#question.memoryPages; ; ) {
      const { ms, found } = this.#round(left);
      const hotPages = Math.min(this.#guest.hotPages, found);
      const figures = { pages: left, bytes: left * PAGE_SIZE, ms, dirtyPages: found, hotPages };
      const { action, reason, estimateMs } = convergence.decide(figures, this.#costs);
      left = found;
      if (action === 'switchover') return this.#stopped('ours', left, estimateMs <= this.#limitMs, reason);
      if (action === 'cancel') return this.#givenUp('ours', left, reason);
      if (action === 'throttle') this.#guest.throttled = nextFraction(this.#guest.throttled);
    }
  }

  qemu(): Prediction {
    const threshold = Math.floor((this.#question.bandwidth * this.#limitMs) / 1000 / PAGE_SIZE);
    const fits = `fit ${msText(this.#limitMs)} at ${rateText(this.#question.bandwidth)}`;
    let left = this.#question.memoryPages;
    for (let pass = 0; pass < ENOUGH; pass++) {
      const { found } = this.#round(Math.max(0, left - threshold));
      left = Math.min(left, threshold) + found;
      if (left <= threshold) return this.#stopped('qemu', left, true, `${pagesText(left)} ${fits}`);
    }
    return this.#givenUp(
      'qemu',
      left,
      `after ${grouped(ENOUGH)} passes ${pagesText(left)} are left, ${pagesText(threshold)} ${fits}`,
    );
  }

  cloudHypervisor(): Prediction {
    const { maxMs = ONE_HOUR_MS, strategy = 'cancel' } = this.#question;
    const rule = 'cloud-hypervisor';
    for (let left = this.#question.memoryPages; ; ) {
      const { found } = this.#round(left);
      left = found;
      const ms = this.#msOf(left);
      const words = `${pagesText(left)} are left: ${msText(ms)} where ${grouped(this.#limitMs)} are allowed`;
      if (ms <= this.#limitMs) return this.#stopped(rule, left, true, words);
      const over = this.#now >= maxMs;
      if (!over && this.#rounds < ENOUGH * ENOUGH) continue;
      if (over && strategy === 'switchover') return this.#stopped(rule, left, false, words);
      return this.#givenUp(rule, left, words);
    }
  }

  #msOf(pages: number): number {
    return (pages * PAGE_SIZE * 1000) / this.#question.bandwidth;
  }

  /** Sends pages while the guest runs. */
  #round(pages: number): { ms: number; found: number } {
    const ms = this.#msOf(pages);
    const found = this.#guest.found(this.#now, this.#now + ms);
    this.#now += ms;
    this.#pages += pages;
    this.#rounds++;
    return { ms, found };
  }

  #downtime(pages: number): number {
    const { stop, state, start, roundTrips } = this.#costs;
    return this.#msOf(pages) + stop + state + start + roundTrips;
  }

  #stopped(rule: MigrationRule, left: number, converged: boolean, reason: string): Prediction {
    const downtimeMs = this.#downtime(left);
    this.#now += downtimeMs;
    this.#pages += left;
    return { ...this.#told(rule, reason), downtimeMs, converged };
  }

  #givenUp(rule: MigrationRule, left: number, reason: string): Prediction {
    return { ...this.#told(rule, reason), downtimeMs: this.#downtime(left), converged: false };
  }

  #told(rule: MigrationRule, reason: string): Omit<Prediction, 'downtimeMs' | 'converged'> {
    const { bandwidth } = this.#question;
    return { rule, bandwidth, rounds: this.#rounds, totalMs: this.#now, bytes: this.#pages * PAGE_SIZE, reason };
  }
}
