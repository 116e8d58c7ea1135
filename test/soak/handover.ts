/**
 * Many migrations in one go, under every kind of traffic. Progress goes to standard error, the counts as one line of JSON to standard output; exits
 * with 1 when a frame was lost, doubled, reordered or damaged, pages differ, or it is not certain that nothing of that happened.
 *
 *     node --expose-gc dist/test/soak/handover.js [--migrations 100] [--kinds emulated,emulated] [--rate 2000] [--guest-rate 1000]
 *         [--hogs 0] [--between 20] [--most-between 60] [--no-marker] [--pause 0]
 */
import { parseArgs } from 'node:util';
import { Worker } from 'node:worker_threads';
import type { DowntimeParts } from '../../lib/migration/options';
import type { PathKind } from '../helpers/device-rig';
import { faultsOf, HandoverLab, type Moved } from '../helpers/handover-lab';
import { sleep } from '../helpers/vhost-wait';

const { values } = parseArgs({
  options: {
    migrations: { type: 'string', default: '100' },
    kinds: { type: 'string', default: 'emulated,emulated' },
    rate: { type: 'string', default: '2000' },
    'guest-rate': { type: 'string', default: '1000' },
    hogs: { type: 'string', default: '0' },
    between: { type: 'string', default: '20' },
    'most-between': { type: 'string', default: '60' },
    pause: { type: 'string', default: '0' },
    'no-marker': { type: 'boolean', default: false },
  },
});
const number = (name: keyof typeof values): number => Number(values[name]);

/** A migration cannot tell frames that are equal; here they are counted at both ends, which decides it. */
const AMBIGUOUS = 'N streams of repeated frames could be joined in several ways';

interface Tally {
  readonly downtimes: number[];
  readonly parts: Record<keyof DowntimeParts, number[]>;
  readonly unproven: Record<string, number>;
  readonly sums: Record<string, number>;
  failed: number;
}

const tally: Tally = {
  downtimes: [],
  parts: { stop: [], sync: [], lastPages: [], state: [], start: [] },
  unproven: {},
  sums: {},
  failed: 0,
};

function count({ result: { handover, downtimeMs, downtimeParts, audit } }: Moved): void {
  tally.downtimes.push(downtimeMs);
  for (const [part, list] of Object.entries(tally.parts)) list.push(downtimeParts[part as keyof DowntimeParts]);
  const reasons = [...(handover?.unproven ?? ['no hand-over']), ...(audit?.differing === 0 ? [] : ['pages differ'])];
  for (const reason of reasons) {
    const name = reason.replace(/\d+/g, 'N');
    tally.unproven[name] = (tally.unproven[name] ?? 0) + 1;
    process.stderr.write(`migration ${tally.downtimes.length}: ${reason}\n`);
  }
  for (const [side, account] of Object.entries({ source: handover?.source, destination: handover?.destination })) {
    for (const [name, value] of Object.entries(account ?? {})) {
      if (typeof value === 'number') tally.sums[`${side}.${name}`] = (tally.sums[`${side}.${name}`] ?? 0) + value;
    }
  }
}

function spread(list: readonly number[]): Record<string, number> {
  const sorted = [...list].sort((a, b) => a - b);
  const at = (share: number): number => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0;
  return { p50: at(0.5), p99: at(0.99), max: at(1) };
}

async function run(lab: HandoverLab): Promise<Record<string, unknown>> {
  const [total, between, most] = [number('migrations'), number('between'), number('most-between')];
  const spacing = (): number => between + Math.random() * Math.max(0, most - between);
  await lab.boot();
  await lab.traffic({ station: number('rate'), guest: number('guest-rate') });
  await sleep(200);
  const started = performance.now();
  for (let done = 1; done <= total; done++) {
    const to = (lab.at + 1) % lab.places.length;
    if (number('pause') > 0) lab.guest.beforePause = () => sleep(number('pause'));
    count(await lab.migrate(to));
    await sleep(spacing());
    if (done % 50 === 0) {
      const seconds = Math.round((performance.now() - started) / 1000);
      const inFlight = JSON.stringify({ own: lab.record.book.own, foreign: lab.record.book.foreign });
      process.stderr.write(
        `${done} of ${total} in ${seconds} s, ${lab.record.book.total} frames to the guest ${inFlight}\n`,
      );
    }
  }
  await sleep(200);
  const verdict = await lab.settle();
  const sent = [...lab.station.sources, ...lab.stationToo.sources].map(({ plan, sent: n }) => [
    `${plan.kind} ${plan.flow}`,
    n,
  ]);
  const from = lab.record.sources.map(({ plan, sent: n }) => [`${plan.kind} ${plan.flow}`, n]);
  return {
    migrations: tally.downtimes.length,
    kinds: lab.places.map(({ kind }) => kind),
    seconds: Math.round((performance.now() - started) / 1000),
    sent: Object.fromEntries([...sent, ...from]),
    wrong: faultsOf(verdict),
    unproven: tally.unproven,
    downtimeMs: spread(tally.downtimes),
    parts: Object.fromEntries(Object.entries(tally.parts).map(([part, list]) => [part, spread(list)])),
    sums: tally.sums,
  };
}

/** Its loops compete for the processors. */
function hog(): Worker {
  return new Worker('for (;;) Math.sqrt(Math.random());', { eval: true });
}

async function main(): Promise<void> {
  const hogs = Array.from({ length: number('hogs') }, hog);
  await using lab = await HandoverLab.create({ kinds: values.kinds.split(',') as PathKind[] });
  if (values['no-marker']) {
    for (const { tap } of lab.places)
      await lab.netns.ip('link', 'set', 'dev', tap.name, 'type', 'bridge_slave', 'isolated', 'on');
  }
  const report = await run(lab);
  for (const worker of hogs) await worker.terminate();
  process.stdout.write(`${JSON.stringify(report)}\n`);
  const { wrong, unproven } = report as { wrong: object; unproven: object };
  const doubts = Object.keys(unproven).filter((reason) => reason !== AMBIGUOUS);
  if (Object.keys(wrong).length + doubts.length > 0) process.exitCode = 1;
}

void main();
