/** Bugs that others had with how a migration ends: docs/bug-cases.md. Emulated data path. */
import type { Duplex } from 'node:stream';
import { GuestMemory } from '../../lib/memory/guest-memory';
import { FRAME_HEADER_SIZE, FrameType } from '../../lib/migration/frame';
import type { MigrationEvent, MigrationOptions, MigrationPhase } from '../../lib/migration/options';
import { type Machine, type Place, Rig } from '../helpers/migration-rig';
import { splitFrames } from '../helpers/stream-replay';

let rig: Rig;
let here: Place;
let there: Place;
let machine: Machine;

beforeAll(async () => {
  rig = await Rig.create();
  [here, there] = [await rig.place('emulated'), await rig.place('emulated')];
  machine = await rig.boot(here, GuestMemory.create([{ gpa: 0, size: 16 << 20 }]));
  await rig.flows(machine);
});

afterAll(async () => {
  await rig.close();
});

/** All bytes that go into `stream`, from now on. */
function written(stream: Duplex): Buffer[] {
  const chunks: Buffer[] = [];
  const write = stream.write.bind(stream) as (...given: unknown[]) => boolean;
  stream.write = ((chunk: Uint8Array, ...rest: unknown[]) => {
    chunks.push(Buffer.from(chunk));
    return write(chunk, ...rest);
  }) as typeof stream.write;
  return chunks;
}

/** What was said behind the first ERROR or CANCEL; null when there was none. */
function behindEnd(chunks: readonly Buffer[]): number[] | null {
  const bytes = Buffer.concat(chunks);
  // A frame whose payload was not written any more is none.
  expect(bytes.length === 0 || bytes.length >= FRAME_HEADER_SIZE).toBe(true);
  const types = splitFrames(bytes).map(({ type }) => type);
  const end = types.findIndex((type) => type === FrameType.ERROR || type === FrameType.CANCEL);
  return end < 0 ? null : types.slice(end + 1);
}

interface Ends {
  codes: unknown[];
  /** Of source and destination. */
  behind: (number[] | null)[];
}

async function ending(source: MigrationOptions, destination: MigrationOptions, host = there.host()): Promise<Ends> {
  const [near, far] = rig.streams();
  const [sent, answered] = [written(near), written(far)];
  const ends = await Promise.allSettled([
    rig.source(machine, { timeoutMs: 5000, ...source }).migrate(near),
    rig.destination(there, host, { timeoutMs: 5000, ...destination }).receive(far),
  ]);
  await new Promise((resolve) => setTimeout(resolve, 50));
  const codes = ends.map((end) => (end.status === 'fulfilled' ? 'it went well' : end.reason.code));
  return { codes, behind: [behindEnd(sent), behindEnd(answered)] };
}

async function goesOn(): Promise<void> {
  expect([machine.device.running, machine.runner.running, machine.device.dirtyLog]).toEqual([true, true, null]);
  await rig.flows(machine, 10);
}

/** Aborts as soon as that phase begins. */
function abortIn(phase: MigrationPhase): MigrationOptions {
  const controller = new AbortController();
  const onEvent = (event: MigrationEvent): void => {
    if (event.kind === 'phase' && event.phase === phase) controller.abort(new Error('not now'));
  };
  return { signal: controller.signal, onEvent };
}

const REJECTED = expect.stringMatching(/^VHOST_ERR_(ABORTED|MIGRATION|PROTOCOL)$/);
const PHASES: MigrationPhase[] = ['setup', 'precopy', 'relay', 'switchover', 'ready'];

describe('M34, M39: both ends hear of an end, and nothing is said behind it', () => {
  test.each(PHASES)('the source is cancelled in phase %s', async (phase) => {
    const { codes, behind } = await ending(abortIn(phase), {});
    expect(codes).toEqual(['VHOST_ERR_ABORTED', REJECTED]);
    expect(behind).not.toEqual([null, null]);
    for (const types of behind) expect(types ?? []).toEqual([]);
    await goesOn();
  });

  test.each(['setup', 'precopy', 'switchover'] as const)('the destination is cancelled in phase %s', async (phase) => {
    const { codes, behind } = await ending({}, abortIn(phase));
    expect(codes).toEqual([REJECTED, 'VHOST_ERR_ABORTED']);
    expect(behind).not.toEqual([null, null]);
    for (const types of behind) expect(types ?? []).toEqual([]);
    await goesOn();
  });

  test('both at once', async () => {
    const { codes, behind } = await ending(abortIn('precopy'), abortIn('precopy'));
    expect(codes).toEqual([REJECTED, REJECTED]);
    for (const types of behind) expect(types ?? []).toEqual([]);
    await goesOn();
  });

  test.each(['createMemory', 'createBackend', 'createDevice', 'createGuest', 'compare'] as const)(
    'the destination fails in %s',
    async (step) => {
      const host = there.host();
      host[step] = (() => Promise.reject(new Error('out of luck'))) as never;
      if (step === 'createMemory') {
        host.createMemory = () => {
          throw new Error('out of luck');
        };
      }
      const { codes, behind } = await ending({}, {}, host);
      expect(codes).toEqual(['VHOST_ERR_MIGRATION', undefined]);
      for (const types of behind) expect(types ?? []).toEqual([]);
      expect(behind[1]).toEqual([]);
      await goesOn();
    },
  );

  test('a frame behind an end would be found', () => {
    const frame = (type: number): Buffer => {
      const bytes = Buffer.alloc(FRAME_HEADER_SIZE);
      bytes.writeUInt16LE(type, 4);
      return bytes;
    };
    expect(behindEnd([frame(FrameType.ERROR), frame(FrameType.PAGES)])).toEqual([FrameType.PAGES]);
    expect(behindEnd([frame(FrameType.PAGES)])).toBeNull();
  });
});

describe('M36: the tap of the source stays its own until GO', () => {
  const claimed = (place: Place): boolean => {
    try {
      place.tap.claim('somebody else')();
      return false;
    } catch {
      return true;
    }
  };

  test.each([true, false])('the last step fails, frames handed over: %s', async (handover) => {
    const seen: string[] = [];
    const host = there.host();
    host.createGuest = async (saved, memory, device) => {
      const guest = await there.host().createGuest(saved, memory, device);
      device.prepare = async () => {
        seen.push(`${claimed(here)}`);
        throw new Error('out of luck');
      };
      return guest;
    };
    const { codes } = await ending({ handover }, {}, host);
    expect(codes).toEqual(['VHOST_ERR_MIGRATION', undefined]);
    expect(seen).toEqual(['true']);
    expect([claimed(here), claimed(there)]).toEqual([true, false]);
    expect(here.tap.parked).toBe(false);
    await goesOn();
  });

  test('cancelled between READY and GO', async () => {
    const { codes } = await ending(abortIn('ready'), {});
    expect(codes[0]).toBe('VHOST_ERR_ABORTED');
    expect([claimed(here), claimed(there)]).toEqual([true, false]);
    await goesOn();
  });
});

test('after all of that it moves, and no frame was lost', async () => {
  const { result, machine: moved } = await rig.migrate(machine, there);
  machine = moved;
  expect(result.audit).toMatchObject({ differing: 0 });
  await rig.flows(machine);
  const { toNetwork, toGuest } = await rig.settle(machine);
  for (const way of [toNetwork, toGuest]) {
    expect(way).toMatchObject({ lost: 0, duplicated: 0, reordered: 0, corrupted: 0, received: way.sent });
  }
});
