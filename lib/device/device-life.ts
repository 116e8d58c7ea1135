/**
 * One life of a device, from reset to reset: what a driver has said to it so far (virtio 1.4 sections 2.1, 2.2 and 3.1). It is plain
 * bookkeeping: what a write means for data path and control queue is done by the device.
 */
import type { BackendDevice, QueueNotifiers } from '../backend/backend';
import type { PathSettings } from '../backend/path-settings';
import * as net from '../constants/virtio-net';
import {
  VIRTIO_CONFIG_S_ACKNOWLEDGE as ACKNOWLEDGE,
  VIRTIO_CONFIG_S_DRIVER as DRIVER,
  VIRTIO_CONFIG_S_DRIVER_OK as DRIVER_OK,
  VIRTIO_CONFIG_S_FAILED as FAILED,
  VIRTIO_CONFIG_S_FEATURES_OK as FEATURES_OK,
  VIRTIO_CONFIG_S_NEEDS_RESET as NEEDS_RESET,
} from '../constants/virtio-status';
import { gpa } from '../memory/address';
import type { GuestMemory } from '../memory/guest-memory';
import { unmetDependencies } from '../net/feature-rules';
import { featureNames, hasBit } from '../net/features';
import { copyQueueState, type QueueState } from '../virtqueue/queue-state';
import { type ControlState, initialControlState } from './control-state';
import type { DeviceProperties } from './device-properties';

/** Bits that a driver sets; NEEDS_RESET is the device's own. */
const DRIVER_BITS = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK | FAILED;
const FEATURE_WORDS = 4;

/** What all lives of a device have in common. */
export interface LifeContext {
  readonly memory: GuestMemory;
  readonly properties: DeviceProperties;
  /** What a driver may ack now. */
  readonly offered: () => bigint;
  readonly notifiers: readonly QueueNotifiers[];
  readonly linkUp: () => boolean;
}

/** Which queue a number stands for, after the features that were acked. */
export type QueueRole = { readonly kind: 'data'; readonly index: number } | { readonly kind: 'control' };

/** The registers of one queue. */
export type QueueField = 'size' | 'descTable' | 'availRing' | 'usedRing';

export class DeviceLife implements BackendDevice {
  readonly #context: LifeContext;
  readonly #words = new Uint32Array(FEATURE_WORDS);
  #status = 0;
  features = 0n;
  /** Receive 2n, transmit 2n + 1. */
  queues: QueueState[];
  controlQueue: QueueState;
  control: ControlState;
  /** Queues that the driver has reset since DRIVER_OK: these it may set up again (section 2.6.1). */
  readonly #reset = new Set<number>();

  constructor(context: LifeContext) {
    this.#context = context;
    const { pairs, rxQueueSize, txQueueSize, ctrlQueueSize, mac } = context.properties;
    this.queues = Array.from({ length: 2 * pairs }, (_, index) =>
      freshQueue(index % 2 === 0 ? rxQueueSize : txQueueSize),
    );
    this.controlQueue = freshQueue(ctrlQueueSize);
    this.control = initialControlState(mac, 0n);
  }

  get memory(): GuestMemory {
    return this.#context.memory;
  }

  get notifiers(): readonly QueueNotifiers[] {
    return this.#context.notifiers;
  }

  get settings(): PathSettings {
    const { activePairs, receiveFilter, guestOffloads } = this.control;
    const filters =
      hasBit(this.features, net.VIRTIO_NET_F_CTRL_RX) || hasBit(this.features, net.VIRTIO_NET_F_CTRL_VLAN);
    return {
      activePairs,
      receiveFilter: filters ? receiveFilter : null,
      guestOffloads,
      linkUp: this.#context.linkUp(),
    };
  }

  get status(): number {
    return this.#status;
  }

