/**
 * Two QEMU processes, and how long a machine that stands still takes from one to the other. Its memory is a file in shared memory, as ours is,
 * so that both allocate the same kind of page.
 */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { QemuMachine, UNLIMITED } from './qemu-machine';

const MEBIBYTE = 2 ** 20;

function start(
  folder: string,
  name: string,
  bytes: number,
  backing: string,
  more: string[] = [],
): Promise<QemuMachine> {
  const argv = ['-nodefaults', '-display', 'none', '-S', '-m', `${bytes / MEBIBYTE}M`];
  argv.push('-machine', 'pc,accel=tcg,memory-backend=ram', '-object', `${backing},id=ram,size=${bytes},share=on`);
  return QemuMachine.start(join(folder, name), [...argv, ...more]);
}

/** Seconds by the clock. `file` holds the source's memory; null for memory that nobody ever touched. */
export async function qemuPair(folder: string, bytes: number, file: string | null): Promise<number> {
  const address = `unix:${join(folder, 'qemu')}`;
  rmSync(join(folder, 'qemu'), { force: true });
  const untouched = 'memory-backend-memfd';
  const destination = await start(folder, 'qmp-b', bytes, untouched, ['-incoming', address]);
  try {
    const backing = file === null ? untouched : `memory-backend-file,mem-path=${file}`;
    const source = await start(folder, 'qmp-a', bytes, backing);
    try {
      await source.ask('migrate-set-parameters', { 'max-bandwidth': UNLIMITED });
      const began = performance.now();
      await source.ask('migrate', { uri: address });
      await source.migrated();
      return (performance.now() - began) / 1000;
    } finally {
      await source.end();
    }
  } finally {
    await destination.end();
  }
}
