/**
 * Tells the network where a guest is now, several times: the first frames may be lost, and switches may not forward yet. Where the driver can it
 * does so itself (virtio 1.4 section 5.1.6.5.4), since only it knows its addresses of other layers; where not, and for VLANs and addresses that
 * are known here, reverse-ARP requests do.
 */
import type { VirtioNetDevice } from '../device/virtio-net-device';
import { type Announcements, announce } from './announce';

/** Names and defaults are those that users of QEMU know (announce-initial and so on). Milliseconds. */
export interface AnnounceOptions {
  announceInitial?: number;
  announceStep?: number;
  announceMax?: number;
  /** 0 for none. */
  announceRounds?: number;
}

/** Waits before each round. Milliseconds. */
export function announceDelays(options: AnnounceOptions = {}): number[] {
  const { announceInitial = 50, announceStep = 100, announceMax = 550, announceRounds = 5 } = options;
  return Array.from({ length: announceRounds }, (_, round) =>
    Math.min(announceMax, announceInitial + round * announceStep),
  );
}

export class AnnounceRounds {
  readonly #device: VirtioNetDevice;
  readonly #announcements: Announcements;
  readonly #delays: number[];
  #timer: NodeJS.Timeout | null = null;
  #onEnd: () => void = () => undefined;
  /** Rounds that have been. */
  rounds = 0;
  /** Resolves after the last round, or when they were ended. */
  readonly ended: Promise<void>;

  constructor(device: VirtioNetDevice, announcements: Announcements, options: AnnounceOptions = {}) {
    this.#device = device;
    this.#announcements = { ...announcements, nonce: null };
    this.#delays = announceDelays(options);
    this.ended = new Promise((resolve) => {
      this.#onEnd = resolve;
    });
    this.#next();
  }

  #next(): void {
    const delay = this.#delays.shift();
    if (delay === undefined) {
      this.#onEnd();
      return;
    }
    this.#timer = setTimeout(() => {
      this.#round();
      this.#next();
    }, delay);
    // A process that has nothing else to do need not stay for it.
    this.#timer.unref();
  }

  #round(): void {
    const { running, linkUp, backend } = this.#device;
    if (!running || !linkUp) return;
    this.rounds++;
    const byGuest = this.#device.announce();
    const tap = backend.taps?.[0];
    if (tap !== undefined && !tap.closed && (!byGuest || this.#announcements.vlans.length > 0)) {
      announce(tap, this.#announcements);
    }
  }

  /** No further round. Idempotent. */
  stop(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    this.#delays.length = 0;
    this.#onEnd();
  }
}
