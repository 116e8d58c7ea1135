/**
 * Decodes a live split virtqueue (virtio 1.4 section 2.7). The rings are copied between two looks at the indexes; a chain that was used in
 * the meantime is left out, because its driver may have written it anew.
 */
import {
  VRING_AVAIL_ALIGN_SIZE,
  VRING_AVAIL_F_NO_INTERRUPT,
  VRING_DESC_ALIGN_SIZE,
  VRING_DESC_F_INDIRECT,
  VRING_DESC_F_NEXT,
  VRING_USED_ALIGN_SIZE,
  VRING_USED_ELEM_SIZE,
  VRING_USED_F_NO_NOTIFY,
} from '../constants/virtio-ring';
import { availRingBytes, descTableBytes, isQueueSize, usedRingBytes } from './layout';
import type { QueueState } from './queue-state';
import { hexAddress, type Indexes, type InspectedUsed, type InspectOptions, type Suppression } from './ring-inspection';
import { ChainInspection, type ChainRules, chainRules, descriptorAt } from './ring-inspector-chain';
import type { Findings } from './ring-inspector-findings';
import type { RingReader } from './ring-inspector-reader';
import { Violations } from './ring-inspector-rules';

const ATTEMPTS = 5;
/** Used elements that are listed. */
const USED_SHOWN = 4;
const IDX = 2;

const distance = (from: number, to: number): number => (to - from) & 0xffff;

/** The rings at one moment, or as near to one as could be had. */
interface Image {
  desc: DataView;
  avail: DataView;
  used: DataView;
  availIdx: number;
  /** The available index after the copy: indexes break a rule only if both looks say so. */
  availAfter: number;
  usedIdx: number;
  /** The used index before the copy: elements up to it are surely in it. */
  usedBefore: number;
  moved: boolean;
}

/** An option left undefined has its default here. */
export type SplitInspectOptions = InspectOptions & { eventIdx: boolean; indirect: boolean };

export function inspectSplit(reader: RingReader, state: Readonly<QueueState>, options: SplitInspectOptions): Findings {
  let findings = once(reader, state, options);
  for (let attempt = 1; attempt < ATTEMPTS && findings.moving; attempt++) findings = once(reader, state, options);
  return findings;
}

function once(reader: RingReader, state: Readonly<QueueState>, options: SplitInspectOptions): Findings {
  const violations = new Violations('split');
  const image = copy(reader, state, options.eventIdx, violations);
  if (image === null) return unreadable(state, violations);
  const indexes = indexesOf(image, state, options, violations);
  const chains = chainsOf(image, indexes, reader, state, options);
  const usedAt = state.usedRing + IDX;
  // The indirect tables were read after the copy: whoever was used by now does not count.
  const gone = distance(image.usedIdx, reader.u16(usedAt) ?? image.usedIdx);
  const lasting = chains.filter(({ chain }) => distance(image.usedIdx, chain.position) >= gone);
  return {
    indexes,
    suppression: suppressionOf(image, indexes, state.size, options.eventIdx),
    chains: lasting,
    used: usedOf(image, state.size, violations),
    violations,
    readable: true,
    moving: image.moved || gone > 0,
  };
}

function unreadable(state: Readonly<QueueState>, violations: Violations): Findings {
  const unknown: Suppression = { wants: 'unknown', event: null, reached: null, words: 'unknown' };
  return {
    indexes: {
      nextAvail: state.nextAvail,
      nextAvailFrom: 'state',
      pending: null,
      inFlight: null,
      usedWaiting: null,
      usedWaitingFrom: null,
    },
    suppression: { kick: unknown, call: unknown },
    chains: [],
    used: [],
    violations,
    readable: false,
    moving: false,
  };
}

