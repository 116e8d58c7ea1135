/** A destination that takes everything and builds nothing, and can be told to answer otherwise than it should. */
import type { Channel } from '../../lib/migration/channel';
import type { SideEnvironment } from '../../lib/migration/environment';
import { FrameType } from '../../lib/migration/frame';

/** `type`: default, that of the right answer. Without `json` or `bytes` there is no payload. */
export interface Answer {
  type?: number;
  json?: unknown;
  bytes?: Uint8Array;
}

/** What is answered to a frame of that type; null for the right thing. */
export type Script = (type: number, channel: Channel) => readonly Answer[] | null | Promise<readonly Answer[] | null>;

const NONCE = '0'.repeat(32);

/** On a control channel that was greeted, until the source ends. */
export async function answerAsDestination(
  channel: Channel,
  environment: SideEnvironment,
  script: Script,
): Promise<never> {
  const right: Readonly<Record<number, Answer & { type: number }>> = {
    [FrameType.SETUP]: { type: FrameType.SETUP_ACK, json: { differences: [], environment, relay: true } },
    [FrameType.ROUND_END]: { type: FrameType.ROUND_ACK, json: {} },
    [FrameType.LAYOUT]: { type: FrameType.LAYOUT_ACK },
    [FrameType.OPEN]: { type: FrameType.OPENED, json: { nonce: NONCE } },
    [FrameType.STATE]: { type: FrameType.READY },
  };
  for (;;) {
    const frame = await channel.receive(Object.values(FrameType));
    const answer = right[frame.type];
    const final = frame.type === FrameType.ROUND_END && channel.parseJson<{ final: boolean }>(frame).final;
    const answers = (await script(frame.type, channel)) ?? (answer === undefined || final ? [] : [answer]);
    for (const { type = answer!.type, json, bytes } of answers) {
      await channel.send(type as FrameType, bytes ?? Buffer.from(json === undefined ? '' : JSON.stringify(json)));
    }
  }
}
