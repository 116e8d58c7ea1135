/**
 * A machine that stands still as a stream that nobody answers: the frames of a migration in one round.
 *
 *     HELLO  SETUP  PAGES*  ROUND_END {final}  STATE  END {audit: null, memory: {pages, sha256}}
 *
 * `sha256` is over the audit's hashes of all pages, in the order of SETUP: what is built of the stream is what was saved, whatever pages
 * were left out as holes.
 */
import { createHash } from 'node:crypto';
import type { Backend } from '../backend/backend';
import type { VirtioNetDevice } from '../device/virtio-net-device';
import { ProtocolError, VhostError } from '../errors';
import { PAGE_SIZE } from '../memory/address';
import { dataRanges } from '../memory/data-ranges';
import type { GuestMemory } from '../memory/guest-memory';
import { PageBitmap } from '../memory/page-bitmap';
import { encodeHashes, hashPages } from '../observe/page-audit';
import type { Channel } from './channel';
import type { DestinationHost } from './destination';
import { describeSide, type SideEnvironment } from './environment';
import { FRAME_HEADER_SIZE, FrameType } from './frame';
import type { AuditResult, Difference, RoundEndMessage, SetupMessage, StateMessage } from './messages';
import type { MigratableGuest } from './options';
import { ControlPages } from './page-channel';
import { PageReceiver } from './page-receiver';
import { PageSender } from './page-sender';
import { compareSides } from './preflight';
import { readObject, readRoundEnd, readState } from './read-messages';
import { describeSetup, validateSetup } from './setup';

interface SavedEndMessage {
  audit: AuditResult | null;
  memory: { pages: number; sha256: string };
}

async function hashMemory(memory: GuestMemory): Promise<SavedEndMessage['memory']> {
  const sha256 = createHash('sha256').update(encodeHashes(await hashPages(memory)));
  return { pages: memory.pages, sha256: sha256.digest('hex') };
}

/** Writes a device and a guest that stand still. Answers the pages that were written. */
export async function writeSaved(
  channel: Channel,
  device: VirtioNetDevice,
  guest: MigratableGuest,
  environment: SideEnvironment,
): Promise<number> {
  const { memory } = device;
  await channel.greet();
  const setup = describeSetup(device, environment);
  await channel.sendJson(FrameType.SETUP, setup);
  const bitmap = new PageBitmap(memory.end / PAGE_SIZE);
  for (const { page, pages } of dataRanges(memory)) bitmap.setRange(page, pages);
  const { pages } = await new PageSender(memory, [new ControlPages(channel)]).send(bitmap, 0);
  const roundEnd: RoundEndMessage = { round: 0, pages, final: true };
  await channel.sendJson(FrameType.ROUND_END, roundEnd);
  const { addresses, vlans } = device;
  const state: StateMessage = { device: device.save(), guest: guest.save(), addresses, vlans };
  await channel.sendJson(FrameType.STATE, state);
  const end: SavedEndMessage = { audit: null, memory: await hashMemory(memory) };
  channel.throwIfAborted('saving');
  await channel.sendJson(FrameType.END, end);
  return pages;
}

type MemoryHost = Pick<DestinationHost<never>, 'compare' | 'createMemory' | 'createBackend'>;

export interface SavedMachine {
  memory: GuestMemory;
  /** Of the host, without a device on it. */
  backend: Backend;
  state: StateMessage;
  pages: number;
}

/**
 * Reads memory and state and checks all of it before a device is built. `length` is that of the whole stream: nothing may follow. A
 * failure leaves memory and backend closed.
 */
export async function readSaved(channel: Channel, host: MemoryHost, length: number): Promise<SavedMachine> {
  await channel.answer();
  const frame = await channel.receive([FrameType.SETUP]);
  const setup = validateSetup(channel.parseJson<unknown>(frame), frame.offset + FRAME_HEADER_SIZE);
  const backend = await host.createBackend(setup, null);
  let memory: GuestMemory | undefined;
  try {
    throwIfFatal([...(await differencesFrom(setup, backend)), ...((await host.compare?.(setup)) ?? [])]);
    memory = host.createMemory(setup);
    const pages = await readPages(channel, memory);
    const state = readState(channel, await channel.receive([FrameType.STATE]));
    await readEnd(channel, memory, length);
    return { memory, backend, state, pages };
  } catch (error) {
    memory?.close();
    await backend.close();
    throw error;
  }
}

async function differencesFrom(setup: SetupMessage, backend: Backend): Promise<Difference[]> {
  // Taps that nobody uses yet: what this kernel carries of offloads can be found out.
  await backend.probe();
  return compareSides(setup, await describeSide(backend));
}

function throwIfFatal(differences: Difference[]): void {
  const fatal = differences.filter(({ severity }) => severity === 'fatal');
  if (fatal.length === 0) return;
  const list = fatal.map(({ what, source, destination }) => `${what}: ${source} saved, ${destination} here`);
  throw new VhostError('VHOST_ERR_INCOMPATIBLE', `the saved device cannot be run here: ${list.join('; ')}`);
}

/** The last frame, of a file that ends with it, about the memory that was built. */
async function readEnd(channel: Channel, memory: GuestMemory, length: number): Promise<void> {
  const frame = await channel.receive([FrameType.END]);
  const end = readObject(channel, frame) as unknown as Partial<SavedEndMessage>;
  const at = frame.offset + FRAME_HEADER_SIZE;
  const after = at + frame.payload.length;
  if (after !== length) throw new ProtocolError(`${length - after} bytes after END`, after, 'the end of the file');
  const { sha256 } = await hashMemory(memory);
  if (end.memory?.sha256 === sha256) return;
  const says = JSON.stringify(end.memory?.sha256);
  throw new ProtocolError(`END: sha256 is ${says}`, at, `${sha256}: pages are missing`);
}

async function readPages(channel: Channel, memory: GuestMemory): Promise<number> {
  const receiver = new PageReceiver(memory);
  try {
    for (;;) {
      const frame = await channel.receive([FrameType.PAGES, FrameType.ROUND_END]);
      if (frame.type === FrameType.PAGES) {
        await receiver.apply(frame);
        continue;
      }
      const at = frame.offset + FRAME_HEADER_SIZE;
      const end = readRoundEnd(channel, frame);
      await receiver.endRound(end, at);
      if (end.final) return receiver.moved.pages;
      throw new ProtocolError('ROUND_END of a round that is not the last', at, 'one round');
    }
  } finally {
    receiver.close();
  }
}
