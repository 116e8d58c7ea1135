import { readFileSync } from 'node:fs';
import { parentOf } from './temp';

const INTERVAL_MS = 500;
const RUNNER = /^(npm|npx|pnpm|yarn)\b/;

/**
 * Under npm, npx and their like a SIGKILL hits the runner and leaves its children. Calls `orphaned` once when any link
 * between this process and the outermost runner breaks. Returns how to stop watching. Without a runner nothing is watched:
 * there a parent may well end before us (nohup, a daemon).
 */
export function watchRunner(env: NodeJS.ProcessEnv, orphaned: () => void): () => void {
  if (env.npm_command === undefined && env.npm_execpath === undefined) return () => {};
  const chain = chainToRunner();
  const timer = setInterval(() => {
    const intact = chain.slice(0, -1).every((pid, index) => parentOf(pid) === chain[index + 1]);
    if (intact) return;
    clearInterval(timer);
    orphaned();
  }, INTERVAL_MS);
  timer.unref();
  return () => clearInterval(timer);
}

/** This process, its parent, and so on up to the outermost runner; just the parent when none is recognised. */
function chainToRunner(): number[] {
  const chain = [process.pid];
  let end = 2;
  for (let pid = parentOf(process.pid); pid !== undefined && pid > 1; pid = parentOf(pid)) {
    chain.push(pid);
    if (RUNNER.test(nameOf(pid))) end = chain.length;
  }
  return chain.slice(0, end);
}

function nameOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'utf8');
  } catch {
    return '';
  }
}
