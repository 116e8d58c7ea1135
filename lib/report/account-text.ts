/** Both sides' accounts of the frames of a hand-over, for a terminal. */
import type { HandoverAccount } from '../migration/handover/account';
import { columns } from './columns';
import { printable } from './html';
import { count } from './units';
import { doubts } from './verdict';

const LONGEST = 400;

/** Both sides' account of the frames, and what it does not prove. */
export function accountText(account: HandoverAccount): string {
  const { source, destination } = account;
  const rows: [string, string][] = [];
  if (source !== null) {
    const { read, sent, own, groupAfterCut, markers, late } = source;
    rows.push([
      'frames there',
      `${count(read)} read from the source's tap: ${figures({ sent, own, groupAfterCut, markers, late })}`,
    ]);
  }
  if (destination !== null) {
    const { read, discarded, own, matched, kept, received } = destination;
    rows.push([
      'frames here',
      `${count(read)} read from the destination's tap: ${figures({ own, matched, kept })}; ${figures({ received, discarded })}`,
    ]);
  }
  const reasons = doubts(account);
  if (reasons.length === 0) rows.push(['proven', 'no frame was lost, doubled or reordered by the hand-over']);
  for (const reason of reasons) rows.push(['not proven', printable(reason, LONGEST)]);
  // No-break spaces are for pages, not for terminals.
  return columns(rows).join('\n').replaceAll('\u00a0', ' ');
}

function figures(parts: Record<string, number>): string {
  return Object.entries(parts)
    .map(([name, value]) => `${NAMES[name] ?? name} ${count(value)}`)
    .join(', ');
}

const NAMES: Readonly<Record<string, string>> = {
  own: "the guest's own",
  groupAfterCut: 'group frames after the cut',
  markers: 'announcements',
  matched: 'seen at both',
  received: 'came from the source',
};