function copy(
  reader: RingReader,
  state: Readonly<QueueState>,
  eventIdx: boolean,
  violations: Violations,
): Image | null {
  const { size } = state;
  if (!isQueueSize(size)) {
    violations.add('queue-size', 'the queue', `${size} entries`, 'a power of two from 1 to 32768');
  }
  const part = (name: string, at: number, alignment: number, bytes: number): DataView | null => {
    if (at % alignment !== 0) violations.add('alignment', name, hexAddress(at), `a multiple of ${alignment}`);
    const copied = reader.copy(at, bytes);
    if (copied === null) {
      const found = `${hexAddress(at)} with ${bytes} bytes`;
      violations.add('ring-outside-memory', name, found, 'wholly inside one memory region');
    }
    return copied;
  };
  const usedBefore = reader.u16(state.usedRing + IDX);
  const availIdx = reader.u16(state.availRing + IDX);
  const desc = part('the descriptor table', state.descTable, VRING_DESC_ALIGN_SIZE, descTableBytes(size));
  const avail = part('the available ring', state.availRing, VRING_AVAIL_ALIGN_SIZE, availRingBytes(size, eventIdx));
  const used = part('the used ring', state.usedRing, VRING_USED_ALIGN_SIZE, usedRingBytes(size, eventIdx));
  const usedIdx = reader.u16(state.usedRing + IDX);
  const availAfter = reader.u16(state.availRing + IDX);
  if (desc === null || avail === null || used === null) return null;
  if (usedBefore === null || availIdx === null || usedIdx === null || availAfter === null) return null;
  // Whatever was available at the first look and not used at the second stood still in between. All of it may have been used.
  const overtaken = usedBefore !== usedIdx && distance(availIdx, usedIdx) < 0x8000;
  const moved = usedBefore !== usedIdx || availIdx !== availAfter;
  return { desc, avail, used, availIdx: overtaken ? usedIdx : availIdx, availAfter, usedIdx, usedBefore, moved };
}

function indexesOf(
  image: Image,
  state: Readonly<QueueState>,
  options: SplitInspectOptions,
  violations: Violations,
): Indexes {
  const { availIdx, availAfter, usedIdx } = image;
  const { size } = state;
  const outstanding = distance(usedIdx, availIdx);
  const indexes: Indexes = {
    availIdx,
    usedIdx,
    nextAvail: state.nextAvail,
    nextAvailFrom: 'state',
    pending: null,
    inFlight: null,
    usedWaiting: null,
    usedWaitingFrom: null,
  };
  if (outstanding > size && distance(usedIdx, availAfter) <= size) {
    // The first look met an index half written: what is available cannot be told from this attempt.
    indexes.nextAvail = usedIdx;
  } else if (outstanding > size) {
    const ahead = outstanding >= 0x8000;
    violations.add(
      ahead ? 'used-ahead' : 'index-distance',
      'the indexes',
      `available index ${availIdx}, used index ${usedIdx}`,
      ahead ? 'a used index not ahead of the available index' : `at most ${size} apart`,
    );
  } else if (distance(usedIdx, state.nextAvail) <= outstanding) {
    indexes.pending = distance(state.nextAvail, availIdx);
    indexes.inFlight = outstanding - indexes.pending;
  } else if (options.running === true) {
    indexes.nextAvail = usedIdx;
    indexes.nextAvailFrom = 'used index';
    indexes.pending = outstanding;
    indexes.inFlight = 0;
  } else {
    const expected = `from the used index ${usedIdx} to the available index ${availIdx}`;
    violations.add('position', 'the next available index', `${state.nextAvail}`, expected);
  }
  const usedEvent = options.eventIdx ? eventOf(image.avail, 4 + 2 * size) : null;
  if (options.usedSeen !== undefined) {
    indexes.usedWaiting = distance(options.usedSeen, usedIdx);
    indexes.usedWaitingFrom = 'driver';
    if (indexes.usedWaiting > size) {
      const found = `the driver took up to ${options.usedSeen}, the used index is ${usedIdx}`;
      violations.add('index-distance', 'the used ring', found, `at most ${size} apart`);
    }
  } else if (usedEvent !== null && distance(usedEvent, usedIdx) <= size) {
    indexes.usedWaiting = distance(usedEvent, usedIdx);
    indexes.usedWaitingFrom = 'used_event';
  }
  return indexes;
}

const eventOf = (ring: DataView, at: number): number => ring.getUint16(at, true);

function chainsOf(
  image: Image,
  { nextAvail, nextAvailFrom, pending }: Indexes,
  reader: RingReader,
  { size }: Readonly<QueueState>,
  { indirect, role }: SplitInspectOptions,
): ChainInspection[] {
  const rules = chainRules({ reader, format: 'split', size, indirect, role });
  // Who owns a descriptor: each is read once, so that all chains together end after `size` steps.
  const owners = new Int32Array(size).fill(-1);
  const heads = new Uint8Array(size);
  const chains: ChainInspection[] = [];
  for (let number = 0; number < (pending ?? 0); number++) {
    const index = (nextAvail + number) & 0xffff;
    const head = image.avail.getUint16(4 + 2 * (index % size), true);
    const inspection = new ChainInspection(rules, index, head, `available index ${index}, head ${head}`);
    chains.push(inspection);
    if (head >= size) {
      inspection.end('head-range', '', `head ${head}`, `below ${size}, the queue size`);
    } else if (heads[head] === 1) {
      // Where only a lower bound is known, an entry before it may be used already and its head available again.
      if (nextAvailFrom === 'state') inspection.end('duplicate-id', '', `head ${head} again`, 'each head once');
      else inspection.chain.whole = false;
    } else {
      heads[head] = 1;
      walk(inspection, rules, image.desc, owners, number, nextAvailFrom === 'state');
    }
    inspection.close();
  }
  return chains;
}

