import { compareAccounts, type DestinationAccount, type SourceAccount } from '../../../lib/migration/handover/account';

const SOURCE: SourceAccount = {
  read: 20,
  sent: 10,
  own: 4,
  groupAfterCut: 5,
  markers: 1,
  late: 0,
  dropped: 0,
  cutBy: 'marker',
  weakGraces: 0,
};
const DESTINATION: DestinationAccount = {
  discarded: 100,
  read: 12,
  own: 3,
  matched: 4,
  kept: 5,
  received: 10,
  dropped: 0,
  ambiguous: 0,
  disagreeing: 0,
  missing: 0,
  unordered: 0,
  weakGraces: 0,
  complete: true,
  firstReceivedMs: 1,
  firstSentMs: null,
};

const reasons = (source: Partial<SourceAccount> | null, destination: Partial<DestinationAccount> = {}) =>
  compareAccounts(source === null ? null : { ...SOURCE, ...source }, { ...DESTINATION, ...destination }).unproven;

test('accounts that agree prove it', () => {
  expect(compareAccounts(SOURCE, DESTINATION)).toEqual({ source: SOURCE, destination: DESTINATION, unproven: [] });
});

test.each<[string, Partial<SourceAccount>, Partial<DestinationAccount>, RegExp]>([
  ['one more read than accounted for', { read: 21 }, {}, /the source read 21 frames and accounts for 20/],
  ['one less read', { read: 19 }, {}, /the source read 19/],
  ['own frames miscounted', { own: 5 }, {}, /accounts for 21/],
  ['frames after the cut miscounted', { groupAfterCut: 4 }, {}, /accounts for 19/],
  ['a marker miscounted', { markers: 0 }, {}, /accounts for 19/],
  ['a frame lost on the way', {}, { received: 9 }, /sent 10 frames and 9 arrived/],
  ['a frame doubled on the way', {}, { received: 11 }, /sent 10 frames and 11 arrived/],
  ['a frame too late', { late: 1 }, {}, /1 frames for the guest came to the source's tap too late/],
  ["the source's queue overflowed", { dropped: 2 }, {}, /source's tap overflowed: 2/],
  ["the source's counters cannot be read", { dropped: null }, {}, /not tell what the source's tap dropped/],
  ['no marker', { cutBy: 'timeout' }, {}, /did not come back/],
  ['read at the destination miscounted', {}, { read: 13 }, /destination read 13 frames and accounts for 12/],
  ['matched miscounted', {}, { matched: 3 }, /accounts for 11/],
  ['kept miscounted', {}, { kept: 6 }, /accounts for 13/],
  ['own at the destination miscounted', {}, { own: 2 }, /accounts for 11/],
  ["the destination's queue overflowed", {}, { dropped: 7 }, /destination's tap overflowed: 7/],
  ["the destination's counters cannot be read", {}, { dropped: null }, /not tell what the destination's tap dropped/],
  ['several joins', {}, { ambiguous: 2 }, /2 streams of repeated frames/],
  ['different orders', {}, { disagreeing: 3 }, /3 streams reached the two taps in different orders/],
  ['moved flows', {}, { unordered: 2 }, /2 flows changed queues, perhaps with frames out of order/],
  ['frames that only the source had', {}, { missing: 1 }, /1 frames reached the source's tap after the cut and not/],
  ['a guest that takes nothing', {}, { complete: false }, /did not take/],
  ['weak grace periods, on both sides', { weakGraces: 1 }, { weakGraces: 2 }, /3 grace periods were waits only/],
])('%s is found, and nothing else', (_name, source, destination, reason) => {
  const found = reasons(source, destination);
  expect(found).toEqual([expect.stringMatching(reason)]);
});

test('without the source nothing is known of its tap', () => {
  expect(reasons(null, { complete: false })).toEqual([expect.stringMatching(/source was lost/)]);
});
