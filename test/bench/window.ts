/** One window: a contender is let run, warms up, and is measured while nothing else of the benchmark runs. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Contender, Direction } from './contender';
import type { Pktgen } from './pktgen';
import { netdevCounters, nowMicros, threadNanos } from './proc';

export interface Window {
  /** Frames a second: of a transmitter what its tap received, of a receiver what its driver counted. */
  readonly rate: number;
  /** The other of the two counts. */
  readonly checkRate: number;
  /** Share of one processor that the vhost worker ran, 0 to 1. */
  readonly worker: number;
  /** Share of one processor that the driver's own threads, so all but the worker, ran. */
  readonly driver: number;
  /** Share of the driver's looks at the used ring that found nothing, NaN where it does not tell. */
  readonly idle: number;
  /** Frames a second that found the tap's queue full: receive load in excess. */
  readonly excess: number;
  readonly kicksPerSecond: number;
}

interface Reading {
  readonly micros: number;
  readonly driverMicros: number;
  readonly driverFrames: number;
  readonly looks: number;
  readonly idle: number;
  readonly kicks: number;
  readonly netdevFrames: number;
  readonly dropped: number;
  readonly worker: number;
  readonly process: number;
}

export interface WindowLength {
  readonly seconds: number;
  readonly warmUpSeconds: number;
}

/** `load` for receivers. The contender is paused again afterwards, whatever happens. */
export async function measure(
  contender: Contender,
  direction: Direction,
  load: Pktgen | null,
  length: WindowLength,
): Promise<Window> {
  contender.resume();
  try {
    load?.start(contender.netdev);
    await sleep(length.warmUpSeconds * 1000);
    const from = await read(contender, direction);
    await sleep(length.seconds * 1000);
    const to = await read(contender, direction);
    return between(from, to, direction);
  } finally {
    await load?.stop();
    contender.pause();
  }
}

async function read(contender: Contender, direction: Direction): Promise<Reading> {
  const sample = await contender.sample();
  const { rxPackets, txPackets, txDropped } = netdevCounters(contender.netdev);
  const micros = nowMicros();
  return {
    micros,
    driverMicros: sample.micros,
    driverFrames: sample.frames,
    looks: sample.looks,
    idle: sample.idle,
    kicks: sample.kicks,
    netdevFrames: direction === 'tx' ? rxPackets : txPackets,
    dropped: txDropped,
    worker: threadNanos(contender.pid, contender.worker),
    process: contender.driverNanos(),
  };
}

function between(from: Reading, to: Reading, direction: Direction): Window {
  const seconds = (to.micros - from.micros) / 1e6;
  const driverRate = (to.driverFrames - from.driverFrames) / ((to.driverMicros - from.driverMicros) / 1e6);
  const netdevRate = (to.netdevFrames - from.netdevFrames) / seconds;
  return {
    rate: direction === 'tx' ? netdevRate : driverRate,
    checkRate: direction === 'tx' ? driverRate : netdevRate,
    worker: (to.worker - from.worker) / 1e9 / seconds,
    driver: (to.process - from.process) / 1e9 / seconds,
    idle: (to.idle - from.idle) / (to.looks - from.looks),
    excess: (to.dropped - from.dropped) / seconds,
    kicksPerSecond: (to.kicks - from.kicks) / seconds,
  };
}
