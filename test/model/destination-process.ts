/** What a destination process can do next. */
import {
  DESTINATION_STATES,
  DESTINATION_TABLE,
  type DestinationEvent,
  type DestinationLocalKind,
} from '../../lib/migration/commit/destination-machine';
import type { Environment, Rules } from './environment';
import type { Emit } from './explorer';
import {
  type Connection,
  type DestinationProcess,
  newDestination,
  send,
  type World,
  withConnection,
  withDestination,
} from './world';

/** No attempt of the source under test. */
const STRANGER = '9';

export function tellDestination(world: World, at: number, event: DestinationEvent, rules: Rules): World {
  const before = world.destinations[at]!;
  const { machine, actions } = rules.destination(before.machine, event);
  if (actions.includes('refuse')) return refuse(world, event);
  if (actions.length === 0 && machine.state === before.machine.state) return world;
  let process: DestinationProcess = { ...before, machine, todo: actions };
  if (actions.includes('accept')) process = { ...process, holds: true };
  let next = world;
  if (actions.includes('start')) {
    process = { ...process, runs: true };
    next = withConnection(next, machine.attempt, { start: 'begun' });
  }
  if (machine.state === 'running') next = withConnection(next, machine.attempt, { start: 'done' });
  return withDestination(next, at, process);
}

function refuse(world: World, event: DestinationEvent): World {
  if (!('attempt' in event) || event.attempt === STRANGER) return world;
  return withConnection(send(world, event.attempt, 'back', 'X'), event.attempt, { backEnds: true });
}

export function destinationSuccessors(
  world: World,
  at: number,
  env: Environment,
  rules: Rules,
  emit: Emit<World>,
): void {
  const process = world.destinations[at] ?? null;
  const name = `destination ${at + 1}`;
  if (process === null) {
    emit('may', `${name}: started anew`, withDestination(world, at, newDestination()));
    return;
  }
  if (env.crashes) {
    emit('may', `the process of ${name} dies`, die(world, at));
  }
  if (process.todo.length > 0) {
    act(world, at, process, env, rules, emit);
    return;
  }
  const local = (kind: DestinationLocalKind, must: 'must' | 'may', words: string): void =>
    emit(must, `${name}: ${words}`, tellDestination(world, at, { kind }, rules));
  if (!DESTINATION_STATES[process.machine.state].final) {
    if (env.timeouts) local('timeout', 'must', 'time-out');
    if (env.cancels) local('cancel', 'may', 'cancelled by its owner');
  }
  if (env.stranger && DESTINATION_TABLE[process.machine.state].connect === undefined) {
    for (const kind of ['connect', 'go', 'ended', 'lost'] as const) {
      const next = tellDestination(world, at, { kind, attempt: STRANGER }, rules);
      emit('may', `${name}: another source's "${kind}"`, next);
    }
  }
}

/** What was on its way to the process is lost with it, whoever listens there later. */
function die(world: World, at: number): World {
  const connections = world.connections.map((one): Connection => {
    if (one.to !== at) return one;
    const start = one.start === '' ? '' : 'died';
    return { ...one, there: '', thereEnds: true, backEnds: true, start };
  });
  const haunted = world.ghost[1] === '>' && world.connections[Number(world.ghost[0]) - 1]!.to === at;
  return withDestination({ ...world, connections, ghost: haunted ? '-' : world.ghost }, at, null);
}

function act(
  world: World,
  at: number,
  process: DestinationProcess,
  env: Environment,
  rules: Rules,
  emit: Emit<World>,
): void {
  const { attempt } = process.machine;
  const [action, ...rest] = process.todo;
  const words = `destination ${at + 1}: ${action}`;
  const left = (change: Partial<DestinationProcess> = {}): World =>
    withDestination(world, at, { ...process, todo: rest, ...change });
  const done = (kind: DestinationLocalKind, change?: Partial<DestinationProcess>): World =>
    tellDestination(left(change), at, { kind }, rules);
  const fails = (): void => {
    if (env.stepFailures) emit('may', `${words} fails`, done('step-failed'));
  };
  const succeeds = (next: World): void => emit('must', words, next);
  const says = (letter: string): void => succeeds(send(left(), attempt, 'back', letter));
  switch (action) {
    case 'accept':
      says('A');
      fails();
      break;
    case 'open':
      says('P');
      fails();
      break;
    case 'load':
      succeeds(done('loaded'));
      fails();
      break;
    case 'send-ready':
      says('R');
      fails();
      break;
    case 'start':
      succeeds(done('started'));
      fails();
      break;
    case 'send-running':
      says('U');
      break;
    case 'release':
      succeeds(done('released', { holds: false, runs: false }));
      fails();
      break;
    case 'tell':
      says('X');
      break;
    case 'close':
      succeeds(withConnection(left(), attempt, { backEnds: true }));
      break;
  }
}
