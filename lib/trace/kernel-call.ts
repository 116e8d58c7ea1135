/** The one way by which calls into the kernel are traced and made to fail. */
import type { FaultPlan } from './fault-plan';
import { emit, type IoctlRecord, type Trace, type TraceArguments, type TraceValue, traced } from './trace';

export interface Observed {
  readonly trace?: Trace | undefined;
  readonly faults?: FaultPlan | undefined;
}

/** A negative errno, or what the call answers. */
type Answer<T> = T | number;

function shown(result: unknown): TraceValue {
  return typeof result === 'number' || typeof result === 'bigint'
    ? result
    : Array.isArray(result)
      ? result.join(',')
      : 'ok';
}

/**
 * Makes one call unless the fault plan says otherwise. `skipped` is what a call that is left out answers. Never throws for what the
 * kernel says: the answer is the value or a negative errno.
 */
export async function kernelCall<T>(
  { trace, faults }: Observed,
  name: string,
  fd: number,
  args: TraceArguments,
  skipped: Answer<T>,
  run: () => Promise<Answer<T>> | Answer<T>,
): Promise<Answer<T>> {
  const fault = faults?.next(name) ?? null;
  const began = performance.now();
  let result: Answer<T>;
  if (fault === null) result = await run();
  else if (fault.action === 'skip') result = skipped;
  else {
    if (fault.action === 'fail-after') await run();
    result = fault.errno;
  }
  if (traced(trace)) {
    const micros = (performance.now() - began) * 1000;
    const record: IoctlRecord = { kind: 'ioctl', name, fd, args, result: shown(result), micros };
    emit(trace, fault === null ? record : { ...record, fault: fault.action });
  }
  return result;
}
