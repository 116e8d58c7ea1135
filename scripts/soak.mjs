// Migrations in a row under load: emulated ones on the machine itself, vhost-net ones where /dev/vhost-net is. Progress on standard error, one line
// of JSON at the end; exit status 1 when anything was lost, doubled, reordered, damaged, differing, unproven, or did not finish.
import { spawn } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Command, InvalidArgumentError } from 'commander';
import { canOpen } from './devices.mjs';

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
/** What `--short` leaves of it. */
const SHORT = 50;
/** Of the test VM, which is several times slower. */
const SECONDS_A_MIGRATION = 3;
const SECONDS_AROUND = 300;

const program = new Command('soak')
  .description('migrates a guest back and forth under load and counts what goes wrong')
  .option('--emulated <n>', 'migrations on the emulated data path', wholeNumber, 10_000)
  .option('--vhost <n>', 'migrations on /dev/vhost-net', wholeNumber, 1_000)
  .option('--rate <n>', 'frames a second to the guest of each station and flow', wholeNumber, 2_000)
  .option('--guest-rate <n>', 'frames a second of the guest', wholeNumber, 1_000)
  .option('--short', `a ${SHORT}th of the migrations`);
const { emulated, vhost, rate, guestRate, short } = program.parse().opts();
const share = (count) => (short ? Math.ceil(count / SHORT) : count);

const runs = [
  await run('emulated,emulated', share(emulated), false),
  await run('vhost-kernel,vhost-kernel', share(vhost), !canOpen('/dev/vhost-net')),
].filter((one) => one !== null);
const good = runs.every(({ ok }) => ok);
process.stdout.write(`${JSON.stringify({ good, runs })}\n`);
process.exitCode = good ? 0 : 1;

/** Null when there is nothing to do. */
async function run(kinds, migrations, vm) {
  if (migrations === 0) return null;
  const driver = [process.execPath, '--expose-gc', join(ROOT, 'dist/test/soak/handover.js')];
  const inside = [...driver, '--kinds', kinds, '--migrations', migrations, '--rate', rate, '--guest-rate', guestRate];
  const timeout = SECONDS_AROUND + migrations * SECONDS_A_MIGRATION;
  const command = vm ? [join(ROOT, 'bin/vhost-net'), 'vm', '--timeout', timeout, '--', ...inside] : inside;
  process.stderr.write(`soak: ${migrations} migrations, ${kinds}, ${vm ? 'in the test VM' : 'on this machine'}\n`);
  const { status, output } = await outputOf(command.map(String));
  const line = output.split('\n').findLast((text) => text.startsWith('{'));
  if (line === undefined) return { kinds: kinds.split(','), ok: false, migrations: 0, asked: migrations, status };
  const counts = JSON.parse(line);
  return { ok: status === 0 && counts.migrations === migrations, asked: migrations, ...counts };
}

function outputOf([file, ...args]) {
  return new Promise((settle) => {
    const child = spawn(file, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    const passOn = (signal) => child.kill(signal);
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, passOn);
    let output = '';
    child.stdout.setEncoding('utf8').on('data', (text) => {
      output += text;
    });
    child.once('error', (error) => process.stderr.write(`soak: ${error.message}\n`));
    child.once('close', (status) => settle({ status, output }));
  });
}

function wholeNumber(text) {
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError('Give a whole number.');
  return Number(text);
}
