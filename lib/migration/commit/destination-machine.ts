/**
 * Who may run the guest, as the destination sees it. Pure: events in, actions out.
 *
 * Nothing starts before GO, and GO of another attempt is not looked at. Once this side has given up it never starts that attempt, and it
 * says so only when nothing of it is left: what the source hears as CANCEL or ERROR is certain.
 */

import type { StateFacts } from './source-machine';
import { all, type Cell, cell, impossible, type Machine, type Step, type Table } from './table';

export type DestinationState =
  | 'waiting'
  | 'receiving'
  | 'loading'
  | 'ready'
  | 'starting'
  | 'running'
  | 'releasing'
  | 'failed'
  | 'leaking';

export const DESTINATION_STATES: Readonly<Record<DestinationState, StateFacts>> = {
  waiting: { guest: 'not here', final: true, means: 'listens' },
  receiving: { guest: 'not here', final: false, means: 'pages arrive' },
  loading: { guest: 'not here', final: false, means: 'device and guest are being built' },
  ready: { guest: 'stands here', final: false, means: 'READY was sent; the source decides' },
  starting: { guest: 'runs here', final: false, means: 'GO arrived; from here on it may run' },
  running: { guest: 'runs here', final: true, means: 'the guest runs here whatever becomes of the connection' },
  releasing: { guest: 'may run here', final: false, means: 'everything of the attempt is being let go' },
  failed: { guest: 'not here', final: true, means: 'nothing is left; listens again' },
  leaking: {
    guest: 'may run here',
    final: true,
    means: 'letting go failed: the process must end, and only then it is certain that nothing runs here',
  },
};

/** What the source says, or what becomes of the connections to it. */
const PEER = [
  /** HELLO on a control connection. */
  'connect',
  /** OPEN. */
  'open',
  /** STATE, with every page of every connection here and verified. */
  'state',
  'go',
  /** CANCEL or ERROR. */
  'ended',
  /** The control connection ended or broke, or what came over it was no valid frame. */
  'lost',
  /** A page connection did so before its last PAGES_END. */
  'pages-lost',
] as const;

const LOCAL = [
  /** `load` is done. */
  'loaded',
  /** `start` is done. */
  'started',
  /** `release` is done. */
  'released',
  /** An action failed. */
  'step-failed',
  /** Nothing came for too long. */
  'timeout',
  /** This side's owner wants no more. */
  'cancel',
] as const;

export const DESTINATION_EVENTS = [...PEER, ...LOCAL] as const;
export type DestinationPeerKind = (typeof PEER)[number];
export type DestinationLocalKind = (typeof LOCAL)[number];
export type DestinationEventKind = (typeof DESTINATION_EVENTS)[number];
/** What comes from a connection carries the attempt which that connection was made for. */
export type DestinationEvent = { kind: DestinationPeerKind; attempt: string } | { kind: DestinationLocalKind };

export type DestinationAction =
  /** Compare, make memory, SETUP_ACK. */
  | 'accept'
  /** ERROR to the connection the event came from, and close it: this side is busy with another attempt. */
  | 'refuse'
  /** Keep what the tap receives from now on, then OPENED. */
  | 'open'
  /** Device, backend and guest built, nothing started: `loaded`. */
  | 'load'
  | 'send-ready'
  /** Announcement, device started, guest resumed: `started`. Nothing of this side is seen on the network before. */
  | 'start'
  | 'send-running'
  /** Guest, device, memory, kept frames: stopped and closed: `released`. */
  | 'release'
  /** CANCEL where this side was cancelled, ERROR otherwise, if it still can be said. Never fails. */
  | 'tell'
  /** All connections of the attempt. */
  | 'close';

const OWN: readonly DestinationEventKind[] = ['loaded', 'started', 'released'];

/** What ends an attempt before GO: a failure, or a message that does not belong there. */
const FAILURES: readonly DestinationEventKind[] = [
  ...(['open', 'state', 'go', 'ended', 'lost', 'pages-lost'] as const),
  ...(['step-failed', 'timeout', 'cancel'] as const),
];
/**
 * A cancel after READY may cross GO. Giving up would be safe, since GO would find nobody, but it would leave the guest with neither side
 * although nothing had failed: so it waits for the source, and a lost connection or the time-out bound the wait. The pages are all here.
 */
const FAILURES_WHEN_READY = FAILURES.filter((kind) => kind !== 'cancel' && kind !== 'pages-lost');

type C = Cell<DestinationState, DestinationAction>;
const to = (state: DestinationState, ...actions: DestinationAction[]): C => cell(state, ...actions);
const GIVE_UP = to('releasing', 'release');
const BEGIN = to('receiving', 'accept');

export const DESTINATION_TABLE: Table<DestinationState, DestinationEventKind, DestinationAction> = {
  waiting: { connect: BEGIN },
  receiving: { ...all(FAILURES, GIVE_UP), open: to('receiving', 'open'), state: to('loading', 'load') },
  loading: { ...all(FAILURES, GIVE_UP), loaded: to('ready', 'send-ready') },
  ready: { ...all(FAILURES_WHEN_READY, GIVE_UP), go: to('starting', 'start') },
  starting: { started: to('running', 'send-running'), 'step-failed': GIVE_UP },
  running: {},
  releasing: { released: to('failed', 'tell', 'close'), 'step-failed': to('leaking', 'close') },
  failed: { connect: BEGIN },
  leaking: {},
};

/**
 * One event. What a connection of another attempt brings is not looked at, but for HELLO, which is answered: taken where nothing is
 * going on, unless that attempt has ended here, and refused elsewhere. Throws VHOST_ERR_STATE for a step said to be done that
 * the state does not know.
 */
export function stepDestination(
  machine: Machine<DestinationState>,
  event: DestinationEvent,
): Step<DestinationState, DestinationAction> {
  const found = DESTINATION_TABLE[machine.state][event.kind];
  if (event.kind === 'connect') {
    // Its own HELLO once more says nothing new; an answer on this connection would end an attempt that may be past GO.
    if (event.attempt === machine.attempt) return { machine, actions: [] };
    if (found === undefined) return { machine, actions: ['refuse'] };
    return { machine: { state: found.to, attempt: event.attempt }, actions: found.actions };
  }
  if ('attempt' in event && event.attempt !== machine.attempt) return { machine, actions: [] };
  if (found === undefined) {
    if (OWN.includes(event.kind)) throw impossible(event.kind, machine.state);
    return { machine, actions: [] };
  }
  return { machine: { state: found.to, attempt: machine.attempt }, actions: found.actions };
}

/** The machine of one place where a guest can arrive: one attempt at a time, another after one that failed. */
export class DestinationMachine {
  #machine: Machine<DestinationState> = { state: 'waiting', attempt: '' };

  get state(): DestinationState {
    return this.#machine.state;
  }

  get attempt(): string {
    return this.#machine.attempt;
  }

  get facts(): StateFacts {
    return DESTINATION_STATES[this.state];
  }

  /** What to do now, in order. The state has changed when this returns. */
  on(event: DestinationEvent): readonly DestinationAction[] {
    const { machine, actions } = stepDestination(this.#machine, event);
    this.#machine = machine;
    return actions;
  }
}
