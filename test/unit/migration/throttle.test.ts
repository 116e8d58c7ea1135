import { setTimeout as sleep } from 'node:timers/promises';
import { type PausableReceive, ReceiveThrottle, THROTTLE_STEPS } from '../../../lib/migration/throttle';
import { errorOf } from '../../helpers/vhost-wait';

/** Notes how long it was paused, and fails where a test says so. */
class Receive implements PausableReceive {
  paused = false;
  pauses = 0;
  pausedMs = 0;
  failure: Error | null = null;
  #since = 0;

  async pauseReceive(): Promise<void> {
    await sleep(1);
    if (this.failure !== null) throw this.failure;
    if (!this.paused) this.#since = performance.now();
    this.paused = true;
    this.pauses++;
  }

  async resumeReceive(): Promise<void> {
    if (this.paused) this.pausedMs += performance.now() - this.#since;
    this.paused = false;
  }
}

let receive: Receive;
let throttle: ReceiveThrottle;

beforeEach(() => {
  receive = new Receive();
  throttle = new ReceiveThrottle(receive, { periodMs: 20 });
});

afterEach(() => throttle.stop());

test('steps as those of auto-converge', () => {
  const steps: number[] = [];
  do steps.push(throttle.increase());
  while (steps.at(-1) !== steps.at(-2));
  expect(steps).toEqual([0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99, 0.99]);
  expect(steps.length - 1).toBe(THROTTLE_STEPS);
});

test('paused again and again, for more of the time at a higher fraction; running after the stop', async () => {
  const share = async (fraction: number): Promise<number> => {
    receive.pausedMs = 0;
    const from = performance.now();
    throttle.set(fraction);
    await sleep(300);
    await throttle.stop();
    expect(receive.paused).toBe(false);
    return receive.pausedMs / (performance.now() - from);
  };
  const low = await share(0.2);
  expect(receive.pauses).toBeGreaterThan(3);
  const high = await share(0.9);
  expect(low).toBeGreaterThan(0);
  expect(high).toBeGreaterThan(low + 0.2);
});

test('a stop does not wait for the period to end', async () => {
  throttle = new ReceiveThrottle(receive, { periodMs: 10_000 });
  throttle.set(0.99);
  while (!receive.paused) await sleep(1);
  const from = performance.now();
  await throttle.stop();
  expect(performance.now() - from).toBeLessThan(2000);
  expect(receive).toMatchObject({ paused: false, pauses: 1 });
});

test('stopped and set again at once it goes on, without hurry', async () => {
  throttle.set(0.5);
  await sleep(30);
  throttle.set(0);
  throttle.set(0.5);
  receive.pauses = 0;
  await sleep(200);
  expect(receive.pauses).toBeGreaterThan(2);
  expect(receive.pauses).toBeLessThan(20);
});

test('what never ran can be stopped, and so can what has stopped', async () => {
  await throttle.stop();
  throttle.set(0.5);
  await throttle.stop();
  await throttle.stop();
  expect(throttle.fraction).toBe(0);
});

test('a device that fails ends it, in service; the stop tells once', async () => {
  throttle.set(0.5);
  while (receive.pauses === 0) await sleep(1);
  receive.failure = new Error('planted');
  while (throttle.fraction > 0) await sleep(1);
  expect(throttle.failure).toBe(receive.failure);
  expect((await errorOf(throttle.stop())) as unknown).toBe(receive.failure);
  expect(receive.paused).toBe(false);
  await throttle.stop();
});

test.each([-0.1, 1, Number.NaN])('a fraction of %p is refused', (fraction) => {
  expect(() => throttle.set(fraction)).toThrow(expect.objectContaining({ code: 'VHOST_ERR_INVALID_ARGUMENT' }));
});
