/**
 * One migration under traffic of which a process is killed, or stands still for longer than a peer waits for it. Whatever the moment: at most
 * one of them runs the guest, and what is left can go on.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { VhostError } from '../../lib/errors';
import { ControlClient } from '../../lib/migration/control-client';
import type { ControlOutcome } from '../../lib/migration/control-protocol';
import type { MigrationPhase } from '../../lib/migration/options';
import { CliLab } from '../helpers/cli-lab';
import type { CliProcess } from '../helpers/cli-process';

export const PHASES: readonly MigrationPhase[] = [
  'setup',
  'precopy',
  'relay',
  'switchover',
  'ready',
  'commit',
  'running',
  'done',
];
export const DEAD_AFTER_MS = 1000;
/** Slow enough for the rounds to take a while. Bytes a second. */
const BANDWIDTH = 4_000_000;
const ANSWER_MS = 30_000;

export interface Kill {
  victim: 'source' | 'destination';
  /** SIGKILL, or SIGSTOP and SIGCONT later. */
  how: 'kill' | 'stop';
  /** The source's, and how long after it was told. */
  phase: MigrationPhase;
  offsetMs: number;
}

export interface Aftermath {
  /** As the source said; `gone` when it could not. */
  outcome: ControlOutcome | 'gone';
  /** Where the guest was before anything was resolved. */
  guest: 'source' | 'destination' | 'nowhere';
  /** Frames that came twice: two guests were one for a while. */
  duplicated: number;
}

/** Does it, checks everything, and throws what does not hold. */
export async function killOnce(kill: Kill): Promise<Aftermath> {
  await using lab = await CliLab.create();
  const source = await lab.run('a');
  const address = `unix:${lab.socket()}`;
  const dead = ['--dead-after', `${DEAD_AFTER_MS}`];
  const destination = (await lab.receive('b', address, {}, ...dead)).process;
  await lab.flows('a');
  const outcome = await strike(lab, kill, kill.victim === 'source' ? source : destination, address);
  if (kill.how === 'stop') await sleep(500);
  const runners = await lab.transmitting(['a', 'b']);
  holds(runners.length <= 1, `${runners.join(' and ')} both transmit`);
  const { duplicated } = lab.station.ledger;
  holds(duplicated === 0, `${duplicated} frames reached the network twice`);
  const guest = runners[0] === 'a' ? 'source' : runners[0] === 'b' ? 'destination' : 'nowhere';
  if (kill.how === 'kill') {
    if (kill.victim === 'source') await afterSource(lab, address, destination, guest);
    else await afterDestination(lab, address, source, outcome, guest);
  } else await afterStop(lab, address, source, outcome, guest);
  return { outcome, guest, duplicated };
}

async function strike(lab: CliLab, kill: Kill, victim: CliProcess, address: string): Promise<ControlOutcome | 'gone'> {
  const client = await ControlClient.connect(lab.path('a'));
  let struck: Promise<void> | null = null;
  const hit = async (): Promise<void> => {
    await sleep(kill.offsetMs);
    victim.kill(kill.how === 'kill' ? 'SIGKILL' : 'SIGSTOP');
    if (kill.how === 'kill') {
      await victim.end();
      return;
    }
    await sleep(2.5 * DEAD_AFTER_MS);
    victim.kill('SIGCONT');
  };
  const options = { deadAfterMs: DEAD_AFTER_MS, timeoutMs: 5000, maxBandwidth: BANDWIDTH };
  const order = client.call('migrate', { address, options }, (event) => {
    if (event.kind === 'phase' && event.phase === kill.phase) struck ??= hit();
  });
  const late = sleep(ANSWER_MS, null, { ref: false }).then(() => {
    throw new Error('no answer from the source');
  });
  try {
    const outcome = await Promise.race([order.then((answer) => answer.outcome), late]).catch((error: unknown) => {
      if (error instanceof VhostError && error.code === 'VHOST_ERR_CLOSED') return 'gone' as const;
      throw error;
    });
    await struck;
    return outcome;
  } finally {
    client.close();
  }
}

