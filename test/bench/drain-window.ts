/**
 * A window of the receive benchmark. The generator costs more processor time a frame than the worker that takes it, so beside it no worker
 * is ever at its limit: the tap's queue is filled first, while the contender stands still, and the window is the time it takes to drain.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Contender } from './contender';
import type { Pktgen } from './pktgen';
import { netdevCounters, nowMicros, threadNanos } from './proc';
import type { Window } from './window';

const LOOK_MS = 5;
const LIMIT_MS = 60_000;
/** From where, as part of all frames, is measured: the first find a worker that wakes. */
const FROM = 0.1;
/** Samples within which a driver must have counted what its tap has delivered. */
const SAMPLES = 10;

interface Reading {
  readonly micros: number;
  readonly delivered: number;
  readonly worker: number;
  readonly driver: number;
}

/** The first and the last reading of a drain that count. */
interface Span {
  readonly from: Reading | null;
  readonly to: Reading | null;
}

/** Frames a tap's queue can hold: Linux allows some more. */
export const QUEUE_FRAMES = 16_000;

/** The contender is paused before and after. Nothing but `load` may ever have sent to its tap. */
export async function drainWindow(contender: Contender, load: Pktgen, drains: number): Promise<Window> {
  await load.aim(contender.netdev);
  const spans: Span[] = [];
  while (spans.length < drains) {
    const start = netdevCounters(contender.netdev).txPackets;
    await load.fill();
    contender.resume();
    try {
      spans.push(await watch(contender, start));
      if (spans.length === drains) await requireCount(contender);
    } finally {
      contender.pause();
    }
  }
  return together(spans);
}

async function watch(contender: Contender, start: number): Promise<Span> {
  const limit = Date.now() + LIMIT_MS;
  let from: Reading | null = null;
  let to: Reading | null = null;
  for (;;) {
    const delivered = netdevCounters(contender.netdev).txPackets - start;
    const micros = nowMicros();
    if (delivered >= QUEUE_FRAMES) return { from, to };
    if (delivered >= QUEUE_FRAMES * FROM) {
      const worker = threadNanos(contender.pid, contender.worker);
      to = { micros, delivered, worker, driver: contender.driverNanos() };
      from ??= to;
    }
    if (Date.now() > limit) throw new Error(`${contender.name} took ${delivered} of ${QUEUE_FRAMES} frames`);
    await sleep(LOOK_MS);
  }
}

/** Since it began, the driver has counted exactly what its tap has delivered. */
async function requireCount(contender: Contender): Promise<void> {
  const delivered = netdevCounters(contender.netdev).txPackets;
  let counted = -1;
  for (let tries = 0; tries < SAMPLES && counted < delivered; tries++) counted = (await contender.sample()).frames;
  if (counted !== delivered)
    throw new Error(`${contender.name} counted ${counted} frames, its tap delivered ${delivered}`);
}

/** All drains as one. Those too short for two readings tell nothing. */
function together(spans: readonly Span[]): Window {
  const sum = (key: keyof Reading): number =>
    spans.reduce((total, { from, to }) => total + (from === null || to === null ? 0 : to[key] - from[key]), 0);
  const seconds = sum('micros') / 1e6;
  if (!(seconds > 0)) throw new Error('the queue drains too fast to be measured');
  return {
    rate: sum('delivered') / seconds,
    worker: sum('worker') / 1e9 / seconds,
    driver: sum('driver') / 1e9 / seconds,
    idle: Number.NaN,
    kicksPerSecond: Number.NaN,
  };
}
