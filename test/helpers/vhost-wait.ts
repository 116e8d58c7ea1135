import { setTimeout as sleep } from 'node:timers/promises';

export { sleep };

/** Waits until `done` answers true, looking every millisecond; fails with `what` after `milliseconds`. */
export async function until(
  what: string,
  done: () => boolean | Promise<boolean>,
  milliseconds = 20_000,
): Promise<void> {
  const end = performance.now() + milliseconds;
  while (!(await done())) {
    if (performance.now() > end) throw new Error(`did not happen within ${milliseconds} ms: ${what}`);
    await sleep(1);
  }
}

/** The code of the error a promise fails with; fails itself when it does not. */
export async function codeOf(promise: Promise<unknown>): Promise<string> {
  return (await errorOf(promise)).code;
}

export interface CodedError {
  code: string;
  errno?: number;
  syscall?: string;
  path?: string;
  hint?: string;
  message: string;
  cause?: unknown;
}

export async function errorOf(promise: Promise<unknown>): Promise<CodedError> {
  try {
    await promise;
  } catch (error) {
    return error as CodedError;
  }
  throw new Error('nothing was thrown');
}
