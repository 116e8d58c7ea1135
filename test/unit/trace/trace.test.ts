import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { FaultPlan } from '../../../lib/trace/fault-plan';
import { kernelCall } from '../../../lib/trace/kernel-call';
import { emit, TRACE_CHANNEL, Trace, type TraceRecord, traced } from '../../../lib/trace/trace';

const state = (to: string) => ({ kind: 'state', object: 'x', from: 'a', to }) as const;

test('keeps the newest records, oldest first, and counts those that went', () => {
  const trace = new Trace({ capacity: 3 });
  for (const to of ['1', '2', '3', '4', '5']) emit(trace, state(to));
  expect(trace.records.map((record) => record.kind === 'state' && record.to)).toEqual(['3', '4', '5']);
  expect(trace.dropped).toBe(2);
  trace.clear();
  expect([trace.records, trace.dropped]).toEqual([[], 0]);
});

test('publishes on the diagnostics channel, with or without a trace', () => {
  const seen: unknown[] = [];
  const listener = (record: unknown) => seen.push(record);
  expect(traced(undefined)).toBe(false);
  subscribe(TRACE_CHANNEL, listener);
  emit(undefined, state('b'));
  unsubscribe(TRACE_CHANNEL, listener);
  emit(undefined, state('c'));
  expect(seen).toEqual([{ at: expect.any(Number), ...state('b') }]);
});

test('refuses a capacity of nothing', () => {
  expect(() => new Trace({ capacity: 0 })).toThrow(expect.objectContaining({ code: 'VHOST_ERR_INVALID_ARGUMENT' }));
});

describe('a kernel call', () => {
  const call = (trace: Trace, faults: FaultPlan | undefined, made: string[], answer = 7) =>
    kernelCall<number>({ trace, faults }, 'X', 3, { index: 1 }, 0, async () => {
      made.push('X');
      return answer;
    });
  const last = (trace: Trace): TraceRecord => trace.records.at(-1)!;

  test('is recorded with name, arguments, answer and time', async () => {
    const trace = new Trace();
    expect(await call(trace, undefined, [])).toBe(7);
    expect(last(trace)).toMatchObject({ kind: 'ioctl', name: 'X', fd: 3, args: { index: 1 }, result: 7 });
    expect(last(trace)).toHaveProperty('micros', expect.any(Number));
    expect(last(trace)).not.toHaveProperty('fault');
    expect(trace.ioctls(3)).toEqual(['X']);
    expect(trace.ioctls(4)).toEqual([]);
  });

  test('is not made when it is to fail or to be left out; is made when it is to fail afterwards', async () => {
    const trace = new Trace();
    const made: string[] = [];
    const faults = new FaultPlan()
      .fail('X', { errno: 14 })
      .skip('X', { nth: 2 })
      .fail('X', { nth: 3, errno: 5, after: true });
    const answers = [await call(trace, faults, made), await call(trace, faults, made)];
    expect([answers, made]).toEqual([[-14, 0], []]);
    expect(await call(trace, faults, made)).toBe(-5);
    expect(made).toEqual(['X']);
    expect(trace.records.map((record) => record.kind === 'ioctl' && record.fault)).toEqual([
      'fail',
      'skip',
      'fail-after',
    ]);
  });

  test('answers an errno as it is', async () => {
    const trace = new Trace();
    expect(await call(trace, undefined, [], -16)).toBe(-16);
    expect(last(trace)).toMatchObject({ result: -16 });
  });
});
