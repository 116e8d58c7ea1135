/** A driver by hand and a station that exchange numbered frames until told to stop, with an account on both sides. */

import { parseMac } from '../../lib/net/ethernet';
import { encodeFrame, frameArea } from '../../lib/net/test-frame';
import { FrameLedger, type LedgerReport } from '../../lib/observe/frame-ledger';
import { type DeviceRig, GUEST_MAC, STATION_MAC } from './device-rig';
import type { RawFrame, RawNetDriver } from './raw-net-driver';
import { sleep, until } from './vhost-wait';

const FRAME = 128;
const ADDRESSES = new Uint8Array([...parseMac(STATION_MAC), ...parseMac(GUEST_MAC)]);

/** A numbered frame from the guest to the station of a rig. */
export function numberedFrame({ toNetwork }: DeviceRig, sequence: number): Uint8Array {
  const area = frameArea(new Uint8Array(FRAME));
  encodeFrame(area, 0, FRAME, toNetwork, sequence, 0, ADDRESSES, 0, 6);
  return area.u8;
}

export class RawTalk {
  readonly ledger: FrameLedger;
  sent = 0;
  readonly #rig: DeviceRig;
  readonly #driver: RawNetDriver;
  #timer: NodeJS.Timeout | null = null;
  #turns = 0;
  #sending = true;
  #receiving = true;

  constructor(rig: DeviceRig, driver: RawNetDriver) {
    this.#rig = rig;
    this.ledger = FrameLedger.create({ flow: rig.toGuest });
    this.#driver = driver;
  }

  /** The station begins once the guest was heard: its frames then find the way. */
  async start(): Promise<void> {
    this.#timer = setInterval(() => this.#turn(), 1);
    await until('the guest is heard', () => this.#rig.station.ledger.received > 0);
    this.#rig.station.start();
  }

  #turn(): void {
    if (this.#receiving) this.account(this.#driver.receive());
    if (!this.#sending) return;
    // Two at a time, one in four turns: about as many as the station sends.
    if (++this.#turns % 4 !== 0) return;
    for (let frame = 0; frame < 2 && this.#driver.post(numberedFrame(this.#rig, this.sent)); frame++) this.sent++;
    this.#driver.publish();
  }

  account(frames: readonly RawFrame[]): void {
    for (const { bytes } of frames) this.ledger.account(frameArea(bytes), 0, bytes.length, performance.now() * 1000);
  }

  /** Waits until `frames` more went each way. */
  async pass(frames: number): Promise<void> {
    const { ledger } = this.#rig.station;
    const [network, guest] = [ledger.received + frames, this.ledger.received + frames];
    await until(`${frames} frames each way`, () => ledger.received >= network && this.ledger.received >= guest);
  }

  /** Runs `change` while the driver leaves one of the queues alone; the other goes on. */
  async without<T>(queue: 'receive' | 'transmit', change: () => Promise<T>): Promise<T> {
    if (queue === 'receive') this.#receiving = false;
    else this.#sending = false;
    try {
      return await change();
    } finally {
      this.#receiving = true;
      this.#sending = true;
    }
  }

  /** Both fall silent. Both accounts. */
  async settle(): Promise<{ toNetwork: LedgerReport; toGuest: LedgerReport }> {
    const { station } = this.#rig;
    station.hush();
    this.#sending = false;
    const { ledger } = station;
    for (let quiet = 0, before = -1; quiet < 20; quiet++) {
      await sleep(50);
      const now = ledger.received + this.ledger.received;
      if (now === this.sent + station.sent) break;
      if (now !== before) quiet = 0;
      before = now;
    }
    await sleep(50);
    this.close();
    return { toNetwork: station.ledger.report(this.sent), toGuest: this.ledger.report(station.sent) };
  }

  close(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
