/**
 * Many kills, each of a migration of its own. Progress goes to standard error, the counts as one line of JSON to standard output; exits with 1
 * when anything did not hold.
 *
 *     node dist/test/reliability/main.js [--kills 100] [--seed N]
 */
import { parseArgs } from 'node:util';
import { type Kill, killOnce, PHASES, planKill, randomNumbers } from './kill';

const { values } = parseArgs({
  options: { kills: { type: 'string', default: '100' }, seed: { type: 'string', default: `${Date.now() % 100_000}` } },
});

async function main(): Promise<void> {
  const seed = Number(values.seed);
  const random = randomNumbers(seed);
  const began = performance.now();
  const outcomes: Record<string, number> = {};
  const violations: (Kill & { what: string })[] = [];
  const kills = Number(values.kills);
  for (let number = 0; number < kills; number++) {
    const kill = planKill(random, PHASES[number % PHASES.length]!);
    const { how, victim, phase, offsetMs } = kill;
    let found: string;
    try {
      const { outcome, guest } = await killOnce(kill);
      found = `${how} ${victim}: ${outcome}, guest at ${guest}`;
      outcomes[found] = (outcomes[found] ?? 0) + 1;
    } catch (error) {
      found = error instanceof Error ? error.message : String(error);
      violations.push({ ...kill, what: found });
    }
    process.stderr.write(`${number + 1} of ${kills}: ${how} the ${victim} ${offsetMs} ms after ${phase}: ${found}\n`);
  }
  const seconds = Math.round((performance.now() - began) / 1000);
  process.stdout.write(`${JSON.stringify({ kills, seed, seconds, outcomes, violations })}\n`);
  process.exitCode = violations.length === 0 && kills > 0 ? 0 : 1;
}

void main();
