/** What of a hand-over of frames the destination says and hears: OPEN, FRAMES, GROUP, DRAINED, SETTLED. */
import { STRIDE } from '../../backend/frame-arena';
import type { Tap } from '../../host/tap';
import type { GuestMemory } from '../../memory/guest-memory';
import { headerLength } from '../../net/header';
import { newNonce } from '../announce';
import type { Channel, Frame } from '../channel';
import { FRAME_HEADER_SIZE, FrameType } from '../frame';
import type { SettledMessage } from '../messages';
import { readOpen, receiveSourceAccount } from '../read-messages';
import type { DestinationAccount, SourceAccount } from './account';
import { DestinationIntake } from './destination-intake';
import { decodeFrames } from './frame-batch';
import type { Grace } from './grace';
import { decodeGroup } from './group-record';
import { outlinedDevice } from './outlined-device';
import { TapCounters } from './tap-counters';

export class Takeover {
  readonly intake: DestinationIntake;
  /** Of the announcement to come. */
  readonly nonce = newNonce();
  readonly #channel: Channel;
  readonly #addresses: readonly string[];

  private constructor(channel: Channel, intake: DestinationIntake, addresses: readonly string[]) {
    this.#channel = channel;
    this.intake = intake;
    this.#addresses = addresses;
  }

  /** OPEN came: the taps get the settings that the device has now, which takes the longest. What reaches them is thrown away. */
  static async prepare(channel: Channel, frame: Frame, memory: GuestMemory, taps: readonly Tap[]): Promise<Takeover> {
    const { device, addresses } = readOpen(channel, frame);
    const outline = outlinedDevice(device, memory);
    const intake = new DestinationIntake(taps, headerLength(outline.features), await TapCounters.begin(taps[0]!));
    try {
      await intake.backend.prepare(outline);
    } catch (error) {
      intake.close();
      await intake.backend.close();
      intake.counters.close();
      throw error;
    }
    channel.on(FrameType.FRAMES, ({ payload, offset }) =>
      decodeFrames(payload, offset + FRAME_HEADER_SIZE, { pairs: taps.length, largest: STRIDE }, (pair, bytes) =>
        intake.receive(pair, bytes, offset + FRAME_HEADER_SIZE),
      ),
    );
    channel.on(FrameType.GROUP, ({ payload, offset }) =>
      decodeGroup(payload, offset + FRAME_HEADER_SIZE, (side, stream, hash) =>
        intake.seen(side, stream, hash, offset + FRAME_HEADER_SIZE),
      ),
    );
    return new Takeover(channel, intake, addresses);
  }

  /** What comes is kept from now on. When this resolves nothing that reaches the other tap later is missing here. */
  async open(grace: Grace): Promise<void> {
    this.intake.open(this.#addresses);
    if (!(await grace())) this.intake.weakGraces++;
  }

  /** The guest runs: the source's frames to the last, then those of this tap. `source` is null where the source was lost before. */
  async finish(): Promise<{ source: SourceAccount | null; destination: DestinationAccount }> {
    const source = await receiveSourceAccount(this.#channel, FrameType.DRAINED).catch(() => null);
    const account = await this.intake.finish(source !== null);
    const settled: SettledMessage = { account };
    await this.#channel.sendJson(FrameType.SETTLED, settled).catch(() => undefined);
    return { source, destination: account };
  }
}
