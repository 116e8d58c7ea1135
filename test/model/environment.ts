/** What may happen around the two machines, and the machines themselves, so that a fault can be planted in either. */
import { stepDestination } from '../../lib/migration/commit/destination-machine';
import { stepSource } from '../../lib/migration/commit/source-machine';

export interface Environment {
  /** Where the attempts go, one after the other, by number of the destination. */
  readonly attempts: readonly number[];
  /** OPEN and OPENED cross the network; without them nothing is relayed, as in a hand-over on one machine. */
  readonly relay: boolean;
  /** Either process at any moment; a destination may be started anew. */
  readonly crashes: boolean;
  /** Either direction at any moment, with any part of what is under way. */
  readonly cuts: boolean;
  /** Page connections, apart from it. */
  readonly pageCuts: boolean;
  readonly timeouts: boolean;
  /** Any step that can fail does. */
  readonly stepFailures: boolean;
  /** By either side's owner. */
  readonly cancels: boolean;
  /** Any single message vanishes, and one arrives a second time at any later moment. */
  readonly harsh: boolean;
  /** Another source speaks to a destination that is busy. */
  readonly stranger: boolean;
}

export interface Rules {
  readonly source: typeof stepSource;
  readonly destination: typeof stepDestination;
  /** Whether the order to go on is given only when it is true that the attempt runs nowhere and never will. */
  readonly truthfulOrders: boolean;
}

export const RULES: Rules = { source: stepSource, destination: stepDestination, truthfulOrders: true };

/** Nothing fails, nobody interferes. */
export const CALM: Environment = {
  attempts: [0],
  relay: true,
  crashes: false,
  cuts: false,
  pageCuts: false,
  timeouts: false,
  stepFailures: false,
  cancels: false,
  harsh: false,
  stranger: false,
};

/** A network that delivers in order what it delivers, and loses only the end. */
export const ROUGH: Environment = {
  ...CALM,
  crashes: true,
  cuts: true,
  pageCuts: true,
  timeouts: true,
  stepFailures: true,
  cancels: true,
};

/** No TCP: what it loses and doubles is anything. */
export const HARSH: Environment = { ...ROUGH, harsh: true };

const TWO: Environment = { ...ROUGH, relay: false, pageCuts: false };
export const HARSH_TWICE: Environment = {
  ...TWO,
  attempts: [0, 0],
  harsh: true,
  cuts: false,
  crashes: false,
  stepFailures: false,
};

/** What is explored each time: all that can happen to one attempt, and as much of two as takes seconds. */
export const EXPLORATIONS: readonly [string, Environment][] = [
  ['one attempt, frames relayed', { ...ROUGH, stranger: true }],
  ['one attempt, nothing relayed', { ...ROUGH, relay: false, stranger: true }],
  ['two attempts to one destination', { ...TWO, attempts: [0, 0] }],
  ['two attempts to two destinations, crashes', { ...TWO, attempts: [0, 1], cuts: false }],
  [
    'two attempts to two destinations, cuts',
    { ...TWO, attempts: [0, 1], crashes: false, stepFailures: false, cancels: false },
  ],
  ['harsh network, one attempt', HARSH],
  ['harsh network, two attempts', HARSH_TWICE],
];
