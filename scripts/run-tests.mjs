// Runs the tests, part by part, each where it can run, and closes with one line of counts.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { canOpen } from './devices.mjs';

const HERE = 'on this machine';
const IN_VM = 'in the test VM';
const jest = ['node_modules/jest/bin/jest.js', '--ci', '--no-colors'];

const vhostHere = canOpen('/dev/vhost-net');

// Suites by folder of dist/test. `vhost` needs the device; `vm` tests the VM command itself; `conformance` runs over every data path there is.
const PARTS = {
  lint: () => command('lint', ['node_modules/.bin/biome', 'ci', '--error-on-warnings', '--colors=off', '.']),
  native: () => counted('native core, sanitized', ['scripts/sanitize']),
  unit: () =>
    suite('unit', [
      'unit',
      'property',
      'addon',
      'migration',
      'hostile',
      'vhost-user',
      'cli-migration',
      'reliability',
      'conformance',
      'bench',
      'report',
      'model',
    ]),
  vm: () => suite('vm', ['vm-command']),
  vhost: () => suite('vhost', ['vhost', 'conformance'], { needsVhost: true }),
};

const asked = process.argv.slice(2).filter((word) => word in PARTS);
const patterns = process.argv.slice(2).filter((word) => !(word in PARTS));
const parts = asked.length > 0 ? asked : Object.keys(PARTS);
const results = [];

for (const part of parts) {
  process.stdout.write(`== ${part}\n`);
  const started = Date.now();
  const result = PARTS[part]();
  results.push({ part, seconds: Math.round((Date.now() - started) / 1000), ...result });
}

process.stdout.write('\nwhat ran where:\n');
for (const { part, where, passed, failed, skipped, seconds } of results) {
  process.stdout.write(
    `  ${part.padEnd(8)} ${String(passed).padStart(5)} passed ${String(failed).padStart(3)} failed `,
  );
  process.stdout.write(`${String(skipped.length).padStart(3)} skipped  ${where}, ${seconds} s\n`);
  for (const name of skipped) process.stdout.write(`           skipped: ${name}\n`);
}
const sum = (key) => results.reduce((total, result) => total + result[key], 0);
const failed = sum('failed');
const skipped = results.reduce((total, result) => total + result.skipped.length, 0);
process.stdout.write(`${sum('passed')} passed, ${failed} failed, ${skipped} skipped\n`);
process.exit(failed === 0 ? 0 : 1);

/** One command that passes or fails as a whole. */
function command(_name, [file, ...args]) {
  const { status } = spawnSync(file, args, { stdio: 'inherit' });
  return { where: HERE, passed: status === 0 ? 1 : 0, failed: status === 0 ? 0 : 1, skipped: [] };
}

/** A program whose last line is `N passed, N failed`. */
function counted(_name, [file, ...args]) {
  const { status, stdout } = spawnSync(file, args, { stdio: ['ignore', 'pipe', 'inherit'], encoding: 'utf8' });
  process.stdout.write(stdout);
  const counts = /(\d+) passed, (\d+) failed\s*$/.exec(stdout);
  if (status !== 0 || counts === null) {
    return {
      where: HERE,
      passed: Number(counts?.[1] ?? 0),
      failed: Math.max(1, Number(counts?.[2] ?? 1)),
      skipped: [],
    };
  }
  return { where: HERE, passed: Number(counts[1]), failed: Number(counts[2]), skipped: [] };
}

/** Jest over folders of dist/test; those that need the device go to the VM where it cannot be opened here. */
function suite(name, folders, { needsVhost = false } = {}) {
  const inVm = needsVhost && !vhostHere;
  const where = inVm ? IN_VM : HERE;
  const existing = folders.map((folder) => `dist/test/${folder}`).filter((folder) => existsSync(folder));
  const out = mkdtempSync(join(tmpdir(), 'vhost-net-tests-'));
  const report = join(out, `${name}.json`);
  // The event loop, kernel workers and peers of one test share two processors: one test file at a time where it counts.
  const jestArgs = [...jest, needsVhost ? '--runInBand' : '--maxWorkers=2', '--json', `--outputFile=${report}`];
  const filter = patterns.length > 0 ? patterns : existing.map((folder) => `${folder}/`);
  const line = [process.execPath, '--expose-gc', '--enable-source-maps', ...jestArgs, ...filter];
  if (needsVhost) process.stdout.write(`tests that need /dev/vhost-net run ${where}\n`);
  const run = inVm ? ['bin/vhost-net', 'vm', '--out', out, '--timeout', '2400', '--', ...line] : line;
  mkdirSync(out, { recursive: true });
  const [file, ...args] = run;
  // The summary that jest prints goes to standard error; standard output carries the report once more.
  const { status } = spawnSync(file, args, { stdio: ['ignore', 'ignore', 'inherit'] });
  let json;
  try {
    json = JSON.parse(readFileSync(report, 'utf8'));
  } catch {
    process.stdout.write(`${name}: no report (exit status ${status})\n`);
    return { where, passed: 0, failed: 1, skipped: [] };
  } finally {
    rmSync(out, { recursive: true, force: true });
  }
  const tests = json.testResults.flatMap((file) => file.assertionResults);
  const skipped = tests
    .filter((test) => test.status === 'pending' || test.status === 'todo')
    .map((test) => test.fullName);
  // A file that could not be loaded counts as one failure; so does a run that found nothing to run.
  const broken = json.testResults.filter(
    (file) => file.status === 'failed' && file.assertionResults.length === 0,
  ).length;
  const failures =
    json.numFailedTests + broken + (json.numTotalTests === 0 && broken === 0 && patterns.length === 0 ? 1 : 0);
  return { where, passed: json.numPassedTests, failed: Math.max(failures, status === 0 ? 0 : 1), skipped };
}
