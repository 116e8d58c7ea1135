/** The configuration space of a device over its whole life: what its owner changes at run time, and the generation that tells of it. */
import { invalidArgument } from '../errors';
import { encodeNetConfig } from '../net/config-space';
import { type DeviceProperties, isDuplex, isMtu, isSpeed } from './device-properties';

/** What changes at run time, beside what the driver itself sets. */
export interface ConfigState {
  linkUp: boolean;
  mtu: number;
  speed: number;
  duplex: number;
  /** Free-running modulo 2^32. */
  generation: number;
}

export class DeviceConfig {
  readonly #pairs: number;
  #state: ConfigState;

  constructor({ pairs, mtu, speed, duplex }: DeviceProperties) {
    this.#pairs = pairs;
    this.#state = { linkUp: true, mtu, speed, duplex, generation: 0 };
  }

  get state(): Readonly<ConfigState> {
    return this.#state;
  }

  /** Of a device that was saved. */
  restore(state: Readonly<ConfigState>): void {
    this.#state = { ...state };
  }

  setLink(linkUp: boolean): void {
    this.#state = { ...this.#state, linkUp };
  }

  setSpeed(speed: number, duplex: number): void {
    if (!isSpeed(speed) || !isDuplex(duplex)) throw invalidArgument(`speed ${speed}, duplex ${duplex}`);
    this.#state = { ...this.#state, speed, duplex };
  }

  setMtu(mtu: number): void {
    if (!isMtu(mtu)) throw invalidArgument(`mtu ${mtu}`);
    this.#state = { ...this.#state, mtu };
  }

  /** The driver has read something that is not so any more. */
  changed(): void {
    this.#state = { ...this.#state, generation: (this.#state.generation + 1) >>> 0 };
  }

  /** struct virtio_net_config (virtio 1.4 section 5.1.4). */
  encode(mac: string, announce: boolean): Uint8Array {
    const { linkUp, mtu, speed, duplex } = this.#state;
    return encodeNetConfig({ mac, linkUp, announce, maxPairs: this.#pairs, mtu, speed, duplex });
  }
}
