/** A migration as one page: no script, nothing from outside, everything that came from a peer escaped. */
import { createHash } from 'node:crypto';
import type { MigrationRecord } from '../migration/record';
import { Html, html } from './html';
import { environmentSection } from './section-environment';
import { headSection } from './section-head';
import { auditSection, ledgerSection } from './section-ledger';
import { heatSection, ratesSection, roundsSection } from './section-rounds';
import { switchoverSection } from './section-switchover';
import { STYLE } from './style';
import { moment } from './units';

/** Only the page's own style sheet, by its hash: what slipped through as markup would still load and run nothing. */
function contentSecurityPolicy(): string {
  const hash = createHash('sha256').update(STYLE).digest('base64');
  return `default-src 'none'; style-src 'sha256-${hash}'; base-uri 'none'; form-action 'none'`;
}

/**
 * One self-contained HTML file. `record` may have any number of rounds, samples and regions: the page stays below 2 MB. Rejects only where
 * vega cannot be loaded.
 */
export async function renderReport(record: MigrationRecord): Promise<string> {
  const { source, destination } = record;
  const page = html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${contentSecurityPolicy()}">
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>Migration of ${moment(record.startedAt)}: ${record.outcome}</title>
<style>${new Html(STYLE)}</style>
</head>
<body>
<main>
${headSection(record)}${await switchoverSection(record)}${await roundsSection(record)}${await ratesSection(record)}${heatSection(record)}${ledgerSection(record)}${auditSection(record)}${environmentSection(record)}<footer>vhost-net ${source.version}${destination === null || destination.version === source.version ? null : ` and ${destination.version}`}, record version ${record.version}. Sizes are in powers of 1,024, rates in powers of 1,000.</footer>
</main>
</body>
</html>
`;
  return page.toString();
}
