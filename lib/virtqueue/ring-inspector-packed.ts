/**
 * Decodes a live packed virtqueue (virtio 1.4 section 2.8). The descriptor ring is copied twice with everything else read in between; a
 * chain whose descriptors changed is left out. How far the driver wrote shows in the ring itself: up to there the AVAIL bits are those of
 * the lap it is in.
 */
import {
  VRING_DESC_ALIGN_SIZE,
  VRING_DESC_F_INDIRECT,
  VRING_DESC_F_NEXT,
  VRING_DESC_SIZE,
} from '../constants/virtio-ring';
import {
  VRING_PACKED_DESC_F_AVAIL,
  VRING_PACKED_DESC_F_USED,
  VRING_PACKED_EVENT_ALIGN_SIZE,
  VRING_PACKED_EVENT_F_WRAP_CTR,
  VRING_PACKED_EVENT_FLAG_DESC,
  VRING_PACKED_EVENT_FLAG_DISABLE,
  VRING_PACKED_EVENT_FLAG_ENABLE,
  VRING_PACKED_EVENT_SIZE,
} from '../constants/virtio-ring-packed';
import { descTableBytes } from './layout';
import type { PackedPosition, QueueState } from './queue-state';
import { hexAddress, type Indexes, type InspectedUsed, type InspectOptions, type Suppression } from './ring-inspection';
import { ChainInspection, chainRules, descriptorAt } from './ring-inspector-chain';
import type { Findings } from './ring-inspector-findings';
import type { RingReader } from './ring-inspector-reader';
import { Violations } from './ring-inspector-rules';

const ATTEMPTS = 5;
/** Used elements that are listed. */
const USED_SHOWN = 4;

export type PackedState = Readonly<QueueState> & { readonly packed: PackedPosition };
export type PackedInspectOptions = InspectOptions & { eventIdx: boolean; indirect: boolean };

interface Image {
  desc: DataView;
  /** What the driver asks of the device, and the reverse. */
  driverEvent: DataView;
  deviceEvent: DataView;
}

const bitOf = (flags: number, number: number): boolean => ((flags >>> number) & 1) === 1;
const flagsAt = (desc: DataView, index: number): number => desc.getUint16(index * VRING_DESC_SIZE + 14, true);
const isAvailable = (flags: number, wrap: boolean): boolean =>
  bitOf(flags, VRING_PACKED_DESC_F_AVAIL) === wrap && bitOf(flags, VRING_PACKED_DESC_F_USED) !== wrap;
const isUsed = (flags: number, wrap: boolean): boolean =>
  bitOf(flags, VRING_PACKED_DESC_F_AVAIL) === wrap && bitOf(flags, VRING_PACKED_DESC_F_USED) === wrap;

export function inspectPacked(reader: RingReader, state: PackedState, options: PackedInspectOptions): Findings {
  let findings = once(reader, state, options);
  for (let attempt = 1; attempt < ATTEMPTS && findings.moving; attempt++) findings = once(reader, state, options);
  return findings;
}

function once(reader: RingReader, state: PackedState, options: PackedInspectOptions): Findings {
  const violations = new Violations('packed');
  const { nextAvail, packed, size } = state;
  const indexes: Indexes = {
    nextAvail,
    nextAvailFrom: 'state',
    availWrap: packed.availWrap,
    nextUsed: packed.nextUsed,
    usedWrap: packed.usedWrap,
    pending: null,
    inFlight: null,
    usedWaiting: null,
    usedWaitingFrom: null,
  };
  const image = copy(reader, state, violations);
  if (image === null) {
    const unknown: Suppression = { wants: 'unknown', event: null, reached: null, words: 'unknown' };
    const suppression = { kick: unknown, call: unknown };
    return { indexes, suppression, chains: [], used: [], violations, readable: false, moving: false };
  }
  const chains = chainsOf(image.desc, reader, state, options);
  const taken = chains.reduce((sum, { chain }) => sum + slotsOf(chain.descriptors), 0);
  indexes.pending = chains.length;
  indexes.pendingDescriptors = taken;
  checkPositions(image.desc, indexes, state, options, violations);
  const after = reader.copy(state.descTable, descTableBytes(size))!;
  const lasting = chains.filter(({ chain }) =>
    chain.descriptors.every(({ table, index }) => table === 'indirect' || same(image.desc, after, index)),
  );
  return {
    indexes,
    suppression: {
      kick: eventOf('device', image.deviceEvent, nextAvail, packed.availWrap, taken, state, options, violations),
      call: eventOf('driver', image.driverEvent, packed.nextUsed, packed.usedWrap, 0, state, options, violations),
    },
    chains: lasting,
    used: usedOf(image.desc, state),
    violations,
    readable: true,
    moving: !sameFlags(image.desc, after, size),
  };
}

