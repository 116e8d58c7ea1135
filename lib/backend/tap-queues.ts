/**
 * The tap under a data path: one queue for each queue pair. Whatever control queue and owner want of frames on their way to the guest is
 * done here, on the tap, so that it holds on every data path alike and stays while one replaces another.
 */
import { isDeepStrictEqual } from 'node:util';
import { TUN_F_CSUM } from '../constants/if-tun';
import { invalidArgument, VhostError } from '../errors';
import type { Tap } from '../host/tap';
import { headerLength } from '../net/header';
import { filtersNothing } from '../net/receive-filter';
import { ACCEPT_ALL, DROP_ALL, receiveFilterProgram } from '../net/receive-filter-program';
import type { BackendDevice } from './backend';
import type { PathSettings } from './path-settings';
import { EVERY_OFFLOAD, prepareTap, requireHeader, tapFeatures, tapOffload } from './tap-features';

/** What kernels take of offloads, found out once for each tap: asking means setting. */
const taken = new WeakMap<Tap, number>();

export class TapQueues {
  readonly taps: readonly Tap[];
  readonly #user: string;
  readonly #prepare: boolean;
  #releases: (() => void)[] = [];
  /** What the taps were configured for, while they are reserved and nothing else was set. */
  #configured: Pick<BackendDevice, 'features' | 'settings'> | null = null;

  /** `user` names who has the taps, for whoever wants them too. `prepare`: set header size and offloads, which else are only checked. */
  constructor(taps: readonly Tap[], user: string, prepare: boolean) {
    if (taps.length === 0) throw invalidArgument(`a ${user} needs a tap for every queue pair`);
    if (new Set(taps).size !== taps.length)
      throw invalidArgument('two queue pairs on one tap queue', 'open a queue for each');
    this.taps = taps;
    this.#user = user;
    this.#prepare = prepare;
  }

  /** One tap for each interface: the queues of a multiqueue one share all settings. */
  get #interfaces(): readonly Tap[] {
    return this.taps[0]!.multiQueue ? this.taps.slice(0, 1) : this.taps;
  }

  /** Feature bits these taps carry. Sets the offloads of a tap that nobody uses, to see what its kernel takes. */
  async probe(): Promise<bigint> {
    const tap = this.taps[0]!;
    let offload = taken.get(tap);
    if (offload === undefined) {
      const before = tap.offload ?? 0;
      offload = await tap.setBestOffload(EVERY_OFFLOAD);
      await tap.setOffload(before);
      taken.set(tap, offload);
    }
    return tapFeatures(offload | TUN_F_CSUM);
  }

  /** Throws unless there is a queue for every pair the driver has set up. */
  requireQueues(device: BackendDevice): void {
    if (device.queues.slice(this.taps.length * 2).some(({ ready }) => ready)) {
      throw invalidArgument(
        `${device.queues.length} queues need ${device.queues.length / 2} taps, there are ${this.taps.length}`,
      );
    }
    const pairs = device.settings?.activePairs ?? 1;
    if (pairs > this.taps.length) throw invalidArgument(`${pairs} queue pairs need ${pairs} taps`);
  }

  /** Pairs that carry frames: those in use, or, of a device that does not say, all. */
  activePairs(device: BackendDevice): number {
    return Math.min(device.settings?.activePairs ?? this.taps.length, this.taps.length);
  }

  /** Reserves the queues. Throws VHOST_ERR_STATE, with none reserved, when somebody has one of them. */
  claim(): void {
    if (this.#releases.length > 0) return;
    try {
      for (const [index, tap] of this.taps.entries()) {
        this.#releases.push(tap.claim(`${this.#user}, pair ${index}`));
      }
    } catch (error) {
      this.unclaim();
      throw error;
    }
  }

  unclaim(): void {
    this.#configured = null;
    for (const release of this.#releases.splice(0)) release();
  }

  /**
   * Header size, and everything `settings` say, before the device runs. What is set already is not set again: it costs a lock, and so does
   * asking. Answers false when taps that stayed reserved were configured for the same before.
   */
  async configure(device: BackendDevice): Promise<boolean> {
    const { settings, features } = device;
    if (settings !== undefined && isDeepStrictEqual(this.#configured, { features, settings })) return false;
    const wanted = settings === undefined ? features : settings.guestOffloads;
    for (const tap of this.#interfaces) {
      if (this.#prepare && (settings === undefined || tap.vnetHdrSize !== headerLength(features))) {
        await prepareTap(tap, features, wanted);
      }
      requireHeader(tap, features);
    }
    if (settings === undefined) return true;
    await this.apply(settings);
    for (const [index, tap] of this.taps.entries()) await this.#park(tap, index >= settings.activePairs);
    if (this.#releases.length > 0) this.#configured = { features, settings };
    return true;
  }

  /** Offloads, filter and link; the number of queues is `use` and `park`. */
  async apply(settings: PathSettings): Promise<void> {
    this.#configured = null;
    const offload = tapOffload(settings.guestOffloads);
    const program = programOf(settings);
    for (const tap of this.#interfaces) {
      if (tap.offload !== offload) await tap.setBestOffload(offload);
      // Never detached: that would not reach parked queues, which would come back with what they had.
      if (!same(tap.attachedFilter, program) && (tap.attachedFilter !== null || program !== ACCEPT_ALL)) {
        await tap.attachFilter(program);
      }
      if (tap.carrier !== settings.linkUp) await tap.setCarrier(settings.linkUp);
    }
  }

  /** Frames go to this queue from now on. */
  use(pair: number): Promise<void> {
    return this.#park(this.taps[pair]!, false);
  }

  /** Frames go to the other queues from now on; those still in this one are freed by the kernel. */
  park(pair: number): Promise<void> {
    return this.#park(this.taps[pair]!, true);
  }

  async #park(tap: Tap, parked: boolean): Promise<void> {
    this.#configured = null;
    if (tap.parked === parked || !tap.multiQueue) return;
    await tap.setQueue(parked ? 'detach' : 'attach');
    if (!parked && tap.parked) await this.#useFiltered(tap);
  }

  /**
   * A tap that has a program answers that it took a parked queue back, gives it the program and leaves it parked (drivers/net/tun.c,
   * tun_attach). It takes it back when it believes that it has none: an attempt to attach an empty one makes it forget, and every queue
   * keeps what it has meanwhile.
   */
  async #useFiltered(tap: Tap): Promise<void> {
    const first = this.taps[0]!;
    const program = first.attachedFilter;
    await first.forgetFilter();
    await tap.setQueue('attach');
    if (program !== null) await first.attachFilter(program);
    if (tap.parked) throw new VhostError('VHOST_ERR_STATE', `a queue of tap ${tap.name} could not be taken back`);
  }
}

function programOf({ linkUp, receiveFilter }: PathSettings): Uint8Array {
  if (!linkUp) return DROP_ALL;
  return receiveFilter === null || filtersNothing(receiveFilter) ? ACCEPT_ALL : receiveFilterProgram(receiveFilter);
}

function same(a: Readonly<Uint8Array> | null, b: Uint8Array): boolean {
  return a !== null && a.length === b.length && a.every((byte, index) => byte === b[index]);
}
