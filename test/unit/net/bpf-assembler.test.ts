import fc from 'fast-check';
import {
  BPF_ABS,
  BPF_B,
  BPF_JEQ,
  BPF_JGE,
  BPF_JGT,
  BPF_JMP,
  BPF_JSET,
  BPF_K,
  BPF_LD,
  BPF_RET,
} from '../../../lib/constants/bpf';
import { BpfAssembler, type BpfLabel } from '../../../lib/net/bpf-assembler';
import { bpfFault, bpfRunner, decodeBpf, encodeBpf } from '../../helpers/bpf-interpreter';

const LOAD_BYTE = BPF_LD | BPF_B | BPF_ABS;
const RETURN = BPF_RET | BPF_K;

test('instructions are 8 bytes: code, jt, jf, k', () => {
  const asm = new BpfAssembler();
  const [yes, no] = [asm.label(), asm.label()];
  asm.statement(LOAD_BYTE, 0x01020304);
  asm.jump(BPF_JEQ, -2, yes, no);
  asm.place(no);
  asm.statement(RETURN, 0);
  asm.goto(yes);
  asm.place(yes);
  asm.statement(RETURN, 0xffffffff);
  expect(Buffer.from(asm.assemble()).toString('hex')).toBe(
    ['3000000004030201', '15000200feffffff', '0600000000000000', '0500000000000000', '06000000ffffffff'].join(''),
  );
});

test('null is the instruction that follows; without k the comparison is with X', () => {
  const asm = new BpfAssembler();
  const end = asm.label();
  asm.jump(BPF_JGT, 7, null, end);
  asm.jump(BPF_JEQ, null, end, null);
  asm.statement(RETURN, 1);
  asm.place(end);
  asm.statement(RETURN, 2);
  expect(decodeBpf(asm.assemble()).slice(0, 2)).toEqual([
    { code: 0x25, jt: 0, jf: 2, k: 7 },
    { code: 0x1d, jt: 1, jf: 0, k: 0 },
  ]);
});

/** A jump over `between` instructions, both ways to labels, on whether the first byte is 1. */
function over(between: number, farther: number): BpfAssembler {
  const asm = new BpfAssembler();
  const [yes, no] = [asm.label(), asm.label()];
  asm.statement(LOAD_BYTE, 0);
  asm.jump(BPF_JEQ, 1, yes, no);
  for (let index = 0; index < between; index++) asm.statement(RETURN, 0xbad);
  asm.place(yes);
  asm.statement(RETURN, 1);
  for (let index = 0; index < farther; index++) asm.statement(RETURN, 0xbad);
  asm.place(no);
  asm.statement(RETURN, 2);
  return asm;
}

test.each([
  [0, 0, 0],
  [254, 0, 0],
  [254, 300, 1],
  [255, 0, 2],
  [256, 0, 2],
  [0, 254, 0],
  [0, 255, 1],
  [4000, 30, 2],
])('a jump over %i instructions, and %i more when false, needs %i more instructions', (between, farther, more) => {
  const program = over(between, farther).assemble();
  expect(program.length / 8).toBe(4 + between + farther + more);
  expect(bpfFault(program)).toBeNull();
  const run = bpfRunner(program);
  expect([run(Uint8Array.of(1), null), run(Uint8Array.of(0), null)]).toEqual([1, 2]);
});

test('one jump that becomes far can make another far', () => {
  const asm = new BpfAssembler();
  const [first, second, third] = [asm.label(), asm.label(), asm.label()];
  asm.statement(LOAD_BYTE, 0);
  asm.jump(BPF_JEQ, 1, first, null);
  asm.jump(BPF_JEQ, 2, second, null);
  asm.jump(BPF_JEQ, 3, third, null);
  for (let index = 0; index < 253; index++) asm.statement(RETURN, 0xbad);
  asm.place(first);
  asm.statement(RETURN, 1);
  asm.place(second);
  asm.statement(RETURN, 2);
  asm.statement(RETURN, 0xbad);
  asm.place(third);
  asm.statement(RETURN, 3);
  const program = asm.assemble();
  // Only the third is too far by itself.
  expect(program.length / 8).toBe(4 + 253 + 4 + 3);
  const run = bpfRunner(program);
  expect([1, 2, 3, 4].map((value) => run(Uint8Array.of(value), null))).toEqual([1, 2, 3, 0xbad]);
});

