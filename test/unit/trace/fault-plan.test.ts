import { ANY_CALL, FaultPlan } from '../../../lib/trace/fault-plan';

test('strikes the nth call of a name, as often as asked', () => {
  const plan = new FaultPlan().fail('A', { nth: 2, times: 2, errno: 14 });
  const seen = ['A', 'B', 'A', 'A', 'A'].map((name) => plan.check(name));
  expect(seen).toEqual([0, 0, -14, -14, 0]);
  expect(plan.struck).toEqual(['A', 'A']);
  expect(plan.calls).toBe(5);
});

test('any call, counted over all names', () => {
  const plan = new FaultPlan().fail(ANY_CALL, { nth: 3, errno: -5 });
  expect(['A', 'B', 'C', 'D'].map((name) => plan.check(name))).toEqual([0, 0, -5, 0]);
});

test('says whether to make the call, and leaves out what is to be skipped', () => {
  const plan = new FaultPlan().fail('A', { errno: 12, after: true }).skip('B');
  expect(plan.next('A')).toEqual({ action: 'fail-after', errno: -12 });
  expect(plan.next('B')).toEqual({ action: 'skip' });
  expect(plan.next('A')).toBeNull();
  expect(plan.check('B')).toBe(0);
});

test('the first rule that strikes wins, the others count on', () => {
  const plan = new FaultPlan().fail('A', { errno: 1 }).fail('A', { nth: 2, errno: 2 });
  expect([plan.check('A'), plan.check('A'), plan.check('A')]).toEqual([-1, -2, 0]);
});

test('clear forgets the rules', () => {
  const plan = new FaultPlan().fail('A', { errno: 1 });
  expect(plan.clear().check('A')).toBe(0);
  expect(plan.calls).toBe(1);
});

test.each([
  ['errno 0', () => new FaultPlan().fail('A', { errno: 0 })],
  ['errno beyond 4,095', () => new FaultPlan().fail('A', { errno: 4096 })],
  ['a broken errno', () => new FaultPlan().fail('A', { errno: 1.5 })],
  ['call 0', () => new FaultPlan().fail('A', { errno: 1, nth: 0 })],
  ['no time', () => new FaultPlan().skip('A', { times: 0 })],
])('refuses %s', (_name, make) => {
  expect(make).toThrow(expect.objectContaining({ code: 'VHOST_ERR_INVALID_ARGUMENT' }));
});
