/**
 * pages: 2 GiB of random memory between two processes over a UNIX socket, ours against two C processes and two of QEMU, taking turns, and
 * memory that was never touched against QEMU's. Needs no /dev/vhost-net.
 *
 * `touched`: the C program reads into one small buffer, ours into memory that has been touched before. `fresh`: all into memory that never
 * was, where the kernel's allocation of it is most of the work.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { qemuPair } from './qemu-pair';
import type { BenchResult, BenchSettings } from './settings';
import { interquartileRange, median } from './statistics';

const BYTES = 2 ** 31;
const PIECE = 2 ** 20;
const ROOT = join(__dirname, '../../..');

/** Bytes a second of one run. */
type Run = () => Promise<number>;

interface Case {
  readonly name: string;
  readonly peerName: string;
  readonly goal: number;
  readonly ours: Run;
  readonly peer: Run;
}

interface SourceReport {
  seconds: number;
  maxRss: number;
}

/** Two processes of ours with one page connection. */
async function ours(folder: string, target: string, kind: string): Promise<number> {
  const path = join(folder, 'socket');
  rmSync(path, { force: true });
  const end = (...parts: string[]): ChildProcess =>
    spawn(process.execPath, [join(__dirname, 'page-end.js'), ...parts], { stdio: ['ignore', 'pipe', 'inherit'] });
  const destination = end('destination', path, String(BYTES), '1', target);
  const gone = once(destination, 'exit');
  await Promise.race([once(destination.stdout!, 'data'), gone]);
  const source = end('source', path, String(BYTES), '1', kind);
  let said = '';
  source.stdout!.setEncoding('utf8').on('data', (text: string) => {
    said += text;
  });
  await Promise.all([once(source, 'close'), gone]);
  return BYTES / (JSON.parse(said) as SourceReport).seconds;
}

/** No page of it is all zero; that many are alike does not matter to anybody here. */
function fillRandom(path: string): void {
  const piece = new Uint32Array(PIECE / 4);
  let state = 1;
  for (let at = 0; at < piece.length; at++) {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    piece[at] = state;
  }
  const fd = openSync(path, 'w');
  for (let at = 0; at < BYTES; at += PIECE) writeSync(fd, piece);
  closeSync(fd);
}

function cases(folder: string, peer: string, random: string): Case[] {
  const c = async (mode: string): Promise<number> =>
    Number(execFileSync(peer, [String(BYTES), mode], { encoding: 'utf8' }));
  const qemu = async (file: string | null): Promise<number> => BYTES / (await qemuPair(folder, BYTES, file));
  const own =
    (target: string, kind = 'random') =>
    (): Promise<number> =>
      ours(folder, target, kind);
  return [
    { name: 'pages-touched', peerName: 'C pair', goal: 0.6, ours: own('touched'), peer: () => c('buffer') },
    { name: 'pages-fresh', peerName: 'C pair', goal: 1, ours: own('fresh'), peer: () => c('fresh') },
    { name: 'pages-qemu', peerName: 'QEMU', goal: 2, ours: own('fresh'), peer: () => qemu(random) },
    { name: 'pages-never', peerName: 'QEMU', goal: 20, ours: own('fresh', 'untouched'), peer: () => qemu(null) },
  ];
}

async function compare({ name, peerName, goal, ours: own, peer }: Case, pairs: number): Promise<BenchResult> {
  const [mine, theirs]: [number[], number[]] = [[], []];
  for (let pair = 1; pair <= pairs; pair++) {
    theirs.push(await peer());
    mine.push(await own());
    const figures = `${peerName} ${gigabytes(theirs.at(-1)!)}, ours ${gigabytes(mine.at(-1)!)}`;
    process.stdout.write(`  ${name} ${pair}: ${figures}\n`);
  }
  const ratios = mine.map((rate, pair) => rate / theirs[pair]!);
  const ratio = median(ratios);
  const spread = interquartileRange(ratios);
  return { name, ours: median(mine), peer: median(theirs), peerName, ratio, spread, goal, met: ratio >= goal };
}

/** In a virtual machine, a page that nobody has used since the boot costs its host a page: here, not in somebody's turn. */
function warmUp(peer: string): void {
  for (let time = 0; time < 2; time++) execFileSync(peer, [String(BYTES), 'fresh']);
}

export async function pages({ pairs }: BenchSettings): Promise<BenchResult[]> {
  const folder = mkdtempSync(join(tmpdir(), 'vhn-pages-bench-'));
  const random = `/dev/shm/vhn-pages-bench-${process.pid}`;
  try {
    const peer = join(folder, 'page_pair');
    const source = join(ROOT, 'test/bench/peers/page_pair.c');
    execFileSync('cc', ['-std=c11', '-O2', '-Wall', '-Wextra', '-o', peer, source], { stdio: 'inherit' });
    fillRandom(random);
    warmUp(peer);
    const results: BenchResult[] = [];
    for (const one of cases(folder, peer, random)) results.push(await compare(one, pairs));
    return results;
  } finally {
    rmSync(folder, { recursive: true, force: true });
    rmSync(random, { force: true });
  }
}

function gigabytes(rate: number): string {
  return `${(rate / 1e9).toFixed(2)} GB/s`;
}
