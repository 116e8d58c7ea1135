/** What was proven: the account of frames, and the comparison of pages. */
import type { DestinationAccount, SourceAccount } from '../migration/handover/account';
import type { MigrationRecord } from '../migration/record';
import { section, table } from './figure';
import { type Html, html, printable } from './html';
import { address, count, NONE, share } from './units';
import { doubts } from './verdict';

const MAX_REASONS = 50;
/** Characters of one. */
const MAX_REASON = 400;
const MAX_PAGES = 64;

const SIDES = [{ title: 'Frames' }, { title: 'Number', figures: true }, { title: 'What became of them' }];

function sourceTable(source: SourceAccount): Html {
  const { read, sent, own, groupAfterCut, markers, dropped } = source;
  return table(
    'Source’s tap',
    SIDES,
    [
      [html`<b>read</b>`, html`<b>${count(read)}</b>`, 'read after the guest was stopped'],
      ['sent', count(sent), 'to the destination, for the guest'],
      ['own', count(own), 'the guest’s own, flooded back: left out'],
      ['after the cut', count(groupAfterCut), 'flooded to both taps: the destination has them'],
      ['announcement', count(markers), 'of the destination: the cut'],
      ['dropped', dropped === null ? NONE : count(dropped), 'lost: the tap’s queue was full'],
    ],
    { kind: 'ledger' },
  );
}

function destinationTable(destination: DestinationAccount): Html {
  const { discarded, read, matched, own, kept, received, dropped } = destination;
  return table(
    'Destination’s tap',
    SIDES,
    [
      ['received', count(received), 'from the source, for the guest'],
      [html`<b>read</b>`, html`<b>${count(read)}</b>`, 'read before the guest had all of the source’s'],
      ['kept', count(kept), 'to the guest, behind those of the source'],
      ['matched', count(matched), 'given by the source already: left out'],
      ['own', count(own), 'the guest’s own, flooded back: left out'],
      ['discarded', count(discarded), 'earlier: the source had them too'],
      ['dropped', dropped === null ? NONE : count(dropped), 'lost: the tap’s queue was full'],
    ],
    { kind: 'ledger' },
  );
}

export function ledgerSection({ handover }: MigrationRecord): Html {
  if (handover === null) return section('Frames', html`<p class="none">No account of frames was kept.</p>`);
  const reasons = doubts(handover);
  const cut =
    handover.source?.cutBy === 'marker' ? 'by the marker in the announcement' : 'by time, since no marker arrived';
  return section(
    'Frames',
    reasons.length === 0
      ? html`<p class="proven"><b>Proven:</b> no frame was lost, doubled or reordered. Both accounts add up; the source was cut ${cut}.</p>`
      : html`<div class="doubts"><p><b>Not proven.</b> The source was cut ${cut}.</p><ul>${reasons.slice(0, MAX_REASONS).map((reason) => html`<li>${printable(reason, MAX_REASON)}</li>`)}</ul>${reasons.length > MAX_REASONS ? html`<p>${count(reasons.length - MAX_REASONS)} more.</p>` : null}</div>`,
    html`<div class="pair">${handover.source === null ? null : sourceTable(handover.source)}${handover.destination === null ? null : destinationTable(handover.destination)}</div>`,
  );
}

export function auditSection({ audit }: MigrationRecord): Html {
  if (audit === null) return section('Memory', html`<p class="none">Pages were not compared.</p>`);
  const { total, differing, pages } = audit;
  if (differing === 0) {
    return section(
      'Memory',
      html`<p class="proven"><b>Equal:</b> all ${count(total)} pages of guest memory were compared, and none differs.</p>`,
    );
  }
  const shown = pages.slice(0, MAX_PAGES);
  return section(
    'Memory',
    html`<div class="doubts"><p><b>${count(differing)} of ${count(total)} pages differ</b> (${share(differing, total)}).</p>
<p class="addresses">${shown.map(address).join(' ')}${differing > shown.length ? ` and ${count(differing - shown.length)} more` : ''}</p></div>`,
  );
}