const slotsOf = (descriptors: readonly { table: string }[]): number =>
  descriptors.filter(({ table }) => table === 'direct').length;

function same(one: DataView, other: DataView, index: number): boolean {
  const at = index * VRING_DESC_SIZE;
  return one.getBigUint64(at) === other.getBigUint64(at) && one.getBigUint64(at + 8) === other.getBigUint64(at + 8);
}

function sameFlags(one: DataView, other: DataView, size: number): boolean {
  for (let index = 0; index < size; index++) if (flagsAt(one, index) !== flagsAt(other, index)) return false;
  return true;
}

function copy(reader: RingReader, state: PackedState, violations: Violations): Image | null {
  const part = (name: string, at: number, alignment: number, bytes: number): DataView | null => {
    if (at % alignment !== 0) violations.add('alignment', name, hexAddress(at), `a multiple of ${alignment}`);
    const copied = reader.copy(at, bytes);
    if (copied === null) {
      const found = `${hexAddress(at)} with ${bytes} bytes`;
      violations.add('ring-outside-memory', name, found, 'wholly inside one memory region');
    }
    return copied;
  };
  const event = (name: string, at: number): DataView | null =>
    part(`the ${name} event structure`, at, VRING_PACKED_EVENT_ALIGN_SIZE, VRING_PACKED_EVENT_SIZE);
  const desc = part('the descriptor ring', state.descTable, VRING_DESC_ALIGN_SIZE, descTableBytes(state.size));
  const driverEvent = event('driver', state.availRing);
  const deviceEvent = event('device', state.usedRing);
  return desc === null || driverEvent === null || deviceEvent === null ? null : { desc, driverEvent, deviceEvent };
}

function chainsOf(
  desc: DataView,
  reader: RingReader,
  { size, nextAvail, packed }: PackedState,
  { indirect, role }: PackedInspectOptions,
): ChainInspection[] {
  const rules = chainRules({ reader, format: 'packed', size, indirect, role });
  const ids = new Set<number>();
  const chains: ChainInspection[] = [];
  let at = nextAvail;
  let wrap = packed.availWrap;
  let left = size;
  while (left > 0 && isAvailable(flagsAt(desc, at), wrap)) {
    const head = at;
    const inspection = new ChainInspection(rules, head, 0, `descriptor ${head}`);
    chains.push(inspection);
    for (let more = true; more; ) {
      const raw = descriptorAt(desc, at);
      const { third: id, fourth: flags } = raw;
      const detail = at === head ? '' : `descriptor ${at}`;
      const following = at + 1 === size ? 0 : at + 1;
      more = (flags & VRING_DESC_F_NEXT) !== 0;
      left--;
      inspection.chain.id = id;
      inspection.list(raw, flags, at, more ? following : null);
      if (!isAvailable(flags, wrap)) {
        inspection.end(
          'unmarked-descriptor',
          detail,
          'a descriptor of the list is not available',
          'AVAIL and USED marks',
        );
        break;
      }
      if ((flags & VRING_DESC_F_INDIRECT) === 0) inspection.buffer(raw, flags, detail);
      else {
        // The table of a list of several is no table of this chain's end: a device may take neither (section 2.8.19).
        if (at !== head) inspection.violate('indirect-with-next', detail, 'INDIRECT in a list linked by NEXT', 'one');
        inspection.table(raw, flags, detail);
      }
      at = following;
      if (at === 0) wrap = !wrap;
      if (more && left === 0) {
        inspection.end('loop', detail, 'the list is longer than the ring', 'a list that ends');
        more = false;
      }
    }
    const { id, whole } = inspection.chain;
    if (whole && ids.has(id)) inspection.violate('duplicate-id', '', `buffer id ${id} again`, 'each id once');
    ids.add(id);
    inspection.close();
    // Behind a chain of unknown length nothing is known.
    if (!whole && inspection.blocking !== null && !endsInTable(inspection)) break;
  }
  return chains;
}

/** Whether what was not read lies in an indirect table, so that the next chain's place is known. */
function endsInTable({ chain }: ChainInspection): boolean {
  const last = chain.descriptors.filter(({ table }) => table === 'direct').at(-1);
  return last?.flags.includes('INDIRECT') === true && last.next === null;
}

