/** One available chain under inspection: its descriptors as data, and which rules they break. Both formats share it. */
import {
  VRING_DESC_F_INDIRECT,
  VRING_DESC_F_NEXT,
  VRING_DESC_F_WRITE,
  VRING_DESC_SIZE,
} from '../constants/virtio-ring';
import { hexAddress, type InspectedChain, type QueueRole, type Rule } from './ring-inspection';
import type { RingReader } from './ring-inspector-reader';
import { consequenceOf, Violations } from './ring-inspector-rules';

/** Entries of indirect tables that one inspection reads, so that it ends soon on any bytes. */
const TABLE_ENTRIES = 65536;
/** Buffers of one chain at least accepted, as many as the kernel takes (UIO_MAXIOV). */
const MAX_BUFFERS = 1024;
const MAX_CHAIN_BYTES = 2 ** 32;

export interface RawDescriptor {
  gpa: bigint;
  length: number;
  /** The two last words: flags and next of a split ring, id and flags of a packed one. */
  third: number;
  fourth: number;
}

export function descriptorAt(table: DataView, index: number): RawDescriptor {
  const at = index * VRING_DESC_SIZE;
  return {
    gpa: table.getBigUint64(at, true),
    length: table.getUint32(at + 8, true),
    third: table.getUint16(at + 12, true),
    fourth: table.getUint16(at + 14, true),
  };
}

/** What all chains of an inspection share. */
export interface ChainRules {
  readonly reader: RingReader;
  readonly format: 'split' | 'packed';
  readonly size: number;
  readonly indirect: boolean;
  readonly role: QueueRole | undefined;
  tableEntriesLeft: number;
}

export function chainRules(rules: Omit<ChainRules, 'tableEntriesLeft'>): ChainRules {
  return { ...rules, tableEntriesLeft: TABLE_ENTRIES };
}

export class ChainInspection {
  readonly chain: InspectedChain;
  readonly violations: Violations;
  /** The first violation that a device does not pass over. */
  blocking: { rule: Rule; words: string } | null = null;
  readonly #rules: ChainRules;
  readonly #where: string;
  #buffers = 0;
  #writable = false;
  readonly #said = new Set<Rule>();

  constructor(rules: ChainRules, position: number, id: number, where: string) {
    this.#rules = rules;
    this.#where = where;
    this.violations = new Violations(rules.format);
    this.chain = { position, id, descriptors: [], readableBytes: 0, writableBytes: 0, whole: true };
  }

  violate(rule: Rule, detail: string, found: string, expected: string): void {
    const where = detail === '' ? this.#where : `${this.#where}, ${detail}`;
    this.violations.add(rule, where, found, expected);
    if (this.blocking === null && consequenceOf(rule) !== 'harmless') {
      this.blocking = { rule, words: `${where}: ${found}` };
    }
  }

  /** A violation after which nothing more of the chain can be read. */
  end(rule: Rule, detail: string, found: string, expected: string): void {
    this.violate(rule, detail, found, expected);
    this.chain.whole = false;
  }

  #once(rule: Rule, detail: string, found: string, expected: string): void {
    if (!this.#said.has(rule)) this.violate(rule, detail, found, expected);
    this.#said.add(rule);
  }

  /** Lists a descriptor; `next` is where NEXT leads, or null. */
  list({ gpa, length }: RawDescriptor, flags: number, index: number, next: number | null, indirect = false): void {
    this.chain.descriptors.push({
      index,
      gpa: hexAddress(gpa),
      length,
      flags: flagNames(flags),
      next,
      place: this.#rules.reader.place(gpa, length),
      table: indirect ? 'indirect' : 'direct',
    });
  }

  /** Accounts for a buffer, which was listed. */
  buffer({ gpa, length }: RawDescriptor, flags: number, detail: string): void {
    const { role, reader } = this.#rules;
    const writable = (flags & VRING_DESC_F_WRITE) !== 0;
    this.#buffers++;
    if (length === 0) this.violate('zero-length', detail, 'a buffer of 0 bytes', 'at least 1 byte');
    else if (reader.place(gpa, length) === 'outside guest memory') {
      const found = `the buffer at ${hexAddress(gpa)} with ${length} bytes lies outside guest memory`;
      this.violate('outside-memory', detail, found, 'all of it in guest memory');
    }
    if (!writable && this.#writable) {
      this.#once('readable-behind-writable', detail, 'a readable buffer behind a writable one', 'readable ones first');
    }
    if (writable && role === 'transmit') {
      this.#once('transmit-writable', detail, 'a writable buffer on a transmit queue', 'readable buffers only');
    }
    if (!writable && role === 'receive') {
      this.#once('receive-readable', detail, 'a readable buffer on a receive queue', 'writable buffers only');
    }
    this.#writable ||= writable;
    if (writable) this.chain.writableBytes += length;
    else this.chain.readableBytes += length;
  }