/** A program as a list: where each jump goes is counted in items from it. */
const item = fc.oneof(
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('load' as const), k: fc.nat(3) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('goto' as const), by: fc.integer({ min: 1, max: 900 }) }) },
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('jump' as const),
      comparison: fc.constantFrom(BPF_JEQ, BPF_JGT, BPF_JGE, BPF_JSET),
      k: fc.nat(3),
      whenTrue: fc.option(fc.integer({ min: 1, max: 900 })),
      whenFalse: fc.option(fc.integer({ min: 1, max: 900 })),
    }),
  },
);

test('every program does what it would if jumps reached everywhere', () => {
  let far = 0;
  fc.assert(
    fc.property(
      fc.array(item, { maxLength: 1200, size: 'max' }),
      fc.array(fc.uint8Array({ minLength: 4, maxLength: 4, max: 4 }), { minLength: 4, maxLength: 4 }),
      (items, frames) => {
        const asm = new BpfAssembler();
        const labels = Array.from({ length: items.length + 1 }, () => asm.label());
        const to = (index: number, by: number | null): BpfLabel | null =>
          by === null ? null : labels[Math.min(index + by, items.length)]!;
        for (const [index, one] of items.entries()) {
          asm.place(labels[index]!);
          if (one.kind === 'load') asm.statement(LOAD_BYTE, one.k);
          else if (one.kind === 'goto') asm.goto(to(index, one.by)!);
          else asm.jump(one.comparison, one.k, to(index, one.whenTrue), to(index, one.whenFalse));
        }
        asm.place(labels[items.length]!);
        // The last value of A tells which way was gone.
        asm.statement(BPF_RET | 0x10);
        const program = asm.assemble();
        far += Number(program.length / 8 > items.length + 1);
        expect(bpfFault(program)).toBeNull();
        for (const frame of frames) expect(walk(program, frame)).toEqual(walkItems(items, frame));
      },
    ),
    { numRuns: 60 },
  );
  expect(far).toBeGreaterThan(5);
});

type Items = readonly (typeof item extends fc.Arbitrary<infer T> ? T : never)[];

const holds = (comparison: number, a: number, k: number): boolean => {
  if (comparison === BPF_JEQ) return a === k;
  if (comparison === BPF_JGT) return a > k;
  return comparison === BPF_JGE ? a >= k : (a & k) !== 0;
};

/** Every comparison and load that was come by, in order. */
function walkItems(items: Items, frame: Uint8Array): string[] {
  const seen: string[] = [];
  let a = 0;
  for (let at = 0; at < items.length; ) {
    const one = items[at]!;
    let by: number | null = null;
    if (one.kind === 'load') {
      a = frame[one.k]!;
      seen.push(`load ${one.k}`);
    } else if (one.kind === 'goto') by = one.by;
    else {
      seen.push(`${one.comparison} ${one.k}`);
      by = holds(one.comparison, a, one.k) ? one.whenTrue : one.whenFalse;
    }
    at = by === null ? at + 1 : Math.min(at + by, items.length);
  }
  return seen;
}

function walk(program: Uint8Array, frame: Uint8Array): string[] {
  const instructions = decodeBpf(program);
  const seen: string[] = [];
  let a = 0;
  for (let at = 0; ; at++) {
    const { code, jt, jf, k } = instructions[at]!;
    if ((code & 7) === BPF_RET) return seen;
    if (code === LOAD_BYTE) {
      a = frame[k]!;
      seen.push(`load ${k}`);
    } else if (code === BPF_JMP) at += k;
    else {
      seen.push(`${code & 0xf0} ${k}`);
      at += holds(code & 0xf0, a, k) ? jt : jf;
    }
  }
}

