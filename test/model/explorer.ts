/** Every state that can be reached, breadth first: so the trace to the first state that breaks a property is a shortest one. */

/** `must`: happens sooner or later unless something else does first. `may`: a crash, a cut, an order; nobody can count on it. */
export type Kind = 'must' | 'may';
export type Emit<S> = (kind: Kind, label: string, next: S) => void;

export interface Model<S> {
  readonly initial: S;
  key(state: S): string;
  successors(state: S, emit: Emit<S>): void;
  /** Names of the properties that do not hold in this state. */
  broken(state: S): string[];
  /** Nothing has to happen any more. */
  ended(state: S): boolean;
}

export interface Exploration<S> {
  readonly states: number;
  /** Those that lead to another state. */
  readonly transitions: number;
  /** By property: the shortest way to a state that breaks it, in words, and that state. */
  readonly failures: Map<string, { trace: string[]; state: S }>;
  readonly all: readonly S[];
}

export const DEADLOCK = 'time-outs and what is under way lead to an end';

/** Far above what any of the explorations has. */
const MOST = 1_000_000;

export function explore<S>(model: Model<S>): Exploration<S> {
  const all: S[] = [model.initial];
  const numbers = new Map<string, number>([[model.key(model.initial), 0]]);
  const cameFrom: number[] = [-1];
  const failures: Exploration<S>['failures'] = new Map();
  const graph: number[][] = [];
  let transitions = 0;

  const fail = (property: string, at: number): void => {
    if (!failures.has(property)) failures.set(property, { trace: traceTo(model, all, cameFrom, at), state: all[at]! });
  };

  for (let at = 0; at < all.length; at++) {
    if (all.length > MOST) throw new Error(`more than ${MOST} states: the model is not finite`);
    const state = all[at]!;
    for (const property of model.broken(state)) fail(property, at);
    const must: number[] = [];
    model.successors(state, (kind, _label, next) => {
      const key = model.key(next);
      let number = numbers.get(key);
      if (number === undefined) {
        number = all.push(next) - 1;
        numbers.set(key, number);
        cameFrom.push(at);
      }
      if (number === at) return;
      transitions++;
      if (kind === 'must') must.push(number);
    });
    if (must.length === 0 && !model.ended(state)) fail(DEADLOCK, at);
    graph.push(must);
  }
  const cycle = findCycle(graph);
  if (cycle !== null) fail(DEADLOCK, cycle);
  return { states: all.length, transitions, failures, all };
}

/** A state on a cycle, or null. Without one, and with a way on from every state that is no end, every run comes to an end. */
function findCycle(graph: readonly number[][]): number | null {
  const missing = new Uint32Array(graph.length);
  for (const targets of graph) for (const target of targets) missing[target]!++;
  const free: number[] = [];
  for (let at = 0; at < graph.length; at++) if (missing[at] === 0) free.push(at);
  let seen = 0;
  for (let at = free.pop(); at !== undefined; at = free.pop()) {
    seen++;
    for (const target of graph[at]!) if (--missing[target]! === 0) free.push(target);
  }
  return seen === graph.length ? null : missing.findIndex((count) => count > 0);
}

function traceTo<S>(model: Model<S>, all: readonly S[], cameFrom: readonly number[], end: number): string[] {
  const trace: string[] = [];
  for (let at = end; at > 0; at = cameFrom[at]!) {
    const key = model.key(all[at]!);
    let words: string | undefined;
    model.successors(all[cameFrom[at]!]!, (_kind, label, next) => {
      if (words === undefined && model.key(next) === key) words = label;
    });
    trace.unshift(words!);
  }
  return trace;
}