function checkPositions(
  desc: DataView,
  indexes: Indexes,
  { size, nextAvail, packed }: PackedState,
  { running }: PackedInspectOptions,
  violations: Violations,
): void {
  const { availWrap, nextUsed, usedWrap } = packed;
  const taken = nextAvail - nextUsed + (availWrap === usedWrap ? 0 : size);
  if (taken < 0 || taken > size) {
    const found = `used position ${show(nextUsed, usedWrap)}, available position ${show(nextAvail, availWrap)}`;
    violations.add('used-ahead', 'the positions', found, 'a used position not ahead, and less than a lap behind');
    return;
  }
  indexes.inFlight = taken;
  const pending = indexes.pendingDescriptors!;
  if (taken + pending > size) {
    const found = `${taken} descriptors taken and ${pending} available`;
    violations.add('index-distance', 'the positions', found, `${size} together at most, the queue size`);
  }
  const next = driverPosition(desc, size);
  indexes.driverNext = next.index;
  if (running === true) return;
  const ahead = next.index - nextAvail + (next.wrap === availWrap ? 0 : size);
  // A chain that cannot be read to its end hides what follows it: only a position without any chain is judged.
  if (pending === 0 && ahead !== 0) {
    const found = `the device stands at ${show(nextAvail, availWrap)}, where nothing is available`;
    violations.add('position', 'the next available descriptor', found, `the driver's ${show(next.index, next.wrap)}`);
  }
}

const show = (index: number, wrap: boolean): string => `${index} with wrap counter ${wrap ? 1 : 0}`;

/** Where the driver writes next: the first descriptor whose AVAIL bit is of another lap than that of descriptor 0. */
function driverPosition(desc: DataView, size: number): { index: number; wrap: boolean } {
  const lap = bitOf(flagsAt(desc, 0), VRING_PACKED_DESC_F_AVAIL);
  for (let index = 1; index < size; index++) {
    if (bitOf(flagsAt(desc, index), VRING_PACKED_DESC_F_AVAIL) !== lap) return { index, wrap: lap };
  }
  return { index: 0, wrap: !lap };
}

function usedOf(desc: DataView, { size, packed }: PackedState): InspectedUsed[] {
  const elements: InspectedUsed[] = [];
  let at = packed.nextUsed;
  let wrap = packed.usedWrap;
  for (let back = 0; back < size && elements.length < USED_SHOWN; back++) {
    if (at === 0) wrap = !wrap;
    at = at === 0 ? size - 1 : at - 1;
    if (!isUsed(flagsAt(desc, at), wrap)) continue;
    const { third: id, length } = descriptorAt(desc, at);
    // A ring that was never written is all zeros, which reads like a used lap.
    if (id === 0 && length === 0 && desc.getBigUint64(at * VRING_DESC_SIZE) === 0n && !wrap) continue;
    elements.unshift({ position: at, id, length });
  }
  return elements;
}

function eventOf(
  side: 'device' | 'driver',
  structure: DataView,
  from: number,
  fromWrap: boolean,
  available: number,
  { size }: PackedState,
  { eventIdx }: PackedInspectOptions,
  violations: Violations,
): Suppression {
  const word = structure.getUint16(0, true);
  const flags = structure.getUint16(2, true) & 3;
  const what = side === 'device' ? 'kick' : 'call';
  const plain = (wants: Suppression['wants'], words: string): Suppression => ({
    wants,
    event: null,
    reached: null,
    words,
  });
  if (flags === VRING_PACKED_EVENT_FLAG_ENABLE) return plain('always', `a ${what} for every descriptor (ENABLE)`);
  if (flags === VRING_PACKED_EVENT_FLAG_DISABLE) return plain('never', `no ${what}s (DISABLE)`);
  const event = word & ((1 << VRING_PACKED_EVENT_F_WRAP_CTR) - 1);
  const wrap = bitOf(word, VRING_PACKED_EVENT_F_WRAP_CTR);
  const where = `the ${side} event structure`;
  if (flags !== VRING_PACKED_EVENT_FLAG_DESC) {
    violations.add('event-structure', where, 'flags 3, which is reserved', 'ENABLE, DISABLE or DESC');
    return plain('unknown', `flags 3, which is reserved`);
  }
  if (!eventIdx) violations.add('event-structure', where, 'DESC', 'ENABLE or DISABLE: EVENT_IDX was not negotiated');
  if (event >= size) violations.add('event-structure', where, `descriptor ${event}`, `below ${size}, the queue size`);
  const ahead = event - from + (wrap === fromWrap ? 0 : size);
  // With the wrap counter turned the event lies ahead in the next lap, or behind in the one before: whichever is nearer than a lap.
  const signed = ahead > size ? ahead - 2 * size : ahead;
  const reached = signed < 0 ? 'behind' : signed < available ? 'reached' : 'ahead';
  const relation = {
    reached: 'which the driver has passed',
    ahead: 'which is not passed',
    behind: `which lies behind ${from}`,
  };
  return { wants: 'at', event, reached, words: `a ${what} at descriptor ${event} (DESC), ${relation[reached]}` };
}
