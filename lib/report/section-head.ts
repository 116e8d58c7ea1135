/** What happened, in one sentence and a few figures. */
import type { MigrationOutcome, MigrationRecord } from '../migration/record';
import { type Content, type Html, html } from './html';
import { bytes, count, duration, moment, NONE, plural } from './units';
import { doubts } from './verdict';

const OUTCOMES: Record<MigrationOutcome, { word: string; sign: string }> = {
  completed: { word: 'Completed', sign: '✓' },
  cancelled: { word: 'Cancelled', sign: '◼' },
  failed: { word: 'Failed', sign: '✕' },
  uncertain: { word: 'Uncertain', sign: '!' },
};

function sentence({ outcome, totalMs, downtimeMs }: MigrationRecord): string {
  switch (outcome) {
    case 'completed':
      return `The guest moved in ${duration(totalMs)} and stood still for ${duration(downtimeMs)}`;
    case 'cancelled':
      return `Cancelled after ${duration(totalMs)}: the guest runs at the source`;
    case 'failed':
      return `Failed after ${duration(totalMs)}: the guest runs at the source`;
    default:
      return 'The destination was told to start the guest and did not answer';
  }
}

function figureTile(name: string, value: string, detail: Content): Html {
  return html`<div><dt>${name}</dt><dd>${value}${detail === null ? null : html`<small>${detail}</small>`}</dd></div>
`;
}

function frames({ handover }: MigrationRecord): Html {
  if (handover === null) return figureTile('Frames', NONE, 'no account was kept');
  const reasons = doubts(handover);
  const handled = `${count((handover.source?.sent ?? 0) + (handover.destination?.kept ?? 0))} handed over`;
  return reasons.length === 0
    ? figureTile('Frames', 'none lost', `${handled}, proven`)
    : figureTile('Frames', 'not proven', `${handled}, ${plural(reasons.length, 'doubt')}`);
}

function pages({ audit }: MigrationRecord): Html {
  if (audit === null) return figureTile('Pages compared', NONE, 'no audit');
  return figureTile('Pages differing', count(audit.differing), `of ${count(audit.total)} compared`);
}

function downtime({ downtimeMs, outcome }: MigrationRecord): Html {
  return downtimeMs > 0
    ? figureTile('Downtime', duration(downtimeMs), outcome === 'uncertain' ? 'at least' : 'the guest stood still')
    : figureTile('Downtime', 'none', 'the guest was never stopped');
}

function blackout({ blackoutMs }: MigrationRecord): Html {
  const seen = Object.values(blackoutMs).filter((ms) => ms !== null);
  return seen.length === 0
    ? figureTile('Blackout', NONE, 'not measured')
    : figureTile('Blackout', duration(Math.max(...seen)), 'the longer direction');
}

function sent({ rounds }: MigrationRecord): Html {
  const pagesSent = rounds.reduce((sum, round) => sum + round.pages, 0);
  const bytesSent = rounds.reduce((sum, round) => sum + round.bytes, 0);
  return figureTile('Sent', bytes(bytesSent), `${count(pagesSent)} pages in ${plural(rounds.length, 'round')}`);
}

function errorBox({ error }: MigrationRecord): Html | null {
  if (error === null) return null;
  const hint = error.hint === null ? null : html`<p>${error.hint}</p>`;
  return html`<div class="error" role="note"><p><b>${error.code}</b> ${error.message}</p>${hint}</div>
`;
}

export function headSection(record: MigrationRecord): Html {
  const { source, destination, startedAt } = record;
  const outcome = record.outcome in OUTCOMES ? record.outcome : 'uncertain';
  const { word, sign } = OUTCOMES[outcome];
  const tiles = [
    downtime(record),
    blackout(record),
    frames(record),
    pages(record),
    sent(record),
    figureTile('Whole migration', duration(record.totalMs), null),
  ];
  return html`<header>
<p class="kind">Migration report <span class="outcome ${outcome}"><span aria-hidden="true">${sign}</span> ${word}</span></p>
<h1>${sentence(record)}</h1>
<p class="route"><b>${source.host}</b> → <b>${destination?.host ?? 'no destination'}</b> <span>${moment(startedAt)}</span></p>
</header>
${errorBox(record)}<dl class="figures">
${tiles}</dl>
`;
}
