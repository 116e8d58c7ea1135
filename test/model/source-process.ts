/** What the source process can do next. */
import {
  SOURCE_STATES,
  type SourceAction,
  type SourceEvent,
  type SourceLocalKind,
} from '../../lib/migration/commit/source-machine';
import type { Environment, Rules } from './environment';
import type { Emit } from './explorer';
import { newConnection, newSource, type SourceProcess, send, type World, withConnection } from './world';

/** What interrupts these is told to the machine at once; any other step ends first. */
const ON_THE_NETWORK: readonly (SourceAction | undefined)[] = [undefined, 'open', 'send-state'];

export const sourceListens = ({ source }: World): boolean => source !== null && ON_THE_NETWORK.includes(source.todo[0]);

export function tellSource(world: World, event: SourceEvent, rules: Rules): World {
  const before = world.source!;
  const { machine, actions } = rules.source(before.machine, event);
  let source: SourceProcess = before;
  if (actions.length > 0 || machine.state !== before.machine.state) source = { ...source, machine, todo: actions };
  if (actions.includes('resume')) source = { ...source, runs: true };
  if (actions.includes('send-go')) source = { ...source, go: true };
  if (before.go) source = { ...source, heard: heardNow(before, event) };
  return { ...world, source };
}

function heardNow({ heard, machine }: SourceProcess, event: SourceEvent): SourceProcess['heard'] {
  if (event.kind === 'resolve-here') return 'order: here';
  if (event.kind === 'resolve-there') return 'order: there';
  if ((event.kind === 'running' || event.kind === 'ended') && event.attempt === machine.attempt) {
    return heard === '' ? event.kind : heard;
  }
  return heard;
}

export function sourceSuccessors(world: World, env: Environment, rules: Rules, emit: Emit<World>): void {
  const { source } = world;
  if (source === null) return;
  if (env.crashes) {
    const connections = world.connections.map((one) => ({ ...one, back: '', thereEnds: true, backEnds: true }));
    emit('may', 'the source process dies', { ...world, source: null, connections });
  }
  if (source.todo.length > 0) act(world, source, env, rules, emit);
  if (sourceListens(world)) listen(world, source, env, rules, emit);
}

function act(world: World, source: SourceProcess, env: Environment, rules: Rules, emit: Emit<World>): void {
  const { attempt } = source.machine;
  const [action, ...rest] = source.todo;
  const left = (change: Partial<SourceProcess> = {}): World => ({
    ...world,
    source: { ...source, todo: rest, ...change },
  });
  const done = (kind: SourceLocalKind, change?: Partial<SourceProcess>): World =>
    tellSource(left(change), { kind }, rules);
  const fails = (change?: Partial<SourceProcess>): void => {
    if (env.stepFailures) emit('may', `source: ${action} fails`, done('step-failed', change));
  };
  const succeeds = (next: World): void => emit('must', `source: ${action}`, next);
  switch (action) {
    case 'start-logging':
      succeeds(left({ logs: true }));
      // The first of the two logs may be on already.
      fails({ logs: true });
      break;
    case 'stop-logging':
      succeeds(left({ logs: false }));
      break;
    case 'open':
      if (!env.relay) {
        succeeds(tellSource(left(), { kind: 'opened', attempt }, rules));
        break;
      }
      succeeds(send(left(), attempt, 'there', 'O'));
      fails();
      break;
    case 'pause':
      succeeds(done('stopped', { runs: false }));
      fails();
      break;
    case 'send-state':
      succeeds(send(left(), attempt, 'there', 'S'));
      fails();
      break;
    case 'send-go':
      succeeds(send(left(), attempt, 'there', 'G'));
      fails();
      break;
    case 'resume':
      succeeds(done('resumed'));
      fails({ runs: false });
      break;
    case 'tell':
      succeeds(send(left(), attempt, 'there', 'X'));
      break;
    case 'close':
      succeeds(withConnection(left(), attempt, { back: '', thereEnds: true, backEnds: true }));
      break;
  }
}

function listen(world: World, source: SourceProcess, env: Environment, rules: Rules, emit: Emit<World>): void {
  const { state, attempt } = source.machine;
  const local = (kind: SourceLocalKind, must: 'must' | 'may', words: string): void =>
    emit(must, `source: ${words}`, tellSource(world, { kind }, rules));
  if (state === 'precopy' && source.todo.length === 0) local('converged', 'must', 'the rounds are over');
  if (!SOURCE_STATES[state].final) {
    if (env.timeouts) local('timeout', 'must', 'time-out');
    if (env.cancels) local('cancel', 'may', 'cancelled by its owner');
  }
  if (source.todo.length > 0) return;
  const to = env.attempts[Number(attempt)];
  if (state === 'failed' && to !== undefined) nextAttempt(world, attempt, to, emit);
  if (state === 'stranded' || state === 'returned') local('resolve-here', 'may', 'order to go on here');
  if (state === 'uncertain') {
    if (!rules.truthfulOrders || runsNowhere(world, attempt)) local('resolve-here', 'may', 'order to go on here');
    // A start that has only begun may still fail.
    if (destinationOf(world, attempt)?.machine.state === 'running')
      local('resolve-there', 'may', 'is told that it runs there');
  }
}

const destinationOf = (world: World, attempt: string) =>
  world.destinations[world.connections[Number(attempt) - 1]!.to] ?? null;

/** The attempt's destination process is gone, or has ended that attempt. */
export function runsNowhere(world: World, attempt: string): boolean {
  const there = destinationOf(world, attempt);
  if (there === null || there.machine.attempt !== attempt) return true;
  return !there.runs && there.machine.state === 'failed';
}

function nextAttempt(world: World, attempt: string, to: number, emit: Emit<World>): void {
  const next = String(Number(attempt) + 1);
  const made = newConnection(to);
  // Nobody listens: the connection is over before it begins.
  const dead = { ...made, there: '', thereEnds: true, backEnds: true };
  emit('may', `source: attempt ${next}, to destination ${to + 1}`, {
    ...world,
    source: newSource(next),
    connections: [...world.connections, world.destinations[to] == null ? dead : made],
  });
}