  get driverOk(): boolean {
    return (this.#status & DRIVER_OK) !== 0;
  }

  get broken(): boolean {
    return (this.#status & NEEDS_RESET) !== 0;
  }

  /** Only a reset ends this. */
  break(): void {
    this.#status |= NEEDS_RESET;
  }

  /** Negotiated without a transport: by whoever built the guest, or before a migration. */
  adopt(parts: {
    features: bigint;
    queues: readonly QueueState[];
    controlQueue?: QueueState;
    control?: ControlState;
    status?: number;
    driverFeatures?: bigint;
    resetQueues?: readonly number[];
  }): void {
    const { features, driverFeatures = features, resetQueues = [] } = parts;
    this.features = features;
    for (let word = 0; word < FEATURE_WORDS; word++) {
      this.#words[word] = Number((driverFeatures >> BigInt(32 * word)) & 0xffffffffn);
    }
    for (const number of resetQueues) this.#reset.add(number);
    this.queues = parts.queues.map(copyQueueState);
    if (parts.controlQueue !== undefined) this.controlQueue = copyQueueState(parts.controlQueue);
    this.control = parts.control ?? initialControlState(this.#context.properties.mac, parts.features);
    this.#status = parts.status ?? ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;
  }

  /** What the driver has written, accepted or not. */
  get driverFeatures(): bigint {
    let features = 0n;
    for (let word = FEATURE_WORDS - 1; word >= 0; word--) features = (features << 32n) | BigInt(this.#words[word]!);
    return features;
  }

  /** Numbers of the queues that may be set up after DRIVER_OK. */
  get resetQueues(): number[] {
    return [...this.#reset];
  }

  /** What is written after FEATURES_OK, or beyond 128 bits, changes nothing. Answers what is wrong with it, or null. */
  writeDriverFeatures(window: number, value: number): string | null {
    if ((this.#status & FEATURES_OK) !== 0) return 'features after FEATURES_OK';
    if (window < FEATURE_WORDS) this.#words[window] = value;
    return null;
  }

  /**
   * A write to the status register, not 0. Bits are only ever added; FEATURES_OK stays away from features that cannot be served, and
   * DRIVER_OK from a device without FEATURES_OK. Answers what is wrong with it, or null.
   */
  writeStatus(value: number): string | null {
    const asked = value & DRIVER_BITS;
    const cleared = this.#status & DRIVER_BITS & ~asked;
    this.#status |= asked & (ACKNOWLEDGE | DRIVER | FAILED);
    const wrong: string[] = cleared === 0 ? [] : [`status bits 0x${cleared.toString(16)} cleared without a reset`];
    if ((asked & FEATURES_OK) !== 0 && (this.#status & FEATURES_OK) === 0) {
      const refusal = (this.#status & DRIVER) === 0 ? 'FEATURES_OK before DRIVER' : this.#acceptFeatures();
      if (refusal === null) this.#status |= FEATURES_OK;
      else wrong.push(refusal);
    }
    if ((asked & DRIVER_OK) !== 0 && (this.#status & DRIVER_OK) === 0) {
      if ((this.#status & FEATURES_OK) !== 0) this.#status |= DRIVER_OK;
      else wrong.push('DRIVER_OK before FEATURES_OK');
    }
    return wrong.length === 0 ? null : wrong.join('; ');
  }

  #acceptFeatures(): string | null {
    const features = this.driverFeatures;
    const foreign = features & ~this.#context.offered();
    if (foreign !== 0n) return `features that were not offered: ${featureNames(foreign).join(', ')}`;
    if (!hasBit(features, net.VIRTIO_F_VERSION_1)) return 'features without VIRTIO_F_VERSION_1';
    const unmet = unmetDependencies(features);
    if (unmet.length > 0) return unmet.join('; ');
    this.features = features;
    this.control = initialControlState(this.#context.properties.mac, features);
    const packed = hasBit(features, net.VIRTIO_F_RING_PACKED);
    for (const queue of [...this.queues, this.controlQueue]) rewind(queue, packed);
    return null;
  }

  /** Section 5.1.2: with MQ the control queue comes behind all pairs, without it behind the first. */
  roleOf(number: number): QueueRole | null {
    const negotiated = (this.#status & FEATURES_OK) !== 0;
    const multiqueue = !negotiated || hasBit(this.features, net.VIRTIO_NET_F_MQ);
    const data = multiqueue ? 2 * this.#context.properties.pairs : 2;
    if (number < data) return { kind: 'data', index: number };
    if (number !== data) return null;
    const features = negotiated ? this.features : this.#context.offered();
    return hasBit(features, net.VIRTIO_NET_F_CTRL_VQ) ? { kind: 'control' } : null;
  }

  /** By number, or null when there is none. */
  queue(number: number): QueueState | null {
    const role = this.roleOf(number);
    if (role === null) return null;
    return role.kind === 'control' ? this.controlQueue : this.queues[role.index]!;
  }

  /** Largest size of a queue; 0 when there is none. */
  queueMax(number: number): number {
    const role = this.roleOf(number);
    if (role === null) return 0;
    const { rxQueueSize, txQueueSize, ctrlQueueSize } = this.#context.properties;
    if (role.kind === 'control') return ctrlQueueSize;
    return role.index % 2 === 0 ? rxQueueSize : txQueueSize;
  }

  /** Why a queue may not be set up now, or null. */
  notNow(number: number): string | null {
    const queue = this.queue(number);
    if (queue === null) return `queue ${number}, which is not there`;
    if ((this.#status & FEATURES_OK) === 0) return `queue ${number} before FEATURES_OK`;
    if (queue.ready) return `queue ${number} while it is enabled`;
    if (this.driverOk && !this.#reset.has(number))
      return `queue ${number} after DRIVER_OK, without a reset of the queue`;
    return null;
  }

  /** Writes one register of a queue that is not enabled. Answers what is wrong with it, or null. */
  configureQueue(number: number, field: QueueField, value: number): string | null {
    const trouble = this.notNow(number);
    if (trouble !== null) return trouble;
    const queue = this.queue(number)!;
    if (field === 'size') queue.size = value;
    else queue[field] = gpa(value);
    return null;
  }

  /** The queue belongs to the device again, or never did; its registers are as after a reset of the device. */
  forgetQueue(number: number): void {
    const queue = this.queue(number);
    if (queue === null) return;
    Object.assign(queue, freshQueue(this.queueMax(number)));
    rewind(queue, hasBit(this.features, net.VIRTIO_F_RING_PACKED));
    this.#reset.add(number);
  }
}

/** Of a queue that nobody has set up. */
export function freshQueue(size: number): QueueState {
  return { size, ready: false, descTable: gpa(0), availRing: gpa(0), usedRing: gpa(0), nextAvail: 0 };
}

/** To where a queue of either format begins. */
function rewind(queue: QueueState, packed: boolean): void {
  queue.nextAvail = 0;
  if (packed) queue.packed = { availWrap: true, nextUsed: 0, usedWrap: true };
  else delete queue.packed;
}
