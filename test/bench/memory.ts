/**
 * memory: the largest amount of memory of its own (RssAnon: not the guest's, which is a memory file) that either process of a migration has,
 * for a guest of 2 GiB and one of 8 GiB, of which 1 GiB is written.
 */
import { Mover } from './mover';
import { limited } from './report';
import type { BenchResult } from './settings';

const SIZES = [2 ** 31, 2 ** 33];
const WRITTEN = 2 ** 30;
const RATE = 1000;
const LIMIT_MB = 150;

export async function memory(): Promise<BenchResult[]> {
  const results: BenchResult[] = [];
  for (const bytes of SIZES) {
    await using mover = await Mover.start({ rate: RATE, memory: bytes, written: WRITTEN });
    const { result } = await mover.move();
    const size = `${bytes / 2 ** 30}g`;
    const own = (await mover.own()).map((most) => most / 1e6);
    const figures = own.map((most) => `${most.toFixed(1)} MB`).join(', destination ');
    process.stdout.write(`  memory ${size}: source ${figures}, in ${(result.totalMs / 1000).toFixed(1)} s\n`);
    results.push(
      ...own.map((most, at) => limited(`memory-${size}-${['source', 'destination'][at]}-mb`, most, LIMIT_MB)),
    );
  }
  return results;
}
