/**
 * Who may run the guest, as the source sees it. Pure: events in, actions out.
 *
 * GO counts as sent from the moment the action is handed out. Before it every failure leads back to the guest running here with logging
 * off; after it nothing but an order from outside does.
 */
import { all, type Cell, cell, impossible, type Machine, type Step, type Table } from './table';

export type SourceState =
  | 'setup'
  | 'precopy'
  | 'opening'
  | 'pausing'
  | 'offered'
  | 'committed'
  | 'done'
  | 'resuming'
  | 'failed'
  | 'stranded'
  | 'returned'
  | 'uncertain';

/** Where the guest is as far as this side knows. */
export type Whereabouts =
  | 'runs here'
  | 'may run here'
  | 'stands here'
  | 'not here'
  | 'may run there'
  | 'runs there'
  | 'runs nowhere';

export interface StateFacts {
  readonly guest: Whereabouts;
  /** Nothing more happens without an order from outside. */
  readonly final: boolean;
  readonly means: string;
}

export const SOURCE_STATES: Readonly<Record<SourceState, StateFacts>> = {
  setup: { guest: 'runs here', final: false, means: 'HELLO and SETUP are on their way' },
  precopy: { guest: 'runs here', final: false, means: 'logging is on, rounds of pages' },
  opening: { guest: 'runs here', final: false, means: 'the destination is asked to keep what its tap receives' },
  pausing: { guest: 'stands here', final: false, means: 'guest and device are being stopped' },
  offered: { guest: 'stands here', final: false, means: 'last pages and state go over; waits for READY' },
  committed: { guest: 'may run there', final: false, means: 'GO was sent; waits for RUNNING' },
  done: { guest: 'runs there', final: true, means: 'the migration succeeded' },
  resuming: { guest: 'runs here', final: false, means: 'device and guest are being started again' },
  failed: { guest: 'runs here', final: true, means: 'the attempt failed, the guest goes on here with logging off' },
  stranded: {
    guest: 'stands here',
    final: true,
    means: 'starting again failed; the guest is whole and nobody else has it',
  },
  returned: {
    guest: 'runs nowhere',
    final: true,
    means: 'GO was sent, and the destination said that nothing of it runs or ever will',
  },
  uncertain: { guest: 'may run there', final: true, means: 'GO was sent, and nothing tells what became of it' },
};

/** What the peer says, or what becomes of the connections to it. */
const PEER = [
  /** SETUP_ACK without a fatal difference. */
  'agreed',
  /** OPENED; where no frames are relayed the source's owner says it at once. */
  'opened',
  'ready',
  'running',
  /** CANCEL or ERROR: the destination has let go of everything, and the attempt never runs there. */
  'ended',
  /** The control connection ended or broke, or what came over it was no valid frame. */
  'lost',
  /** A page connection did so before its last PAGES_END. */
  'pages-lost',
] as const;

const LOCAL = [
  /** The rounds are over: stop now. */
  'converged',
  /** `pause` is done. */
  'stopped',
  /** `resume` is done. */
  'resumed',
  /** An action failed. */
  'step-failed',
  /** Nothing came for too long. */
  'timeout',
  /** This side's owner wants no more. */
  'cancel',
  /** Order: that attempt certainly runs nowhere and never will; go on here. */
  'resolve-here',
  /** Order: it runs there. */
  'resolve-there',
] as const;

export const SOURCE_EVENTS = [...PEER, ...LOCAL] as const;
export type SourcePeerKind = (typeof PEER)[number];
export type SourceLocalKind = (typeof LOCAL)[number];
export type SourceEventKind = (typeof SOURCE_EVENTS)[number];
/** What comes from a connection carries the attempt which that connection was made for. */
export type SourceEvent = { kind: SourcePeerKind; attempt: string } | { kind: SourceLocalKind };

