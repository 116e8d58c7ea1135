/**
 * How fast a running guest's memory gets dirty, by whom and for which queue, without migrating it: dirty logging is on for a while and
 * looked at every now and then, as the rounds of a migration would.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { abortedError, invalidArgument, VhostError } from '../errors';
import { PAGE_SIZE } from '../memory/address';
import { dataRanges } from '../memory/data-ranges';
import { type DirtySource, DirtyUnion } from '../memory/dirty-log';
import { PageBitmap } from '../memory/page-bitmap';
import type { QueueRole } from '../virtqueue/ring-inspection';
import { DirtyTally } from './dirty-tally';
import type { OwningDevice, PageOwner } from './page-owners';
import { PageOwners } from './page-owners';

/** VirtioNetDevice fits. */
export interface LoggingDevice extends OwningDevice {
  readonly dirtyLog: DirtySource | null;
  startDirtyLog(): Promise<DirtySource>;
  stopDirtyLog(): Promise<void>;
}

/** MigratableGuest fits. */
export interface LoggingGuest {
  startDirtyLog(): void;
  stopDirtyLog(): void;
  readonly dirtySource: DirtySource;
}

export interface DirtyRateOptions {
  device: LoggingDevice;
  guest: LoggingGuest;
  /** Default 1, at most 3,600. */
  seconds?: number | undefined;
  /** Between two looks. Milliseconds, default 100: what gets dirty more often counts once. */
  intervalMs?: number | undefined;
  signal?: AbortSignal | undefined;
}

/** Pages that were found dirty, summed over all looks. */
export interface QueueDirtyRate {
  /** The control queue's number comes behind those of the data queues. */
  queue: number;
  kind: QueueRole;
  /** See QueuePart. */
  usedRing: number;
  driverRing: number;
  buffers: number;
}

export interface HotPage {
  gpa: number;
  /** Looks that found it dirty. */
  times: number;
  owner: PageOwner | null;
}

/** Plain data, fit for JSON. Pages of 4,096 bytes. */
export interface DirtyRate {
  /** As measured. */
  seconds: number;
  intervalMs: number;
  /** By look: pages found dirty. Their sum is what the rates, `byWriter`, and `byQueue` with `other` add up to. */
  samples: number[];
  pagesPerSecond: number;
  bytesPerSecond: number;
  /** The working set: pages that got dirty at all, */
  distinctPages: number;
  /** and those of them that all looks but one in ten found dirty. */
  alwaysDirtyPages: number;
  /** Pages of guest memory that hold anything: what a first round sends. */
  memoryPages: number;
  /** A page that several have written counts for the first: the device's data path is called `vhost`. */
  byWriter: Record<string, number>;
  byQueue: QueueDirtyRate[];
  /** Pages of no queue: the guest's own. */
  other: number;
  /** Pages, summed as above, of several owners, which count for the first of them. */
  shared: number;
  /** Not all buffers could be told: there were too many, and some may count as other. */
  cut: boolean;
  hottest: HotPage[];
}

const LONGEST_SECONDS = 3600;

/**
 * Throws VHOST_ERR_STATE while dirty logging is on for somebody else, VHOST_ERR_ABORTED after `signal`, VHOST_ERR_INVALID_ARGUMENT. Logging
 * is off again in any case.
 */
export async function measureDirtyRate(options: DirtyRateOptions): Promise<DirtyRate> {
  const { device, guest, seconds = 1, intervalMs = 100, signal } = options;
  if (!(seconds > 0 && seconds <= LONGEST_SECONDS)) throw invalidArgument(`${seconds} seconds`, 'up to 3,600');
  if (!(intervalMs >= 1 && intervalMs <= seconds * 1000)) {
    throw invalidArgument(`an interval of ${intervalMs} ms`, `1 to ${seconds * 1000}`);
  }
  throwIfAborted(signal);
  if (device.dirtyLog !== null) throw loggedAlready();
  const log = await device.startDirtyLog();
  try {
    guest.startDirtyLog();
    return await sample(options, log, seconds, intervalMs);
  } finally {
    // A log that is another's by now is left to its owner.
    if (device.dirtyLog === log) {
      guest.stopDirtyLog();
      await device.stopDirtyLog();
    }
  }
}

async function sample(
  { device, guest, signal }: DirtyRateOptions,
  log: DirtySource,
  seconds: number,
  intervalMs: number,
): Promise<DirtyRate> {
  const union = new DirtyUnion([log, guest.dirtySource]);
  const owners = new PageOwners();
  const tally = new DirtyTally(owners);
  const looks = Math.max(1, Math.round((seconds * 1000) / intervalMs));
  const found = new PageBitmap(device.memory.end / PAGE_SIZE);
  owners.look(device);
  // What is in the log by now was written while it was being turned on.
  union.takeInto(found);
  const started = performance.now();
  for (let look = 1; look <= looks; look++) {
    const due = started + look * intervalMs;
    await sleep(Math.max(0, due - performance.now()), undefined, signal === undefined ? {} : { signal }).catch(() =>
      throwIfAborted(signal),
    );
    if (device.dirtyLog !== log) throw new VhostError('VHOST_ERR_STATE', 'dirty logging was turned off meanwhile');
    // Before the take: buffers that were posted and used since the last look are owned when their pages are found.
    owners.look(device);
    found.reset();
    tally.add(found, union.takeInto(found));
  }
  const measured = (performance.now() - started) / 1000;
  const memoryPages = dataRanges(device.memory).reduce((sum, { pages }) => sum + pages, 0);
  return tally.result({ seconds: measured, intervalMs: (measured * 1000) / looks, memoryPages });
}

function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw abortedError('the dirty rate was measured', signal.reason);
}

function loggedAlready(): VhostError {
  return new VhostError('VHOST_ERR_STATE', 'dirty logging is on already: a migration or another measurement runs', {
    hint: 'measure before the migration, or read its rounds: they tell what gets dirty',
  });
}
