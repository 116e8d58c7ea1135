/**
 * Makes chosen kernel calls fail, or leaves them out: how a test shows that every failure is handled and every check can fail.
 */
import { constants } from 'node:os';
import { invalidArgument } from '../errors';

/** What to do instead of a plain call. */
export type Fault =
  /** The call is not made; `errno` (negative) is its result. */
  | { readonly action: 'fail'; readonly errno: number }
  /** The call is made, then `errno` is reported instead of what it answered. */
  | { readonly action: 'fail-after'; readonly errno: number }
  /** The call is not made; success is reported. */
  | { readonly action: 'skip' };

export interface FaultWhen {
  /** First call that is struck, counted from 1 over the calls that match the name. Default 1. */
  nth?: number;
  /** How many calls in a row from there on. Default 1. */
  times?: number;
}

export interface FailOptions extends FaultWhen {
  /** As in os.constants.errno; the sign does not matter. */
  errno: number;
  /** Do the call, then report failure. */
  after?: boolean;
}

interface Rule {
  readonly name: string;
  readonly first: number;
  readonly last: number;
  readonly fault: Fault;
  seen: number;
}

/** The name that matches every call. */
export const ANY_CALL = '*';

export class FaultPlan {
  readonly #rules: Rule[] = [];
  readonly #struck: string[] = [];
  #calls = 0;

  /** Lets calls named `name` (an ioctl's name, or '*' for any) fail. */
  fail(name: string, options: FailOptions): this {
    const errno = -Math.abs(options.errno);
    if (!Number.isInteger(errno) || errno === 0 || errno < -4095) {
      throw invalidArgument(
        `errno ${options.errno} is none`,
        `use os.constants.errno, such as EFAULT = ${constants.errno.EFAULT}`,
      );
    }
    return this.#add(name, options, { action: options.after === true ? 'fail-after' : 'fail', errno });
  }

  /** Leaves calls named `name` out and pretends that they succeeded. */
  skip(name: string, options: FaultWhen = {}): this {
    return this.#add(name, options, { action: 'skip' });
  }

  #add(name: string, { nth = 1, times = 1 }: FaultWhen, fault: Fault): this {
    if (!Number.isInteger(nth) || nth < 1) throw invalidArgument(`nth is ${nth}, counted from 1`);
    if (!(times >= 1)) throw invalidArgument(`times is ${times}, at least 1`);
    this.#rules.push({ name, first: nth, last: nth + times - 1, fault, seen: 0 });
    return this;
  }

  /** Counts one call named `name`: what is to happen to it, or null. The first rule that strikes wins; all of them count. */
  next(name: string): Fault | null {
    this.#calls++;
    let struck: Fault | null = null;
    for (const rule of this.#rules) {
      if (rule.name !== name && rule.name !== ANY_CALL) continue;
      rule.seen++;
      if (struck === null && rule.seen >= rule.first && rule.seen <= rule.last) struck = rule.fault;
    }
    if (struck !== null) this.#struck.push(name);
    return struck;
  }

  /** Like `next`, for callers that know failure only: 0, or a negative errno. */
  check(name: string): number {
    const fault = this.next(name);
    return fault === null || fault.action === 'skip' ? 0 : fault.errno;
  }

  /** Forgets all rules; the counts of calls stay. */
  clear(): this {
    this.#rules.length = 0;
    return this;
  }

  /** Calls seen so far, struck or not. */
  get calls(): number {
    return this.#calls;
  }

  /** Names of the calls that were struck, in order. */
  get struck(): readonly string[] {
    return this.#struck;
  }
}
