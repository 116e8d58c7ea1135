/** Who gets frames at one end of a network: numbered ones by flow, those that are all the same by count, and those that should not come. */
import { ETH_P_8021Q, ETH_P_RARP, VLAN_HLEN } from '../../lib/constants/if-ether';
import { ETHER_SOURCE, etherType, formatMac } from '../../lib/net/ethernet';
import { frameArea, frameFlow, isTestFrame } from '../../lib/net/test-frame';
import { FrameLedger, type LedgerReport } from '../../lib/observe/frame-ledger';
import { IDENTICAL } from './flow-plan';

export class FrameBook {
  readonly #ledgers = new Map<number, FrameLedger>();
  readonly #own: ReadonlySet<string>;
  /** Those that are all the same. */
  identical = 0;
  /** Came back to the one who sent them. */
  own = 0;
  announcements = 0;
  foreign = 0;
  total = 0;

  /** `own` are the addresses of whoever listens here. */
  constructor(own: readonly string[]) {
    this.#own = new Set(own);
  }

  /** A frame without a virtio-net header. */
  account(frame: Uint8Array): void {
    this.total++;
    const type = etherType(frame, etherType(frame, 0) === ETH_P_8021Q ? VLAN_HLEN : 0);
    if (this.#own.has(formatMac(frame, ETHER_SOURCE))) this.own++;
    else if (type === ETH_P_RARP) this.announcements++;
    else if (type === IDENTICAL) this.identical++;
    else this.#numbered(frame);
  }

  #numbered(frame: Uint8Array): void {
    const area = frameArea(frame);
    if (!isTestFrame(area, 0, frame.length)) {
      this.foreign++;
      return;
    }
    this.ledger(frameFlow(area, 0)).account(area, 0, frame.length, performance.now() * 1000);
  }

  ledger(flow: number): FrameLedger {
    let ledger = this.#ledgers.get(flow);
    if (ledger === undefined) {
      ledger = FrameLedger.create({ flow, capacity: 1 << 17 });
      this.#ledgers.set(flow, ledger);
    }
    return ledger;
  }

  report(flow: number, sent: number): LedgerReport {
    return this.ledger(flow).report(sent);
  }
}
