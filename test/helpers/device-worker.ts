/** A device in a thread of its own: takes whatever comes, sleeps when there is nothing, and notes a kick that did not come. */
import { workerData } from 'node:worker_threads';
import { openDeviceQueue } from '../../lib/virtqueue/open-queue';
import type { QueueState } from '../../lib/virtqueue/queue-state';
import { TestMemory } from './ring-memory';

/** Words that both threads share. */
export const Control = { KICKS: 0, CALLS: 1, END: 2, LOST: 3, SLEPT: 4 } as const;
/** Longest sleep. Milliseconds. */
export const PATIENCE = 3000;

export interface DeviceThreadData {
  memory: SharedArrayBuffer;
  control: SharedArrayBuffer;
  gpa: number;
  queue: QueueState;
  eventIdx: boolean;
}

function serve({ memory, control, gpa, queue, eventIdx }: DeviceThreadData): void {
  const words = new Int32Array(control);
  const device = openDeviceQueue(new TestMemory([{ gpa, size: 0, shared: memory }]), queue, { eventIdx });
  let timedOut = false;
  while (Atomics.load(words, Control.END) === 0) {
    let taken = 0;
    for (let id = device.pop(); id >= 0; id = device.pop()) {
      // The first byte of a chain decides, so that batches have all sizes.
      const { chain } = device;
      const first = chain.regions[0]!.u8[chain.addresses[0]! - chain.regions[0]!.gpa]!;
      device.push(id, chain.lengths[0]!);
      taken++;
      if ((first & 7) === 0) break;
    }
    if (timedOut && taken > 0) Atomics.add(words, Control.LOST, 1);
    timedOut = false;
    if (device.publish()) {
      Atomics.add(words, Control.CALLS, 1);
      Atomics.notify(words, Control.CALLS);
    }
    if (taken > 0) continue;
    const kicks = Atomics.load(words, Control.KICKS);
    if (device.enableKicks()) continue;
    Atomics.add(words, Control.SLEPT, 1);
    timedOut = Atomics.wait(words, Control.KICKS, kicks, PATIENCE) === 'timed-out';
    device.disableKicks();
  }
}

if (workerData !== null) serve(workerData as DeviceThreadData);
