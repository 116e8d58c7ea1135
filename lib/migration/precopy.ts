/**
 * Rounds of pages: all that hold anything, then those that were written meanwhile, until what is left fits the downtime limit or waiting for it is
 * of no use. What is told to the destination of the layout of guest memory goes between rounds.
 */
import type { VirtioNetDevice } from '../device/virtio-net-device';
import { VhostError } from '../errors';
import { PAGE_SIZE } from '../memory/address';
import { dataRanges } from '../memory/data-ranges';
import { DirtyUnion } from '../memory/dirty-log';
import { PageBitmap } from '../memory/page-bitmap';
import { hotPages } from '../observe/page-owners';
import type { Channel } from './channel';
import { Convergence, type ConvergenceDecision } from './convergence';
import { FrameType } from './frame';
import { HeatMap } from './heat-map';
import { LayoutChanges } from './layout-changes';
import type { LayoutMessage, RoundEndMessage } from './messages';
import { elapsed, type MigratableGuest, type MigrationEvent, type MigrationOptions, type Round } from './options';
import type { PagesMoved } from './page-carrier';
import type { PageSender } from './page-sender';
import { ReceiveThrottle } from './throttle';

export interface PrecopyParts {
  device: VirtioNetDevice;
  guest: MigratableGuest;
  channel: Channel;
  sender: PageSender;
  options: MigrationOptions;
  /** performance.now() of the beginning of the migration. */
  began: number;
  onEvent: (event: MigrationEvent) => void;
}

export class Precopy {
  readonly rounds: Round[] = [];
  readonly heat: HeatMap;
  readonly #parts: PrecopyParts;
  readonly #convergence: Convergence;
  readonly #layout: LayoutChanges;
  #throttle: ReceiveThrottle | null = null;
  #bitmap: PageBitmap;
  /** Null without logging: nothing is copied then. */
  #union: DirtyUnion | null = null;
  #hotPages: PageBitmap | null = null;
  #dirtyBy: Record<string, number> = {};
  /** What the last sync of the logs took, and the shortest answer to a round. Milliseconds. */
  #syncMs = 0;
  #roundTripMs = Number.POSITIVE_INFINITY;

  constructor(parts: PrecopyParts) {
    this.#parts = parts;
    const { memory } = parts.device;
    this.#convergence = new Convergence(parts.options);
    this.#bitmap = new PageBitmap(memory.end / PAGE_SIZE);
    this.heat = new HeatMap(memory.regions);
    this.#layout = new LayoutChanges(memory, (end) => this.#bitmap.grow(end / PAGE_SIZE));
  }

  /** Both logs on before the first page is read: whatever is written from here on is found by a later round. */
  async startLogging(): Promise<void> {
    const { device, guest } = this.#parts;
    const log = await device.startDirtyLog();
    guest.startDirtyLog();
    this.#union = new DirtyUnion([log, guest.dirtySource]);
  }

