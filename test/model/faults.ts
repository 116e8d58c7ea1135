/** The machines with one thing wrong each, and what must be found broken. */
import type { DestinationAction, DestinationState } from '../../lib/migration/commit/destination-machine';
import type { SourceAction, SourceState } from '../../lib/migration/commit/source-machine';
import { type Environment, HARSH_TWICE, ROUGH, RULES, type Rules } from './environment';
import { DEADLOCK } from './explorer';
import { GOES_ON, NOT_BY_ITSELF, NOTHING_LEFT, ONE_RUNNER, TRUE_REPORT, UNCERTAIN } from './properties';

export interface Fault {
  readonly what: string;
  readonly rules: Rules;
  /** Among what is found. */
  readonly broken: readonly string[];
  readonly env?: Environment;
}

type Wrong<State, Action> = [to: State, ...actions: Action[]];

/** In `states`, `kinds` lead to something else. */
function source(states: SourceState[], kinds: string[], [to, ...actions]: Wrong<SourceState, SourceAction>): Rules {
  return {
    ...RULES,
    source: (machine, event) => {
      if (!states.includes(machine.state) || !kinds.includes(event.kind)) return RULES.source(machine, event);
      return { machine: { ...machine, state: to }, actions };
    },
  };
}

export function destination(
  states: DestinationState[],
  kinds: string[],
  [to, ...actions]: Wrong<DestinationState, DestinationAction>,
): Rules {
  return {
    ...RULES,
    destination: (machine, event) => {
      if (!states.includes(machine.state) || !kinds.includes(event.kind)) return RULES.destination(machine, event);
      return { machine: { ...machine, state: to }, actions };
    },
  };
}

const withoutStopLogging: Rules = {
  ...RULES,
  source: (machine, event) => {
    const step = RULES.source(machine, event);
    return { ...step, actions: step.actions.filter((action) => action !== 'stop-logging') };
  },
};

/** Whatever comes is taken for a message of the attempt that is going on. */
const anyAttempt: Rules = {
  ...RULES,
  destination: (machine, event) => {
    const own = 'attempt' in event && event.kind !== 'connect' ? { ...event, attempt: machine.attempt } : event;
    return RULES.destination(machine, own);
  },
};
const anyAttemptAtSource: Rules = {
  ...RULES,
  source: (machine, event) =>
    RULES.source(machine, 'attempt' in event ? { ...event, attempt: machine.attempt } : event),
};

const TWICE: Environment = { ...ROUGH, attempts: [0, 0], relay: false, cancels: false, crashes: false };
export const FAULTS: readonly Fault[] = [
  {
    what: 'the source resumes by itself when nothing came after GO',
    rules: source(['committed'], ['timeout'], ['resuming', 'resume']),
    broken: [ONE_RUNNER, NOT_BY_ITSELF],
  },
  {
    what: 'the source resumes by itself when the destination ends after GO',
    rules: source(['committed'], ['ended'], ['resuming', 'resume']),
    broken: [NOT_BY_ITSELF],
  },
  {
    what: 'the destination starts when it says READY',
    rules: destination(['loading'], ['loaded'], ['starting', 'send-ready', 'start']),
    broken: [ONE_RUNNER],
  },
  {
    what: 'the destination does not look at the identity of an attempt',
    rules: anyAttempt,
    broken: [ONE_RUNNER],
    env: TWICE,
  },
  {
    what: 'the source does not look at the identity of an attempt',
    rules: anyAttemptAtSource,
    broken: [TRUE_REPORT],
    env: HARSH_TWICE,
  },
  {
    what: 'the source sends GO after a cancel',
    rules: source(['offered'], ['cancel'], ['resuming', 'send-go', 'tell', 'resume']),
    broken: [ONE_RUNNER],
  },
  { what: 'the source forgets to turn logging off', rules: withoutStopLogging, broken: [GOES_ON] },
  {
    what: 'a source that has paused the guest does not resume it',
    rules: source(['offered'], ['timeout', 'lost', 'cancel', 'ended'], ['failed', 'stop-logging', 'tell', 'close']),
    broken: [GOES_ON, TRUE_REPORT],
  },
  {
    what: 'the destination waits for GO forever',
    rules: destination(['ready'], ['lost', 'timeout'], ['ready']),
    broken: [DEADLOCK],
  },
  {
    what: 'the destination keeps what it holds when it fails',
    rules: destination(['receiving'], ['lost'], ['failed', 'tell', 'close']),
    broken: [NOTHING_LEFT],
  },
  {
    what: 'the destination says that its start failed before all of it is gone',
    rules: destination(['starting'], ['step-failed'], ['releasing', 'tell', 'release']),
    broken: [ONE_RUNNER, TRUE_REPORT],
  },
  {
    what: 'the destination says CANCEL after READY and starts at GO all the same',
    rules: destination(['ready'], ['cancel'], ['ready', 'tell']),
    broken: [ONE_RUNNER, TRUE_REPORT],
  },
  {
    what: 'the source is done when it has sent GO',
    rules: source(['offered'], ['ready'], ['done', 'send-go', 'stop-logging']),
    broken: [TRUE_REPORT],
  },
  {
    what: 'the source takes a lost connection after GO for a failure like any other',
    rules: source(['committed'], ['lost'], ['failed', 'stop-logging', 'tell', 'close']),
    broken: [UNCERTAIN, TRUE_REPORT],
  },
  {
    what: 'the order to go on is given while the destination only stands ready',
    rules: { ...RULES, truthfulOrders: false },
    broken: [ONE_RUNNER],
  },
];
