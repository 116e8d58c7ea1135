/** Changes that are made in several steps, wholly or not at all. */
import { VhostError } from '../errors';

export interface Step {
  run(): Promise<void>;
  undo(): Promise<void>;
}

/**
 * Runs every step. When one fails, it and those before it are undone in reverse (a failed call may have had its effect), and the
 * failure is thrown; when that fails too, VHOST_ERR_STATE tells of both.
 */
export async function allOrNothing(what: string, steps: readonly Step[]): Promise<void> {
  const begun: Step[] = [];
  try {
    for (const step of steps) {
      begun.push(step);
      await step.run();
    }
  } catch (error) {
    const failures: unknown[] = [];
    for (const step of begun.reverse()) {
      try {
        await step.undo();
      } catch (failure) {
        failures.push(failure);
      }
    }
    if (failures.length === 0) throw error;
    throw new VhostError('VHOST_ERR_STATE', `${what} failed and could not be undone`, {
      cause: new AggregateError([error, ...failures], `${what} failed`),
      hint: 'stop the backend: what the kernel was told is not certain any more',
    });
  }
}

/** Runs all at once and waits for every one of them, whatever becomes of the others; throws the first failure. */
export async function together<T>(runs: readonly Promise<T>[]): Promise<T[]> {
  const results = await Promise.allSettled(runs);
  return results.map((result) => {
    if (result.status === 'rejected') throw result.reason;
    return result.value;
  });
}
