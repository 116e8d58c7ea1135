/** A window of the transmit benchmark: the contender is let run, warms up, and is measured while nothing else of the benchmark runs. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Contender, Sample } from './contender';
import { netdevCounters, nowMicros, threadNanos } from './proc';
import type { Window } from './window';

/** Driver's and interface's counts may differ by what is under way and by when each was read. */
const AGREEMENT = 0.05;
const ATTEMPTS = 3;

interface Reading {
  readonly sample: Sample;
  readonly micros: number;
  readonly frames: number;
  readonly worker: number;
  readonly driver: number;
}

export interface WindowLength {
  readonly seconds: number;
  readonly warmUpSeconds: number;
}

/** The contender is paused before and after. A window in which the two counts disagree tells nothing and is taken again. */
export async function transmitWindow(contender: Contender, length: WindowLength): Promise<Window> {
  for (let attempt = 1; ; attempt++) {
    const [from, to] = await measure(contender, length);
    const window = between(from, to);
    const counted = (to.sample.frames - from.sample.frames) / ((to.sample.micros - from.sample.micros) / 1e6);
    if (window.rate > 0 && Math.abs(counted / window.rate - 1) <= AGREEMENT) return window;
    const said = `${contender.name} counted ${Math.round(counted)} frames/s, its tap ${Math.round(window.rate)}`;
    if (attempt === ATTEMPTS) throw new Error(said);
    process.stdout.write(`  taken again: ${said}\n`);
  }
}

async function measure(contender: Contender, length: WindowLength): Promise<[from: Reading, to: Reading]> {
  contender.resume();
  try {
    await sleep(length.warmUpSeconds * 1000);
    const from = await read(contender);
    await sleep(length.seconds * 1000);
    return [from, await read(contender)];
  } finally {
    contender.pause();
  }
}

async function read(contender: Contender): Promise<Reading> {
  const sample = await contender.sample();
  const frames = netdevCounters(contender.netdev).rxPackets;
  const micros = nowMicros();
  const worker = threadNanos(contender.pid, contender.worker);
  return { sample, micros, frames, worker, driver: contender.driverNanos() };
}

function between(from: Reading, to: Reading): Window {
  const seconds = (to.micros - from.micros) / 1e6;
  const sampleSeconds = (to.sample.micros - from.sample.micros) / 1e6;
  return {
    rate: (to.frames - from.frames) / seconds,
    worker: (to.worker - from.worker) / 1e9 / seconds,
    driver: (to.driver - from.driver) / 1e9 / seconds,
    idle: (to.sample.idle - from.sample.idle) / (to.sample.looks - from.sample.looks),
    kicksPerSecond: told(to.sample.kicks - from.sample.kicks, to.sample.looks) / sampleSeconds,
  };
}

/** A driver that does not tell its looks does not tell its kicks either. */
function told(kicks: number, looks: number): number {
  return looks === 0 ? Number.NaN : kicks;
}
