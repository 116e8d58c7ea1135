/**
 * A window of the receive benchmark. The generator costs more processor time a frame than the worker that takes it, so beside it no worker
 * is ever at its limit: the tap's queue is filled first, while the contender stands still, and the window is the time it takes to drain.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Contender } from './contender';
import type { Pktgen } from './pktgen';
import { netdevCounters, nowMicros, threadNanos } from './proc';
import type { Window } from './window';

const LOOK_MS = 10;
const LIMIT_MS = 60_000;
/** From where to where, as parts of all frames, is measured: the first and last find a worker that wakes or ends. */
const FROM = 0.1;
const TO = 0.95;
/** Samples within which a driver must have counted what its tap has delivered. */
const SAMPLES = 10;

interface Reading {
  readonly micros: number;
  readonly delivered: number;
  readonly worker: number;
  readonly driver: number;
}

/**
 * The contender, whose tap's queue holds `frames`, is paused before and after. `expected` is what its driver's count must be in the end:
 * exactly all frames it was ever sent.
 */
export async function drainWindow(
  contender: Contender,
  load: Pktgen,
  frames: number,
  expected: number,
): Promise<Window> {
  const before = netdevCounters(contender.netdev);
  await load.send(contender.netdev, frames);
  const lost = netdevCounters(contender.netdev).txDropped - before.txDropped;
  if (lost > 0) throw new Error(`${lost} of ${frames} frames did not fit the queue of ${contender.netdev}`);
  contender.resume();
  try {
    const readings = await watch(contender, before.txPackets, frames);
    await requireCount(contender, expected);
    return between(readings, frames);
  } finally {
    contender.pause();
  }
}

async function watch(contender: Contender, start: number, frames: number): Promise<Reading[]> {
  const limit = Date.now() + LIMIT_MS;
  const readings: Reading[] = [];
  for (;;) {
    const delivered = netdevCounters(contender.netdev).txPackets - start;
    const micros = nowMicros();
    const worker = threadNanos(contender.pid, contender.worker);
    readings.push({ micros, delivered, worker, driver: contender.driverNanos() });
    if (delivered >= frames) return readings;
    if (Date.now() > limit)
      throw new Error(`${contender.name} took ${delivered} of ${frames} frames in ${LIMIT_MS} ms`);
    await sleep(LOOK_MS);
  }
}

async function requireCount(contender: Contender, expected: number): Promise<void> {
  let counted = -1;
  for (let tries = 0; tries < SAMPLES && counted < expected; tries++) counted = (await contender.sample()).frames;
  if (counted !== expected)
    throw new Error(`${contender.name} counted ${counted} frames, its tap delivered ${expected}`);
}

function between(readings: readonly Reading[], frames: number): Window {
  const from = readings.find(({ delivered }) => delivered >= frames * FROM)!;
  const to = readings.findLast(({ delivered }) => delivered <= frames * TO) ?? from;
  const seconds = (to.micros - from.micros) / 1e6;
  if (!(seconds > 0)) throw new Error(`${frames} frames are too few to measure: give a larger --seconds`);
  return {
    rate: (to.delivered - from.delivered) / seconds,
    worker: (to.worker - from.worker) / 1e9 / seconds,
    driver: (to.driver - from.driver) / 1e9 / seconds,
    idle: Number.NaN,
    kicksPerSecond: Number.NaN,
  };
}
