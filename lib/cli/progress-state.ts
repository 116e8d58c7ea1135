/** What a progress display says, apart from how it is drawn. */
import type { MigrationEvent } from '../migration/options';
import { printable } from '../report/html';
import { bytes, bytesPerSecond, count, duration, pagesPerSecond, share } from '../report/units';

const PHASES: Record<string, string> = {
  setup: 'comparing both sides',
  precopy: 'copying memory',
  relay: 'opening the other tap',
  switchover: 'switching over',
  ready: 'destination ready',
  commit: 'handing over',
  running: 'guest runs at the destination',
  done: 'done',
};

/** Seconds over which the rate of transfer is averaged, about. */
const RATE_SECONDS = 1;
const LONGEST_REASON = 300;

// No-break spaces are for pages, not for terminals.
const plain = (text: string): string => text.replaceAll('\u00a0', ' ');

export class ProgressState {
  phase = '';
  round = 0;
  /** Pages of this round; 0 while not known. */
  pages = 0;
  sent = 0;
  #bytes = 0;
  #bytesPerSecond: number | null = null;
  #measuredAt: number | null = null;
  #measuredBytes = 0;
  #dirtyPagesPerSecond: number | null = null;
  #downtimeMs: number | null = null;
  #leftMs: number | null = null;

  /** `now`: milliseconds of any clock that does not go back. Answers the line that is worth keeping, if there is one. */
  apply(event: MigrationEvent, now: number): string | null {
    switch (event.kind) {
      case 'phase':
        this.phase = PHASES[event.phase] ?? printable(event.phase, LONGEST_REASON);
        return this.phase;
      case 'progress':
        this.#begin(event.round);
        this.sent = event.pages;
        this.#measure(event.bytes, now);
        return null;
      case 'estimate':
        this.#begin(event.round);
        this.pages = event.pages;
        this.#dirtyPagesPerSecond = event.dirtyPagesPerSecond;
        this.#downtimeMs = event.downtimeMs;
        this.#leftMs = event.leftMs;
        return null;
      case 'round': {
        const { round, pages, zeroPages, bytes: size, ms, dirtyAfter } = event.round;
        this.#begin(round);
        this.pages = this.sent = pages;
        const rate = ms > 0 ? `, ${bytesPerSecond((size / ms) * 1000)}` : '';
        return plain(
          `round ${count(round)}: ${count(pages)} pages (${count(zeroPages)} zero), ${bytes(size)} in ${duration(ms)}${rate}, ${count(dirtyAfter)} dirty afterwards`,
        );
      }
      case 'decision': {
        const expected = event.estimateMs === null ? '' : ` Expected downtime: ${duration(event.estimateMs)}.`;
        return plain(`${printable(event.reason, LONGEST_REASON).replace(/\s+/g, ' ')}${expected}`);
      }
      default:
        return null;
    }
  }

  #begin(round: number): void {
    if (round === this.round) return;
    this.round = round;
    this.pages = 0;
    this.sent = 0;
    this.#measuredAt = null;
  }

  /** `total`: bytes of this round so far. */
  #measure(total: number, now: number): void {
    if (this.#measuredAt === null || total < this.#measuredBytes) {
      this.#measuredAt = now;
      this.#measuredBytes = total;
      return;
    }
    const seconds = (now - this.#measuredAt) / 1000;
    if (seconds < 0.05) return;
    const rate = (total - this.#measuredBytes) / seconds;
    const weight = Math.min(1, seconds / RATE_SECONDS);
    this.#bytesPerSecond = this.#bytesPerSecond === null ? rate : this.#bytesPerSecond * (1 - weight) + rate * weight;
    this.#measuredAt = now;
    this.#measuredBytes = total;
  }

  /** Share of this round's pages that is sent, 0 to 1; null while not known. */
  get fraction(): number | null {
    return this.pages > 0 ? Math.min(1, this.sent / this.pages) : null;
  }

  /** The figures, most important first: what does not fit a narrow terminal is left out from the end. */
  figures(): string[] {
    const known: string[] = [];
    if (this.#bytesPerSecond !== null) known.push(bytesPerSecond(this.#bytesPerSecond));
    if (this.#downtimeMs !== null) known.push(`downtime now ${duration(this.#downtimeMs)}`);
    if (this.#leftMs !== null) known.push(`${duration(this.#leftMs)} left`);
    if (this.#dirtyPagesPerSecond !== null) known.push(`dirtied ${pagesPerSecond(this.#dirtyPagesPerSecond)}`);
    return known.map(plain);
  }

  /** `3,846 of 9,000 pages`, or what is known of it. */
  pagesText(): string {
    if (this.pages === 0) return this.sent === 0 ? '' : `${count(this.sent)} pages`;
    return `${count(this.sent)} of ${count(this.pages)} pages`;
  }

  percent(): string {
    return this.pages === 0 ? '' : plain(share(Math.min(this.sent, this.pages), this.pages)).replace(/\.\d+/, '');
  }
}
