/** All there is in the model: one source process, two destination processes, the connections of each attempt. */
import {
  DESTINATION_STATES,
  type DestinationAction,
  type DestinationState,
} from '../../lib/migration/commit/destination-machine';
import { SOURCE_STATES, type SourceAction, type SourceState } from '../../lib/migration/commit/source-machine';
import type { Machine } from '../../lib/migration/commit/table';

export interface SourceProcess {
  readonly machine: Machine<SourceState>;
  readonly todo: readonly SourceAction[];
  /** The guest runs here, or may: from before a resume begins until a pause has ended. */
  readonly runs: boolean;
  readonly logs: boolean;
  /** GO of this attempt was handed out. */
  readonly go: boolean;
  /** What this side has learned since GO, kept apart from its machine. */
  readonly heard: '' | 'running' | 'ended' | 'order: here' | 'order: there';
}

export interface DestinationProcess {
  readonly machine: Machine<DestinationState>;
  readonly todo: readonly DestinationAction[];
  /** From before a start begins until a release has ended. */
  readonly runs: boolean;
  /** Memory, device, tap. */
  readonly holds: boolean;
}

/** Both directions of one attempt's control connection, and its page connections, which are lost or complete as one. */
export interface Connection {
  /** Which destination. */
  readonly to: number;
  /** Messages under way, oldest first, one letter each. */
  readonly there: string;
  readonly back: string;
  /** Nothing more enters: closed by its writer, or cut. */
  readonly thereEnds: boolean;
  readonly backEnds: boolean;
  /** Who has noticed the end: bit 0 source, bit 1 destination. */
  readonly noticed: number;
  readonly pages: 'open' | 'complete' | 'lost';
  readonly pagesNoticed: number;
  /** What became of the start there: handed out, done, or ended with its process. */
  readonly start: '' | 'begun' | 'done' | 'died';
}

export interface World {
  readonly source: SourceProcess | null;
  readonly destinations: readonly (DestinationProcess | null)[];
  /** That of attempt n is number n - 1. */
  readonly connections: readonly Connection[];
  /** A message that will arrive a second time, at any moment: attempt and letter; '-' when it has. */
  readonly ghost: string;
}

/** Letters of messages. */
export const TO_DESTINATION = { H: 'connect', O: 'open', S: 'state', G: 'go', X: 'ended' } as const;
export const TO_SOURCE = { A: 'agreed', P: 'opened', R: 'ready', U: 'running', X: 'ended' } as const;
export const NAMES: Readonly<Record<string, string>> = {
  H: 'HELLO',
  O: 'OPEN',
  S: 'STATE',
  G: 'GO',
  X: 'CANCEL or ERROR',
  A: 'SETUP_ACK',
  P: 'OPENED',
  R: 'READY',
  U: 'RUNNING',
};

export const SOURCE = 1;
export const DESTINATION = 2;

/** States in which the source listens to its peer: until the end, and where that could still tell something. */
export const LOOKS = (Object.keys(SOURCE_STATES) as SourceState[]).filter(
  (state) => !SOURCE_STATES[state].final || state === 'uncertain',
);

/** One letter for each state and action: keys are made for every transition, and short ones are quick to look up. */
const letters = new Map<string, string>();
function letter(word: string): string {
  let short = letters.get(word);
  if (short === undefined) {
    short = String.fromCharCode(0x41 + letters.size);
    letters.set(word, short);
  }
  return short;
}

function processKey(machine: Machine<string>, todo: readonly string[], bits: number): string {
  let key = letter(machine.state) + machine.attempt + bits;
  for (const action of todo) key += letter(action);
  return key;
}

const flags = (a: boolean, b: boolean, c = false): number => (a ? 1 : 0) + (b ? 2 : 0) + (c ? 4 : 0);

/** Worlds with the same key go on alike: what neither side of a connection will look at any more is not part of it. */
export function worldKey({ source, destinations, connections, ghost }: World): string {
  let key = ghost;
  if (source !== null) {
    key += `|${processKey(source.machine, source.todo, flags(source.runs, source.logs, source.go))}${letter(source.heard)}`;
  }
  for (const one of destinations) {
    key += `|${one === null ? '' : processKey(one.machine, one.todo, flags(one.runs, one.holds))}`;
  }
  for (let index = 0; index < connections.length; index++) {
    const one = connections[index]!;
    const attempt = String(index + 1);
    const there = destinations[one.to] ?? null;
    key += `|${one.there}${letter(one.start)}`;
    const sourceLooks = source?.machine.attempt === attempt && LOOKS.includes(source.machine.state);
    if (sourceLooks)
      key += `<${one.back}${one.backEnds ? 'e' : ''}${(one.noticed & SOURCE) + (one.pagesNoticed & SOURCE) * 4}`;
    const destinationLooks =
      one.there !== '' || (there?.machine.attempt === attempt && !DESTINATION_STATES[there.machine.state].final);
    if (destinationLooks) {
      key += `>${one.thereEnds ? 'e' : ''}${(one.noticed & DESTINATION) + (one.pagesNoticed & DESTINATION) * 4}`;
    }
    if (sourceLooks || destinationLooks) key += letter(one.pages);
  }
  return key;
}

export const newConnection = (to: number): Connection => ({
  to,
  there: 'H',
  back: '',
  thereEnds: false,
  backEnds: false,
  noticed: 0,
  pages: 'open',
  pagesNoticed: 0,
  start: '',
});

export const newDestination = (): DestinationProcess => ({
  machine: { state: 'waiting', attempt: '' },
  todo: [],
  runs: false,
  holds: false,
});

export const newSource = (attempt: string): SourceProcess => ({
  machine: { state: 'setup', attempt },
  todo: [],
  runs: true,
  logs: false,
  go: false,
  heard: '',
});

export function withConnection(world: World, attempt: string, change: Partial<Connection>): World {
  const at = Number(attempt) - 1;
  return { ...world, connections: world.connections.map((one, index) => (index === at ? { ...one, ...change } : one)) };
}

export function withDestination(world: World, at: number, process: DestinationProcess | null): World {
  return { ...world, destinations: world.destinations.map((one, index) => (index === at ? process : one)) };
}

export function send(world: World, attempt: string, direction: 'there' | 'back', letter: string): World {
  const one = world.connections[Number(attempt) - 1]!;
  // A faulty side may say that it ends again and again: once at a time keeps the model finite.
  if (letter === 'X' && one[direction].endsWith('X')) return world;
  if (direction === 'there') {
    return one.thereEnds ? world : withConnection(world, attempt, { there: one.there + letter });
  }
  return one.backEnds ? world : withConnection(world, attempt, { back: one.back + letter });
}
