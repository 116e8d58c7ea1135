/** Every single call of start, of logging on, off and swapped, and of a memory change made to fail: nothing half done stays. */
import { DirtyLog } from '../../lib/memory/dirty-log';
import { PageBitmap } from '../../lib/memory/page-bitmap';
import { ANY_CALL, FaultPlan } from '../../lib/trace/fault-plan';
import { clean } from '../helpers/vhost-frames';
import { VhostLab } from '../helpers/vhost-lab';
import { pagesOf } from '../helpers/vhost-pages';
import { Traffic } from '../helpers/vhost-traffic';
import { codeOf, errorOf, sleep, until } from '../helpers/vhost-wait';

const ENOMEM = 12;
const MODES = [
  ['before it is made', false],
  ['after it was made', true],
] as const;

/** Lets call after call fail until `attempt` meets no fault any more: how many failed. */
async function sweep(
  faults: FaultPlan,
  after: boolean,
  attempt: () => Promise<void>,
  afterFailure: (call: string) => Promise<void>,
): Promise<number> {
  for (let nth = 1; ; nth++) {
    const struck = faults.struck.length;
    faults.clear().fail(ANY_CALL, { nth, errno: ENOMEM, after });
    const code = await attempt().then(
      () => 'ok',
      (error: { code: string }) => error.code,
    );
    faults.clear();
    if (faults.struck.length === struck) {
      expect(code).toBe('ok');
      return nth - 1;
    }
    expect([faults.struck.at(-1), code]).toEqual([faults.struck.at(-1), 'ENOMEM']);
    await afterFailure(faults.struck.at(-1)!);
  }
}

async function oneFrameEachWay(lab: VhostLab): Promise<void> {
  const [rx, tx] = [lab.guest.tally.received, lab.peer.tally.received];
  lab.guest.refill();
  lab.peer.send(1);
  lab.guest.transmit(1);
  await until('a frame each way', () => {
    lab.guest.receive();
    lab.peer.receive();
    return lab.guest.tally.received > rx && lab.peer.tally.received > tx;
  });
}

/** Pages in the log, after a frame each way. */
async function seen(lab: VhostLab, log: DirtyLog): Promise<number> {
  const bitmap = new PageBitmap(lab.memory.end / 4096);
  await sleep(20);
  log.takeInto(bitmap);
  bitmap.reset();
  await oneFrameEachWay(lab);
  await sleep(20);
  log.takeInto(bitmap);
  return pagesOf(bitmap).length;
}

describe.each(MODES)('each call fails %s', (_name, after) => {
  test('start: nothing stays attached, the next start works', async () => {
    const faults = new FaultPlan();
    await using lab = await VhostLab.create({ backend: { faults } });
    const log = DirtyLog.create(lab.memory.end);
    await lab.backend.setDirtyLog(log);
    const opening = await sweep(
      faults,
      after,
      () => lab.backend.open(),
      async () => expect(lab.backend.vhosts).toEqual([]),
    );
    expect(opening).toBe(3);
    const failed = await sweep(
      faults,
      after,
      () => lab.start(),
      async () => {
        expect(lab.backend.running).toBe(false);
        for (const vhost of lab.backend.vhosts) {
          // NUM is refused (EBUSY) wherever the kernel has a backend, whatever we believe.
          for (const ring of [0, 1]) await vhost.setVringNum(ring, 256);
        }
        lab.tap.claim('the test')();
      },
    );
    expect(failed).toBe(17);
    await oneFrameEachWay(lab);
    await lab.backend.setDirtyLog(null);
    log.close();
  });

  test('logging on, swapped, off: as before', async () => {
    const faults = new FaultPlan();
    await using lab = await VhostLab.create({ backend: { faults } });
    const [first, second] = [DirtyLog.create(lab.memory.end), DirtyLog.create(lab.memory.end)];
    await lab.start();
    const on = await sweep(
      faults,
      after,
      () => lab.backend.setDirtyLog(first),
      async () => expect([await seen(lab, first), lab.backend.dirtyLog]).toEqual([0, null]),
    );
    expect(on).toBe(4);
    expect(await seen(lab, first)).toBe(3);
    const swapped = await sweep(
      faults,
      after,
      () => lab.backend.setDirtyLog(second),
      async () => {
        expect(await seen(lab, first)).toBe(3);
        expect(await seen(lab, second)).toBe(0);
      },
    );
    expect(swapped).toBe(1);
    expect([await seen(lab, first), await seen(lab, second)]).toEqual([0, 3]);
    const off = await sweep(
      faults,
      after,
      () => lab.backend.setDirtyLog(null),
      async () => expect(await seen(lab, second)).toBe(3),
    );
    expect(off).toBe(4);
    expect(await seen(lab, second)).toBe(0);
    first.close();
    second.close();
  });

  test('a new memory region: gone again, the device runs on', async () => {
    const faults = new FaultPlan();
    await using lab = await VhostLab.create({ backend: { faults } });
    const stopListening = lab.memory.onChange(() => lab.backend.memoryChanged());
    await lab.start();
    const far = 0x4000_0000;
    const failed = await sweep(
      faults,
      after,
      async () => {
        await lab.memory.addRegion({ gpa: far, size: 0x10000 });
      },
      async () => {
        expect(lab.memory.regions.length).toBe(1);
        expect(lab.backend.vhosts[0]!.memTable!.end).toBe(lab.memory.end);
        await oneFrameEachWay(lab);
      },
    );
    expect(failed).toBe(3);
    await oneFrameEachWay(lab);
    stopListening();
  });
});

