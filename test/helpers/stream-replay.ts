/** What a side of a real migration sent, frame by frame, to be changed and sent once more to a real destination by nobody that understands it. */
import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Duplex, duplexPair } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import type { VirtioNetDevice } from '../../lib/device/virtio-net-device';
import type { GuestRunner } from '../../lib/guest/guest-runner';
import { GuestMemory } from '../../lib/memory/guest-memory';
import type { DestinationHost, ReceivedMigration } from '../../lib/migration/destination';
import { encodeFrameHeader, FRAME_HEADER_SIZE, FrameType, streamSeed } from '../../lib/migration/frame';
import type { MigrationOptions } from '../../lib/migration/options';
import { type Place, Rig } from './migration-rig';

/** One frame of a recording; `bytes` is header and payload. */
export interface RecordedFrame {
  type: number;
  bytes: Buffer;
}

export function splitFrames(bytes: Buffer): RecordedFrame[] {
  const frames: RecordedFrame[] = [];
  for (let at = 0; at < bytes.length; ) {
    const length = FRAME_HEADER_SIZE + bytes.readUInt32LE(at + 12);
    frames.push({ type: bytes.readUInt16LE(at + 4), bytes: bytes.subarray(at, at + length) });
    at += length;
  }
  return frames;
}

export function readRecording(path: string): RecordedFrame[] {
  return splitFrames(readFileSync(path));
}

/** Bytes of the recorded guest's memory. */
export const RECORDED_SIZE = 12 << 20;

export interface RecordedRun {
  rig: Rig;
  /** Where a recording can be sent to. */
  target: Place;
  /** What the source sent, a run each. */
  recordings: RecordedFrame[][];
  /** Of the first run, and what its checksums begin with. */
  frames: RecordedFrame[];
  seed: number;
  /** Ends the rig and removes what was recorded. */
  close(): Promise<void>;
}

/** Migrations of a guest back and forth, one for each of `runs`, recorded at their sources. */
export async function recordRuns(runs: readonly Pick<MigrationOptions, 'handover'>[]): Promise<RecordedRun> {
  const folder = await mkdtemp(join(tmpdir(), 'hostile-'));
  const rig = await Rig.create({ ringSize: 64 });
  const places = [await rig.place('emulated'), await rig.place('emulated')] as const;
  const target = await rig.place('emulated');
  let machine = await rig.boot(places[0], GuestMemory.create([{ gpa: 0, size: RECORDED_SIZE }]));
  const paths = runs.map((_, index) => join(folder, `stream${index}`));
  for (const [index, options] of runs.entries()) {
    await rig.flows(machine);
    const to = places[(index + 1) % 2]!;
    ({ machine } = await rig.migrate(machine, to, { source: { ...options, record: paths[index]! } }));
  }
  await rig.discard(machine);
  const close = async (): Promise<void> => {
    await rig.close();
    await rm(folder, { recursive: true });
  };
  const recordings = paths.map(readRecording);
  const frames = recordings[0]!;
  return { rig, target, recordings, frames, seed: seedOf(frames), close };
}

export function payloadOf({ bytes }: RecordedFrame): Buffer {
  return bytes.subarray(FRAME_HEADER_SIZE);
}

export function jsonOf(frame: RecordedFrame): Record<string, unknown> {
  return JSON.parse(payloadOf(frame).toString('utf8')) as Record<string, unknown>;
}

function seedOf([hello]: readonly RecordedFrame[]): number {
  return streamSeed(Buffer.from(String(jsonOf(hello!).identity), 'hex'));
}

/** The frame with another payload, or another type, as a peer would send it: number and checksum are right. */
export function resealed(
  { type, bytes }: RecordedFrame,
  payload: Uint8Array | string,
  seed: number,
  as = type,
): RecordedFrame {
  const body = Buffer.from(payload as string);
  const header = encodeFrameHeader(as as FrameType, bytes.readUInt32LE(8), body, seed);
  return { type: as, bytes: Buffer.concat([header, body]) };
}

/** What a source waits for before it says more. */
const ANSWERS: Readonly<Record<number, number>> = {
  [FrameType.HELLO]: FrameType.HELLO,
  [FrameType.SETUP]: FrameType.SETUP_ACK,
  [FrameType.LAYOUT]: FrameType.LAYOUT_ACK,
  [FrameType.OPEN]: FrameType.OPENED,
  [FrameType.STATE]: FrameType.READY,
  [FrameType.GO]: FrameType.RUNNING,
  [FrameType.DRAINED]: FrameType.SETTLED,
};

function answerTo(frame: RecordedFrame): number | undefined {
  if (frame.type !== FrameType.ROUND_END) return ANSWERS[frame.type];
  return jsonOf(frame).final === true ? undefined : FrameType.ROUND_ACK;
}

