/** The dirty log against what the kernel's page tables say was written: the same pages, under traffic, whatever is done meanwhile. */
import { DirtyLog } from '../../lib/memory/dirty-log';
import { PageBitmap } from '../../lib/memory/page-bitmap';
import { WriteWitness } from '../../lib/observe/write-witness';
import { FaultPlan } from '../../lib/trace/fault-plan';
import { type LabOptions, VhostLab } from '../helpers/vhost-lab';
import { missing, pagesOf } from '../helpers/vhost-pages';
import { Traffic } from '../helpers/vhost-traffic';
import { sleep } from '../helpers/vhost-wait';

/** A device, a witness of what it writes, and both sets. */
class WitnessLab {
  readonly lab: VhostLab;
  readonly witness: WriteWitness;
  readonly traffic: Traffic;
  readonly written: PageBitmap;
  readonly logged: PageBitmap;
  readonly logs: DirtyLog[] = [];

  private constructor(lab: VhostLab) {
    this.lab = lab;
    this.witness = WriteWitness.start(lab.memory);
    this.traffic = new Traffic(lab);
    this.written = new PageBitmap(lab.memory.end / 4096);
    this.logged = new PageBitmap(lab.memory.end / 4096);
  }

  static async create(options: LabOptions = {}): Promise<WitnessLab> {
    const lab = await VhostLab.create({ ...options, deviceMapping: 'separate' });
    return new WitnessLab(lab);
  }

  log(): DirtyLog {
    const log = DirtyLog.create(this.lab.memory.end);
    this.logs.push(log);
    return log;
  }

  /** Forgets what was written so far. */
  async forget(): Promise<void> {
    await this.witness.takeInto(new PageBitmap(this.written.pages));
  }

  /** Both sets, up to now. */
  async take(): Promise<void> {
    await this.witness.takeInto(this.written);
    for (const log of this.logs) log.takeInto(this.logged);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.traffic.pause();
    await this.lab.close();
    this.witness.close();
    for (const log of this.logs) log.close();
  }
}

test('from attach to detach: the same pages, none missing, none too many', async () => {
  await using it = await WitnessLab.create();
  for (let round = 0; round < 5; round++) {
    await it.lab.backend.setDirtyLog(it.log());
    await it.lab.start();
    it.traffic.start();
    await it.traffic.pass(200);
    await it.traffic.pause();
    await it.lab.stop();
    await it.take();
    expect(pagesOf(it.written).length).toBeGreaterThan(50);
    expect(pagesOf(it.logged)).toEqual(pagesOf(it.written));
    it.written.reset();
    it.logged.reset();
  }
  await it.lab.start();
  it.traffic.start();
  await it.traffic.drain();
  expect(it.lab.faults).toEqual([]);
});

test('logging turned on under traffic: nothing written after it is missing', async () => {
  await using it = await WitnessLab.create();
  await it.lab.start();
  it.traffic.start();
  for (let round = 0; round < 10; round++) {
    await it.traffic.pass(50);
    const log = it.log();
    await it.lab.backend.setDirtyLog(log);
    await it.forget();
    await it.traffic.pass(100);
    await it.traffic.pause();
    await it.lab.stop();
    await it.take();
    expect(pagesOf(it.written).length).toBeGreaterThan(20);
    expect(missing(it.written, it.logged)).toEqual([]);
    it.written.reset();
    it.logged.reset();
    await it.lab.backend.setDirtyLog(null);
    await it.lab.start();
    it.traffic.start();
  }
  await it.traffic.drain();
  expect(it.lab.guest.tally.report(it.lab.peer.sent).lost).toBe(0);
});

test('logs swapped under traffic: their union is what was written, and none is written to after its turn', async () => {
  await using it = await WitnessLab.create();
  let current = it.log();
  await it.lab.backend.setDirtyLog(current);
  await it.forget();
  await it.lab.start();
  it.traffic.start();
  for (let swap = 0; swap < 40; swap++) {
    await sleep(5);
    const next = it.log();
    await it.lab.backend.setDirtyLog(next);
    current.takeInto(it.logged);
    current = next;
  }
  await it.traffic.pass(50);
  await it.traffic.pause();
  await it.lab.stop();
  const late = new PageBitmap(it.logged.pages);
  for (const log of it.logs) if (log !== current) log.takeInto(late);
  expect(pagesOf(late)).toEqual([]);
  await it.take();
  expect(pagesOf(it.logged)).toEqual(pagesOf(it.written));
});

describe('what is left out is found', () => {
  test('the log flag of the used rings', async () => {
    const faults = new FaultPlan();
    await using it = await WitnessLab.create({ backend: { faults } });
    await it.lab.start();
    faults.skip('VHOST_SET_VRING_ADDR', { times: 2 });
    await it.lab.backend.setDirtyLog(it.log());
    expect(faults.struck).toEqual(['VHOST_SET_VRING_ADDR', 'VHOST_SET_VRING_ADDR']);
    await it.forget();
    it.traffic.start();
    await it.traffic.pass(50);
    await it.traffic.pause();
    await it.lab.stop();
    await it.take();
    expect(missing(it.written, it.logged)).toEqual([it.lab.rx.used / 4096, it.lab.tx.used / 4096]);
  });

  test('VHOST_F_LOG_ALL', async () => {
    const faults = new FaultPlan();
    await using it = await WitnessLab.create({ backend: { faults } });
    await it.lab.start();
    faults.skip('VHOST_SET_FEATURES');
    await it.lab.backend.setDirtyLog(it.log());
    await it.forget();
    it.traffic.start();
    await it.traffic.pass(50);
    await it.traffic.pause();
    await it.lab.stop();
    await it.take();
    const left = missing(it.written, it.logged);
    expect(left.length).toBeGreaterThan(10);
    expect(left).not.toContain(it.lab.rx.used / 4096);
  });

  test('the log base', async () => {
    const faults = new FaultPlan();
    await using it = await WitnessLab.create({ backend: { faults } });
    await it.lab.start();
    faults.skip('VHOST_SET_LOG_BASE');
    await it.lab.backend.setDirtyLog(it.log());
    it.traffic.start();
    await it.traffic.pass(50);
    await it.traffic.pause();
    await it.lab.stop();
    await it.take();
    expect(pagesOf(it.logged)).toEqual([]);
    expect(pagesOf(it.written).length).toBeGreaterThan(10);
  });
});
