/** A machine as data: what an event makes of a state, and what is to be done then. Both machines of a migration are tables of this shape. */
import { VhostError } from '../../errors';

export interface Cell<State, Action> {
  readonly to: State;
  /** In this order; one that fails ends the list and is told to the machine as `step-failed`. */
  readonly actions: readonly Action[];
}

/** What a state makes of the events that mean something in it. */
export type Table<State extends string, Kind extends string, Action> = Readonly<
  Record<State, Readonly<Partial<Record<Kind, Cell<State, Action>>>>>
>;

export interface Machine<State extends string> {
  readonly state: State;
  /** Identity of the attempt it belongs to: the 32 hexadecimal digits of HELLO. Empty before there is one. */
  readonly attempt: string;
}

export interface Step<State extends string, Action> {
  readonly machine: Machine<State>;
  readonly actions: readonly Action[];
}

export const cell = <State, Action>(to: State, ...actions: Action[]): Cell<State, Action> => ({ to, actions });

/** The same cell for many events. */
export function all<State, Kind extends string, Action>(
  kinds: readonly Kind[],
  one: Cell<State, Action>,
): Partial<Record<Kind, Cell<State, Action>>> {
  return Object.fromEntries(kinds.map((kind) => [kind, one])) as Partial<Record<Kind, Cell<State, Action>>>;
}

/** What did not happen by itself but was done or ordered by this side's owner cannot be ignored: it throws VHOST_ERR_STATE. */
export function impossible(kind: string, state: string): VhostError {
  return new VhostError('VHOST_ERR_STATE', `"${kind}" is not possible in state ${state} of a migration`);
}
