/** What a person is told of a migration when it is over, and of what two sides do not have in common. */
import type { ControlOutcome, MigrationAnswer } from '../migration/control-protocol';
import type { Difference } from '../migration/messages';
import type { MigrationResult } from '../migration/options';
import { accountText } from '../report/account-text';
import { columns } from '../report/columns';
import { printable } from '../report/html';
import { bytes, count, duration, plural } from '../report/units';

const LONGEST_CELL = 60;
const SEVERITIES = ['fatal', 'degraded', 'fine'];

// No-break spaces are for pages, not for terminals.
const plain = (text: string): string => text.replaceAll('\u00a0', ' ');
const cell = (text: string): string => printable(text, LONGEST_CELL);

/** As a table, the worst first. */
export function differencesText(differences: readonly Difference[]): string {
  if (differences.length === 0) return 'both sides have everything in common';
  const rank = ({ severity }: Difference): number => SEVERITIES.indexOf(severity);
  const rows = [...differences]
    .sort((one, other) => rank(one) - rank(other))
    .map(({ severity, what, source, destination }) => [severity, what, source, destination].map(cell));
  return columns([['', 'what', 'source', 'destination'], ...rows]).join('\n');
}

/** Of a migration that went well. */
export function resultText({
  rounds,
  totalMs,
  downtimeMs,
  downtimeParts,
  bytes: sent,
  handover,
  audit,
}: MigrationResult): string {
  const parts = Object.entries(downtimeParts).map(([name, ms]) => `${name} ${duration(ms)}`);
  const pages = rounds.reduce((sum, round) => sum + round.pages, 0);
  const rows = [
    ['migration', `${duration(totalMs)}, ${plural(rounds.length, 'round')}, ${plural(pages, 'page')}, ${bytes(sent)}`],
    ['downtime', `${duration(downtimeMs)} (${parts.join(', ')})`],
    ['pages', audit === null ? 'not compared' : `${count(audit.total)} compared, ${count(audit.differing)} differ`],
  ];
  const frames = handover === null ? 'frames were not handed over' : accountText(handover);
  return plain([...columns(rows), frames].join('\n'));
}

const OUTCOMES: Readonly<Record<ControlOutcome, string>> = {
  completed: 'the guest runs at the destination',
  failed: 'the migration failed, the guest runs where it was',
  cancelled: 'the migration was cancelled, the guest runs where it was',
  uncertain: 'UNCERTAIN: the guest may run at the destination',
  returned: 'the destination could not start the guest: it runs nowhere',
  stranded: 'the guest could not go on: it runs nowhere',
};

export function answerText({ outcome, error, result }: MigrationAnswer): string {
  const lines = [OUTCOMES[outcome]];
  if (error !== null) lines.push(`${error.code}: ${printable(error.message, 2000)}`);
  if (error !== null && error.hint !== null) lines.push(printable(error.hint, 2000));
  if (result !== null) lines.push('', resultText(result));
  return lines.join('\n');
}
