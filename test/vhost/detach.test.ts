/** Stopping and starting under load: no frame is lost, repeated or overtaken, and where a ring stood is where it goes on. */
import { FaultPlan } from '../../lib/trace/fault-plan';
import { clean, type FrameTally, frameNumber } from '../helpers/vhost-frames';
import { EVENT_IDX, HEADER, VERSION_1, VhostLab } from '../helpers/vhost-lab';
import { Traffic } from '../helpers/vhost-traffic';
import { sleep, until } from '../helpers/vhost-wait';

/** Reads the device's own tap, as a data path in user space would. */
function readTap(lab: VhostLab, tally: FrameTally): number[] {
  const arena = new Uint8Array(2048 * 64);
  const lengths = new Int32Array(64);
  const numbers: number[] = [];
  for (;;) {
    const count = lab.tap.readFrames(arena, 2048, 64, lengths);
    if (count === 0) return numbers;
    for (let i = 0; i < count; i++) {
      const number = frameNumber(arena, i * 2048 + HEADER);
      tally.note(number);
      numbers.push(number);
    }
  }
}

/** Ways to take receive out of service. */
const STOPS: Record<string, (lab: VhostLab) => Promise<unknown>> = {
  'a stop': (lab) => lab.stop(),
  'a stop of its queue alone': async (lab) => {
    await lab.backend.stopQueue(0);
    // For whoever reads the tap next.
    await lab.stop();
  },
};

/** Ten buffers in the ring, many more frames than that sent. */
async function overrun(lab: VhostLab, frames: number, stop = STOPS['a stop']!): Promise<number> {
  await lab.start();
  lab.guest.refill(10);
  await sleep(20);
  // Vhost takes what lies there when the tenth is delivered; only then is the queue filled.
  lab.peer.send(200);
  await until('ten frames', () => lab.rx.waiting === 10);
  await sleep(50);
  lab.peer.send(frames - 200);
  await until('frames are there or dropped', async () => (await lab.tap.stats()).tx.dropped + 1000 + 64 + 10 >= frames);
  await stop(lab);
  return lab.guest.receive();
}

describe('frames vhost has taken ahead', () => {
  test('come back into the tap queue, in order', async () => {
    await using lab = await VhostLab.create();
    expect(await overrun(lab, 300)).toBe(10);
    const rest = readTap(lab, lab.guest.tally);
    expect(rest).toEqual(Array.from({ length: 290 }, (_, i) => 10 + i));
    expect(lab.guest.tally.report(300)).toEqual(clean(300));
    expect((await lab.tap.stats()).tx.dropped).toBe(0);
  });

  test.each(Object.keys(STOPS))(
    'survive %s with a full tap queue, which is given room first: what is lost was counted',
    async (how) => {
      await using lab = await VhostLab.create();
      await overrun(lab, 1500, STOPS[how]!);
      const rest = readTap(lab, lab.guest.tally);
      // The oldest are the ones that a queue without room would lose.
      expect(rest.slice(0, 64)).toEqual(Array.from({ length: 64 }, (_, i) => 10 + i));
      const { dropped } = (await lab.tap.stats()).tx;
      expect(dropped).toBeGreaterThan(0);
      expect(lab.guest.tally.report(1500)).toEqual({ ...clean(1500), lost: dropped });
    },
  );

  test('are lost without that room, and no counter tells', async () => {
    const tapFaults = new FaultPlan().fail('SIOCSIFTXQLEN', { errno: 1, times: Number.POSITIVE_INFINITY });
    // How many vhost has taken at the stop is its own affair, none included: several tries.
    for (let attempt = 0; attempt < 8; attempt++) {
      await using lab = await VhostLab.create({ tapFaults });
      await overrun(lab, 1500);
      readTap(lab, lab.guest.tally);
      const { dropped } = (await lab.tap.stats()).tx;
      if (lab.guest.tally.report(1500).lost > dropped) return;
    }
    throw new Error('no frame was lost in 8 stops with a full queue');
  });
});

describe.each([
  ['EVENT_IDX off', VERSION_1],
  ['EVENT_IDX on', VERSION_1 | EVENT_IDX],
])('%s', (_name, features) => {
  test('40 stops and starts under load in both directions: 0 lost, doubled, reordered', async () => {
    await using lab = await VhostLab.create({ features });
    const traffic = new Traffic(lab);
    await lab.start();
    traffic.start();
    for (let cycle = 0; cycle < 40; cycle++) {
      await sleep(4);
      await lab.stop();
      for (const { base, usedIdx } of lab.backend.stoppedRings) expect(base).toBe(usedIdx);
      await lab.start();
    }
    await traffic.drain();
    expect(lab.guest.tally.report(lab.peer.sent)).toEqual(clean(lab.peer.sent));
    expect(lab.peer.tally.report(lab.guest.sent)).toEqual(clean(lab.guest.sent));
    expect(lab.peer.sent).toBeGreaterThan(500);
    expect(lab.guest.sent).toBeGreaterThan(500);
    expect(lab.faults).toEqual([]);
  }, 300_000);
});

test('ring indexes wrap at 65,536', async () => {
  await using lab = await VhostLab.create({ start: 65_500 });
  const traffic = new Traffic(lab);
  await lab.start();
  traffic.start();
  await traffic.pass(100);
  await lab.stop();
  for (const { base, usedIdx } of lab.backend.stoppedRings) {
    expect(base).toBe(usedIdx);
    expect(base).toBeLessThan(65_500);
  }
  await lab.start();
  await traffic.drain();
  expect(lab.guest.tally.report(lab.peer.sent)).toEqual(clean(lab.peer.sent));
  expect(lab.peer.tally.report(lab.guest.sent)).toEqual(clean(lab.guest.sent));
});

test('a detached ring is not touched, however it is kicked', async () => {
  await using lab = await VhostLab.create();
  await lab.start();
  await sleep(20);
  await lab.stop();
  const length = lab.tx.end - lab.rx.desc;
  lab.guest.refill();
  lab.guest.transmit(100);
  const before = lab.memory.read(lab.rx.desc, length);
  lab.peer.send(100);
  for (let i = 0; i < 100; i++) {
    lab.kick(0);
    lab.kick(1);
  }
  await sleep(100);
  expect(Buffer.compare(lab.memory.read(lab.rx.desc, length), before)).toBe(0);
  await lab.start();
  await until('what waited is served', () => lab.rx.waiting === 100 && lab.tx.usedIdx === 100);
});

test('a wrong base shows at once and can be put right', async () => {
  await using lab = await VhostLab.create();
  lab.guest.refill();
  lab.queues = [lab.rx.state({ nextAvail: 5000 }), lab.tx.state()];
  await lab.start();
  lab.peer.send(1);
  await until('the error is reported', () => lab.faults.some(({ queue }) => queue === 0));
  expect(lab.rx.waiting).toBe(0);
  await lab.stop();
  expect(lab.backend.stoppedRings[0]).toEqual({ queue: 0, base: 5000, usedIdx: 0 });
  lab.queues = [lab.rx.state({ nextAvail: 0 }), lab.tx.state()];
  await lab.start();
  await until('the frame arrives', () => lab.guest.receive() === 1);
});
