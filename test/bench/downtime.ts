/**
 * downtime: migrations back and forth between two processes over a UNIX socket, the station in a third, 10,000 frames a second each way on
 * the emulated data path; with as many queue pairs as a device can have against one; and handed over on the same host, 4 GiB.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { MAX_QUEUE_PAIRS } from '../../lib/device/device-properties';
import type { Move } from './move-plan';
import { type Faults, Mover, type MoverOptions } from './mover';
import { limited } from './report';
import type { BenchResult, BenchSettings } from './settings';
import { interquartileRange, median, quantile } from './statistics';

const RATE = 10_000;
const MEMORY = 64 * 2 ** 20;
const LARGE = 2 ** 32;
/** Of a guest that has written next to nothing of it. */
const LARGEST = 2 ** 33;
const P99_LIMIT_MS = 10;
const LOCAL_LIMIT_MS = 20;
const MANY_TO_ONE = 1.5;
/** Migrations of a round with one pair, and of one with many: they take turns. The first ones of a process, of code not compiled yet, do not count. */
const ROUND = 10;
const WARM_UP = 10;
const BETWEEN_MS = 50;
/** Migrations told of one by one: both processes do everything for the first time then. */
const FIRST = 4;
const PARTS = ['stop', 'sync', 'lastPages', 'state', 'start'] as const;

async function several(mover: Mover, count: number, local = false): Promise<Move[]> {
  const moves: Move[] = [];
  for (let done = 0; done < count; done++) {
    await sleep(BETWEEN_MS);
    moves.push(await mover.move(local));
  }
  return moves;
}

const times = (moves: readonly Move[]): number[] => moves.map(({ result }) => result.downtimeMs);

function spreadOf(values: readonly number[]): string {
  return [0.5, 0.99, 1].map((share) => quantile(values, share).toFixed(2)).join(' / ');
}

const wrongOf = ({ lost, duplicated, reordered, corrupted }: Faults): number =>
  lost + duplicated + reordered + corrupted;

function faultsText({ lost, overflowed, duplicated, reordered, corrupted }: Faults): string {
  return `${lost} lost (${overflowed} in full tap queues), ${duplicated} doubled, ${reordered} out of order, ${corrupted} damaged`;
}

function tell(name: string, moves: readonly Move[], faults: Faults): number {
  const parts = PARTS.map((part) => `${part} ${spreadOf(moves.map(({ result }) => result.downtimeParts[part]))}`);
  const unproven = moves.filter((move) => move.unproven.length > 0).length;
  const differing = moves.reduce((sum, move) => sum + (move.differing ?? 0), 0);
  const first = times(moves.slice(0, FIRST)).map((ms) => ms.toFixed(2));
  process.stdout.write(
    `  ${name}: ${moves.length} migrations, downtime ${spreadOf(times(moves))} ms (p50 / p99 / longest); the first ${first.join(', ')}\n` +
      `    ${parts.join(', ')}\n` +
      `    ${faults.sent} frames: ${faultsText(faults)}; ${differing} pages differ, ${unproven} unproven\n`,
  );
  tellUnproven(moves, '');
  return wrongOf(faults) + differing;
}

function tellUnproven(moves: readonly Move[], when: string): void {
  for (const reason of new Set(moves.flatMap((move) => move.unproven)))
    process.stdout.write(`    unproven${when}: ${reason}\n`);
}

/** Answers what counts and how much went wrong. Migrations of the warm-up are moves before those. */
export async function run(
  name: string,
  options: MoverOptions,
  count: number,
  { local = false, warmUp = 0 } = {},
): Promise<[Move[], number]> {
  await using mover = await Mover.start(options);
  const first = await several(mover, warmUp, local);
  const moves = await several(mover, count, local);
  const wrong = tell(name, moves, await mover.settle());
  // Their frames are among those that are counted.
  tellUnproven(first, ' in the warm-up');
  return [moves, wrong];
}

/** The count of what went wrong, against none. */
export function none(name: string, wrong: number): BenchResult {
  return {
    name,
    ours: wrong,
    peer: 0,
    peerName: 'limit',
    ratio: wrong === 0 ? 1 : 0,
    spread: 0,
    goal: 1,
    met: wrong === 0,
  };
}

/** Both stand there at once, and each rests while the other moves. */
async function manyPairs(rounds: number): Promise<BenchResult[]> {
  let wrong = 0;
  const [few, many]: [Move[], Move[]] = [[], []];
  const ratios: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const turns: [number, Move[]][] = [
      [1, few],
      [MAX_QUEUE_PAIRS, many],
    ];
    for (const [pairs, moves] of turns) {
      await using mover = await Mover.start({ rate: RATE, pairs, memory: MEMORY });
      await several(mover, WARM_UP);
      moves.push(...(await several(mover, ROUND)));
      const faults = await mover.settle();
      wrong += wrongOf(faults);
      process.stdout.write(`  downtime-pairs, ${pairs}: ${faultsText(faults)}\n`);
    }
    ratios.push(median(times(many.slice(-ROUND))) / median(times(few.slice(-ROUND))));
  }
  const [ours, peer] = [median(times(many)), median(times(few))];
  const ratio = median(ratios);
  process.stdout.write(
    `  downtime-pairs: ${MAX_QUEUE_PAIRS} pairs ${ours.toFixed(2)} ms, 1 pair ${peer.toFixed(2)} ms\n`,
  );
  return [
    limited('downtime-pairs', ratio, MANY_TO_ONE, interquartileRange(ratios)),
    none('downtime-pairs-frames', wrong),
  ];
}

export async function downtime({ migrations, pairs }: BenchSettings): Promise<BenchResult[]> {
  const seconds = 60 + migrations * 2;
  const [moves, wrong] = await run('downtime', { rate: RATE, memory: MEMORY, seconds }, migrations);
  const [large, wrongLarge] = await run('downtime-8g', { rate: RATE, memory: LARGEST }, ROUND, { warmUp: WARM_UP });
  const [local, wrongLocal] = await run('downtime-local', { rate: RATE, memory: LARGE }, 7, { local: true });
  return [
    limited('downtime-p99-ms', quantile(times(moves), 0.99), P99_LIMIT_MS, interquartileRange(times(moves))),
    none('downtime-frames', wrong),
    limited('downtime-8g-ms', median(times(large)), P99_LIMIT_MS, interquartileRange(times(large))),
    none('downtime-8g-frames', wrongLarge),
    limited('downtime-local-4g-ms', median(times(local)), LOCAL_LIMIT_MS, interquartileRange(times(local))),
    none('downtime-local-frames', wrongLocal),
    ...(await manyPairs(pairs)),
  ];
}
