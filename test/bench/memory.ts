/**
 * memory: the largest amount of memory of its own (RssAnon: not the guest's, which is a memory file) that either process of a migration has,
 * for a guest of 2 GiB and one of 8 GiB, of which 1 GiB is written.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { limited } from './report';
import type { BenchResult } from './settings';

const SIZES = [2 ** 31, 2 ** 33];
const LIMIT_MB = 150;
const LOOK_EVERY_MS = 5;

/** Largest RssAnon until the process ends, in MB. */
async function largest(child: ChildProcess): Promise<number> {
  let most = 0;
  while (child.exitCode === null && child.signalCode === null) {
    most = Math.max(most, anonymous(child.pid!));
    await sleep(LOOK_EVERY_MS);
  }
  if (child.exitCode !== 0) throw new Error(`a process ended with ${child.exitCode ?? child.signalCode}`);
  return most;
}

function anonymous(pid: number): number {
  const found = /RssAnon:\s*(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
  return found === null ? 0 : (Number(found[1]) * 1024) / 1e6;
}

async function pair(folder: string, bytes: number): Promise<{ source: number; destination: number }> {
  const path = join(folder, 'socket');
  rmSync(path, { force: true });
  const end = (role: string, kind: string): ChildProcess =>
    spawn(process.execPath, [join(__dirname, 'page-end.js'), role, path, String(bytes), '1', kind], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
  const destination = end('destination', 'fresh');
  const most = largest(destination);
  await Promise.race([once(destination.stdout!, 'data'), most]);
  destination.stdout!.resume();
  const source = end('source', 'part');
  source.stdout!.resume();
  const [a, b] = await Promise.all([largest(source), most]);
  return { source: a, destination: b };
}

export async function memory(): Promise<BenchResult[]> {
  const folder = mkdtempSync(join(tmpdir(), 'vhn-memory-bench-'));
  try {
    const results: BenchResult[] = [];
    for (const bytes of SIZES) {
      const used = await pair(folder, bytes);
      const size = `${bytes / 2 ** 30}g`;
      process.stdout.write(`  memory ${size}: source ${mega(used.source)}, destination ${mega(used.destination)}\n`);
      for (const side of ['source', 'destination'] as const) {
        results.push(limited(`memory-${size}-${side}-mb`, used[side], LIMIT_MB));
      }
    }
    return results;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

const mega = (value: number): string => `${value.toFixed(1)} MB`;