  /** Off, if it was this that turned it on. Idempotent. */
  async stopLogging(): Promise<void> {
    if (this.#union === null) return;
    this.#union = null;
    this.#parts.guest.stopDirtyLog();
    await this.#parts.device.stopDirtyLog();
  }

  /** Rounds until the guest is to be stopped. Throws VHOST_ERR_MIGRATION with the reason when it is not to be stopped at all. */
  async run(): Promise<ConvergenceDecision> {
    const { channel, device } = this.#parts;
    for (const { page, pages } of dataRanges(device.memory)) this.#bitmap.setRange(page, pages);
    for (;;) {
      const sent = await this.round(false);
      const decision = this.#decide(sent);
      channel.throwIfAborted('pre-copy');
      if (decision.action === 'switchover') return decision;
      if (decision.action === 'cancel')
        throw new VhostError('VHOST_ERR_MIGRATION', `pre-copy does not converge: ${decision.reason}`);
      if (decision.action === 'throttle') {
        this.#throttle ??= new ReceiveThrottle(device);
        this.#throttle.increase();
      }
    }
  }

  #decide(sent: Round): ConvergenceDecision {
    const { onEvent } = this.#parts;
    const trips = Number.isFinite(this.#roundTripMs) ? 2 * this.#roundTripMs : 0;
    const costs = { stop: this.#syncMs, state: 0, start: 0, roundTrips: trips };
    const decision = this.#convergence.decide(
      {
        pages: sent.pages,
        bytes: (sent.pages - sent.zeroPages) * PAGE_SIZE,
        ms: sent.ms,
        dirtyPages: sent.dirtyAfter,
        hotPages: countIn(this.#hotPages!, this.#bitmap),
        dirtyBy: this.#dirtyBy,
      },
      costs,
    );
    const { action, reason, estimateMs } = decision;
    const finite = Number.isFinite(estimateMs) ? estimateMs : null;
    onEvent({
      kind: 'estimate',
      round: sent.round + 1,
      pages: sent.dirtyAfter,
      dirtyPagesPerSecond: sent.ms > 0 ? (sent.dirtyAfter / sent.ms) * 1000 : 0,
      downtimeMs: finite,
      leftMs: finite,
    });
    if (action !== 'continue') onEvent({ kind: 'decision', action, reason, estimateMs: finite });
    return decision;
  }

  /** Sends what is dirty now, and finds out what was written meanwhile. The last round, of a device that stands, is not answered. */
  async round(final: boolean): Promise<Round> {
    const { channel, device, sender, began, onEvent } = this.#parts;
    const startMs = elapsed(began);
    const started = performance.now();
    for (const { page, pages } of await this.#layout.tell((message) => this.#tellLayout(message))) {
      this.#bitmap.setRange(page, pages);
    }
    const sending = this.#bitmap;
    this.#bitmap = new PageBitmap(Math.max(sending.pages, device.memory.end / PAGE_SIZE));
    const dirtyBy = this.#dirtyBy;
    this.#dirtyBy = {};
    const round = this.rounds.length;
    // While the guest stands still rings are where they were.
    if (!final || this.#hotPages === null) this.#hotPages = hotPages(device);
    const hot = this.#hotPages;
    const hotCount = countIn(hot, sending);
    const onProgress = ({ pages, bytes }: PagesMoved): void => onEvent({ kind: 'progress', round, pages, bytes });
    const sent = this.#union === null ? NOTHING_SENT : await sender.send(sending, round, { hot, onProgress });
    const end: RoundEndMessage = { round, pages: sent.pages, final };
    const asked = performance.now();
    await channel.sendJson(FrameType.ROUND_END, end);
    if (!final) {
      await channel.receiveJson<RoundEndMessage>(FrameType.ROUND_ACK);
      this.#roundTripMs = Math.min(this.#roundTripMs, elapsed(asked));
    }
    const result: Round = { round, ...sent, ms: elapsed(started), dirtyAfter: 0, dirtyBy, startMs, hotPages: hotCount };
    if (!final) {
      this.take();
      this.heat.count(sending, round);
      result.dirtyAfter = this.#bitmap.count();
    }
    this.rounds.push(result);
    onEvent({ kind: 'round', round: { ...result } });
    return result;
  }

  /** Answered: pages of a region that comes may travel on other connections. */
  async #tellLayout(message: LayoutMessage): Promise<void> {
    const { channel } = this.#parts;
    await channel.sendJson(FrameType.LAYOUT, message);
    await channel.receive([FrameType.LAYOUT_ACK]);
  }

  /** Every bit is cleared before its page is read, so a page written meanwhile is marked again and sent in a later round. */
  take(): void {
    const began = performance.now();
    for (const [name, pages] of this.#union!.takeInto(this.#bitmap)) {
      this.#dirtyBy[name] = (this.#dirtyBy[name] ?? 0) + pages;
    }
    this.#syncMs = elapsed(began);
  }

  /** A page that is dirty is forgotten: for tests, which must find out. */
  forgetOne(): void {
    const [first] = this.#bitmap.ranges();
    if (first !== undefined) this.#bitmap.clear(first.page);
  }

  /** From now on guest memory keeps its layout. */
  freeze(): void {
    this.#layout.freeze();
  }

  /** The device stands: what a throttle held back waits in the taps. */
  async endThrottle(): Promise<void> {
    await this.#throttle?.stop().catch(() => undefined);
    this.#throttle = null;
  }

  /** Lets go of guest memory and of receive traffic. Idempotent. */
  async end(): Promise<void> {
    this.#layout.end();
    await this.endThrottle();
  }
}

const NOTHING_SENT: PagesMoved = { pages: 0, zeroPages: 0, bytes: 0 };

function countIn(some: PageBitmap, all: PageBitmap): number {
  let pages = 0;
  for (const range of some.ranges()) {
    for (let page = range.page; page < range.page + range.pages; page++) if (all.has(page)) pages++;
  }
  return pages;
}
