/** An inspection as text for people. */
import type {
  Indexes,
  InspectedChain,
  InspectedDescriptor,
  InspectedUsed,
  QueueInspection,
  Violation,
} from './ring-inspection';

/** Several lines, the last without an end of line. */
export function inspectionText(inspection: QueueInspection): string {
  const { format, role, size, ready, running, verdict, diagnosis, suppression, notifications } = inspection;
  const { descTable, availRing, usedRing } = inspection.addresses;
  const features = [inspection.eventIdx ? 'EVENT_IDX' : '', inspection.indirect ? 'INDIRECT_DESC' : ''];
  const [first, second, third] =
    format === 'split'
      ? ['descriptor table', 'available ring', 'used ring']
      : ['descriptor ring', 'driver event', 'device event'];
  const head = [
    `${verdict.toUpperCase()}${inspection.moving ? ' (while it was read)' : ''}`,
    ...diagnosis.map((line) => `  ${line}`),
    '',
    row(
      'queue',
      [
        `${format}, ${size} ${size === 1 ? 'entry' : 'entries'}`,
        role ?? '',
        ready ? 'ready' : 'not ready',
        running === null ? '' : running ? 'running' : 'not running',
        ...features,
      ]
        .filter((part) => part !== '')
        .join(', '),
    ),
    row('addresses', `${first} ${descTable}, ${second} ${availRing}, ${third} ${usedRing}`),
    row('indexes', indexText(inspection.indexes)),
    row('device', `asks for ${suppression.kick.words}${counter(notifications.kicks)}`),
    row('driver', `asks for ${suppression.call.words}${counter(notifications.calls)}`),
  ];
  return [
    ...head,
    ...availableText(inspection),
    ...section('used', inspection.used.map(usedText)),
    ...section('violations', inspection.violations.map(violationText)),
    ...(inspection.moreViolations > 0 ? [`  and ${inspection.moreViolations} more`] : []),
  ].join('\n');
}

const row = (name: string, text: string): string => `${name.padEnd(12)}${text}`;
const counter = (count: number | null): string => (count === null ? '' : `; its eventfd counts ${count}`);
const section = (name: string, lines: string[]): string[] => (lines.length === 0 ? [] : ['', name, ...lines]);
const unknown = (count: number | null): string => (count === null ? '?' : `${count}`);

function indexText(indexes: Indexes): string {
  const { nextAvail, nextAvailFrom, pending, inFlight, usedWaiting, usedWaitingFrom } = indexes;
  const waiting = `${unknown(pending)} not taken, ${unknown(inFlight)} taken and not used`;
  if (indexes.availWrap !== undefined) {
    const wrap = (on: boolean | undefined): string => `(wrap ${on === true ? 1 : 0})`;
    return (
      `device takes at ${nextAvail} ${wrap(indexes.availWrap)}, uses at ${indexes.nextUsed} ${wrap(indexes.usedWrap)}, ` +
      `driver writes at ${unknown(indexes.driverNext ?? null)}: ${waiting}`
    );
  }
  const from = nextAvailFrom === 'state' ? '' : ' at least';
  const back =
    usedWaiting === null || usedWaiting === 0
      ? ''
      : `, ${usedWaitingFrom === 'driver' ? '' : 'up to '}${usedWaiting} to be taken back`;
  return (
    `available ${unknown(indexes.availIdx ?? null)}, taken up to ${nextAvail}${from}, ` +
    `used ${unknown(indexes.usedIdx ?? null)}: ${waiting}${back}`
  );
}

function availableText({ available, indexes, format }: QueueInspection): string[] {
  const lines = available.flatMap((chain) => [chainText(chain, format), ...chain.descriptors.map(descriptorText)]);
  const left = (indexes.pending ?? 0) - available.length;
  if (available.length > 0 && left > 0) lines.push(`  and ${left} more`);
  return section('available', lines);
}

function chainText({ position, id, readableBytes, writableBytes, whole }: InspectedChain, format: string): string {
  const name = format === 'split' ? `index ${position}, head ${id}` : `descriptor ${position}, id ${id}`;
  return `  ${name}: ${readableBytes} readable, ${writableBytes} writable bytes${whole ? '' : ', not read to its end'}`;
}

function descriptorText({ index, gpa, length, flags, next, place, table }: InspectedDescriptor): string {
  const where = typeof place === 'string' ? place : `region ${place.region} + 0x${place.offset.toString(16)}`;
  const names = flags.map((name) => (name === 'NEXT' && next !== null ? `NEXT ${next}` : name)).join(' ');
  const indent = table === 'indirect' ? '      ' : '    ';
  return `${indent}${`${index}`.padStart(5)}  ${gpa.padEnd(14)}${`${length}`.padStart(10)}  ${names.padEnd(16)}${where}`;
}

const usedText = ({ position, id, length }: InspectedUsed): string =>
  `  ${position}: id ${id}, ${length} bytes written`;

const violationText = ({ rule, section: at, where, found, expected }: Violation): string =>
  `  ${rule} (virtio 1.4 section ${at})\n    ${where}: ${found}; expected ${expected}`;
