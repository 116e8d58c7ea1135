/** The rules an inspection checks: where virtio 1.4 has them, and what a device does with a queue whose next chain breaks one. */
import type { Rule, Violation } from './ring-inspection';

/** Sections for split and for packed virtqueues. */
const SECTIONS: Readonly<Record<Rule, readonly [split: string, packed: string]>> = {
  'queue-size': ['2.7', '2.8'],
  alignment: ['2.7', '2.8.10.1'],
  'ring-outside-memory': ['2.7', '2.8'],
  'index-distance': ['2.7.6', '2.8.11'],
  'used-ahead': ['2.7.8', '2.8.1'],
  position: ['2.7.6', '2.8.1'],
  'head-range': ['2.7.6', '2.8.13'],
  'duplicate-id': ['2.7.13', '2.8.13'],
  'shared-descriptor': ['2.7.13', '2.8.13'],
  loop: ['2.7.5.2', '2.8.6'],
  'next-range': ['2.7.5', '2.8.6'],
  'unmarked-descriptor': ['2.7.5', '2.8.1'],
  'indirect-not-negotiated': ['2.7.5.3.1', '2.8.19'],
  'indirect-with-next': ['2.7.5.3.1', '2.8.19'],
  'indirect-length': ['2.7.5.3', '2.8.7'],
  'indirect-nested': ['2.7.5.3.1', '2.8.19'],
  'chain-length': ['2.7.5.3.1', '2.8.17'],
  'chain-bytes': ['2.7.5.2', '2.8.16'],
  'readable-behind-writable': ['2.7.4.2', '2.8.17'],
  'zero-length': ['2.7.5', '2.8.4'],
  'outside-memory': ['2.7.5', '2.8.4'],
  'transmit-writable': ['5.1.6.2', '5.1.6.2'],
  'receive-readable': ['5.1.6.3', '5.1.6.3'],
  'control-no-status': ['5.1.6.5', '5.1.6.5'],
  'used-id-range': ['2.7.8', '2.8.13'],
  'event-structure': ['2.7.10', '2.8.14'],
};

/** What becomes of a chain that breaks the rule; the kernel's part as seen on Linux 6.1 and 6.12. */
export type Consequence = 'stops' | 'retries' | 'swallows' | 'harmless';

const CONSEQUENCES: Readonly<Partial<Record<Rule, Consequence>>> = {
  'head-range': 'stops',
  loop: 'stops',
  'next-range': 'stops',
  'indirect-not-negotiated': 'stops',
  'indirect-with-next': 'stops',
  'indirect-length': 'stops',
  'indirect-nested': 'stops',
  'readable-behind-writable': 'stops',
  'unmarked-descriptor': 'stops',
  'outside-memory': 'retries',
  'zero-length': 'swallows',
  'transmit-writable': 'swallows',
  'receive-readable': 'swallows',
};

export const consequenceOf = (rule: Rule): Consequence => CONSEQUENCES[rule] ?? 'harmless';

export const CONSEQUENCE_WORDS: Readonly<Record<Consequence, string>> = {
  stops: 'the device stops here and signals the error eventfd; vhost tries again at the next kick',
  retries: 'vhost reports an error event, takes nothing and retries at the next kick',
  swallows: 'vhost reports an error event, takes the chain and never uses it',
  harmless: 'a device may take it all the same',
};

/** Violations that are listed; the rest is counted. */
const LISTED = 64;

export class Violations {
  readonly list: Violation[] = [];
  /** Beyond the list. */
  more = 0;
  readonly #column: 0 | 1;

  constructor(format: 'split' | 'packed') {
    this.#column = format === 'split' ? 0 : 1;
  }

  get count(): number {
    return this.list.length + this.more;
  }

  add(rule: Rule, where: string, found: string, expected: string): void {
    if (this.list.length === LISTED) this.more++;
    else this.list.push({ rule, section: SECTIONS[rule][this.#column], where, found, expected });
  }

  /** Adds those of `other`. */
  take(other: Violations): void {
    const room = Math.min(LISTED - this.list.length, other.list.length);
    this.list.push(...other.list.slice(0, room));
    this.more += other.count - room;
  }
}