/** The guest went with its process, or it is at the destination; which otherwise takes the next one. */
async function afterSource(lab: CliLab, address: string, destination: CliProcess, guest: Aftermath['guest']) {
  holds(guest !== 'source', 'a dead process transmits');
  holds(destination.ended === null, `the destination ended with ${destination.ended}`);
  if (guest === 'nowhere') {
    holds(!(await lab.runsAt('b')), 'the destination says that the guest runs, and nothing comes from it');
    await lab.run('c');
    await lab.flows('c');
    await lab.move('c', address, 'b');
  }
  await lab.flows('b');
}

/** Without GO the guest never left; with it nobody knows until told; and another destination at the same address takes it. */
async function afterDestination(
  lab: CliLab,
  address: string,
  source: CliProcess,
  outcome: ControlOutcome | 'gone',
  guest: Aftermath['guest'],
) {
  holds(guest !== 'destination', 'a dead process transmits');
  if (outcome === 'completed') {
    // It went with its new process, after this one had let it go.
    holds((await source.end()) === 0 && guest === 'nowhere', `the guest is at the ${guest}`);
    return;
  }
  if (outcome === 'failed') holds(guest === 'source', 'the source does not go on');
  else {
    holds(outcome === 'uncertain', `the source says ${outcome}`);
    holds(guest === 'nowhere' && !(await lab.runsAt('a')), 'the source went on without being told');
    await lab.order('a', 'resolve', { where: 'here' });
  }
  await lab.flows('a');
  await lab.receive('c', address);
  await lab.move('a', address, 'c');
  await lab.flows('c');
  const { toGuest, toNetwork } = await lab.account('c');
  if (outcome === 'failed') {
    for (const [way, wrong] of Object.entries({ toGuest, toNetwork })) {
      holds(
        Object.values(wrong).every((frames) => frames === 0),
        `${way}: ${JSON.stringify(wrong)}`,
      );
    }
  }
}

/** Both live: what the source says is true of both. */
async function afterStop(
  lab: CliLab,
  address: string,
  source: CliProcess,
  outcome: ControlOutcome | 'gone',
  guest: Aftermath['guest'],
) {
  if (outcome === 'completed') {
    holds(guest === 'destination' && (await source.end()) === 0, `the guest is at the ${guest}`);
    await lab.flows('b');
    return;
  }
  if (outcome === 'failed') holds(guest === 'source', `the migration failed, and the guest is at the ${guest}`);
  else if (guest === 'destination') {
    holds(outcome === 'uncertain', `the source says ${outcome}`);
    await lab.order('a', 'resolve', { where: 'there' });
    holds((await source.end()) === 0, 'the source ended badly');
    await lab.flows('b');
    return;
  } else {
    holds(outcome === 'uncertain' || outcome === 'returned', `the source says ${outcome}`);
    holds(!(await lab.runsAt('a')), 'the source went on without being told');
    await lab.order('a', 'resolve', { where: 'here' });
  }
  await lab.flows('a');
  await lab.move('a', address, 'b');
  await lab.flows('b');
}

function holds(condition: boolean, otherwise: string): void {
  if (!condition) throw new Error(otherwise);
}

/** Numbers from 0 to 1, the same for the same seed (xorshift32). */
export function randomNumbers(seed: number): () => number {
  let state = seed | 0 || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}

/** Longest offset of a phase: those of the switchover follow each other closely. Milliseconds. */
const SPREAD: Readonly<Record<string, number>> = {
  setup: 10,
  precopy: 300,
  relay: 60,
  switchover: 40,
  ready: 5,
  commit: 8,
};

export function planKill(random: () => number, phase: MigrationPhase, given: Partial<Kill> = {}): Kill {
  const victim = random() < 0.5 ? 'source' : 'destination';
  const how = random() < 0.75 ? 'kill' : 'stop';
  const offsetMs = Math.round(random() * (SPREAD[phase] ?? 20) * 10) / 10;
  return { victim, how, phase, offsetMs, ...given };
}