describe('refused:', () => {
  const refuses = (what: RegExp, build: (asm: BpfAssembler) => void): void => {
    const asm = new BpfAssembler();
    const run = (): Uint8Array => {
      build(asm);
      return asm.assemble();
    };
    expect(run).toThrow(expect.objectContaining({ code: 'VHOST_ERR_INVALID_ARGUMENT' }) as Error);
    expect(() => asm.assemble()).toThrow(what);
  };

  test('a jump to a label that is placed nowhere, or before it, or at the end', () => {
    refuses(/placed nowhere/, (asm) => {
      asm.goto(asm.label());
      asm.statement(RETURN);
    });
    refuses(/jump back/, (asm) => {
      const label = asm.label();
      asm.place(label);
      asm.jump(BPF_JEQ, 0, label, null);
      asm.statement(RETURN);
    });
    refuses(/behind the last/, (asm) => {
      const label = asm.label();
      asm.jump(BPF_JEQ, 0, null, label);
      asm.statement(RETURN);
      asm.place(label);
    });
  });

  test('a label placed twice, or of another program; a jump that is passed as a statement', () => {
    const asm = new BpfAssembler();
    const label = asm.label();
    asm.place(label);
    expect(() => asm.place(label)).toThrow(/placed twice/);
    expect(() => asm.place(label + 1)).toThrow(/not of this program/);
    expect(() => asm.statement(BPF_JMP)).toThrow(/is a jump/);
  });

  test('programs of none and of more than 4,096 instructions, and those without an end', () => {
    refuses(/does not end/, () => {});
    refuses(/does not end/, (asm) => asm.statement(LOAD_BYTE));
    refuses(/4097 instructions/, (asm) => {
      for (let index = 0; index < 4097; index++) asm.statement(RETURN);
    });
    const asm = new BpfAssembler();
    for (let index = 0; index < 4096; index++) asm.statement(RETURN);
    expect(bpfFault(asm.assemble())).toBeNull();
  });
});

test("the checker knows the kernel's rules", () => {
  const ret = { code: 0x06, jt: 0, jf: 0, k: 0 };
  const faults = (...instructions: { code: number; jt?: number; jf?: number; k?: number }[]): string | null =>
    bpfFault(encodeBpf(instructions.map((one) => ({ jt: 0, jf: 0, k: 0, ...one }))));
  expect(faults(ret)).toBeNull();
  expect(faults()).toMatch(/0 bytes/);
  expect(bpfFault(new Uint8Array(12))).toMatch(/12 bytes/);
  expect(faults({ code: 0x00 })).toMatch(/does not end/);
  expect(faults({ code: 0x08 }, ret)).toMatch(/code 0x8/);
  expect(faults({ code: 0x05, k: 1 }, ret)).toMatch(/goto/);
  expect(faults({ code: 0x05, k: 0 }, ret)).toBeNull();
  expect(faults({ code: 0x15, jt: 1 }, ret)).toMatch(/jump out/);
  expect(faults({ code: 0x15, jf: 1 }, ret)).toMatch(/jump out/);
  expect(faults({ code: 0x74, k: 32 }, ret)).toMatch(/shift/);
  expect(faults({ code: 0x34 }, ret)).toMatch(/division/);
  expect(faults({ code: 0x60 }, ret)).toMatch(/not stored/);
  expect(faults({ code: 0x15, jt: 1 }, { code: 0x02 }, { code: 0x60 }, ret)).toMatch(/not stored/);
  expect(faults({ code: 0x02 }, { code: 0x60 }, ret)).toBeNull();
  expect(faults({ code: 0x02, k: 16 }, ret)).toMatch(/scratch/);
  expect(faults({ code: 0x28, k: 0xffffffff }, ret)).toMatch(/load of/);
  expect(faults({ code: 0x20, k: 0xfffff000 + 44 }, ret)).toBeNull();
});
