/**
 * downtime-qemu: migrations of a vhost-net guest between two processes, ours and QEMU's taking turns, each on a bridge of its own where somebody
 * pings it.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { Netns } from '../../lib/host/netns';
import { none } from './downtime';
import type { MovePlan } from './move-plan';
import { Pinger } from './pinger';
import { QemuMover } from './qemu-mover';
import type { BenchResult, BenchSettings } from './settings';
import { Sides } from './sides';
import { interquartileRange, median } from './statistics';

const WARM_UP = 5;
const MEMORY = 128 * 2 ** 20;
/** About what QEMU's guest has in use. */
const WRITTEN = 64 * 2 ** 20;
/** Requests a second: a guest that QEMU emulates within an emulated machine does not keep up with 100. */
const PINGS = 25;
/** While it boots: what is asked then waits for it in the tap's queue. */
const BOOT_PINGS = 1;
const BRIDGE = 'br0';
const GOAL = 3;
/** Of ours in a round, against one of QEMU's for each of its settings. */
const ROUND = 5;
const BOOT_LIMIT_MS = 300_000;
/** Guests that may be started for one that boots. */
const BOOTS = 4;
const ANSWER_LIMIT_MS = 60_000;
/** Answers that show that the guest is at work. */
const AT_WORK = 5;
const DRAIN_MS = 1000;

/** Downtime limits: QEMU's default, and one with which it goes on copying until next to nothing is left. */
const QEMU = [
  { name: 'downtime-qemu', limit: 300 },
  { name: 'downtime-qemu-20', limit: 20 },
] as const;

interface Moved {
  /** As who moves it says. */
  readonly downtimeMs: number;
  /** Until the source has sent everything but the device's state: where QEMU's downtime ends, a little after that. */
  readonly sentMs: number;
}

interface Turn extends Moved {
  readonly silenceMs: number;
  readonly asked: number;
  readonly lost: number;
}

/** A namespace with a bridge and somebody who pings. */
class Network {
  readonly netns: Netns;
  readonly pinger: Pinger;

  private constructor(netns: Netns, pinger: Pinger) {
    this.netns = netns;
    this.pinger = pinger;
  }

  static async create(): Promise<Network> {
    const netns = await Netns.create();
    await netns.addBridge(BRIDGE);
    const pinger = await Pinger.open(netns);
    await netns.attach(BRIDGE, pinger.name);
    return new Network(netns, pinger);
  }

  async heard(answers: number, limitMs: number, evidence = (): string => ''): Promise<void> {
    const enough = this.pinger.answered + answers;
    for (const limit = Date.now() + limitMs; this.pinger.answered < enough; await sleep(5)) {
      if (Date.now() > limit) throw new Error(`the guest answers no more (${this.pinger.answered}) ${evidence()}`);
    }
  }

  async turn(move: () => Promise<Moved>, evidence?: () => string): Promise<Turn> {
    const { pinger } = this;
    pinger.start(PINGS);
    await this.heard(AT_WORK, ANSWER_LIMIT_MS, evidence);
    pinger.watch();
    const moved = await move();
    await this.heard(AT_WORK, ANSWER_LIMIT_MS, evidence);
    pinger.hush();
    await sleep(DRAIN_MS);
    return { ...moved, ...pinger.answers() };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.pinger.close();
    await this.netns.delete();
  }
}

function tell(name: string, turns: readonly Turn[]): void {
  const of = (pick: (turn: Turn) => number): string => turns.map((turn) => pick(turn).toFixed(1)).join(' ');
  const sum = (pick: (turn: Turn) => number): number => turns.reduce((total, turn) => total + pick(turn), 0);
  process.stdout.write(
    `  ${name}: ${turns.length} migrations\n    downtime ${of((turn) => turn.downtimeMs)} ms\n` +
      `    of it until everything was sent ${of((turn) => turn.sentMs)} ms\n` +
      `    silence ${of((turn) => turn.silenceMs)} ms\n    ${sum((turn) => turn.lost)} of ${sum((turn) => turn.asked)} pings not answered\n`,
  );
}

