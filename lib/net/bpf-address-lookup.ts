/** The part of a BPF program that finds a frame's destination in a list of addresses. */
import { BPF_ABS, BPF_JEQ, BPF_JGE, BPF_LD, BPF_MISC, BPF_TXA, BPF_W } from '../constants/bpf';
import type { BpfAssembler, BpfLabel } from './bpf-assembler';
import { ETHER_DESTINATION, parseMac } from './ethernet';

/** As many are compared one after the other; more are halved first. */
const LINEAR = 4;

/** Addresses with the same low 32 bits. */
interface Entry {
  readonly low: number;
  /** The high 16 bits of each. */
  readonly highs: Set<number>;
}

/**
 * Begins with the high 16 bits of the destination in X. The low 32 are searched for; addresses that share the high 16 (IPv6 multicast, one
 * vendor's) share the code that compares those.
 */
export function addressLookup(
  asm: BpfAssembler,
  addresses: readonly string[],
  found: BpfLabel,
  otherwise: BpfLabel,
): void {
  const entries = sorted(addresses);
  /** The comparisons still to be written, by the high bits they look for. */
  const comparisons = new Map<string, { label: BpfLabel; highs: readonly number[] }>();

  const comparison = (entry: Entry): BpfLabel => {
    const highs = [...entry.highs].sort((a, b) => a - b);
    const key = highs.join();
    const known = comparisons.get(key) ?? { label: asm.label(), highs };
    comparisons.set(key, known);
    return known.label;
  };

  const search = (from: number, to: number): void => {
    if (to - from <= LINEAR) {
      for (let index = from; index < to; index++) {
        const entry = entries[index]!;
        asm.jump(BPF_JEQ, entry.low, comparison(entry), index + 1 === to ? otherwise : null);
      }
      return;
    }
    const middle = (from + to) >> 1;
    const upper = asm.label();
    asm.jump(BPF_JGE, entries[middle]!.low, upper, null);
    search(from, middle);
    asm.place(upper);
    search(middle, to);
  };

  asm.statement(BPF_LD | BPF_W | BPF_ABS, ETHER_DESTINATION + 2);
  search(0, entries.length);
  for (const { label, highs } of comparisons.values()) {
    asm.place(label);
    asm.statement(BPF_MISC | BPF_TXA);
    for (const [index, high] of highs.entries()) {
      asm.jump(BPF_JEQ, high, found, index + 1 === highs.length ? otherwise : null);
    }
  }
}

/** Ascending by the low 32 bits. */
function sorted(addresses: readonly string[]): Entry[] {
  const entries = new Map<number, Entry>();
  for (const address of addresses) {
    const view = new DataView(parseMac(address).buffer);
    const low = view.getUint32(2);
    const entry = entries.get(low) ?? { low, highs: new Set<number>() };
    entry.highs.add(view.getUint16(0));
    entries.set(low, entry);
  }
  return [...entries.values()].sort((a, b) => a.low - b.low);
}
