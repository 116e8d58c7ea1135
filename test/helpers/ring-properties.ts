/** What holds for a virtqueue of either format: the tests themselves, to be declared for each. */
import * as fc from 'fast-check';
import { openDeviceQueue } from '../../lib/virtqueue/open-queue';
import { HIGH_WORD, lowWord } from '../../lib/virtqueue/ring-memory';
import type { RingFormat } from './ring-formats';
import { TestMemory } from './ring-memory';
import { BUFFERS, RINGS, RingModel, type Setup, type Step, step } from './ring-model';

export interface RingSizes {
  /** What any order of calls is tried with. */
  any: fc.Arbitrary<number>;
  /** In which the ring wraps many times. */
  wrapping: number[];
}

/** Runs the steps, then lets everything end in good order. */
export function runModel(model: RingModel, steps: readonly Step[]): void {
  for (const run of steps) run(model);
  model.check();
  model.publish();
  while (model.visible > 0) model.pop();
  model.replaceDevice();
  while (model.shown > 0) model.reap(70);
  expect(model.driver.free).toBe(model.setup.size);
  expect(model.driver.inFlight).toBe(0);
  model.check();
}

export const anySetup = (format: RingFormat, size: fc.Arbitrary<number>): fc.Arbitrary<Setup> =>
  fc.record({
    format: fc.constant(format),
    size,
    eventIdx: fc.boolean(),
    indirect: fc.boolean(),
    start: fc.constantFrom(0, 1, 32767, 65500, 65535),
  });

export const anySteps = fc.array(step, { maxLength: 120, size: 'max' });

export function ringProperties(format: RingFormat, sizes: RingSizes): void {
  test('any order of calls', () => {
    void fc.assert(
      fc.property(anySetup(format, sizes.any), anySteps, (parameters, steps) => {
        runModel(new RingModel(parameters), steps);
      }),
      { numRuns: 500 },
    );
  });

  test.each(sizes.wrapping)('the ring wraps many times in a queue of %i', (size) => {
    const model = new RingModel({ format, size, eventIdx: size % 2 === 0, indirect: false, start: 65000 });
    const lap = Math.min(size, 64);
    for (let round = 0; round < Math.ceil(1200 / lap); round++) {
      for (let at = 0; at < lap; at++) {
        model.post([{ address: BUFFERS + at, length: 1 + (round % 9), writable: round % 2 === 0 }]);
      }
      model.publish();
      for (let at = 0; at < lap; at++) model.pop();
      for (let at = 0; at < lap; at++) model.push(at * 7, at);
      model.show();
      if (round % 3 === 0) model.repost(lap);
      model.publish();
      while (model.visible > 0) model.pop();
      while (model.taken.length > 0) model.push(0, 9);
      model.show();
      model.reap(70);
    }
    model.check();
  });

  test('a whole queue of 32768 is in flight at once', () => {
    const model = new RingModel({ format, size: 32768, eventIdx: true, indirect: false, start: 40000 });
    const { driver, device } = model;
    let posted = 0;
    while (driver.post(BUFFERS, 0, 1, false) === posted) posted++;
    expect(posted).toBe(32768);
    driver.publish();
    for (let at = 0; at < 32768; at++) device.push(device.pop(), at);
    expect(device.pop()).toBe(-1);
    device.publish();
    expect(driver.pending()).toBe(32768);
    driver.repost(32768);
    driver.publish();
    for (let at = 0; at < 32768; at++) device.push(device.pop(), at);
    device.publish();
    expect(driver.pending()).toBe(32768);
    driver.release(32768);
    expect(driver.free).toBe(32768);
    expect(model.log.takeMissed()).toEqual([]);
  });

  test('addresses above 4 GiB arrive whole', () => {
    void fc.assert(
      fc.property(fc.integer({ min: 0, max: 2 ** 21 - 1 }), fc.integer({ min: 0, max: 2 ** 20 - 1 }), (high, page) => {
        const address = high * HIGH_WORD + page * 4096;
        const memory = new TestMemory([
          { gpa: address, size: 4096 },
          { gpa: address >= RINGS ? 0 : RINGS, size: 2 ** 16 },
        ]);
        const driver = format.format(memory, memory.regions[1]!.gpa, { size: 4 });
        driver.post(lowWord(address), high, 4096, true);
        driver.publish();
        const device = openDeviceQueue(memory, driver.queueState());
        expect(device.pop()).toBe(0);
        expect(device.chain.addresses[0]).toBe(address);
        expect(device.chain.regions[0]!.gpa).toBe(address);
      }),
    );
  });
}
