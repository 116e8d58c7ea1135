import { join } from '../../../lib/migration/handover/join';

const list = (text: string): bigint[] => [...text].map((letter) => BigInt(letter.codePointAt(0)!));

/** What the guest is given of both taps. */
function given(before: string, after: string, kept: string): string {
  const { isMatched } = join(list(before), list(after), list(kept));
  return before + [...kept].filter((_, index) => !isMatched(index)).join('');
}

const sure = { ambiguous: false, disagrees: false };

test.each([
  // before, after, kept, given
  ['', '', '', ''],
  ['abc', '', '', 'abc'],
  ['', 'ab', 'ab', 'ab'],
  ['', '', 'ab', 'ab'],
  ['abcd', 'ef', 'cdef', 'abcdef'],
  ['abcd', 'ef', 'cdefg', 'abcdefg'],
  ['abcd', 'ef', 'ef', 'abcdef'],
  ['abcd', '', 'cd', 'abcd'],
  ['abcd', 'e', 'cd', 'abcd'],
  // More than all of `before` was kept: nothing of it is new.
  ['abcd', '', 'abcd', 'abcd'],
])('%j and %j against %j', (before, after, kept, expected) => {
  expect(given(before, after, kept)).toBe(expected);
  expect(join(list(before), list(after), list(kept))).toMatchObject(sure);
});

test('a frame that comes again after the cut is not taken for the one before', () => {
  // The one before came when the destination's tap was not open yet.
  expect(given('a', 'a', 'a')).toBe('aa');
  expect(given('xxx', 'x', 'xxx')).toBe('xxxx');
  expect(join(list('xxx'), list('x'), list('xxx'))).toMatchObject({ matched: 2, ambiguous: true });
});

test('what may not have come yet is no reason to take a frame for a new one', () => {
  expect(join(list('abx'), list('x'), list('bx'), 0)).toMatchObject({ matched: 2 });
  expect(join(list('x'), list('x'), list('x'), 0)).toMatchObject({ matched: 1, ambiguous: true });
  expect(join(list('x'), list('x'), list('x'), 1)).toMatchObject({ matched: 0, ambiguous: true });
});

test('repeated frames between others do no harm', () => {
  expect(given('x1x2x', '3x', '2x3x4')).toBe('x1x2x3x4');
  expect(join(list('x1x2x'), list('3x'), list('2x3x4'))).toMatchObject({ matched: 2, ...sure });
});

test.each([
  ['xxx', '', 'x'],
  ['xxx', '', 'xx'],
  ['abab', '', 'abab'],
  ['aabaab', '', 'aab'],
  ['x', '', 'xx'],
])('%j and %j against %j can be joined in several ways, and that is said', (before, after, kept) => {
  expect(join(list(before), list(after), list(kept))).toMatchObject({ ambiguous: true, disagrees: false });
});

test('the taps differ in order: told, and each content is given as often as it came', () => {
  const found = join(list('abcd'), list('ef'), list('dcef'));
  expect(found).toMatchObject({ matched: 2, disagrees: true });
  expect(given('abcd', 'ef', 'dcef')).toBe('abcdef');
  // Without anything behind the cut it could as well be a frame that repeats.
  expect(join(list('ab'), [], list('ba'))).toMatchObject({ ambiguous: true });
});

test('a frame that the destination never saw', () => {
  expect(join(list('abcd'), list('ef'), list('bde'))).toMatchObject({ disagrees: true });
  expect(given('abcd', 'ef', 'bdef')).toBe('abcdef');
});
