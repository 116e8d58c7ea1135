/**
 * Classic BPF as the kernel takes and runs it, written from Documentation/networking/filter.rst and net/core/filter.c's rules with opcodes
 * as plain numbers: it shares nothing with the generator.
 */

export interface Instruction {
  code: number;
  jt: number;
  jf: number;
  k: number;
}

/** A tag that the kernel has taken out of the frame. */
export interface MetadataTag {
  tci: number;
  tpid: number;
}

export function decodeBpf(program: Uint8Array): Instruction[] {
  const view = new DataView(program.buffer, program.byteOffset, program.byteLength);
  return Array.from({ length: program.length / 8 }, (_, index) => ({
    code: view.getUint16(8 * index, true),
    jt: view.getUint8(8 * index + 2),
    jf: view.getUint8(8 * index + 3),
    k: view.getUint32(8 * index + 4, true),
  }));
}

export function encodeBpf(instructions: readonly Instruction[]): Uint8Array {
  const view = new DataView(new ArrayBuffer(8 * instructions.length));
  for (const [index, { code, jt, jf, k }] of instructions.entries()) {
    view.setUint16(8 * index, code, true);
    view.setUint8(8 * index + 2, jt);
    view.setUint8(8 * index + 3, jf);
    view.setUint32(8 * index + 4, k, true);
  }
  return new Uint8Array(view.buffer);
}

const LOADS = [0x00, 0x20, 0x28, 0x30, 0x40, 0x48, 0x50, 0x60, 0x80, 0x01, 0x61, 0x81, 0xb1];
const STORES = [0x02, 0x03];
const ARITHMETIC = [0x04, 0x14, 0x24, 0x34, 0x44, 0x54, 0x64, 0x74, 0x94, 0xa4].flatMap((code) => [code, code | 8]);
const NEGATE = 0x84;
const GOTO = 0x05;
const COMPARISONS = [0x15, 0x25, 0x35, 0x45].flatMap((code) => [code, code | 8]);
const RETURNS = [0x06, 0x16];
const MOVES = [0x07, 0x87];
const CODES = new Set([...LOADS, ...STORES, ...ARITHMETIC, NEGATE, GOTO, ...COMPARISONS, ...RETURNS, ...MOVES]);
const ANCILLARY = 0xfffff000;
const KNOWN_ANCILLARY = Array.from({ length: 16 }, (_, index) => ANCILLARY + 4 * index);

/** What the kernel would refuse the program for, or null. */
export function bpfFault(program: Uint8Array): string | null {
  if (program.length === 0 || program.length % 8 !== 0) return `${program.length} bytes`;
  const instructions = decodeBpf(program);
  const length = instructions.length;
  if (length > 4096) return `${length} instructions`;
  for (const [at, { code, jt, jf, k }] of instructions.entries()) {
    if (!CODES.has(code)) return `${at}: code 0x${code.toString(16)}`;
    if ((code === 0x34 || code === 0x94) && k === 0) return `${at}: division by 0`;
    if ((code === 0x64 || code === 0x74) && k > 31) return `${at}: shift by ${k}`;
    if ([0x60, 0x61, 0x02, 0x03].includes(code) && k > 15) return `${at}: scratch memory ${k}`;
    if (code === GOTO && k >= length - at - 1) return `${at}: goto out of the program`;
    if (COMPARISONS.includes(code) && (at + jt + 1 >= length || at + jf + 1 >= length)) return `${at}: jump out`;
    if ([0x20, 0x28, 0x30].includes(code) && k >= ANCILLARY && !KNOWN_ANCILLARY.includes(k))
      return `${at}: load of ${k}`;
  }
  if (!RETURNS.includes(instructions[length - 1]!.code)) return 'does not end in a return';
  return scratchFault(instructions);
}

/** Scratch memory is stored to on every way that leads to a load of it. */
function scratchFault(instructions: readonly Instruction[]): string | null {
  const stored = instructions.map(() => 0xffff);
  let valid = 0;
  const reach = (at: number): void => {
    stored[at]! &= valid;
  };
  for (const [at, { code, jt, jf, k }] of instructions.entries()) {
    valid &= stored[at]!;
    if (code === 0x02 || code === 0x03) valid |= 1 << k;
    else if (code === 0x60 || code === 0x61) {
      if ((valid & (1 << k)) === 0) return `${at}: load of scratch memory ${k}, which was not stored`;
    } else if (code === GOTO) {
      reach(at + 1 + k);
      valid = 0xffff;
    } else if (COMPARISONS.includes(code)) {
      reach(at + 1 + jt);
      reach(at + 1 + jf);
      valid = 0xffff;
    }
  }
  return null;
}

/** A program, decoded once, that answers what the kernel's would: bytes to keep, 0 to drop. */
export function bpfRunner(program: Uint8Array): (frame: Uint8Array, tag: MetadataTag | null) => number {
  const fault = bpfFault(program);
  if (fault !== null) throw new Error(`the kernel would refuse this program: ${fault}`);
  const instructions = decodeBpf(program);
  return (frame, tag) => run(instructions, frame, tag);
}

function run(instructions: readonly Instruction[], frame: Uint8Array, tag: MetadataTag | null): number {
  const memory = new Uint32Array(16);
  let a = 0;
  let x = 0;
  for (let at = 0; ; at++) {
    const { code, jt, jf, k } = instructions[at]!;
    switch (code) {
      case 0x20: // ld [k]
      case 0x28: // ldh [k]
      case 0x30: {
        // ldb [k]
        const loaded = k >= ANCILLARY ? ancillary(k - ANCILLARY, tag) : bytes(frame, k, code);
        if (loaded === null) return 0;
        a = loaded;
        break;
      }
      case 0x00: // ld #k
        a = k;
        break;
      case 0x60: // ld M[k]
        a = memory[k]!;
        break;
      case 0x80: // ld #len
        a = frame.length;
        break;
      case 0x02: // st M[k]
        memory[k] = a;
        break;
      case 0x54: // and #k
        a = (a & k) >>> 0;
        break;
      case 0x7c: // rsh x
        a = a >>> (x & 31);
        break;
      case 0x05: // ja k
        at += k;
        break;
      case 0x15: // jeq #k
        at += a === k ? jt : jf;
        break;
      case 0x25: // jgt #k
        at += a > k ? jt : jf;
        break;
      case 0x35: // jge #k
        at += a >= k ? jt : jf;
        break;
      case 0x45: // jset #k
        at += (a & k) !== 0 ? jt : jf;
        break;
      case 0x1d: // jeq x
        at += a === x ? jt : jf;
        break;
      case 0x06: // ret #k
        return k;
      case 0x07: // tax
        x = a;
        break;
      case 0x87: // txa
        a = x;
        break;
      default:
        throw new Error(`code 0x${code.toString(16)} is not interpreted`);
    }
  }
}

/** Big-endian; null beyond the end of the frame. */
function bytes(frame: Uint8Array, offset: number, code: number): number | null {
  const size = code === 0x20 ? 4 : code === 0x28 ? 2 : 1;
  if (offset + size > frame.length) return null;
  let value = 0;
  for (let index = 0; index < size; index++) value = value * 256 + frame[offset + index]!;
  return value;
}

function ancillary(offset: number, tag: MetadataTag | null): number {
  if (offset === 44) return tag?.tci ?? 0;
  if (offset === 48) return tag === null ? 0 : 1;
  if (offset === 60) return tag?.tpid ?? 0;
  // Something else that the kernel knows, which no frame here has.
  return 0xbad;
}
