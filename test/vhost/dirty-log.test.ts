/** Which pages the kernel marks, to the page. */
import type { VringAddresses } from '../../lib/host/vhost-net';
import { DirtyLog } from '../../lib/memory/dirty-log';
import { PageBitmap } from '../../lib/memory/page-bitmap';
import { FRAME_LENGTH } from '../helpers/vhost-frames';
import { BUFFERS, EVENT_IDX, HEADER, type LabOptions, VERSION_1, VhostLab } from '../helpers/vhost-lab';
import { pagesOf } from '../helpers/vhost-pages';
import { VIRTQ_DESC_F_NEXT, VIRTQ_DESC_F_WRITE } from '../helpers/vhost-ring';
import { sleep, until } from '../helpers/vhost-wait';

const LOG_ALL = 1n << 26n;
const PAGE = 4096;
const page = (address: number): number => Math.floor(address / PAGE);

/** A running device that logs as asked, into a log that is looked at frame by frame. */
class LogLab {
  readonly lab: VhostLab;
  readonly log: DirtyLog;
  #next = 0;

  private constructor(lab: VhostLab, log: DirtyLog) {
    this.lab = lab;
    this.log = log;
  }

  static async create(logAll: boolean, flags: 0 | 1, options: LabOptions = {}): Promise<LogLab> {
    const lab = await VhostLab.create(options);
    const logLab = new LogLab(lab, DirtyLog.create(lab.memory.end));
    await lab.start();
    const vhost = lab.backend.vhosts[0]!;
    await vhost.setLogBase(logLab.log);
    await vhost.setFeatures(logAll ? lab.features | LOG_ALL : lab.features);
    for (const index of [0, 1]) {
      await vhost.setVringAddr(index, { ...(vhost.vringAddresses(index) as VringAddresses), flags });
    }
    logLab.#next = options.start ?? 0;
    return logLab;
  }

  async dirty(): Promise<number[]> {
    // The bit of a page may come a little after its frame.
    await sleep(30);
    const bitmap = new PageBitmap(page(this.lab.memory.end));
    this.log.takeInto(bitmap);
    return pagesOf(bitmap);
  }

  /** Pages marked for one frame of `length` received at `address`, header in front; in several descriptors when given. */
  async receive(pieces: readonly [address: number, length: number][], length = FRAME_LENGTH): Promise<number[]> {
    const { rx, peer } = this.lab;
    const head = this.#next++ % rx.size;
    pieces.forEach(([address, bytes], i) => {
      const last = i === pieces.length - 1;
      rx.setDescriptor(
        (head + i) % rx.size,
        address,
        bytes,
        VIRTQ_DESC_F_WRITE | (last ? 0 : VIRTQ_DESC_F_NEXT),
        head + i + 1,
      );
    });
    rx.offer(head);
    rx.publish();
    this.lab.kick(0);
    await sleep(30);
    await this.dirty();
    const before = rx.usedIdx;
    if (length === FRAME_LENGTH) peer.send(1);
    else peer.sendLong(length);
    await until('the frame is used', () => rx.usedIdx !== before);
    expect(rx.usedLength(before)).toBe(HEADER + length);
    return this.dirty();
  }

  async transmit(): Promise<number[]> {
    const { tx } = this.lab;
    await this.dirty();
    const before = tx.usedIdx;
    this.lab.guest.transmit(1);
    await until('the frame is used', () => tx.usedIdx !== before);
    return this.dirty();
  }

  get rxUsed(): number {
    return page(this.lab.rx.used);
  }

  get txUsed(): number {
    return page(this.lab.tx.used);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.lab.close();
    this.log.close();
  }
}

const P = BUFFERS + 0x40_0000;

describe.each([
  ['EVENT_IDX off', VERSION_1],
  ['EVENT_IDX on', VERSION_1 | EVENT_IDX],
])('%s', (_name, features) => {
  test.each([
    { state: 'both off', logAll: false, flags: 0 as const },
    { state: 'LOG_ALL only', logAll: true, flags: 0 as const },
    { state: 'flags only', logAll: false, flags: 1 as const },
    { state: 'both', logAll: true, flags: 1 as const },
  ])('$state', async ({ logAll, flags }) => {
    await using it = await LogLab.create(logAll, flags, { features });
    const data = (...pages: number[]): number[] => (logAll ? pages : []);
    const used = (number: number): number[] => (flags === 1 ? [number] : []);
    expect(await it.receive([[P, 2048]])).toEqual([...used(it.rxUsed), ...data(page(P))]);
    expect(await it.receive([[P + PAGE - 40, 2048]])).toEqual([...used(it.rxUsed), ...data(page(P), page(P) + 1)]);
    expect(await it.transmit()).toEqual(used(it.txUsed));
  });
});

describe('to the byte', () => {
  test('only what is written counts', async () => {
    await using it = await LogLab.create(true, 0);
    const whole = HEADER + FRAME_LENGTH;
    // Data ends exactly at the end of the page; a buffer that crosses it does not matter.
    expect(await it.receive([[P + PAGE - whole, 2048]])).toEqual([page(P)]);
    // One byte more.
    expect(await it.receive([[P + PAGE - whole + 1, 2048]])).toEqual([page(P), page(P) + 1]);
    // Header at the end of the page, data in the next.
    expect(await it.receive([[P + PAGE - HEADER, 2048]])).toEqual([page(P), page(P) + 1]);
    expect(
      await it.receive([
        [P, HEADER],
        [P + 5 * PAGE, 2048],
      ]),
    ).toEqual([page(P), page(P) + 5]);
  });

  test('a used ring of several pages: element 511 lies in two of them', async () => {
    await using it = await LogLab.create(false, 1, { ringSize: 1024, start: 510 });
    expect(await it.receive([[P, 2048]])).toEqual([it.rxUsed]);
    expect(await it.receive([[P, 2048]])).toEqual([it.rxUsed, it.rxUsed + 1]);
    expect(await it.receive([[P, 2048]])).toEqual([it.rxUsed, it.rxUsed + 1]);
  });
});

describe('without a frame', () => {
  test('attach with logging marks the used pages; detach and kicks on detached rings mark nothing', async () => {
    await using lab = await VhostLab.create();
    const log = DirtyLog.create(lab.memory.end);
    const dirty = (): number[] => {
      const bitmap = new PageBitmap(page(lab.memory.end));
      log.takeInto(bitmap);
      return pagesOf(bitmap);
    };
    await lab.backend.setDirtyLog(log);
    expect(dirty()).toEqual([]);
    await lab.start();
    await sleep(50);
    expect(dirty()).toEqual([page(lab.rx.used), page(lab.tx.used)]);
    await lab.stop();
    expect(dirty()).toEqual([]);
    lab.guest.refill();
    lab.peer.send(20);
    lab.guest.transmit(20);
    lab.kick(0);
    lab.kick(1);
    await sleep(100);
    expect(dirty()).toEqual([]);
    expect([lab.rx.usedIdx, lab.tx.usedIdx]).toEqual([0, 0]);
    await lab.backend.setDirtyLog(null);
    log.close();
  });
});
