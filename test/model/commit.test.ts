/**
 * The hand-over, explored exhaustively: every crash of either process at every step, every loss, time-outs and cancels at any moment.
 * The machines explored are those that migrations run.
 */
import { CALM, EXPLORATIONS, ROUGH } from './environment';
import { DEADLOCK, explore } from './explorer';
import { destination, FAULTS } from './faults';
import { exploreMigration, inWords, migrationModel } from './migration-model';
import { nobodyRuns } from './properties';
import { figuresRow, readDocument } from './protocol-document';

test.each(EXPLORATIONS)('%s', (name, env) => {
  const found = exploreMigration(env);
  process.stdout.write(`${inWords(name, found)}\n`);
  expect([...found.failures.keys()]).toEqual([]);
  expect(readDocument().replace(/ +/g, ' ')).toContain(figuresRow(name, found));
  // A model in which nothing can happen would hold too.
  expect(found.states).toBeGreaterThan(1000);
  const ends = new Set(found.all.map(({ source }) => source?.machine.state));
  for (const state of ['done', 'failed', 'uncertain', 'returned']) expect(ends).toContain(state);
});

test('where nothing fails there is one way, and it leads to the destination', () => {
  const found = exploreMigration(CALM);
  expect([...found.failures.keys()]).toEqual([]);
  expect(found.transitions).toBe(found.states - 1);
  const last = found.all.at(-1)!;
  expect(last.source).toMatchObject({ machine: { state: 'done' }, runs: false, logs: false });
  expect(last.destinations[0]).toMatchObject({ machine: { state: 'running' }, runs: true });
});

test('nobody runs the guest, nor will by itself, only in the window after GO, or where a process or a resume failed', () => {
  const found = exploreMigration(ROUGH);
  const states = found.all.filter((world) => world.source !== null && nobodyRuns(world));
  const named = new Set(states.map(({ source }) => source!.machine.state));
  expect([...named].sort()).toEqual(['committed', 'done', 'returned', 'stranded', 'uncertain']);
  for (const { source, connections } of states) {
    if (source!.machine.state === 'done') expect(connections[0]!.start).toBe('died');
  }
});

describe('a cancel of the destination after READY', () => {
  const outcomes = (rules?: Parameters<typeof exploreMigration>[1]): unknown[] => {
    const { all, failures } = exploreMigration({ ...CALM, cancels: true }, rules);
    expect(failures.size).toBe(0);
    return [...new Set(all.map(({ source }) => source!.machine.state))];
  };

  test('waits for the source, so that nothing but a failure leads to a guest that nobody runs', () => {
    expect(outcomes()).toEqual(expect.arrayContaining(['done', 'failed']));
    expect(outcomes()).not.toEqual(expect.arrayContaining(['returned']));
    expect(outcomes()).not.toEqual(expect.arrayContaining(['uncertain']));
  });

  test('would be safe, but could cross GO and leave the guest with nobody', () => {
    const giveUp = destination(['ready'], ['cancel'], ['releasing', 'release']);
    expect(exploreMigration(ROUGH, giveUp).failures.size).toBe(0);
    expect(outcomes(giveUp)).toEqual(expect.arrayContaining(['returned']));
  });
});

describe('planted faults are found', () => {
  test.each(FAULTS.map((fault) => [fault.what, fault] as const))('%s', (what, { env, rules, broken }) => {
    const found = exploreMigration(env ?? ROUGH, rules);
    const words = inWords(what, found);
    expect([...found.failures.keys()]).toEqual(expect.arrayContaining([...broken]));
    for (const { trace } of found.failures.values()) expect(trace.length).toBeGreaterThan(2);
    expect(words).toContain('    1. ');
  });
});

describe('the explorer', () => {
  const counting = (next: (at: number) => number[], end: number) => ({
    initial: 0,
    key: String,
    successors: (at: number, emit: (kind: 'must', label: string, next: number) => void) => {
      for (const to of next(at)) emit('must', `${at} to ${to}`, to);
    },
    broken: (at: number) => (at === 6 ? ['six'] : []),
    ended: (at: number) => at === end,
  });

  test('gives a shortest trace in words', () => {
    const found = explore(counting((at) => (at < 8 ? [at + 1, at + 2] : []), 9));
    expect(found.failures.get('six')!.trace).toEqual(['0 to 2', '2 to 4', '4 to 6']);
    expect([found.states, found.transitions]).toEqual([10, 16]);
  });

  test('finds what stands still and what goes round', () => {
    expect(explore(counting((at) => (at < 3 ? [at + 1] : []), 4)).failures.get(DEADLOCK)!.state).toBe(3);
    expect(explore(counting((at) => [(at + 1) % 4], 4)).failures.has(DEADLOCK)).toBe(true);
    expect(explore(counting((at) => (at < 3 ? [at + 1] : []), 3)).failures.size).toBe(0);
  });

  test('follows a migration from its trace: every word is a transition', () => {
    const rules = FAULTS[0]!.rules;
    const { trace } = exploreMigration(ROUGH, rules).failures.get(FAULTS[0]!.broken[0]!)!;
    const model = migrationModel(ROUGH, rules);
    let at = model.initial;
    for (const words of trace) {
      let next: typeof at | undefined;
      model.successors(at, (_kind, label, to) => {
        if (label === words) next ??= to;
      });
      expect(next).toBeDefined();
      at = next!;
    }
    expect(model.broken(at)).toContain(FAULTS[0]!.broken[0]);
  });
});
