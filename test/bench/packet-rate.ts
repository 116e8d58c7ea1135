/**
 * tx-pps and rx-pps: 64-byte frames through /dev/vhost-net, our guest against a C program that does the same and against dpdk-testpmd.
 * The contenders take turns, C, ours, testpmd, C, ours, testpmd..., each on a tap of the same flags with the same ring, features and
 * batch; driver on one processor, vhost worker on another.
 */
import { availableParallelism } from 'node:os';
import type { Contender, Direction, Placement } from './contender';
import { C_PROGRAM, cProgram, type FloodOptions, OURS, ours } from './flooder';
import { bringUp, type Sink } from './netdev';
import { Pktgen } from './pktgen';
import { tunFlags } from './proc';
import { comparison, roundLine, summary } from './report';
import type { BenchResult, BenchSettings } from './settings';
import { TESTPMD, testpmd } from './testpmd';
import { measure, type Window } from './window';

/** As testpmd has it: its tap is multiqueue with one queue, and takes frames through NAPI. */
const OPTIONS: FloodOptions = { ring: 256, batch: 32, frame: 64, buffer: 2048, napi: true, multiQueue: true };
const GOALS: readonly (readonly [peer: string, goal: number])[] = [
  [C_PROGRAM, 0.95],
  [TESTPMD, 1],
];
/** Driver's and interface's counts may differ by what is under way and by when each was read. */
const AGREEMENT = 0.05;
const ATTEMPTS = 3;

export async function packetRate(direction: Direction, settings: BenchSettings): Promise<BenchResult[]> {
  const processors = availableParallelism();
  const placement: Placement = { driverCpu: Math.min(1, processors - 1), workerCpu: 0 };
  const load = direction === 'rx' ? new Pktgen(processors > 2 ? 2 : 0, OPTIONS.frame) : null;
  const contenders = [
    cProgram(settings.vhostFlood, direction, OPTIONS, placement),
    ours(direction, OPTIONS, placement),
    testpmd(direction, OPTIONS, placement),
  ];
  try {
    const sink = await startAll(contenders, direction);
    process.stdout.write(`${title(direction, sink)}\n`);
    const windows = new Map<string, Window[]>(contenders.map(({ name }) => [name, []]));
    for (let round = 1; round <= settings.pairs; round++) {
      for (const contender of contenders) {
        windows.get(contender.name)!.push(await agreed(contender, direction, load, settings));
      }
      process.stdout.write(`${roundLine(round, windows)}\n`);
    }
    process.stdout.write(summary(windows));
    return GOALS.map(([peer, goal]) => comparison(`${direction}-pps`, OURS, peer, windows, goal));
  } finally {
    await load?.stop();
    for (const contender of contenders) await contender.end();
  }
}

async function startAll(contenders: readonly Contender[], direction: Direction): Promise<Sink> {
  const sinks = new Set<Sink>();
  for (const contender of contenders) {
    await contender.start();
    sinks.add(bringUp(contender.netdev, direction));
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

/** A window in which the driver's count and the interface's disagree tells nothing and is taken again. */
async function agreed(
  contender: Contender,
  direction: Direction,
  load: Pktgen | null,
  settings: BenchSettings,
): Promise<Window> {
  for (let attempt = 1; ; attempt++) {
    const window = await measure(contender, direction, load, settings);
    const apart = Math.abs(window.rate - window.checkRate) / Math.max(window.rate, window.checkRate, 1);
    if (window.rate > 0 && apart <= AGREEMENT) return window;
    const said = `${contender.name}: ${Math.round(window.rate)} frames/s measured, ${Math.round(window.checkRate)} by the other count`;
    if (attempt === ATTEMPTS) throw new Error(said);
    process.stdout.write(`  taken again: ${said}\n`);
  }
}

function title(direction: Direction, sink: Sink): string {
  const where =
    direction === 'rx' ? 'from pktgen' : sink === 'drop' ? 'dropped at the tap by tc' : 'to a tap without protocols';
  return `${direction}-pps: ${OPTIONS.frame}-byte frames ${where}, ring ${OPTIONS.ring}, batch ${OPTIONS.batch}, frames/s`;
}