test('an undo that fails too is told', async () => {
  const faults = new FaultPlan();
  await using lab = await VhostLab.create({ backend: { faults } });
  const log = DirtyLog.create(lab.memory.end);
  await lab.start();
  faults.fail('VHOST_SET_VRING_ADDR', { errno: ENOMEM, times: 2 });
  const error = await errorOf(lab.backend.setDirtyLog(log));
  expect([error.code, (error.cause as AggregateError).errors.length]).toEqual(['VHOST_ERR_STATE', 2]);
  faults.clear();
  await lab.stop();
  await lab.start();
  await oneFrameEachWay(lab);
  log.close();
});

describe('a device that does not let go', () => {
  test('for once: logging is taken away and the next detach is believed', async () => {
    const faults = new FaultPlan();
    await using lab = await VhostLab.create({ backend: { faults } });
    const log = DirtyLog.create(lab.memory.end);
    await lab.backend.setDirtyLog(log);
    await lab.start();
    await oneFrameEachWay(lab);
    faults.fail('VHOST_NET_SET_BACKEND', { errno: 14 });
    await lab.stop();
    expect(lab.backend.stoppedRings).toEqual([
      { queue: 0, base: 1, usedIdx: 1 },
      { queue: 1, base: 1, usedIdx: 1 },
    ]);
    await lab.start();
    expect(await seen(lab, log)).toBe(3);
    await lab.backend.setDirtyLog(null);
    log.close();
  });

  test('at all: its descriptor is closed, the used index says where it stood, traffic goes on where it was', async () => {
    const faults = new FaultPlan();
    await using lab = await VhostLab.create({ backend: { faults } });
    const traffic = new Traffic(lab);
    await lab.start();
    traffic.start();
    for (let round = 0; round < 5; round++) {
      await traffic.pass(20);
      faults.fail('VHOST_NET_SET_BACKEND', { errno: 14, times: 4 });
      await lab.stop();
      faults.clear();
      expect(lab.backend.vhosts).toEqual([]);
      for (const { base, usedIdx } of lab.backend.stoppedRings) expect(base).toBe(usedIdx);
      await lab.start();
    }
    await traffic.drain();
    expect(lab.guest.tally.report(lab.peer.sent)).toEqual(clean(lab.peer.sent));
    expect(lab.peer.tally.report(lab.guest.sent)).toEqual(clean(lab.guest.sent));
  });

  test('where it stands cannot be read: used->idx stands in', async () => {
    const faults = new FaultPlan();
    await using lab = await VhostLab.create({ backend: { faults } });
    await lab.start();
    await oneFrameEachWay(lab);
    faults.fail('VHOST_GET_VRING_BASE', { errno: 5, times: 2 });
    await lab.stop();
    expect(lab.queues.map(({ nextAvail }) => nextAvail)).toEqual([1, 1]);
  });
});

test('the planted fault of a base set to 0 is found by the frames', async () => {
  const faults = new FaultPlan();
  await using lab = await VhostLab.create({ backend: { faults } });
  const traffic = new Traffic(lab);
  await lab.start();
  traffic.start();
  await traffic.pass(30);
  await traffic.drain();
  await lab.stop();
  lab.queues = lab.queues.map((queue) => ({ ...queue, nextAvail: 0 }));
  await lab.start();
  lab.guest.transmit(5);
  await sleep(100);
  lab.peer.receive();
  const { duplicated } = lab.peer.tally.report(lab.guest.sent);
  expect(duplicated + lab.faults.length).toBeGreaterThan(0);
  expect(await codeOf(lab.backend.start(lab))).toBe('VHOST_ERR_STATE');
});
