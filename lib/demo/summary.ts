/** The demo's result: as data for --json and as text for a person. Numbers are measured; what could not be measured is null. */
import type { HandoverAccount } from '../migration/handover/account';
import type { MigrationResult } from '../migration/options';
import type { LedgerGap, LedgerReport } from '../observe/frame-ledger';
import { accountText } from '../report/account-text';

export interface DemoSummary {
  kernel: string;
  vm: boolean;
  vhostFeatures: string;
  migration: {
    rounds: { round: number; pages: number; bytes: number; ms: number; dirtyAfter: number }[];
    totalMs: number;
    downtimeMs: number;
    downtimeParts: MigrationResult['downtimeParts'];
    bytes: number;
  };
  frames: { guestToNetwork: LedgerReport; networkToGuest: LedgerReport };
  blackoutMs: { guestToNetwork: number | null; networkToGuest: number | null };
  pages: { total: number; differing: number } | { total: null; differing: null };
  vrings: { queue: number; base: number; usedIdx: number }[];
  /** What became of the frames that came while the guest moved; null where none were handed over. */
  handover: HandoverAccount | null;
}

/** The longest stretch without frames that touches the time between stop and start. Milliseconds; null when none was seen. */
export function blackout(gaps: readonly LedgerGap[], stoppedAt: number, startedAt: number): number | null {
  const touching = gaps.filter((gap) => gap.start <= startedAt && gap.start + gap.length >= stoppedAt);
  if (touching.length === 0) return null;
  return Math.round(Math.max(...touching.map((gap) => gap.length))) / 1000;
}

const number = (value: number | null, unit = ''): string =>
  value === null ? 'not measured' : `${value.toLocaleString('en-US')}${unit}`;

const COLUMNS = ['sent', 'received', 'lost', 'duplicated', 'reordered', 'corrupted'] as const;
const FRAMES_HEADER = `  frames           ${COLUMNS.map((name) => name.padStart(12)).join('')}`;

function frameLine(name: string, report: LedgerReport): string {
  return `  ${name.padEnd(17)}${COLUMNS.map((column) => number(report[column]).padStart(12)).join('')}`;
}

/** Both directions of traffic as a table. */
export function frameTable({ guestToNetwork, networkToGuest }: DemoSummary['frames']): string {
  return [
    FRAMES_HEADER,
    frameLine('guest to network', guestToNetwork),
    frameLine('network to guest', networkToGuest),
  ].join('\n');
}

/** The summary as a person reads it. */
export function summaryText(summary: DemoSummary): string {
  const { migration, frames, blackoutMs, pages } = summary;
  const parts = Object.entries(migration.downtimeParts).map(([name, ms]) => `${name} ${ms}`);
  return [
    '',
    `kernel ${summary.kernel}${summary.vm ? ' in the test VM' : ''}, vhost-net features ${summary.vhostFeatures}`,
    '',
    'round    pages        bytes         ms  dirty after',
    ...migration.rounds.map(
      (round) =>
        `${String(round.round).padStart(5)}${number(round.pages).padStart(9)}${number(round.bytes).padStart(13)}` +
        `${round.ms.toFixed(1).padStart(11)}${number(round.dirtyAfter).padStart(13)}`,
    ),
    '',
    `migration   ${number(migration.totalMs)} ms, ${number(migration.bytes)} bytes, ${migration.rounds.length} rounds`,
    `downtime    ${number(migration.downtimeMs)} ms (${parts.join(', ')})`,
    `pages       ${number(pages.total)} compared, ${number(pages.differing)} differ`,
    ...(summary.handover === null ? [] : ['', accountText(summary.handover), '']),
    ...summary.vrings.map(({ queue, base, usedIdx }) => `vring ${queue}     base ${base}, used index ${usedIdx}`),
    '',
    `${FRAMES_HEADER}   blackout`,
    `${frameLine('guest to network', frames.guestToNetwork)}   ${number(blackoutMs.guestToNetwork, ' ms')}`,
    `${frameLine('network to guest', frames.networkToGuest)}   ${number(blackoutMs.networkToGuest, ' ms')}`,
    '',
  ].join('\n');
}
