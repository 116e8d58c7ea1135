/** Why the guest was stopped, and what it was stopped for. */
import type { MigrationRecord } from '../migration/record';
import { downtimeParts, partColour, switchoverPlot } from './chart-switchover';
import { figure, section, table } from './figure';
import { type Html, html } from './html';
import { drawPlot } from './plot';
import { duration, NONE, share } from './units';

/** Moments listed: a migration has seven. */
const MAX_PHASES = 20;

export async function switchoverSection(record: MigrationRecord): Promise<Html> {
  const { decision, downtimeMs, phases } = record;
  const parts = downtimeParts(record);
  const measured = downtimeMs > 0 || Object.values(record.blackoutMs).some((ms) => ms !== null);
  const rows = parts.map(({ number, name, ms }) => [
    html`<i class="c${partColour(number)}">${number}</i> ${name}`,
    duration(ms),
    share(ms, downtimeMs),
  ]);
  return section(
    'Switchover',
    decision === null
      ? null
      : html`<p>${decision.reason}${decision.estimateMs === null ? null : html` Expected downtime: <b>${duration(decision.estimateMs)}</b>, measured: <b>${downtimeMs > 0 ? duration(downtimeMs) : NONE}</b>.`}</p>`,
    measured
      ? figure('Downtime and blackout', await drawPlot(switchoverPlot(record)), {
          note: 'Downtime: from the guest’s stop to its start, in parts. Blackout: from the last frame before to the first one after, as the network sees it. Each bar is drawn from 0, whenever it began.',
        })
      : html`<p class="none">The guest was never stopped.</p>`,
    html`<div class="pair">`,
    rows.length === 0
      ? null
      : table(
          'Parts of the downtime',
          [{ title: 'Part' }, { title: 'Time', figures: true }, { title: 'Share', figures: true }],
          rows,
        ),
    phases.length === 0
      ? null
      : table(
          'Course',
          [{ title: 'From' }, { title: 'Since the beginning', figures: true }],
          phases
            .slice(0, MAX_PHASES)
            .map(({ phase, atMs }) => [phase === 'precopy' ? 'pre-copy' : phase, duration(atMs)]),
        ),
    html`</div>`,
  );
}
