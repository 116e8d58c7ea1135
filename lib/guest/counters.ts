/** What a guest has counted, pair by pair. */
import { type BootBlock, Field } from './boot-block';

export interface GuestCounters {
  /** Frames made available to the device, and of these used by it. */
  sent: number;
  sentDone: number;
  /** Frames received, sound or not. */
  received: number;
  receivedBytes: number;
  /** Shorter than a header or longer than their buffers. */
  malformed: number;
  notEchoed: number;
}

/** `flooding`: frames of a flood that go round, which are counted when the device has used them. */
export function readCounters({ fields }: BootBlock, flooding: number | null): GuestCounters {
  return {
    sent: flooding === null ? fields[Field.SENT]! : fields[Field.SENT_DONE]! + flooding,
    sentDone: fields[Field.SENT_DONE]!,
    received: fields[Field.RECEIVED]!,
    receivedBytes: fields[Field.RECEIVED_BYTES]!,
    malformed: fields[Field.MALFORMED]!,
    notEchoed: fields[Field.NOT_ECHOED]!,
  };
}

export function sumCounters(counters: readonly GuestCounters[]): GuestCounters {
  const sum: GuestCounters = { sent: 0, sentDone: 0, received: 0, receivedBytes: 0, malformed: 0, notEchoed: 0 };
  for (const pair of counters) {
    for (const name of Object.keys(sum) as (keyof GuestCounters)[]) sum[name] += pair[name];
  }
  return sum;
}