/** Round by round: theirs against the median of ours. */
function ratio(
  name: string,
  theirs: readonly Turn[],
  ours: readonly Turn[],
  pick: (turn: Turn) => number,
): BenchResult {
  const ratios = theirs.map(
    (turn, round) => pick(turn) / median(ours.slice(round * ROUND, (round + 1) * ROUND).map(pick)),
  );
  const middle = median(ratios);
  return {
    name,
    ours: median(ours.map(pick)),
    peer: median(theirs.map(pick)),
    peerName: 'QEMU',
    ratio: middle,
    spread: interquartileRange(ratios),
    goal: GOAL,
    met: middle >= GOAL,
    less: true,
  };
}

/**
 * A guest of its own for each: in an emulated machine two were not there any more some seconds after their first migration, one by a kernel
 * panic. On the machine itself, without vhost, the same guest was moved six times.
 */
async function qemuTurn(limit: number): Promise<Turn> {
  for (let left = BOOTS; ; left--) {
    const turn = await bootedTurn(limit, left > 1);
    if (turn !== null) return turn;
  }
}

/** Null for a guest that did not boot, which some do not in an emulated machine, when there is to be `another`. */
async function bootedTurn(limit: number, another: boolean): Promise<Turn | null> {
  await using there = await Network.create();
  await using qemu = await QemuMover.start(there.netns, BRIDGE, MEMORY);
  const said = (): string => qemu.consoleText.slice(-2000);
  const began = performance.now();
  there.pinger.start(BOOT_PINGS);
  try {
    await there.heard(1, BOOT_LIMIT_MS, said);
  } catch (error) {
    if (!another) throw error;
    process.stdout.write(`  QEMU's guest does not answer after ${BOOT_LIMIT_MS / 1000} s: another\n`);
    return null;
  }
  there.pinger.hush();
  process.stdout.write(`  QEMU's guest answers after ${((performance.now() - began) / 1000).toFixed(0)} s\n`);
  await sleep(DRAIN_MS);
  // Awaited here: what is in use ends with this function.
  return await there.turn(async () => {
    const { downtimeMs } = await qemu.move(limit);
    return { downtimeMs, sentMs: downtimeMs };
  }, said);
}

export async function downtimeQemu({ pairs: rounds }: BenchSettings): Promise<BenchResult[]> {
  const ours: Turn[] = [];
  const theirs: Turn[][] = QEMU.map(() => []);
  await using here = await Network.create();
  await using sides = new Sides();
  const plan: Omit<MovePlan, 'netns'> = {
    path: 'vhost-kernel',
    program: 'echo',
    rate: PINGS,
    pairs: 1,
    memory: MEMORY,
    written: WRITTEN,
    capacity: 1024,
  };
  await sides.boot(here.netns, BRIDGE, plan);
  const moveOurs = async (): Promise<Moved> => {
    const { downtimeMs, downtimeParts } = (await sides.move()).result;
    const { stop, sync, lastPages } = downtimeParts;
    return { downtimeMs, sentMs: stop + sync + lastPages };
  };
  for (let warm = 0; warm < WARM_UP; warm++) await here.turn(moveOurs);
  for (let round = 0; round < rounds; round++) {
    for (let one = 0; one < ROUND; one++) ours.push(await here.turn(moveOurs));
    tell(`ours, round ${round + 1}`, ours.slice(-ROUND));
    for (const [index, { name, limit }] of QEMU.entries()) {
      theirs[index]!.push(await qemuTurn(limit));
      tell(`${name}, round ${round + 1}`, theirs[index]!.slice(-1));
    }
  }
  const lost = ours.reduce((sum, turn) => sum + turn.lost, 0);
  return [
    ...QEMU.flatMap(({ name }, index) => [
      ratio(`${name}-ms`, theirs[index]!, ours, (turn) => turn.downtimeMs),
      ratio(`${name}-sent-ms`, theirs[index]!, ours, (turn) => turn.sentMs),
      ratio(`${name}-silence-ms`, theirs[index]!, ours, (turn) => turn.silenceMs),
    ]),
    none('downtime-qemu-frames', lost + here.pinger.doubled),
  ];
}
