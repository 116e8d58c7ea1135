/**
 * A machine that stands still as a stream that nobody answers: the frames of a migration in one round.
 *
 *     HELLO  SETUP  PAGES*  ROUND_END {final}  STATE  END {audit: null, memory: {pages, sha256}}
 *
 * `sha256` is over the audit's hashes of all pages, in the order of SETUP: what is built of the stream is what was saved, whatever pages
 * were left out as holes.
 */
import { createHash } from 'node:crypto';
import { release } from 'node:os';
import type { VirtioNetDevice } from '../device/virtio-net-device';
import { ProtocolError, VhostError } from '../errors';
import { PAGE_SIZE } from '../memory/address';
import { dataRanges } from '../memory/data-ranges';
import type { GuestMemory } from '../memory/guest-memory';
import { PageBitmap } from '../memory/page-bitmap';
import { encodeHashes, hashPages } from '../observe/page-audit';
import type { Channel, Frame } from './channel';
import type { DestinationHost } from './destination';
import { FRAME_HEADER_SIZE, FrameType } from './frame';
import type { AuditResult, RoundEndMessage, SetupMessage, StateMessage } from './messages';
import type { MigratableGuest } from './options';
import { applyPages, PageSender } from './pages';
import { validateSetup } from './setup';

interface SavedEndMessage {
  audit: AuditResult | null;
  memory: { pages: number; sha256: string };
}

async function hashMemory(memory: GuestMemory): Promise<SavedEndMessage['memory']> {
  const sha256 = createHash('sha256').update(encodeHashes(await hashPages(memory)));
  return { pages: memory.pages, sha256: sha256.digest('hex') };
}

/** Writes a device and a guest that stand still. Answers the pages that were written. */
export async function writeSaved(channel: Channel, device: VirtioNetDevice, guest: MigratableGuest): Promise<number> {
  const { memory, queues } = device;
  await channel.greet();
  const setup: SetupMessage = {
    regions: memory.regions.map(({ gpa, size }) => ({ gpa, size })),
    features: `0x${device.features.toString(16)}`,
    queues: queues.length,
    queueSizes: queues.map(({ size }) => size),
    mac: device.mac,
    mtu: device.mtu,
    kernel: release(),
  };
  await channel.sendJson(FrameType.SETUP, setup);
  const bitmap = new PageBitmap(memory.end / PAGE_SIZE);
  for (const { page, pages } of dataRanges(memory)) bitmap.setRange(page, pages);
  const { pages } = await new PageSender(memory, channel).send(bitmap, 0);
  const roundEnd: RoundEndMessage = { round: 0, pages, final: true };
  await channel.sendJson(FrameType.ROUND_END, roundEnd);
  const state: StateMessage = { device: device.save(), guest: guest.save() };
  await channel.sendJson(FrameType.STATE, state);
  const end: SavedEndMessage = { audit: null, memory: await hashMemory(memory) };
  channel.throwIfAborted('saving');
  await channel.sendJson(FrameType.END, end);
  return pages;
}

export interface SavedMachine {
  memory: GuestMemory;
  state: StateMessage;
  pages: number;
}

/**
 * Reads memory and state and checks all of it before anything else is built. `length` is that of the whole stream: nothing may follow. A
 * failure leaves the memory closed.
 */
export async function readSaved(
  channel: Channel,
  host: Pick<DestinationHost<never>, 'compare' | 'createMemory'>,
  length: number,
): Promise<SavedMachine> {
  await channel.answer();
  const setup = await readSetup(channel, host);
  const memory = host.createMemory(setup);
  try {
    const pages = await readPages(channel, memory);
    const state = objectOf(channel, await channel.receive([FrameType.STATE])) as unknown as StateMessage;
    const endFrame = await channel.receive([FrameType.END]);
    const end = objectOf(channel, endFrame) as unknown as Partial<SavedEndMessage>;
    if (channel.bytesReceived !== length) {
      const more = length - channel.bytesReceived;
      throw new ProtocolError(`${more} bytes after END`, channel.bytesReceived, 'the end of the file');
    }
    const { sha256 } = await hashMemory(memory);
    if (end.memory?.sha256 !== sha256) {
      const says = JSON.stringify(end.memory?.sha256);
      throw new ProtocolError(
        `END: sha256 is ${says}`,
        endFrame.offset + FRAME_HEADER_SIZE,
        `${sha256}: pages are missing`,
      );
    }
    return { memory, state, pages };
  } catch (error) {
    memory.close();
    throw error;
  }
}

async function readSetup(channel: Channel, host: Pick<DestinationHost<never>, 'compare'>): Promise<SetupMessage> {
  const frame = await channel.receive([FrameType.SETUP]);
  const setup = validateSetup(channel.parseJson<unknown>(frame), frame.offset + FRAME_HEADER_SIZE);
  const fatal = (await host.compare(setup)).filter(({ severity }) => severity === 'fatal');
  if (fatal.length > 0) {
    const list = fatal.map(({ what, source, destination }) => `${what}: ${source} saved, ${destination} here`);
    throw new VhostError('VHOST_ERR_INCOMPATIBLE', `the saved device cannot be run here: ${list.join('; ')}`);
  }
  return setup;
}

async function readPages(channel: Channel, memory: GuestMemory): Promise<number> {
  const written = new PageBitmap(memory.end / PAGE_SIZE);
  let pages = 0;
  for (;;) {
    const frame = await channel.receive([FrameType.PAGES, FrameType.ROUND_END]);
    if (frame.type === FrameType.PAGES) {
      const applied = applyPages(memory, frame, written, () => undefined);
      if (applied.round !== 0) throw new ProtocolError(`PAGES of round ${applied.round}`, frame.offset, 'round 0');
      pages += applied.pages;
      continue;
    }
    const end = objectOf(channel, frame) as unknown as Partial<RoundEndMessage>;
    if (end.round === 0 && end.pages === pages && end.final === true) return pages;
    throw new ProtocolError(
      `ROUND_END of round ${end.round} with ${end.pages} pages`,
      frame.offset + FRAME_HEADER_SIZE,
      `the last of round 0 with ${pages} pages`,
    );
  }
}

function objectOf(channel: Channel, frame: Frame): Record<string, unknown> {
  const value = channel.parseJson<unknown>(frame);
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw new ProtocolError('a message that is no object', frame.offset + FRAME_HEADER_SIZE, 'a JSON object');
}
