/**
 * Moves a device from one data path to another under traffic.
 *
 *     prepare    the next one is told everything but where the rings stand, beside the one that runs
 *     stop       the old one stands; frames it had taken ahead are back at the head of the tap's queue
 *     start      the next one begins where the old one ended, and takes from the tap's queue in its order
 *
 * Nobody reads the tap in between and nobody reads it twice, so that its queue bridges the gap: no frame is lost while gap x rate is
 * less than its length, none is doubled, and each ring and each tap queue keeps its order.
 */
import type { Backend, BackendDevice, BackendKind, RingPosition } from '../backend/backend';
import { VhostError } from '../errors';
import type { DirtyLog } from '../memory/dirty-log';
import { native } from '../native';
import type { QueueState } from '../virtqueue/queue-state';

/** One ring across a switch. Indexes are free-running modulo 65536 in a split ring. */
export interface SwitchedRing {
  readonly queue: number;
  /** Where it stood when the old data path ran last: `base` is the next available entry, `usedIdx` the used entries shown. */
  readonly before: { readonly base: number; readonly usedIdx: number };
  /** Where it stood when the next one had started. */
  readonly after: { readonly base: number; readonly usedIdx: number };
}

export interface SwitchReceipt {
  readonly from: BackendKind;
  readonly to: BackendKind;
  readonly vrings: readonly SwitchedRing[];
  /** Used entries that the driver was given from the call until the next data path ran, over all rings: frames, but for merged ones. */
  readonly framesMoved: number;
  /** From the order to stop until the next data path ran. Microseconds; 0 for a device that stood. */
  readonly microseconds: number;
}

/** A life's device, whose queues are brought up to date. */
export interface SwitchedDevice extends BackendDevice {
  queues: QueueState[];
}

export async function switchOver(
  device: SwitchedDevice,
  from: Backend,
  to: Backend,
  log: DirtyLog | null,
): Promise<SwitchReceipt> {
  const receipt = { from: from.kind, to: to.kind };
  await requireCarrier(to, device.features);
  await to.setDirtyLog(log);
  if (!from.running) {
    await from.setDirtyLog(null);
    return { ...receipt, vrings: [], framesMoved: 0, microseconds: 0 };
  }
  const began = await from.positions();
  await to.prepare(device, { shared: true });
  const clock = native();
  const stopping = clock.monotonicMicros();
  device.queues = await from.stop();
  try {
    await to.start(device);
  } catch (error) {
    await goOn(device, from, error);
    throw error;
  }
  const microseconds = Math.round(clock.monotonicMicros() - stopping);
  await from.setDirtyLog(null);
  const now = await to.positions();
  const vrings = from.stoppedRings.map(({ queue, base, usedIdx }): SwitchedRing => {
    const { nextAvail, usedIdx: used } = now[queue] ?? { nextAvail: base, usedIdx };
    return { queue, before: { base, usedIdx }, after: { base: nextAvail, usedIdx: used } };
  });
  return { ...receipt, vrings, framesMoved: moved(device, began, now), microseconds };
}

/** The one before takes over again from where it stopped. */
async function goOn(device: SwitchedDevice, from: Backend, cause: unknown): Promise<void> {
  try {
    await from.start(device);
  } catch (failure) {
    throw new VhostError('VHOST_ERR_STATE', 'the switch failed and the data path before could not be started again', {
      cause: new AggregateError([cause, failure]),
      hint: 'the device stands; its queues say where',
    });
  }
}

function moved(
  { queues }: SwitchedDevice,
  began: readonly (RingPosition | null)[],
  now: readonly (RingPosition | null)[],
): number {
  let frames = 0;
  for (const [index, { packed, size }] of queues.entries()) {
    const [first, last] = [began[index], now[index]];
    if (first == null || last == null) continue;
    const turn = packed === undefined ? 0x10000 : size;
    frames += (last.usedIdx - first.usedIdx + turn) % turn;
  }
  return frames;
}

/** Finds out what a backend carries only where what is certain is not enough: that takes settings of its taps, which may be in use. */
async function requireCarrier(backend: Backend, features: bigint): Promise<void> {
  if ((features & ~backend.offeredFeatures) !== 0n) await backend.probe();
  backend.requireFeatures(features);
}
