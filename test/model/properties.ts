/** What must hold in every state, said of what happens in the model and not of what the machines believe. */
import { DESTINATION_STATES } from '../../lib/migration/commit/destination-machine';
import { SOURCE_STATES, type SourceState } from '../../lib/migration/commit/source-machine';
import { runsNowhere } from './source-process';
import type { World } from './world';

export const ONE_RUNNER = 'at most one side runs the guest';
export const NOT_BY_ITSELF = 'after GO the source runs the guest only by order';
export const RUNNABLE = 'outside the window after GO some side runs the guest or will by itself';
export const UNCERTAIN = 'the source ends in "uncertain" exactly where it cannot know';
export const TRUE_REPORT = 'what the source reports at its end is true';
export const GOES_ON = 'after a failure before GO the source runs with logging off';
export const NOTHING_LEFT = 'a destination that failed leaves nothing';

/** From GO to what is heard of it, or to an order. */
const WINDOW: readonly SourceState[] = ['committed', 'uncertain', 'returned'];
/** Here the source goes back to running by itself, whatever happens next. */
const COMES_BACK: readonly SourceState[] = ['pausing', 'offered', 'resuming'];

export const runners = ({ source, destinations }: World): number =>
  (source?.runs ? 1 : 0) + destinations.filter((one) => one?.runs).length;

/** No side runs the guest or comes to run it without an order. */
export function nobodyRuns(world: World): boolean {
  const { source } = world;
  return runners(world) === 0 && !(source !== null && COMES_BACK.includes(source.machine.state));
}

export function quiet({ source, destinations }: World): boolean {
  if (source !== null && !(SOURCE_STATES[source.machine.state].final && source.todo.length === 0)) return false;
  return destinations.every(
    (one) => one === null || (DESTINATION_STATES[one.machine.state].final && one.todo.length === 0),
  );
}

export function brokenIn(world: World): string[] {
  const broken: string[] = [];
  const { source, destinations } = world;
  if (runners(world) > 1) broken.push(ONE_RUNNER);
  for (const one of destinations) {
    const failed = one?.machine.state === 'failed' && one.todo.length === 0;
    if (failed && (one.holds || one.runs)) broken.push(NOTHING_LEFT);
  }
  // With the source process the guest on it is gone.
  if (source === null) return broken;
  const { machine, go, heard, runs, logs } = source;
  if (go && runs && heard !== 'order: here') broken.push(NOT_BY_ITSELF);
  if (nobodyRuns(world) && !mayBeNobody(world)) broken.push(RUNNABLE);
  if (source.todo.length > 0 || !SOURCE_STATES[machine.state].final) return broken;
  if ((go && heard === '') !== (machine.state === 'uncertain')) broken.push(UNCERTAIN);
  if (!reportIsTrue(world)) broken.push(TRUE_REPORT);
  if (logs || (!go && !runs && machine.state !== 'stranded')) broken.push(GOES_ON);
  return broken;
}

function mayBeNobody({ source, connections }: World): boolean {
  const { state, attempt } = source!.machine;
  // It ran there, and that process has died since.
  const diedThere = state === 'done' && connections[Number(attempt) - 1]!.start === 'died';
  return WINDOW.includes(state) || state === 'stranded' || diedThere;
}

function reportIsTrue(world: World): boolean {
  const { machine, runs } = world.source!;
  switch (machine.state) {
    case 'done':
      return ['done', 'died'].includes(world.connections[Number(machine.attempt) - 1]!.start);
    case 'returned':
      // A HELLO that comes once more can wake an attempt that had ended, but nothing else of it is left to come.
      return world.ghost === '' ? runsNowhere(world, machine.attempt) : !startsThere(world);
    case 'failed':
      return runs;
    default:
      return !runs;
  }
}

function startsThere({ source, destinations, connections }: World): boolean {
  const { attempt } = source!.machine;
  const there = destinations[connections[Number(attempt) - 1]!.to]?.machine;
  return there?.attempt === attempt && ['ready', 'starting', 'running'].includes(there.state);
}
