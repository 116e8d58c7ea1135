/** Driver and device on two processors at once: every chain comes back once, and neither side sleeps through the other's news. */
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { highWord, lowWord } from '../../lib/virtqueue/ring-memory';
import { Control, type DeviceThreadData, PATIENCE } from '../helpers/device-worker';
import { PACKED, SPLIT } from '../helpers/ring-formats';
import { TestMemory } from '../helpers/ring-memory';

const GPA = 6 * 2 ** 30;
const CHAINS = 100_000;

const queues = [SPLIT, PACKED].flatMap((format) =>
  [true, false].flatMap((eventIdx) => [1, 4, 256].map((size) => ({ format, eventIdx, size }))),
);

describe.each(queues)('$format.name, EVENT_IDX $eventIdx', ({ format, eventIdx, size }) => {
  test(`a queue of ${size}`, async () => {
    const shared = new SharedArrayBuffer(2 ** 20);
    const control = new SharedArrayBuffer(64);
    const words = new Int32Array(control);
    const memory = new TestMemory([{ gpa: GPA, size: 0, shared }]);
    const driver = format.format(memory, GPA, { size, eventIdx });
    const data: DeviceThreadData = { memory: shared, control, gpa: GPA, queue: driver.queueState(), eventIdx };
    const worker = new Worker(join(__dirname, '../helpers/device-worker.js'), { workerData: data });
    const ended = new Promise<number>((resolve, reject) => worker.once('exit', resolve).once('error', reject));
    const buffers = memory.bytes(GPA + 2 ** 19, 2 ** 16);
    const lengths = new Uint32Array(size);
    const ids = new Uint16Array(size);
    const takenBack = new Uint32Array(size);
    let lostCalls = 0;
    let posted = 0;
    let returned = 0;
    let wrong = 0;
    driver.disableCalls();
    while (returned < CHAINS) {
      const burst = 1 + ((posted * 7) % 40);
      for (let count = 0; count < burst && posted < CHAINS && driver.free > 0; count++) {
        const id = driver.nextId;
        buffers[id] = posted;
        lengths[id] = 1 + (posted % 1000);
        driver.post(lowWord(GPA + 2 ** 19 + id), highWord(GPA), lengths[id]!, false);
        posted++;
      }
      if (driver.publish()) {
        Atomics.add(words, Control.KICKS, 1);
        Atomics.notify(words, Control.KICKS);
      }
      let count = driver.reap(size, ids, takenBack);
      if (count === 0 && (driver.free === 0 || posted === CHAINS)) {
        const calls = Atomics.load(words, Control.CALLS);
        if (!driver.enableCalls()) {
          const slept = Atomics.wait(words, Control.CALLS, calls, PATIENCE);
          count = driver.reap(size, ids, takenBack);
          if (slept === 'timed-out' && count > 0) lostCalls++;
        }
        driver.disableCalls();
      }
      for (let at = 0; at < count; at++) if (takenBack[at] !== lengths[ids[at]!]) wrong++;
      returned += count;
    }
    Atomics.store(words, Control.END, 1);
    Atomics.add(words, Control.KICKS, 1);
    Atomics.notify(words, Control.KICKS);
    expect(await ended).toBe(0);
    expect({ wrong, lostCalls, lostKicks: words[Control.LOST] }).toEqual({ wrong: 0, lostCalls: 0, lostKicks: 0 });
    expect(driver.free).toBe(size);
    expect(words[Control.SLEPT]).toBeGreaterThan(0);
  });
});
