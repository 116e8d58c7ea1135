/** The parts of docs/protocol.md that come from the machines and their exploration. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  DESTINATION_EVENTS,
  DESTINATION_STATES,
  DESTINATION_TABLE,
} from '../../lib/migration/commit/destination-machine';
import { SOURCE_EVENTS, SOURCE_STATES, SOURCE_TABLE, type StateFacts } from '../../lib/migration/commit/source-machine';
import type { Table } from '../../lib/migration/commit/table';

export const DOCUMENT = join(__dirname, '../../../docs/protocol.md');

export const readDocument = (): string => readFileSync(DOCUMENT, 'utf8');

export const figuresRow = (name: string, { states, transitions }: { states: number; transitions: number }): string =>
  `| ${name} | ${states} | ${transitions} |`;

function markdown(rows: readonly string[][]): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  const line = (row: readonly string[]): string =>
    `| ${row.map((text, column) => text.padEnd(widths[column]!)).join(' | ')} |`;
  const rule = `| ${widths.map((width) => '-'.repeat(width)).join(' | ')} |`;
  return [line(rows[0]!), rule, ...rows.slice(1).map(line)].join('\n');
}

/** One line for each state, and in it the events by what they lead to. */
function machineTable<State extends string, Kind extends string, Action extends string>(
  table: Table<State, Kind, Action>,
  states: Readonly<Record<State, StateFacts>>,
  events: readonly Kind[],
): string {
  const rows = [['state', 'guest', 'event', 'next state', 'actions']];
  for (const state of Object.keys(states) as State[]) {
    const byResult = new Map<string, { kinds: Kind[]; to: string; actions: string }>();
    for (const kind of events) {
      const cell = table[state][kind];
      if (cell === undefined) continue;
      const actions = cell.actions.join(', ');
      const key = `${cell.to} ${actions}`;
      const group = byResult.get(key) ?? { kinds: [], to: cell.to, actions };
      group.kinds.push(kind);
      byResult.set(key, group);
    }
    if (byResult.size === 0) rows.push([state, states[state].guest, '', 'stays', '']);
    let first = true;
    for (const { kinds, to, actions } of byResult.values()) {
      rows.push([first ? state : '', first ? states[state].guest : '', kinds.join(', '), to, actions]);
      first = false;
    }
  }
  return markdown(rows);
}

function statesTable(states: Readonly<Record<string, StateFacts>>): string {
  const rows = Object.entries(states).map(([state, { means, final }]) => [state, final ? 'yes' : '', means]);
  return markdown([['state', 'end', 'means'], ...rows]);
}

/** By the name of the mark that stands before each. */
export const GENERATED: Readonly<Record<string, string>> = {
  source: `${statesTable(SOURCE_STATES)}\n\n${machineTable(SOURCE_TABLE, SOURCE_STATES, SOURCE_EVENTS)}`,
  destination: `${statesTable(DESTINATION_STATES)}\n\n${machineTable(DESTINATION_TABLE, DESTINATION_STATES, DESTINATION_EVENTS)}`,
};

const mark = (name: string): RegExp => new RegExp(`(<!-- ${name} -->\n)[^]*?(\n<!-- end -->)`);

export const partOf = (document: string, name: string): string | undefined =>
  mark(name).exec(document)?.[0].split('\n').slice(1, -1).join('\n');

export const withPart = (document: string, name: string, text: string): string =>
  document.replace(mark(name), (_all, before: string, after: string) => before + text + after);

export const figuresTable = (found: readonly [string, { states: number; transitions: number }][]): string =>
  markdown([
    ['exploration', 'states', 'transitions'],
    ...found.map(([name, { states, transitions }]) => [name, String(states), String(transitions)]),
  ]);
