import { setTimeout as sleep } from 'node:timers/promises';
import { IFF_NO_PI, IFF_TAP } from '../../lib/constants/if-tun';
import { Netns } from '../../lib/host/netns';
import { Tap } from '../../lib/host/tap';
import { swapAddresses } from '../../lib/net/ethernet';
import { Pinger } from './pinger';

const RATE = 200;
const STRIDE = 2048;
const LOOK_MS = 2;
const FRAMES = 16;

/** Returns frames, but for one of its own choice, and none while it is silent. */
class Guest {
  silent = false;
  dropNext = 0;
  readonly #tap: Tap;
  readonly #timer = setInterval(() => this.#look(), LOOK_MS);
  readonly #arena = new Uint8Array(FRAMES * STRIDE);
  readonly #lengths = new Int32Array(FRAMES);

  constructor(tap: Tap) {
    this.#tap = tap;
  }

  #look(): void {
    if (this.silent) return;
    const count = this.#tap.readFrames(this.#arena, STRIDE, FRAMES, this.#lengths);
    for (let index = 0; index < count; index++) {
      if (this.dropNext-- > 0) continue;
      this.dropNext = 0;
      const frame = this.#arena.subarray(index * STRIDE);
      swapAddresses(frame, 0);
      this.#tap.writeFrames(frame, STRIDE, 1, Int32Array.of(this.#lengths[index]!));
    }
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#tap.close();
  }
}

describe('Pinger', () => {
  it('tells of requests without an answer, and of the longest silence', async () => {
    await using netns = await Netns.create();
    await netns.addBridge('br0');
    const pinger = await Pinger.open(netns);
    const guest = new Guest(await Tap.open({ name: 'guest', netns: netns.path, flags: IFF_TAP | IFF_NO_PI }));
    try {
      await netns.attach('br0', 'pinger');
      await netns.attach('br0', 'guest');
      pinger.start(RATE);
      while (pinger.answered < 5) await sleep(LOOK_MS);
      pinger.watch();
      await sleep(200);
      guest.silent = true;
      await sleep(300);
      guest.silent = false;
      await sleep(100);
      guest.dropNext = 3;
      await sleep(200);
      pinger.hush();
      await sleep(100);
      const { asked, lost, silenceMs } = pinger.answers();
      expect(lost).toBe(3);
      expect(asked).toBeGreaterThan(50);
      expect(silenceMs).toBeGreaterThan(250);
      expect(pinger.doubled).toBe(0);
      pinger.start(RATE);
      await sleep(100);
      pinger.hush();
      await sleep(100);
      expect(pinger.answers().lost).toBe(0);
    } finally {
      await guest.close();
      await pinger.close();
    }
  });
});
