/** The part of a BPF program that looks a vid up in a table of 4,096 bits. */
import {
  BPF_ALU,
  BPF_AND,
  BPF_IMM,
  BPF_JGE,
  BPF_JSET,
  BPF_K,
  BPF_LD,
  BPF_MEM,
  BPF_MISC,
  BPF_RSH,
  BPF_ST,
  BPF_TAX,
  BPF_X,
} from '../constants/bpf';
import type { BpfAssembler, BpfLabel } from './bpf-assembler';

const VID_MASK = 0xfff;
/** Bits of the table that are one immediate operand. */
const WORD_BITS = 32;
const SCRATCH = 0;
const NONE = 0;
const ALL = 0xffffffff;

/** Neighbouring words of the table with the same bits. */
interface Run {
  /** The first vid. */
  readonly first: number;
  readonly word: number;
}

/**
 * Begins with the tag control information in A. Halves the table until one word is left, at most 7 times. Words of zeros and ones are
 * verdicts; of any other the bit is tested by code that all share. Of 128 different words the whole is about 390 instructions, more than
 * which it cannot become.
 */
export function vlanLookup(asm: BpfAssembler, vlans: Readonly<Uint8Array>, pass: BpfLabel, drop: BpfLabel): void {
  const runs = runsOf(vlans);
  const testBit = asm.label();
  const verdict = ({ word }: Run): BpfLabel | null => (word === NONE ? drop : word === ALL ? pass : null);

  const search = (from: number, to: number): void => {
    if (to - from === 1) {
      const known = verdict(runs[from]!);
      if (known === null) asm.statement(BPF_LD | BPF_IMM, runs[from]!.word);
      asm.goto(known ?? testBit);
      return;
    }
    const middle = (from + to) >> 1;
    const lower = middle - from === 1 ? verdict(runs[from]!) : null;
    const knownUpper = to - middle === 1 ? verdict(runs[middle]!) : null;
    const upper = knownUpper ?? asm.label();
    asm.jump(BPF_JGE, runs[middle]!.first, upper, lower);
    if (lower === null) search(from, middle);
    if (knownUpper !== null) return;
    asm.place(upper);
    search(middle, to);
  };

  asm.statement(BPF_ST, SCRATCH);
  asm.statement(BPF_ALU | BPF_AND | BPF_K, WORD_BITS - 1);
  asm.statement(BPF_MISC | BPF_TAX);
  asm.statement(BPF_LD | BPF_MEM, SCRATCH);
  asm.statement(BPF_ALU | BPF_AND | BPF_K, VID_MASK);
  search(0, runs.length);
  if (runs.every((run) => verdict(run) !== null)) return;
  asm.place(testBit);
  asm.statement(BPF_ALU | BPF_RSH | BPF_X);
  asm.jump(BPF_JSET, 1, pass, drop);
}

function runsOf(vlans: Readonly<Uint8Array>): Run[] {
  const runs: Run[] = [];
  for (let byte = 0; byte < vlans.length; byte += WORD_BITS / 8) {
    const word = (vlans[byte]! | (vlans[byte + 1]! << 8) | (vlans[byte + 2]! << 16) | (vlans[byte + 3]! << 24)) >>> 0;
    if (runs.at(-1)?.word !== word) runs.push({ first: byte * 8, word });
  }
  return runs;
}
