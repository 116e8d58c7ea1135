/** Requests about rings: what a front end says of each is kept, and the data path follows (specification, "Ring states"). */
import { VHOST_VRING_F_LOG } from '../constants/vhost';
import { VIRTIO_F_RING_PACKED } from '../constants/virtio-net';
import { invalidArgument, VhostError } from '../errors';
import { EventFd } from '../host/event-fd';
import type { FdHandle } from '../native';
import { hasBit } from '../net/features';
import type { VringAddr } from '../vhost-user/payload';
import { isQueueSize } from '../virtqueue/layout';
import { isPackedQueueSize } from '../virtqueue/packed-layout';
import type { DataPath } from './data-path';
import { driverFeatures, isEnabled, type SessionState } from './session-state';
import { baseOf, closeVring, isStarted, newVring, queueStateOf, replaceEvent, type Vring } from './vring';

export class SessionRings {
  readonly #state: SessionState;
  readonly #path: DataPath;

  constructor(state: SessionState, path: DataPath) {
    this.#state = state;
    this.#path = path;
  }

  #vring(index: number): Vring {
    const vring = this.#state.vrings[index];
    if (vring === undefined) throw invalidArgument(`vring ${index}`, `there are ${this.#state.vrings.length}`);
    return vring;
  }

  /** Of a ring that is served, nothing changes but its log flag, its descriptors and whether it is enabled. */
  #requireStopped(index: number, what: string): void {
    if (this.#path.serves(index)) {
      throw new VhostError('VHOST_ERR_STATE', `${what} of vring ${index} while it runs`, {
        hint: 'GET_VRING_BASE first',
      });
    }
  }

  async setNum(index: number, num: number): Promise<void> {
    const vring = this.#vring(index);
    const packed = hasBit(this.#state.features, VIRTIO_F_RING_PACKED);
    if (!(packed ? isPackedQueueSize(num) : isQueueSize(num))) {
      throw new VhostError('VHOST_ERR_RING', `vring ${index} of ${num} entries`, {
        hint: packed ? '1 to 32768' : 'a power of two from 1 to 32768',
      });
    }
    if (vring.num === num) return;
    this.#requireStopped(index, 'size');
    vring.num = num;
    await this.follow(index);
  }

  setBase(index: number, base: number): void {
    const vring = this.#vring(index);
    if (!hasBit(this.#state.features, VIRTIO_F_RING_PACKED) && base > 0xffff) {
      throw new VhostError('VHOST_ERR_RING', `base ${base} of vring ${index}`, { hint: '0 to 65535' });
    }
    this.#requireStopped(index, 'base');
    vring.base = base;
  }

  async setAddresses(addresses: VringAddr): Promise<void> {
    const { index, flags } = addresses;
    const vring = this.#vring(index);
    if ((flags & ~VHOST_VRING_F_LOG) !== 0) {
      throw new VhostError('VHOST_ERR_RING', `flags 0x${flags.toString(16)} of vring ${index}`, { hint: '0 or 1' });
    }
    const { memory } = this.#state;
    const next = { ...vring, addresses };
    // With the smallest size there is, where none was told: the rest is looked at when the ring starts.
    if (memory !== null) queueStateOf({ ...next, num: vring.num || 1 }, memory, driverFeatures(this.#state));
    const before = vring.addresses;
    const moved =
      before === null || (['desc', 'used', 'avail'] as const).some((name) => before[name] !== addresses[name]);
    // The data path logs used rings whenever it logs, so the flag alone changes nothing for it.
    if (moved) await this.#pause(index);
    vring.addresses = addresses;
    await this.follow(index);
  }

  async setKick(index: number, fd: FdHandle | null): Promise<void> {
    if (fd === null)
      throw new VhostError('VHOST_ERR_UNSUPPORTED', `vring ${index} without a kick: rings are not polled`);
    await this.#setEvent(index, 'kick', fd);
    await this.follow(index);
  }

  setCall(index: number, fd: FdHandle | null): Promise<void> {
    return this.#setEvent(index, 'call', fd);
  }

  async setErr(index: number, fd: FdHandle | null): Promise<void> {
    await this.#setEvent(index, 'err', fd);
  }

  /** The one before is closed when nobody uses it any more. */
  async #setEvent(index: number, name: 'kick' | 'call' | 'err', fd: FdHandle | null): Promise<void> {
    const event = fd === null ? null : EventFd.share(fd);
    try {
      const vring = this.#vring(index);
      if (name !== 'err' && this.#path.serves(index)) await this.#path.renotify(index, { ...vring, [name]: event });
      replaceEvent(vring, name, event);
    } catch (error) {
      event?.close();
      throw error;
    }
  }

  async enable(index: number, num: number): Promise<void> {
    const vring = this.#vring(index);
    if (num > 1) throw invalidArgument(`vring ${index} enabled ${num}`, '0 or 1');
    vring.enabled = num === 1;
    await this.follow(index);
  }

  /** GET_VRING_BASE: stops the ring. It goes on with that base after another kick was given. */
  async stop(index: number): Promise<number> {
    const vring = this.#vring(index);
    await this.#pause(index);
    replaceEvent(vring, 'kick', null);
    return vring.base;
  }

  /** Takes a ring out of service without forgetting anything, its index included. */
  async #pause(index: number): Promise<void> {
    if (this.#path.serves(index)) this.#vring(index).base = baseOf(await this.#path.end(index));
  }

  /** All rings, likewise. */
  async pauseAll(): Promise<void> {
    for (const [index, state] of await this.#path.endAll()) this.#vring(index).base = baseOf(state);
  }

  /** Serves the ring, or no longer, as everything that was said of it has it now. */
  async follow(index: number): Promise<void> {
    const vring = this.#vring(index);
    const { memory } = this.#state;
    const wanted = isStarted(vring) && isEnabled(this.#state, vring) && memory !== null;
    if (!wanted) return this.#pause(index);
    if (this.#path.serves(index)) return;
    const features = driverFeatures(this.#state);
    const queue = queueStateOf(vring, memory, features);
    if (this.#path.served.length === 0) this.#path.configure(memory.guest, features);
    await this.#path.begin(index, queue, vring);
  }

  async followAll(): Promise<void> {
    for (const index of this.#state.vrings.keys()) await this.follow(index);
  }

  /** Rings as they were before anything was said of them. */
  async reset(): Promise<void> {
    await this.pauseAll();
    for (const vring of this.#state.vrings) {
      closeVring(vring);
      Object.assign(vring, newVring());
    }
  }

  /** Tells the front end that a ring stands still. */
  signalError(index: number): void {
    this.#state.vrings[index]?.err?.signal();
  }
}
