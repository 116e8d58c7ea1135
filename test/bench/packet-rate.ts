/**
 * tx-pps and rx-pps: 64-byte frames through /dev/vhost-net, our guest against a C program that does the same and against dpdk-testpmd.
 * The contenders take turns, C, ours, testpmd, C, ours, testpmd..., each on a tap of the same flags with the same ring, features and
 * batch; driver on one processor, vhost worker on another.
 */
import { availableParallelism } from 'node:os';
import type { Contender, Direction, Placement } from './contender';
import { drainWindow, QUEUE_FRAMES } from './drain-window';
import { C_PROGRAM, cProgram, type FloodOptions, OURS, ours } from './flooder';
import { bringUp, type Sink } from './netdev';
import { Pktgen } from './pktgen';
import { tunFlags } from './proc';
import { comparison, roundLine, summary } from './report';
import type { BenchResult, BenchSettings } from './settings';
import { TESTPMD, testpmd } from './testpmd';
import { transmitWindow } from './transmit-window';
import type { Window } from './window';

/** As testpmd has it: its tap is multiqueue with one queue, and takes frames through NAPI. */
const OPTIONS: FloodOptions = { ring: 256, batch: 32, frame: 64, buffer: 2048, napi: true, multiQueue: true };
const GOALS: readonly (readonly [peer: string, goal: number])[] = [
  [C_PROGRAM, 0.95],
  [TESTPMD, 1],
];
/** Queues drained in a receive window, by second of --seconds. */
const DRAINS_PER_SECOND = 4;

/** One window of a contender. */
type Measure = (contender: Contender) => Promise<Window>;

export async function packetRate(direction: Direction, settings: BenchSettings): Promise<BenchResult[]> {
  const placement: Placement = { driverCpu: Math.min(1, availableParallelism() - 1), workerCpu: 0 };
  const contenders = [
    cProgram(settings.vhostFlood, direction, OPTIONS, placement),
    ours(direction, OPTIONS, placement),
    testpmd(direction, OPTIONS, placement),
  ];
  try {
    const sink = await startAll(contenders, direction);
    process.stdout.write(`${title(direction, sink)}\n`);
    const take =
      direction === 'tx' ? transmitting(settings) : receiving(placement, settings.seconds * DRAINS_PER_SECOND);
    if (direction === 'rx') for (const contender of contenders) await take(contender);
    const windows = new Map<string, Window[]>(contenders.map(({ name }) => [name, []]));
    for (let round = 1; round <= settings.pairs; round++) {
      for (const contender of contenders) windows.get(contender.name)!.push(await take(contender));
      process.stdout.write(`${roundLine(round, windows)}\n`);
    }
    process.stdout.write(summary(windows));
    return GOALS.map(([peer, goal]) => comparison(`${direction}-pps`, OURS, peer, windows, goal));
  } finally {
    for (const contender of contenders) await contender.end();
  }
}

function transmitting(settings: BenchSettings): Measure {
  return (contender) => transmitWindow(contender, settings);
}

function receiving(placement: Placement, drains: number): Measure {
  const load = new Pktgen(placement.workerCpu, OPTIONS.frame);
  return (contender) => drainWindow(contender, load, drains);
}

/** Taps up and equal, everybody paused. */
async function startAll(contenders: readonly Contender[], direction: Direction): Promise<Sink> {
  const sinks = new Set<Sink>();
  for (const contender of contenders) {
    await contender.start();
    sinks.add(bringUp(contender.netdev, direction, direction === 'rx' ? QUEUE_FRAMES : 0));
    await contender.begin();
    contender.pause();
  }
  const flags = contenders.map(({ name, netdev }) => `${name} 0x${tunFlags(netdev).toString(16)}`);
  if (new Set(contenders.map(({ netdev }) => tunFlags(netdev))).size > 1) {
    throw new Error(`the taps differ, so the kernel's work would: ${flags.join(', ')}`);
  }
  if (sinks.size > 1) throw new Error('not every tap got the same sink');
  return [...sinks][0]!;
}

function title(direction: Direction, sink: Sink): string {
  const sent = sink === 'drop' ? 'dropped at the tap by tc' : 'to a tap without protocols';
  const where = direction === 'rx' ? `from a queue of ${QUEUE_FRAMES} that pktgen filled` : sent;
  return `${direction}-pps: ${OPTIONS.frame}-byte frames ${where}, ring ${OPTIONS.ring}, batch ${OPTIONS.batch}, frames/s`;
}