function walk(
  inspection: ChainInspection,
  { size }: ChainRules,
  desc: DataView,
  owners: Int32Array,
  number: number,
  certain: boolean,
): void {
  for (let at = inspection.chain.id; ; ) {
    const owner = owners[at]!;
    if (owner === number) {
      inspection.end('loop', '', `the chain loops at descriptor ${at}`, 'a chain that ends');
      return;
    }
    if (owner !== -1) {
      if (certain)
        inspection.end('shared-descriptor', '', `descriptor ${at} of another available chain`, 'its own only');
      else inspection.chain.whole = false;
      return;
    }
    owners[at] = number;
    const raw = descriptorAt(desc, at);
    const { third: flags, fourth: next } = raw;
    const more = (flags & VRING_DESC_F_NEXT) !== 0;
    inspection.list(raw, flags, at, more ? next : null);
    const detail = `descriptor ${at}`;
    if ((flags & VRING_DESC_F_INDIRECT) !== 0) {
      inspection.table(raw, flags, detail);
      return;
    }
    inspection.buffer(raw, flags, detail);
    if (!more) return;
    if (next >= size) {
      inspection.end('next-range', detail, `next is ${next}`, `below ${size}, the queue size`);
      return;
    }
    at = next;
  }
}

function usedOf({ used, usedBefore }: Image, size: number, violations: Violations): InspectedUsed[] {
  const elements: InspectedUsed[] = [];
  // A used index below the size is taken for a young ring: slots beyond it were not written yet.
  const written = Math.min(size, usedBefore);
  for (let back = written; back > 0; back--) {
    const position = (usedBefore - back) & 0xffff;
    const at = 4 + VRING_USED_ELEM_SIZE * (position % size);
    const id = used.getUint32(at, true);
    if (id >= size) {
      violations.add('used-id-range', `used index ${position}`, `id ${id}`, `below ${size}, the queue size`);
    }
    if (back <= USED_SHOWN) elements.push({ position, id, length: used.getUint32(at + 4, true) });
  }
  return elements;
}

function suppressionOf(
  { avail, used, usedIdx }: Image,
  { nextAvail, pending, usedWaiting, usedWaitingFrom }: Indexes,
  size: number,
  eventIdx: boolean,
): { kick: Suppression; call: Suppression } {
  if (!eventIdx) {
    const kicks = (used.getUint16(0, true) & VRING_USED_F_NO_NOTIFY) === 0;
    const calls = (avail.getUint16(0, true) & VRING_AVAIL_F_NO_INTERRUPT) === 0;
    return {
      kick: byFlag(kicks, 'a kick for whatever is made available', 'no kicks (used.flags NO_NOTIFY)'),
      call: byFlag(calls, 'a call for whatever is used', 'no calls (avail.flags NO_INTERRUPT)'),
    };
  }
  const kickAt = eventOf(used, 4 + VRING_USED_ELEM_SIZE * size);
  const callAt = eventOf(avail, 4 + 2 * size);
  const ahead = distance(nextAvail, kickAt);
  const reached = ahead < (pending ?? 0) ? 'reached' : ahead < 0x8000 ? 'ahead' : 'behind';
  const kickWords = {
    reached: `a kick at available index ${kickAt} (avail_event), which the driver has passed`,
    ahead: `a kick at available index ${kickAt} (avail_event), which the driver has not passed`,
    behind: `no kick now: avail_event ${kickAt} lies behind index ${nextAvail}`,
  };
  return {
    kick: { wants: 'at', event: kickAt, reached, words: kickWords[reached] },
    call: callOf(callAt, usedIdx, usedWaitingFrom === 'driver' ? usedWaiting! : 0),
  };
}

/** `waiting` used chains are known to wait for the driver. */
function callOf(event: number, usedIdx: number, waiting: number): Suppression {
  const passed = distance(event, usedIdx);
  const reached = passed === 0 || passed >= 0x8000 ? 'ahead' : passed <= waiting ? 'reached' : 'behind';
  const words = {
    reached: 'which the device has passed',
    ahead: 'which the device has not passed',
    behind: 'passed: not asked for again since',
  };
  return { wants: 'at', event, reached, words: `a call at used index ${event} (used_event), ${words[reached]}` };
}

function byFlag(on: boolean, always: string, never: string): Suppression {
  return { wants: on ? 'always' : 'never', event: null, reached: null, words: on ? always : never };
}
