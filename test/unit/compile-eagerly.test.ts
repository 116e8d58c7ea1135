/** What is loaded after it is compiled at once: there is far more code than of what has only been loaded. */
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';

const ROOT = join(__dirname, '..', '..', '..');

/** Bytes of code once the library is loaded, in a process of its own. */
function codeBytes(before: string): number {
  const script = `${before}; require('vhost-net'); console.log(v8.getHeapCodeStatistics().bytecode_and_metadata_size)`;
  return Number(execFileSync(process.execPath, ['-e', script], { cwd: ROOT, encoding: 'utf8' }));
}

test('of the same library', () => {
  const [eager, lazy] = [codeBytes("require('vhost-net/compile-eagerly')"), codeBytes('')];
  expect(lazy).toBeGreaterThan(100_000);
  expect(eager).toBeGreaterThan(2 * lazy);
});
