/** Serves a device's control virtqueue in this process, whatever the data path, and makes commands take effect before they are answered. */
import type { QueueNotifiers } from '../backend/backend';
import { VIRTIO_NET_F_CTRL_VQ, VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC } from '../constants/virtio-net';
import type { EventFdWatch } from '../host/event-fd';
import type { ControlCommand } from '../net/control-command';
import { hasBit } from '../net/features';
import { emit, type Trace } from '../trace/trace';
import type { DeviceQueue } from '../virtqueue/device-queue';
import { openDeviceQueue } from '../virtqueue/open-queue';
import type { WriteLog } from '../virtqueue/ring-memory';
import { ControlQueue } from './control-queue';
import { applyCommand } from './control-state';
import type { DeviceLife } from './device-life';

export interface ControlServiceParts {
  /** Told of what is written to guest memory. */
  log: WriteLog;
  trace: Trace | undefined;
  /** Queue pairs of the device. */
  pairs: number;
  /** Of the control queue; null when the device has none. */
  notifiers: QueueNotifiers | null;
  /** Makes the data path do what the life's settings say; resolves when it does. */
  effect(life: DeviceLife): Promise<void>;
  onBroken(life: DeviceLife, reason: string): void;
}

interface Service {
  life: DeviceLife;
  device: DeviceQueue;
  queue: ControlQueue;
  watch: EventFdWatch;
  /** Lets commands no longer wait for their effect: what stops the data path would wait for them. */
  halt: () => void;
}

export class ControlService {
  readonly #parts: ControlServiceParts;
  #service: Service | null = null;

  constructor(parts: ControlServiceParts) {
    this.#parts = parts;
  }

  /** Where the driver has set one up. Throws VHOST_ERR_RING for a queue that cannot be. */
  start(life: DeviceLife): void {
    const { notifiers, log, trace } = this.#parts;
    const { features, controlQueue } = life;
    if (this.#service !== null || notifiers === null) return;
    if (!controlQueue.ready || !hasBit(features, VIRTIO_NET_F_CTRL_VQ)) return;
    const device = openDeviceQueue(life.memory, controlQueue, {
      eventIdx: hasBit(features, VIRTIO_RING_F_EVENT_IDX),
      indirect: hasBit(features, VIRTIO_RING_F_INDIRECT_DESC),
      log,
    });
    let halt = (): void => undefined;
    const halted = new Promise<void>((resolve) => {
      halt = resolve;
    });
    const queue = new ControlQueue(device, log, (command) => this.#obey(life, halted, command), {
      ...(trace === undefined ? {} : { trace }),
      onCall: () => notifiers.call.signal(),
      onBroken: (error) => this.#parts.onBroken(life, `control queue: ${error.message}`),
    });
    const watch = notifiers.kick.onSignal(() => queue.wake());
    watch.unref();
    this.#service = { life, device, queue, watch, halt };
    queue.wake();
  }

  /** What it has taken is answered, nothing more is taken, and the life's queue state says where it stands. */
  async stop(): Promise<void> {
    const service = this.#service;
    if (service === null) return;
    this.#service = null;
    service.watch.close();
    service.halt();
    await service.queue.stop();
    Object.assign(service.life.controlQueue, service.device.state());
  }

  /** Whether the command is done; a failed one leaves everything as it was. */
  async #obey(life: DeviceLife, halted: Promise<void>, command: ControlCommand): Promise<boolean> {
    const before = life.control;
    const applied = applyCommand(before, command, { features: life.features, maxPairs: this.#parts.pairs });
    if (applied === 'error') return false;
    const { state, change } = applied;
    if (change === 'pairs' && !pairsReady(life, state.activePairs)) return false;
    life.control = state;
    if (change === null || change === 'announce-ack') return true;
    try {
      // What a data path that is being stopped was not told, the next one is told when it starts.
      await Promise.race([this.#parts.effect(life), halted]);
      return true;
    } catch (error) {
      emit(this.#parts.trace, { kind: 'fault', object: 'control queue', message: `no effect (${error})` });
      life.control = before;
      await Promise.race([this.#parts.effect(life).catch(() => undefined), halted]);
      return false;
    }
  }
}

/** Pairs can only be used with both of their queues set up. */
function pairsReady({ queues }: DeviceLife, pairs: number): boolean {
  return queues.slice(0, 2 * pairs).every(({ ready }) => ready);
}