  /** Reads the indirect table of descriptor `holder`: the chain's end. */
  table(holder: RawDescriptor, flags: number, detail: string): void {
    const { format, indirect, reader, size } = this.#rules;
    const { gpa, length } = holder;
    if (!indirect) {
      this.violate('indirect-not-negotiated', detail, 'INDIRECT', 'no INDIRECT: the feature was not negotiated');
    }
    if ((flags & VRING_DESC_F_NEXT) !== 0) {
      this.violate('indirect-with-next', detail, 'INDIRECT and NEXT in one descriptor', 'one of them');
    }
    if (length === 0 || length % VRING_DESC_SIZE !== 0) {
      this.end('indirect-length', detail, `an indirect table of ${length} bytes`, 'a multiple of 16 above 0');
      return;
    }
    if (reader.place(gpa, length) === 'outside guest memory') {
      const found = `the indirect table at ${hexAddress(gpa)} with ${length} bytes lies outside guest memory`;
      this.end('outside-memory', detail, found, 'all of it in guest memory');
      return;
    }
    if (format === 'split') this.#linked(gpa, length / VRING_DESC_SIZE, detail);
    else this.#sequence(gpa, length / VRING_DESC_SIZE, detail);
    if (this.#buffers > size) {
      this.violate('chain-length', detail, `a chain of more than ${size} buffers`, `${size} at most, the queue size`);
    }
  }

  /** An indirect table of a split virtqueue: linked by next from entry 0 on. */
  #linked(gpa: bigint, entries: number, detail: string): void {
    const seen = new Set<number>();
    for (let at = 0; ; ) {
      const where = `${detail}, table entry ${at}`;
      if (seen.has(at)) {
        this.end('loop', detail, `the chain loops at entry ${at} of its indirect table`, 'a chain that ends');
        return;
      }
      seen.add(at);
      const raw = this.#entry(gpa, at, where);
      if (raw === null) return;
      const { third: flags, fourth: next } = raw;
      const more = (flags & VRING_DESC_F_NEXT) !== 0;
      this.list(raw, flags, at, more ? next : null, true);
      if (!this.#plain(flags, where)) return;
      this.buffer(raw, flags, where);
      if (!more) return;
      if (next >= entries) {
        this.end('next-range', where, `next is ${next}`, `below ${entries}, the entries of the table`);
        return;
      }
      at = next;
    }
  }

  /** An indirect table of a packed virtqueue: every entry in turn. */
  #sequence(gpa: bigint, entries: number, detail: string): void {
    for (let at = 0; at < entries; at++) {
      const where = `${detail}, table entry ${at}`;
      const raw = this.#entry(gpa, at, where);
      if (raw === null) return;
      // Flags other than WRITE are reserved there and a device ignores them, but for a table within a table (section 2.8.19).
      this.list(raw, raw.fourth, at, null, true);
      if (!this.#plain(raw.fourth, where)) return;
      this.buffer(raw, raw.fourth, where);
    }
  }

  #plain(flags: number, where: string): boolean {
    if ((flags & VRING_DESC_F_INDIRECT) === 0) return true;
    this.end('indirect-nested', where, 'an indirect table within an indirect table', 'buffers only');
    return false;
  }

  #entry(gpa: bigint, index: number, where: string): RawDescriptor | null {
    const { reader, size } = this.#rules;
    const most = Math.max(size, MAX_BUFFERS);
    if (this.#buffers >= most) {
      this.end('chain-length', '', `a chain of more than ${most} buffers`, `${size} at most, the queue size`);
      return null;
    }
    if (this.#rules.tableEntriesLeft === 0) {
      this.chain.whole = false;
      return null;
    }
    this.#rules.tableEntriesLeft--;
    const bytes = reader.copy(Number(gpa) + index * VRING_DESC_SIZE, VRING_DESC_SIZE);
    if (bytes === null) {
      this.end('outside-memory', where, 'the entry crosses from one memory region into the next', 'inside one region');
      return null;
    }
    return descriptorAt(bytes, 0);
  }

  /** What can only be said of the chain as a whole. */
  close(): void {
    const { readableBytes, writableBytes, whole } = this.chain;
    const bytes = readableBytes + writableBytes;
    if (bytes > MAX_CHAIN_BYTES) {
      this.violate('chain-bytes', '', `a chain of ${bytes} bytes`, `${MAX_CHAIN_BYTES} bytes at most`);
    }
    if (this.#rules.role === 'control' && whole && writableBytes === 0) {
      this.violate('control-no-status', '', 'a command without a writable byte', 'room for its status');
    }
  }
}

function flagNames(flags: number): string[] {
  const names: string[] = [];
  if ((flags & VRING_DESC_F_NEXT) !== 0) names.push('NEXT');
  if ((flags & VRING_DESC_F_WRITE) !== 0) names.push('WRITE');
  if ((flags & VRING_DESC_F_INDIRECT) !== 0) names.push('INDIRECT');
  return names;
}
