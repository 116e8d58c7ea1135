import { checkTxFilter, offloadChoices } from '../../../lib/host/tap-options';

test('offloads are tried from the richest combination to none', () => {
  expect(offloadChoices(0x1ff)).toEqual([0x1ff, 0xff, 0x7f, 0x1f, 0x0f, 0x07, 0x03, 0x01, 0]);
  expect(offloadChoices(0x07)).toEqual([0x07, 0x03, 0x01, 0]);
  expect(offloadChoices(0)).toEqual([0]);
});

test('bits without their company are left out', () => {
  expect(offloadChoices(0x06)[0]).toBe(0);
  expect(offloadChoices(0x21)[0]).toBe(0x01);
  expect(offloadChoices(0x09)[0]).toBe(0x01);
  expect(() => offloadChoices(-1)).toThrow(/offload/);
});

test('a filter that would let everything through is refused', () => {
  const macs = (unicastAt: number, count: number) =>
    Uint8Array.from(Array.from({ length: count }, (_, i) => [i === unicastAt ? 2 : 1, 0, 0, 0, 0, i]).flat());
  expect(() => checkTxFilter(macs(0, 12))).not.toThrow();
  expect(() => checkTxFilter(macs(8, 9))).toThrow(/address 9/);
  expect(() => checkTxFilter(new Uint8Array(7))).toThrow(/6 each/);
});
