/**
 * Guest memory and taps that are handed to another process of the same host instead of being copied: an upgrade of a monitor in place. Both
 * processes see the same memory, so only one of them may run the guest, which READY, GO and RUNNING see to as ever.
 */

import { closeAll } from '../descriptors';
import { ProtocolError } from '../errors';
import { Tap, type TapSettings } from '../host/tap';
import { GuestMemory } from '../memory/guest-memory';
import { type FdHandle, native } from '../native';
import { receiveDescriptors, sendDescriptors } from './descriptors';
import { isObject } from './json';
import type { DescriptorsMessage, RegionMessage, SetupMessage } from './messages';

/** More queue pairs than any device has. */
const MOST_TAPS = 256;

export interface PassedMachine {
  memory: GuestMemory;
  /** One a queue pair; they belong to who received them. */
  taps: Tap[];
}

/** Both stay open here too. */
export async function passMachine(over: FdHandle, memory: GuestMemory, taps: readonly Tap[]): Promise<void> {
  const message: DescriptorsMessage = {
    regions: memory.regions.map(({ gpa, size }) => ({ gpa, size })),
    taps: taps.map(({ settings: { offload, filter, carrier } }) => ({
      offload,
      filter: filter === null ? null : Buffer.from(filter).toString('base64'),
      carrier,
    })),
  };
  const fds = [...memory.regions.map(({ fd }) => fd), ...taps.map(({ handle }) => handle)];
  await sendDescriptors(over, Buffer.from(JSON.stringify(message)), fds);
}

/** Throws ProtocolError, with everything that came closed, unless the regions are those of SETUP. */
export async function receiveMachine(over: FdHandle, setup: SetupMessage): Promise<PassedMachine> {
  const { bytes, fds } = await receiveDescriptors(over, setup.regions.length + MOST_TAPS);
  const left = [...fds];
  try {
    const { regions, taps: told } = parse(bytes);
    if (JSON.stringify(regions) !== JSON.stringify(setup.regions)) {
      throw new ProtocolError('descriptors of other regions than SETUP has', 0, `${setup.regions.length} regions`);
    }
    if (fds.length !== regions.length + told.length) {
      throw new ProtocolError(`${fds.length} descriptors`, 0, `${regions.length} regions and ${told.length} taps`);
    }
    const memoryFds = left.splice(0, regions.length);
    const memory = GuestMemory.adopt(regions.map(({ gpa, size }, index) => ({ gpa, size, fd: memoryFds[index]! })));
    const taps: Tap[] = [];
    try {
      for (const settings of told) taps.push(Tap.adopt(release(left.shift()!), {}, settings));
    } catch (error) {
      memory.close();
      for (const tap of taps) await tap.close();
      throw error;
    }
    return { memory, taps };
  } catch (error) {
    closeAll(left);
    throw error;
  }
}

/** A number that belongs to nobody here any more. */
function release(fd: FdHandle): number {
  return native().fdRelease(fd);
}

function parse(bytes: Buffer): { regions: RegionMessage[]; taps: TapSettings[] } {
  let value: unknown;
  try {
    value = JSON.parse(bytes.toString('utf8'));
  } catch (cause) {
    throw new ProtocolError('what descriptors are', 0, 'JSON text', { cause });
  }
  const message = isObject(value) ? value : {};
  const regions = Array.isArray(message.regions) ? message.regions : [];
  const taps = Array.isArray(message.taps) ? message.taps : null;
  if (taps === null || taps.length > MOST_TAPS) {
    throw new ProtocolError('what is told of taps', 0, `a list of 0 to ${MOST_TAPS}`);
  }
  return {
    regions: regions.map((region: unknown) => {
      const { gpa, size } = isObject(region) ? region : {};
      return { gpa: Number(gpa), size: Number(size) };
    }),
    taps: taps.map(tapSettings),
  };
}

function tapSettings(value: unknown): TapSettings {
  const { offload, filter, carrier } = isObject(value) ? value : {};
  return {
    offload: Number.isInteger(offload) ? (offload as number) : null,
    filter: typeof filter === 'string' ? Uint8Array.from(Buffer.from(filter, 'base64')) : null,
    carrier: typeof carrier === 'boolean' ? carrier : null,
  };
}
