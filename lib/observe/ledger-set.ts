/** The accounts of several flows with consecutive numbers. */
import { type FrameArea, frameFlow, isTestFrame } from '../net/test-frame';
import type { FrameLedger, LedgerReport } from './frame-ledger';

export class LedgerSet {
  /** By flow, ascending. */
  readonly ledgers: readonly FrameLedger[];
  readonly #first: number;

  constructor(ledgers: readonly FrameLedger[]) {
    this.ledgers = ledgers;
    this.#first = ledgers[0]!.flow;
  }

  /**
   * Accounts for the `length` bytes at `offset` that arrived at `micros`, in the ledger of their flow; for those of no flow here, foreign, in
   * the ledger at `home`. A corrupted frame is accounted to the flow it names. Answers LEDGER_*.
   */
  account(area: FrameArea, offset: number, length: number, micros: number, home = 0): number {
    const { ledgers } = this;
    let index = home;
    if (ledgers.length > 1 && isTestFrame(area, offset, length)) {
      const named = frameFlow(area, offset) - this.#first;
      if (named >= 0 && named < ledgers.length) index = named;
    }
    return ledgers[index]!.account(area, offset, length, micros);
  }
}

/** All flows together. */
export function sumReports(reports: readonly LedgerReport[]): LedgerReport {
  const sum: LedgerReport = { sent: 0, received: 0, lost: 0, duplicated: 0, reordered: 0, corrupted: 0 };
  for (const report of reports) {
    for (const name of Object.keys(sum) as (keyof LedgerReport)[]) sum[name] += report[name];
  }
  return sum;
}
