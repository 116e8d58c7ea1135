/** Calls that wait for each other. */
import { Turns } from '../../lib/turns';

/** A promise and what ends it. */
function deferred(): { promise: Promise<void>; resolve: () => void; reject: (error: Error) => void } {
  let resolve = (): void => undefined;
  let reject = (_: Error): void => undefined;
  const promise = new Promise<void>((yes, no) => {
    resolve = yes;
    reject = no;
  });
  return { promise, resolve, reject };
}

const later = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test('one after the other, in the order of the calls, however long each takes', async () => {
  const turns = new Turns();
  const seen: string[] = [];
  let inWork = 0;
  const work = (name: string, steps: number) => async () => {
    expect(++inWork).toBe(1);
    seen.push(`${name} begins`);
    for (let step = 0; step < steps; step++) await later();
    seen.push(`${name} ends`);
    inWork--;
    return name;
  };
  const results = await Promise.all([turns.run(work('a', 3)), turns.run(work('b', 0)), turns.run(work('c', 1))]);
  expect(results).toEqual(['a', 'b', 'c']);
  expect(seen).toEqual(['a begins', 'a ends', 'b begins', 'b ends', 'c begins', 'c ends']);
});

test('nothing runs within the call itself', async () => {
  const turns = new Turns();
  let ran = false;
  const result = turns.run(() => {
    ran = true;
  });
  expect(ran).toBe(false);
  await result;
  expect(ran).toBe(true);
});

test('a failure, thrown or rejected, is its caller’s alone', async () => {
  const turns = new Turns();
  const thrown = turns.run((): number => {
    throw new Error('thrown');
  });
  const rejected = turns.run(() => Promise.reject(new Error('rejected')));
  const good = turns.run(() => 7);
  await expect(thrown).rejects.toThrow('thrown');
  await expect(rejected).rejects.toThrow('rejected');
  expect(await good).toBe(7);
});

test('settled waits for what is there, for what that asks for, and for failures', async () => {
  const turns = new Turns();
  await turns.settled();
  const gate = deferred();
  const seen: string[] = [];
  void turns.run(async () => {
    await gate.promise;
    seen.push('first');
    void turns.run(async () => {
      await later();
      seen.push('asked for by the first');
      void turns
        .run(() => {
          seen.push('asked for in turn');
          throw new Error('planted');
        })
        .catch(() => seen.push('failed'));
    });
  });
  let settled = false;
  const waiting = turns.settled().then(() => {
    settled = true;
  });
  for (let turn = 0; turn < 5; turn++) await later();
  expect([settled, seen]).toEqual([false, []]);
  gate.resolve();
  await waiting;
  expect(seen).toEqual(['first', 'asked for by the first', 'asked for in turn', 'failed']);
});

test('work of one turn that waits for the next waits for ever: turns are not entered twice', async () => {
  const turns = new Turns();
  const gate = deferred();
  let inner = false;
  const outer = turns.run(async () => {
    const nested = turns.run(() => {
      inner = true;
    });
    await Promise.race([nested, gate.promise]);
    expect(inner).toBe(false);
  });
  for (let turn = 0; turn < 5; turn++) await later();
  gate.resolve();
  await outer;
  await turns.settled();
  expect(inner).toBe(true);
});

test('many are no deeper than one', async () => {
  const turns = new Turns();
  let sum = 0;
  for (let index = 0; index < 20_000; index++) {
    void turns.run(() => {
      sum += index;
    });
  }
  await turns.settled();
  expect(sum).toBe((20_000 * 19_999) / 2);
});
