/** One thing that was looked for. */
import { reasonOf } from '../errors';
export interface Finding {
  readonly name: string;
  readonly found: boolean;
  /** What was seen, in words or as the kernel says it. */
  readonly value: string;
  /**
   * What does not work without it: 'everything', this machine's own 'vhost-net', the test 'vm', or a single feature ('optional').
   */
  readonly neededFor: 'everything' | 'vhost-net' | 'vm' | 'optional';
  /** What to do when it is not there, or what to know when it is. */
  readonly advice?: string;
}

export function finding(
  neededFor: Finding['neededFor'],
  name: string,
  found: boolean,
  value: string,
  advice?: string,
): Finding {
  return advice === undefined ? { name, found, value, neededFor } : { name, found, value, neededFor, advice };
}

/** The errors of this library say what to do themselves. */
export function adviceOf(error: unknown): string | undefined {
  return typeof error === 'object' && error !== null && 'hint' in error && typeof error.hint === 'string'
    ? error.hint
    : undefined;
}

export function messageOf(error: unknown): string {
  if (typeof error === 'object' && error !== null && 'code' in error && typeof error.code === 'string')
    return error.code;
  return reasonOf(error);
}
