/**
 * A window of the receive benchmark. The generator costs more processor time a frame than the worker that takes it, so beside it no worker
 * is ever at its limit: the tap's queue is filled first, while the contender stands still, and the window is the time it takes to drain.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Contender } from './contender';
import type { Pktgen } from './pktgen';
import { nowMicros, threadNanos, txPackets } from './proc';
import type { Window } from './window';

const LOOK_MS = 10;
const LIMIT_MS = 60_000;
/** From where, as part of all frames, is measured: the first find a worker that wakes. */
const FROM = 0.1;
/** Samples within which a driver must have counted what its tap has delivered. */
const SAMPLES = 10;

interface Reading {
  readonly micros: number;
  readonly delivered: number;
}

/** One drain: the first and the last reading that count, and what the threads ran from its very start to its end. */
interface Drain {
  readonly from: Reading | null;
  readonly to: Reading | null;
  readonly micros: number;
  readonly workerNanos: number;
  readonly driverNanos: number;
}

/** Frames a tap's queue can hold: Linux allows some more. */
export const QUEUE_FRAMES = 16_000;

/** The contender is paused before and after. Nothing but `load` may ever have sent to its tap. */
export async function drainWindow(contender: Contender, load: Pktgen, drains: number): Promise<Window> {
  await load.aim(contender.netdev);
  const taken: Drain[] = [];
  while (taken.length < drains) {
    const start = txPackets(contender.netdev);
    await load.fill();
    try {
      taken.push(await watch(contender, start));
      if (taken.length === drains) await requireCount(contender);
    } finally {
      contender.pause();
    }
  }
  return together(taken);
}

/**
 * Looks cost time on the processor of the worker, so they are few and read one counter: what the threads ran is asked before and after, for
 * a contender of many threads would pay more.
 */
async function watch(contender: Contender, start: number): Promise<Drain> {
  const { pid, worker, netdev } = contender;
  const workerBefore = threadNanos(pid, worker);
  const driverBefore = contender.driverNanos();
  const begun = nowMicros();
  const limit = begun + LIMIT_MS * 1000;
  contender.resume();
  let from: Reading | null = null;
  let to: Reading | null = null;
  for (;;) {
    await sleep(LOOK_MS);
    const delivered = txPackets(netdev) - start;
    const micros = nowMicros();
    if (delivered >= QUEUE_FRAMES) break;
    if (delivered >= QUEUE_FRAMES * FROM) {
      to = { micros, delivered };
      from ??= to;
    }
    if (micros > limit) throw new Error(`${contender.name} took ${delivered} of ${QUEUE_FRAMES} frames`);
  }
  const workerNanos = threadNanos(pid, worker) - workerBefore;
  return { from, to, micros: nowMicros() - begun, workerNanos, driverNanos: contender.driverNanos() - driverBefore };
}

/** Since it began, the driver has counted exactly what its tap has delivered. */
async function requireCount(contender: Contender): Promise<void> {
  const delivered = txPackets(contender.netdev);
  let counted = -1;
  for (let tries = 0; tries < SAMPLES && counted < delivered; tries++) counted = (await contender.sample()).frames;
  if (counted !== delivered)
    throw new Error(`${contender.name} counted ${counted} frames, its tap delivered ${delivered}`);
}

/** All drains as one. Of those too short for two readings the rate is not known. */
function together(drains: readonly Drain[]): Window {
  const sum = (of: (drain: Drain) => number): number => drains.reduce((total, drain) => total + of(drain), 0);
  const span = (key: keyof Reading): number => sum(({ from, to }) => (to?.[key] ?? 0) - (from?.[key] ?? 0));
  const seconds = span('micros') / 1e6;
  if (!(seconds > 0)) throw new Error('the queue drains too fast to be measured');
  const nanos = sum(({ micros }) => micros) * 1000;
  return {
    rate: span('delivered') / seconds,
    worker: sum(({ workerNanos }) => workerNanos) / nanos,
    driver: sum(({ driverNanos }) => driverNanos) / nanos,
    idle: Number.NaN,
    kicksPerSecond: Number.NaN,
  };
}