export type SourceAction =
  /** Both dirty logs on. */
  | 'start-logging'
  /** Logs off. */
  | 'stop-logging'
  /** OPEN, answered by `opened`. */
  | 'open'
  /** Guest paused, device stopped: `stopped`. */
  | 'pause'
  /** Last sync, last pages, STATE. */
  | 'send-state'
  | 'send-go'
  /** Frames read meanwhile go to the guest, device started, guest resumed: `resumed`. */
  | 'resume'
  /** CANCEL where this side was cancelled, ERROR otherwise, if it still can be said. Never fails. */
  | 'tell'
  /** All connections of the attempt. */
  | 'close';

/** Of these nothing may be ignored: they are this side's own doing. */
const OWN: readonly SourceEventKind[] = ['converged', 'stopped', 'resumed', 'resolve-here', 'resolve-there'];

/** What ends an attempt before GO: a failure, or a message that does not belong there. */
const FAILURES: readonly SourceEventKind[] = [...PEER, 'step-failed', 'timeout', 'cancel'];

type C = Cell<SourceState, SourceAction>;
const to = (state: SourceState, ...actions: SourceAction[]): C => cell(state, ...actions);
const failing = (one: C): Partial<Record<SourceEventKind, C>> => all(FAILURES, one);

const FAILED_RUNNING = to('failed', 'stop-logging', 'tell', 'close');
const FAILED_STANDING = to('resuming', 'tell', 'resume');
const UNCERTAIN = to('uncertain', 'stop-logging');
const GO_ON = to('resuming', 'resume');

export const SOURCE_TABLE: Table<SourceState, SourceEventKind, SourceAction> = {
  setup: { ...failing(to('failed', 'tell', 'close')), agreed: to('precopy', 'start-logging') },
  precopy: { ...failing(FAILED_RUNNING), converged: to('opening', 'open') },
  opening: { ...failing(FAILED_RUNNING), opened: to('pausing', 'pause') },
  pausing: { ...failing(FAILED_STANDING), stopped: to('offered', 'send-state') },
  offered: { ...failing(FAILED_STANDING), ready: to('committed', 'send-go') },
  // A cancel comes too late here, and the page connections have done their work.
  committed: {
    running: to('done', 'stop-logging'),
    ended: to('returned', 'stop-logging', 'close'),
    ...all(['lost', 'timeout', 'step-failed'], UNCERTAIN),
  },
  done: {},
  resuming: {
    resumed: to('failed', 'stop-logging', 'close'),
    'step-failed': to('stranded', 'stop-logging', 'close'),
  },
  failed: {},
  stranded: { 'resolve-here': GO_ON },
  returned: { 'resolve-here': GO_ON },
  // As long as the connection is there it may still tell.
  uncertain: {
    running: to('done'),
    ended: to('returned', 'close'),
    'resolve-here': GO_ON,
    'resolve-there': to('done', 'close'),
  },
};

/**
 * One event. What a connection of another attempt brings is not looked at. Throws VHOST_ERR_STATE for an order, or a step said to be
 * done, that the state does not know.
 */
export function stepSource(machine: Machine<SourceState>, event: SourceEvent): Step<SourceState, SourceAction> {
  if ('attempt' in event && event.attempt !== machine.attempt) return { machine, actions: [] };
  const found = SOURCE_TABLE[machine.state][event.kind];
  if (found === undefined) {
    if (OWN.includes(event.kind)) throw impossible(event.kind, machine.state);
    return { machine, actions: [] };
  }
  return { machine: { state: found.to, attempt: machine.attempt }, actions: found.actions };
}

/** The machine of one attempt. */
export class SourceMachine {
  #machine: Machine<SourceState>;

  /** `attempt` is the identity that HELLO carries, drawn anew for each attempt. */
  constructor(attempt: string) {
    this.#machine = { state: 'setup', attempt };
  }

  get state(): SourceState {
    return this.#machine.state;
  }

  get attempt(): string {
    return this.#machine.attempt;
  }

  get facts(): StateFacts {
    return SOURCE_STATES[this.state];
  }

  /** What to do now, in order. The state has changed when this returns: GO is final before its first byte is written. */
  on(event: SourceEvent): readonly SourceAction[] {
    const { machine, actions } = stepSource(this.#machine, event);
    this.#machine = machine;
    return actions;
  }
}
