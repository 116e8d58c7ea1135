/** What the connections can do next: deliver, be cut, be noticed to be over; in the harsh network also lose one message or double it. */
import { DESTINATION_STATES } from '../../lib/migration/commit/destination-machine';
import { SOURCE_STATES } from '../../lib/migration/commit/source-machine';
import { tellDestination } from './destination-process';
import type { Environment, Rules } from './environment';
import type { Emit } from './explorer';
import { sourceListens, tellSource } from './source-process';
import {
  type Connection,
  DESTINATION,
  LOOKS,
  NAMES,
  SOURCE,
  TO_DESTINATION,
  TO_SOURCE,
  type World,
  withConnection,
} from './world';

type Direction = 'there' | 'back';

export function networkSuccessors(world: World, env: Environment, rules: Rules, emit: Emit<World>): void {
  for (const [index, connection] of world.connections.entries()) {
    const attempt = String(index + 1);
    for (const direction of ['there', 'back'] as const) {
      deliver(world, attempt, connection, direction, env, rules, emit);
      if (env.cuts && matters(world, attempt, connection, direction)) cut(world, attempt, connection, direction, emit);
      if (env.harsh) vanish(world, attempt, connection, direction, emit);
    }
    pages(world, attempt, connection, env, emit);
    notice(world, attempt, connection, rules, emit);
  }
  haunt(world, rules, emit);
}

const destinationListens = (world: World, at: number): boolean => world.destinations[at]?.todo.length === 0;

/** Null where the receiver does not look at the network now. */
function arrive(world: World, attempt: string, direction: Direction, letter: string, rules: Rules): World | null {
  const { to } = world.connections[Number(attempt) - 1]!;
  if (direction === 'back') {
    if (!sourceListens(world)) return null;
    return tellSource(world, { kind: TO_SOURCE[letter as keyof typeof TO_SOURCE], attempt }, rules);
  }
  if (!destinationListens(world, to)) return null;
  return tellDestination(world, to, { kind: TO_DESTINATION[letter as keyof typeof TO_DESTINATION], attempt }, rules);
}

function deliver(
  world: World,
  attempt: string,
  connection: Connection,
  direction: Direction,
  env: Environment,
  rules: Rules,
  emit: Emit<World>,
): void {
  const letter = connection[direction][0];
  if (letter === undefined) return;
  const receiver = world.destinations[connection.to]?.machine;
  // STATE counts when the page connections have ended too.
  if (letter === 'S' && receiver?.state === 'receiving' && connection.pages !== 'complete') return;
  const taken = withConnection(world, attempt, { [direction]: connection[direction].slice(1) });
  const next = arrive(taken, attempt, direction, letter, rules);
  if (next === null) return;
  const words = `${NAMES[letter]} of attempt ${attempt} arrives`;
  emit('must', words, next);
  if (env.harsh && world.ghost === '') {
    emit('may', `${words}, and will again`, {
      ...next,
      ghost: `${attempt}${direction === 'there' ? '>' : '<'}${letter}`,
    });
  }
}

function haunt(world: World, rules: Rules, emit: Emit<World>): void {
  const [attempt, arrow, letter] = world.ghost;
  if (letter === undefined) return;
  const next = arrive({ ...world, ghost: '-' }, attempt!, arrow === '>' ? 'there' : 'back', letter, rules);
  if (next !== null) emit('may', `${NAMES[letter]} of attempt ${attempt} arrives a second time`, next);
}

/** Whether the side that this direction leads to looks at it still. */
function matters(
  { source, destinations }: World,
  attempt: string,
  connection: Connection,
  direction: Direction,
): boolean {
  if (direction === 'back') return source?.machine.attempt === attempt && LOOKS.includes(source.machine.state);
  const there = destinations[connection.to] ?? null;
  if (connection.there !== '') return there !== null;
  return there?.machine.attempt === attempt && !DESTINATION_STATES[there.machine.state].final;
}

function cut(world: World, attempt: string, connection: Connection, direction: Direction, emit: Emit<World>): void {
  const under = connection[direction];
  const ends = direction === 'there' ? 'thereEnds' : 'backEnds';
  for (let keep = connection[ends] ? under.length - 1 : under.length; keep >= 0; keep--) {
    const lost = [...under.slice(keep)].map((letter) => NAMES[letter]);
    const words = `attempt ${attempt}: the way ${direction} is cut${lost.length === 0 ? '' : `, ${lost.join(', ')} lost`}`;
    emit('may', words, withConnection(world, attempt, { [direction]: under.slice(0, keep), [ends]: true }));
  }
}

function vanish(world: World, attempt: string, connection: Connection, direction: Direction, emit: Emit<World>): void {
  const under = connection[direction];
  for (let at = 0; at < under.length; at++) {
    const rest = under.slice(0, at) + under.slice(at + 1);
    emit(
      'may',
      `${NAMES[under[at]!]} of attempt ${attempt} vanishes`,
      withConnection(world, attempt, { [direction]: rest }),
    );
  }
}

function pages(world: World, attempt: string, connection: Connection, env: Environment, emit: Emit<World>): void {
  if (connection.pages !== 'open') return;
  if (connection.there.includes('S')) {
    emit('must', `attempt ${attempt}: the last pages arrive`, withConnection(world, attempt, { pages: 'complete' }));
  }
  const matter = matters(world, attempt, connection, 'there') || matters(world, attempt, connection, 'back');
  if (env.pageCuts && matter)
    emit('may', `attempt ${attempt}: page connections cut`, withConnection(world, attempt, { pages: 'lost' }));
}

/** A side notices at any time, or never: then its time-out comes first. */
function notice(world: World, attempt: string, connection: Connection, rules: Rules, emit: Emit<World>): void {
  const { source, destinations } = world;
  const there = destinations[connection.to] ?? null;
  const { noticed, pagesNoticed } = connection;
  const pagesLost = connection.pages === 'lost';
  if (source?.machine.attempt === attempt && !SOURCE_STATES[source.machine.state].final && sourceListens(world)) {
    if (connection.backEnds && connection.back === '' && (noticed & SOURCE) === 0) {
      const next = withConnection(world, attempt, { noticed: noticed | SOURCE });
      emit('must', 'source: connection lost', tellSource(next, { kind: 'lost', attempt }, rules));
    }
    if (pagesLost && (pagesNoticed & SOURCE) === 0) {
      const next = withConnection(world, attempt, { pagesNoticed: pagesNoticed | SOURCE });
      emit('must', 'source: page connection lost', tellSource(next, { kind: 'pages-lost', attempt }, rules));
    }
  }
  if (there?.machine.attempt !== attempt || DESTINATION_STATES[there.machine.state].final) return;
  if (!destinationListens(world, connection.to)) return;
  const name = `destination ${connection.to + 1}`;
  if (connection.thereEnds && connection.there === '' && (noticed & DESTINATION) === 0) {
    const next = withConnection(world, attempt, { noticed: noticed | DESTINATION });
    emit('must', `${name}: connection lost`, tellDestination(next, connection.to, { kind: 'lost', attempt }, rules));
  }
  if (pagesLost && (pagesNoticed & DESTINATION) === 0) {
    const next = withConnection(world, attempt, { pagesNoticed: pagesNoticed | DESTINATION });
    const event = { kind: 'pages-lost', attempt } as const;
    emit('must', `${name}: page connection lost`, tellDestination(next, connection.to, event, rules));
  }
}
