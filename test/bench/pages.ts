/**
 * pages: 2 GiB of random memory between two processes over a UNIX socket, ours against two C processes, taking turns. Needs no
 * /dev/vhost-net, so it runs on the machine itself: `node dist/test/bench/pages.js [PAIRS]` builds the peer and prints ratios.
 *
 * `buffer`: the peer reads into one small buffer, ours into memory that has been touched before. `fresh`: both into memory that never was,
 * where the kernel's allocation of it is most of the work.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { resultLine } from './report';
import type { BenchResult } from './settings';
import { interquartileRange, median } from './statistics';

const BYTES = 2 ** 31;
const ROOT = join(__dirname, '../../..');
const CASES = [
  { name: 'pages-touched', peerMode: 'buffer', target: 'touched', goal: 0.6 },
  { name: 'pages-fresh', peerMode: 'fresh', target: 'fresh', goal: 1 },
] as const;

interface SourceReport {
  seconds: number;
}

/** Bytes a second of two processes of ours with one page connection. */
async function ours(folder: string, target: string): Promise<number> {
  const path = join(folder, 'socket');
  rmSync(path, { force: true });
  const end = (...parts: string[]): ChildProcess =>
    spawn(process.execPath, [join(__dirname, 'page-end.js'), ...parts], { stdio: ['ignore', 'pipe', 'inherit'] });
  const destination = end('destination', path, String(BYTES), '1', target);
  const gone = once(destination, 'exit');
  await Promise.race([once(destination.stdout!, 'data'), gone]);
  const source = end('source', path, String(BYTES), '1', 'random');
  let said = '';
  source.stdout!.setEncoding('utf8').on('data', (text: string) => {
    said += text;
  });
  await Promise.all([once(source, 'close'), gone]);
  return BYTES / (JSON.parse(said) as SourceReport).seconds;
}

async function run(pairs: number): Promise<BenchResult[]> {
  const folder = mkdtempSync(join(tmpdir(), 'vhn-pages-bench-'));
  try {
    const peer = join(folder, 'page_pair');
    const source = join(ROOT, 'test/bench/peers/page_pair.c');
    execFileSync('cc', ['-std=c11', '-O2', '-Wall', '-Wextra', '-o', peer, source], { stdio: 'inherit' });
    const results: BenchResult[] = [];
    for (const { name, peerMode, target, goal } of CASES) {
      const own: number[] = [];
      const theirs: number[] = [];
      for (let pair = 0; pair < pairs; pair++) {
        theirs.push(Number(execFileSync(peer, [String(BYTES), peerMode], { encoding: 'utf8' })));
        own.push(await ours(folder, target));
        process.stdout.write(`  ${name} ${pair + 1}: C ${gigabytes(theirs.at(-1)!)}, ours ${gigabytes(own.at(-1)!)}\n`);
      }
      const ratios = own.map((rate, pair) => rate / theirs[pair]!);
      const ratio = median(ratios);
      const spread = interquartileRange(ratios);
      const [mine, peerRate] = [median(own), median(theirs)];
      results.push({ name, ours: mine, peer: peerRate, peerName: 'C pair', ratio, spread, goal, met: ratio >= goal });
    }
    return results;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function gigabytes(rate: number): string {
  return `${(rate / 1e9).toFixed(2)} GB/s`;
}

if (require.main === module) {
  run(Number(process.argv[2] ?? 5)).then(
    (results) => {
      for (const result of results) process.stdout.write(`${resultLine(result)}\n`);
    },
    (error: unknown) => {
      process.stderr.write(`pages: ${error instanceof Error ? error.message : String(error)}\n`);
      process.exitCode = 1;
    },
  );
}
