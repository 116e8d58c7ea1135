/**
 * An assembler for classic BPF whose jumps name labels. Jumps go forward only, as the kernel demands; a conditional jump reaches 255
 * instructions, and one that must go further goes through a BPF_JA that is put behind it.
 */
import {
  BPF_CLASS_MASK,
  BPF_JA,
  type BPF_JEQ,
  type BPF_JGE,
  type BPF_JGT,
  BPF_JMP,
  type BPF_JSET,
  BPF_K,
  BPF_MAXINSNS,
  BPF_RET,
  BPF_X,
  SOCK_FILTER_SIZE,
} from '../constants/bpf';
import { invalidArgument } from '../errors';

/** jt and jf are one byte each. */
const REACH = 0xff;
const GOTO = BPF_JMP | BPF_JA | BPF_K;

/** A place in one program; of the assembler that made it. */
export type BpfLabel = number;
export type BpfComparison = typeof BPF_JEQ | typeof BPF_JGT | typeof BPF_JGE | typeof BPF_JSET;

interface Item {
  readonly code: number;
  readonly k: number;
  /** Of jumps; null is the instruction that follows. */
  readonly whenTrue: BpfLabel | null;
  readonly whenFalse: BpfLabel | null;
  /** A BPF_JA behind the jump goes the rest of the way. */
  farTrue: boolean;
  farFalse: boolean;
}

export class BpfAssembler {
  readonly #items: Item[] = [];
  /** By label: the index of the item it stands before, or -1. */
  readonly #places: number[] = [];

  /** A new label, which `place` is to put somewhere. */
  label(): BpfLabel {
    return this.#places.push(-1) - 1;
  }

  /** The label stands before whatever comes next. */
  place(label: BpfLabel): void {
    if (this.#places[label] !== -1) throw invalidArgument(`label ${label} is placed twice or not of this program`);
    this.#places[label] = this.#items.length;
  }

  /** Anything but a jump. `k` is taken modulo 2^32. */
  statement(code: number, k = 0): void {
    if ((code & BPF_CLASS_MASK) === BPF_JMP) throw invalidArgument(`code 0x${code.toString(16)} is a jump`);
    this.#push(code, k, null, null);
  }

  goto(label: BpfLabel): void {
    this.#push(GOTO, 0, label, null);
  }

  /** Compares register A with `k`, or with register X when `k` is null. */
  jump(comparison: BpfComparison, k: number | null, whenTrue: BpfLabel | null, whenFalse: BpfLabel | null): void {
    this.#push(BPF_JMP | comparison | (k === null ? BPF_X : BPF_K), k ?? 0, whenTrue, whenFalse);
  }

  #push(code: number, k: number, whenTrue: BpfLabel | null, whenFalse: BpfLabel | null): void {
    this.#items.push({ code, k: k >>> 0, whenTrue, whenFalse, farTrue: false, farFalse: false });
  }

  /**
   * The program, SOCK_FILTER_SIZE bytes an instruction. Throws VHOST_ERR_INVALID_ARGUMENT for a jump that goes back, out of the program
   * or nowhere, a program that does not end in BPF_RET, and one of more than BPF_MAXINSNS.
   */
  assemble(): Uint8Array {
    this.#check();
    let addresses = this.#addresses();
    // Jumps only ever become far, and that only moves things apart: it ends, and what is far stays rightly so.
    while (this.#lengthen(addresses)) addresses = this.#addresses();
    const length = addresses[this.#items.length]!;
    if (length > BPF_MAXINSNS)
      throw invalidArgument(`a BPF program of ${length} instructions`, `${BPF_MAXINSNS} at most`);
    return this.#encode(addresses, length);
  }

  #check(): void {
    for (const [index, { whenTrue, whenFalse }] of this.#items.entries()) {
      for (const label of [whenTrue, whenFalse]) {
        if (label === null) continue;
        const place = this.#places[label] ?? -1;
        if (place < 0) throw invalidArgument(`a BPF jump to label ${label}, which is placed nowhere`);
        if (place <= index) throw invalidArgument(`a BPF jump back to label ${label}`, 'jumps go forward only');
        if (place === this.#items.length) throw invalidArgument(`label ${label} is behind the last BPF instruction`);
      }
    }
    if (((this.#items.at(-1)?.code ?? 0) & BPF_CLASS_MASK) !== BPF_RET) {
      throw invalidArgument('a BPF program that does not end in BPF_RET');
    }
  }

  /** Where each item begins, and last where the program ends. */
  #addresses(): number[] {
    const addresses = [0];
    for (const { farTrue, farFalse } of this.#items) {
      addresses.push(addresses.at(-1)! + 1 + Number(farTrue) + Number(farFalse));
    }
    return addresses;
  }

  /** Marks jumps that do not reach; whether there was one. */
  #lengthen(addresses: readonly number[]): boolean {
    let changed = false;
    for (const [index, item] of this.#items.entries()) {
      if ((item.code & BPF_CLASS_MASK) !== BPF_JMP || item.code === GOTO) continue;
      const farTrue = item.farTrue || this.#distance(addresses, index, item.whenTrue) > REACH;
      const farFalse = item.farFalse || this.#distance(addresses, index, item.whenFalse) > REACH;
      if (farTrue !== item.farTrue || farFalse !== item.farFalse) changed = true;
      item.farTrue = farTrue;
      item.farFalse = farFalse;
    }
    return changed;
  }

  /** Instructions between the jump and where it goes. */
  #distance(addresses: readonly number[], index: number, label: BpfLabel | null): number {
    const to = label === null ? index + 1 : this.#places[label]!;
    return addresses[to]! - addresses[index]! - 1;
  }

  #encode(addresses: readonly number[], length: number): Uint8Array {
    const view = new DataView(new ArrayBuffer(length * SOCK_FILTER_SIZE));
    let at = 0;
    const write = (code: number, jt: number, jf: number, k: number): void => {
      view.setUint16(at, code, true);
      view.setUint8(at + 2, jt);
      view.setUint8(at + 3, jf);
      view.setUint32(at + 4, k, true);
      at += SOCK_FILTER_SIZE;
    };
    for (const [index, item] of this.#items.entries()) {
      const { code, k, whenTrue, whenFalse, farTrue, farFalse } = item;
      if (code === GOTO) write(GOTO, 0, 0, this.#distance(addresses, index, whenTrue));
      else if ((code & BPF_CLASS_MASK) !== BPF_JMP) write(code, 0, 0, k);
      else {
        const toTrue = this.#distance(addresses, index, whenTrue);
        const toFalse = this.#distance(addresses, index, whenFalse);
        write(code, farTrue ? 0 : toTrue, farFalse ? Number(farTrue) : toFalse, k);
        if (farTrue) write(GOTO, 0, 0, toTrue - 1);
        if (farFalse) write(GOTO, 0, 0, toFalse - 1 - Number(farTrue));
      }
    }
    return new Uint8Array(view.buffer);
  }
}
