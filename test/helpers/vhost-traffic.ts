/** Traffic in both directions, as fast as the host moves it, within bounds that no queue overflows. */
import type { VhostLab } from './vhost-lab';
import { sleep, until } from './vhost-wait';

/** Frames on their way at most: half of a tap's queue. */
const MOST_IN_FLIGHT = 400;

export class Traffic {
  readonly #lab: VhostLab;
  readonly #batch: number;
  #running = false;
  #done: Promise<void> = Promise.resolve();

  constructor(lab: VhostLab, batch = 24) {
    this.#lab = lab;
    this.#batch = batch;
  }

  start(): void {
    this.#running = true;
    this.#done = this.#run();
  }

  /** One turn of both ends. */
  #turn(send: boolean): void {
    const { guest, peer } = this.#lab;
    guest.receive();
    guest.refill();
    if (send && peer.sent - guest.tally.received < MOST_IN_FLIGHT) peer.send(this.#batch);
    if (send && guest.sent - peer.tally.received < MOST_IN_FLIGHT) guest.transmit(this.#batch);
    peer.receive();
  }

  async #run(): Promise<void> {
    while (this.#running) {
      this.#turn(true);
      await sleep(1);
    }
  }

  /** Waits until `frames` more frames went in each direction. */
  async pass(frames: number): Promise<void> {
    const { guest, peer } = this.#lab;
    const [rx, tx] = [guest.tally.received + frames, peer.tally.received + frames];
    await until(`${frames} frames each way`, () => guest.tally.received >= rx && peer.tally.received >= tx, 60_000);
  }

  /** Sends no more; what is on its way stays there. */
  async pause(): Promise<void> {
    this.#running = false;
    await this.#done;
  }

  /** Ends the sending and waits until everything has arrived, or nothing has for a while. */
  async drain(): Promise<void> {
    await this.pause();
    const { guest, peer } = this.#lab;
    let last = performance.now();
    let seen = -1;
    while (guest.tally.received < peer.sent || peer.tally.received < guest.sent) {
      this.#turn(false);
      const now = guest.tally.received + peer.tally.received;
      if (now !== seen) {
        seen = now;
        last = performance.now();
      } else if (performance.now() - last > 1500) {
        return;
      }
      await sleep(1);
    }
  }
}
