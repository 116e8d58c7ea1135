/** The two machines as their callers use them, and the document that describes them. */
import {
  DESTINATION_STATES,
  DESTINATION_TABLE,
  DestinationMachine,
  type DestinationState,
  stepDestination,
} from '../../lib/migration/commit/destination-machine';
import {
  SOURCE_EVENTS,
  SOURCE_STATES,
  SOURCE_TABLE,
  SourceMachine,
  type SourceState,
  stepSource,
} from '../../lib/migration/commit/source-machine';
import { GENERATED, partOf, readDocument } from './protocol-document';

const attempt = 'a';
const STATES = Object.keys(SOURCE_STATES) as SourceState[];
const ARRIVALS = Object.keys(DESTINATION_STATES) as DestinationState[];

test('a migration that succeeds, action by action', () => {
  const source = new SourceMachine(attempt);
  const destination = new DestinationMachine();
  expect(destination.on({ kind: 'connect', attempt })).toEqual(['accept']);
  expect(source.on({ kind: 'agreed', attempt })).toEqual(['start-logging']);
  expect(source.on({ kind: 'converged' })).toEqual(['open']);
  expect(destination.on({ kind: 'open', attempt })).toEqual(['open']);
  expect(source.on({ kind: 'opened', attempt })).toEqual(['pause']);
  expect(source.on({ kind: 'stopped' })).toEqual(['send-state']);
  expect(destination.on({ kind: 'state', attempt })).toEqual(['load']);
  expect(destination.on({ kind: 'loaded' })).toEqual(['send-ready']);
  expect(source.on({ kind: 'ready', attempt })).toEqual(['send-go']);
  expect(source.facts.guest).toBe('may run there');
  expect(destination.on({ kind: 'go', attempt })).toEqual(['start']);
  expect(destination.on({ kind: 'started' })).toEqual(['send-running']);
  expect(source.on({ kind: 'running', attempt })).toEqual(['stop-logging']);
  expect([source.state, destination.state]).toEqual(['done', 'running']);
});

test('what a connection of another attempt brings changes nothing, in any state', () => {
  for (const state of STATES) {
    for (const kind of ['agreed', 'opened', 'ready', 'running', 'ended', 'lost', 'pages-lost'] as const) {
      const machine = { state, attempt };
      expect(stepSource(machine, { kind, attempt: 'b' })).toEqual({ machine, actions: [] });
    }
  }
  for (const state of ARRIVALS) {
    for (const kind of ['open', 'state', 'go', 'ended', 'lost', 'pages-lost'] as const) {
      const machine = { state, attempt };
      expect(stepDestination(machine, { kind, attempt: 'b' })).toEqual({ machine, actions: [] });
    }
  }
});

test('a second source is refused while anything is going on, and an attempt that ended does not begin again', () => {
  for (const state of ARRIVALS) {
    const machine = { state, attempt };
    const { actions } = stepDestination(machine, { kind: 'connect', attempt: 'b' });
    expect([state, actions]).toEqual([state, ['waiting', 'failed'].includes(state) ? ['accept'] : ['refuse']]);
    expect(stepDestination(machine, { kind: 'connect', attempt })).toEqual({ machine, actions: [] });
  }
});

test('only READY where it is waited for leads to GO, and only GO there to a start', () => {
  const leads = (table: object, action: string): string[] =>
    Object.entries(table).flatMap(([state, row]) =>
      Object.entries(row as Record<string, { actions: string[] }>)
        .filter(([, { actions }]) => actions.includes(action))
        .map(([kind]) => `${state} ${kind}`),
    );
  expect(leads(SOURCE_TABLE, 'send-go')).toEqual(['offered ready']);
  expect(leads(DESTINATION_TABLE, 'start')).toEqual(['ready go']);
  const orders = ['stranded', 'returned', 'uncertain'].map((state) => `${state} resolve-here`);
  const resumes = leads(SOURCE_TABLE, 'resume').filter((where) => !/^(pausing|offered) /.test(where));
  expect(resumes).toEqual(orders);
});

test('an order or a step that the state does not know throws; nothing that comes from outside does', () => {
  const own = ['converged', 'stopped', 'resumed', 'resolve-here', 'resolve-there'];
  for (const state of STATES) {
    for (const kind of SOURCE_EVENTS) {
      const step = (): unknown => stepSource({ state, attempt }, { kind, attempt } as never);
      if (own.includes(kind) && SOURCE_TABLE[state][kind] === undefined) {
        expect(step).toThrow(expect.objectContaining({ code: 'VHOST_ERR_STATE' }));
      } else expect(step).not.toThrow();
    }
  }
  const fresh = new DestinationMachine();
  expect(() => fresh.on({ kind: 'started' })).toThrow('"started" is not possible in state waiting');
});

test.each(Object.keys(GENERATED))('docs/protocol.md describes the %s as it is', (name) => {
  // When it does not: node dist/test/model/write-protocol-document.js
  expect(partOf(readDocument(), name)).toBe(GENERATED[name]);
});