/** What comes back, by type, as far as it has come. */
class Answers {
  #bytes = Buffer.alloc(0);
  readonly types: number[] = [];
  #over = false;

  constructor(stream: Duplex) {
    stream.on('data', (chunk: Buffer) => {
      this.#bytes = Buffer.concat([this.#bytes, chunk]);
      for (;;) {
        if (this.#bytes.length < FRAME_HEADER_SIZE) return;
        const length = FRAME_HEADER_SIZE + this.#bytes.readUInt32LE(12);
        if (this.#bytes.length < length) return;
        this.types.push(this.#bytes.readUInt16LE(4));
        this.#bytes = this.#bytes.subarray(length);
      }
    });
    for (const event of ['end', 'close', 'error']) {
      stream.on(event, () => {
        this.#over = true;
      });
    }
  }

  get ended(): boolean {
    return this.#over || this.types.some((type) => type === FrameType.CANCEL || type === FrameType.ERROR);
  }

  /** Resolves when `count` of them have come, or nothing more comes. */
  async until(type: number, count: number): Promise<void> {
    const deadline = Date.now() + 5000;
    while (!this.ended && this.types.filter((each) => each === type).length < count) {
      if (Date.now() > deadline) throw new Error(`no answer of type ${type}`);
      await sleep(0);
    }
  }
}

export interface Replay {
  /** Null when it was refused. */
  received: ReceivedMigration<GuestRunner> | null;
  error: unknown;
  /** Of what was built on the way. */
  memory: GuestMemory | null;
  device: VirtioNetDevice | null;
  /** Times the guest was let run. */
  resumed: number;
  answers: number[];
}

/**
 * Sends the frames to a destination at `to` and ends the stream. The answers are waited for as a source does, up to the frame of number
 * `obedient`; the rest is sent at once.
 */
export async function replay(
  rig: Rig,
  to: Place,
  frames: readonly RecordedFrame[],
  { obedient = frames.length, patient = false }: { obedient?: number; patient?: boolean } = {},
): Promise<Replay> {
  const [near, far] = duplexPair();
  near.on('error', () => undefined);
  const seen: Pick<Replay, 'memory' | 'device' | 'resumed'> = { memory: null, device: null, resumed: 0 };
  const receiving = rig
    .destination(to, watched(to.host(), seen), { timeoutMs: patient ? 20_000 : 3000 })
    .receive(far)
    .then(
      (received) => ({ received, error: null }),
      (error: unknown) => ({ received: null, error }),
    );
  const answers = new Answers(near);
  const counts = new Map<number, number>();
  for (const [index, frame] of frames.entries()) {
    if (near.destroyed || answers.ended) break;
    near.write(frame.bytes);
    if (index >= obedient) continue;
    const answer = answerTo(frame);
    if (answer === undefined) continue;
    counts.set(answer, (counts.get(answer) ?? 0) + 1);
    await answers.until(answer, counts.get(answer)!);
  }
  near.end();
  const outcome = await receiving;
  near.destroy();
  return { ...outcome, ...seen, answers: answers.types };
}

function watched(
  host: DestinationHost<GuestRunner>,
  seen: Pick<Replay, 'memory' | 'device' | 'resumed'>,
): DestinationHost<GuestRunner> {
  return {
    ...host,
    createMemory: (setup) => {
      seen.memory = host.createMemory(setup);
      return seen.memory;
    },
    createDevice: async (state, memory, backend) => {
      seen.device = await host.createDevice(state, memory, backend);
      return seen.device;
    },
    createGuest: async (saved, memory, device) => {
      const guest = await host.createGuest(saved, memory, device);
      const resume = guest.resume.bind(guest);
      guest.resume = () => {
        seen.resumed++;
        resume();
      };
      return guest;
    },
  };
}

/** What is wrong with a refusal: it must be told well and leave nothing. Empty when all is as it should be. */
export function leftovers(to: Place, { received, error, memory, device, resumed }: Replay): string[] {
  const wrong: string[] = [];
  if (received !== null) wrong.push('it was taken');
  const { code, name, message } = (error ?? {}) as { code?: string; name?: string; message?: string };
  if (code === undefined || !/^(VHOST_ERR_|E[A-Z]+$)/.test(code)) wrong.push(`refused by ${name}: ${message}`);
  if (memory !== null && !memory.closed) wrong.push('its memory is open');
  if (device?.running === true) wrong.push('its device runs');
  if (resumed > 0) wrong.push('its guest ran');
  try {
    to.tap.claim('a test')();
  } catch (cause) {
    wrong.push(`its tap is taken: ${(cause as Error).message}`);
  }
  return wrong;
}
