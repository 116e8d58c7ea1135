/** Where both sides ran, what they do not have in common, and the guest's memory. */
import type { SideEnvironment } from '../migration/environment';
import type { MigrationRecord } from '../migration/record';
import { featureNames } from '../net/features';
import { section, table } from './figure';
import { type Content, type Html, html, printable } from './html';
import { address, bytes, count, NONE, plural } from './units';

const MAX_DIFFERENCES = 100;
/** Characters of one cell. */
const MAX_CELL = 300;
const MAX_REGIONS = 32;

const SEVERITIES = { fatal: '✕ fatal', degraded: '! degraded', fine: '✓ fine' };

/** Bits as they came, and their names. */
function features(hexadecimal: string): Content {
  if (hexadecimal === '') return NONE;
  if (!/^0x[0-9a-f]{1,32}$/i.test(hexadecimal)) return hexadecimal;
  const names = featureNames(BigInt(hexadecimal)).map((name) => name.replace(/^VIRTIO_(NET_|RING_)?F_/, ''));
  return html`${hexadecimal}<small>${names.join(' ')}</small>`;
}

const ROWS: readonly [string, (side: SideEnvironment) => Content][] = [
  ['Host', ({ host }) => host],
  ['Kernel', ({ kernel }) => kernel],
  ['Node', ({ node }) => node],
  ['vhost-net', ({ version }) => version],
  ['Data path', ({ backend }) => backend],
  ['Features it carries', ({ offered }) => features(offered)],
  ['Tap', ({ tap }) => tap?.name ?? NONE],
  ['Features of the tap', ({ tap }) => tap?.features ?? NONE],
  ['Frames a queue of it holds', ({ tap }) => (tap === null ? NONE : count(tap.txQueueLen))],
  ['Namespace', ({ netns }) => netns ?? 'of the process'],
];

export function environmentSection(record: MigrationRecord): Html {
  const { source, destination, differences, guestMemory } = record;
  const shown = differences.slice(0, MAX_DIFFERENCES);
  const sides = ROWS.map(([name, of]) => [name, of(source), destination === null ? NONE : of(destination)]);
  const regions = guestMemory.slice(0, MAX_REGIONS);
  const whole = guestMemory.reduce((sum, { size }) => sum + size, 0);
  const rest = guestMemory.length - regions.length;
  return section(
    'Environment',
    table('Both sides', [{ title: '' }, { title: 'Source' }, { title: 'Destination' }], sides, { kind: 'sides' }),
    shown.length === 0
      ? html`<p class="none">${destination === null ? 'The two sides were not compared.' : 'No difference was found.'}</p>`
      : table(
          `Differences (${count(differences.length)}${differences.length > shown.length ? `, the first ${shown.length} shown` : ''})`,
          [{ title: 'What' }, { title: 'Source' }, { title: 'Destination' }, { title: 'Severity' }],
          shown.map(({ what, source: here, destination: there, severity }) => [
            ...[what, here, there].map((text) => printable(text, MAX_CELL)),
            html`<span class="${severity in SEVERITIES ? severity : 'fine'}">${SEVERITIES[severity] ?? printable(severity, MAX_CELL)}</span>`,
          ]),
          { kind: 'sides' },
        ),
    guestMemory.length === 0
      ? null
      : table(
          `Guest memory: ${bytes(whole)} in ${plural(guestMemory.length, 'region')}${rest > 0 ? `, the first ${regions.length} shown` : ''}`,
          [{ title: 'From GPA' }, { title: 'To' }, { title: 'Size', figures: true }],
          regions.map(({ gpa, size }) => [address(gpa), address(gpa + size), bytes(size)]),
        ),
  );
}
