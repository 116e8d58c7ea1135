/** A destination that means harm over the page connections that its source opened, or after GO. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { GuestMemory } from '../../lib/memory/guest-memory';
import { Channel } from '../../lib/migration/channel';
import { type Connection, connectionOver } from '../../lib/migration/connection';
import { describeSide } from '../../lib/migration/environment';
import { FrameType } from '../../lib/migration/frame';
import { type Listener, listen } from '../../lib/migration/transport';
import { expectGoesOn, type Machine, type Place, Rig } from '../helpers/migration-rig';
import { type Answer, answerAsDestination } from '../helpers/pretended-destination';

/** More than a UNIX socket holds, and not zero: the source cannot have sent it all before anybody reads. */
const SIZE = 64 << 20;
const TIMEOUT_MS = 1000;

let rig: Rig;
let here: Place;
let machine: Machine;
let folder: string;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'hostile-'));
  rig = await Rig.create({ ringSize: 64 });
  here = await rig.place('emulated');
  machine = await boot();
});

afterAll(async () => {
  await rig.close();
  rmSync(folder, { recursive: true });
});

async function boot(): Promise<Machine> {
  const memory = GuestMemory.create([{ gpa: 0, size: SIZE }]);
  const booted = await rig.boot(here, memory);
  memory.regions[0]!.u32.fill(0x5a5a5a5a, SIZE / 8);
  await rig.flows(booted);
  return booted;
}

interface Destination extends AsyncDisposable {
  readonly address: string;
}

/**
 * Answers what a destination answers, with `answers` in place of what is right for a type of frame, and leaves the page connections to
 * `pages`.
 */
async function pretend(
  pages: (connection: Connection) => void,
  answers: Partial<Record<number, Answer[]>> = {},
): Promise<Destination> {
  const environment = await describeSide(machine.device.backend);
  const connections: Connection[] = [];
  const control = (channel: Channel): Promise<never> =>
    answerAsDestination(channel, environment, (type) => answers[type] ?? null);
  const listener: Listener = await listen(`unix:${folder}/to`, {}, (connection) => {
    connections.push(connection);
    const channel = new Channel(connection.stream, { timeoutMs: 10_000 });
    void channel
      .answer()
      .then((hello) => {
        if (hello.channel === 'control') return control(channel);
        // Anew: the channel reads ahead.
        const rest = connectionOver(connection.takeFd(), 'source');
        connections.push(rest);
        return pages(rest);
      })
      .catch(() => undefined);
  });
  return {
    address: listener.address,
    async [Symbol.asyncDispose]() {
      for (const connection of connections) connection.close();
      await listener.close();
    },
  };
}

const goesOn = (): Promise<void> => expectGoesOn(rig, machine);

const migration = (to: Destination, channels: number): Promise<unknown> =>
  rig.source(machine, { channels, timeoutMs: TIMEOUT_MS }).migrate(to.address);

describe.each([1, 3])('%i page connections', (channels) => {
  test('that nobody reads: given up after the bound', async () => {
    await using to = await pretend(() => undefined);
    await expect(migration(to, channels)).rejects.toMatchObject({ code: 'VHOST_ERR_TIMEOUT' });
    await goesOn();
  });

  test('that are closed, at once and in the middle of the pages', async () => {
    for (const after of [0, 100_000]) {
      await using to = await pretend(({ stream }) => {
        let read = 0;
        if (after === 0) stream.destroy();
        stream.on('data', (chunk: Buffer) => {
          read += chunk.length;
          if (read >= after) stream.destroy();
        });
      });
      await expect(migration(to, channels)).rejects.toMatchObject({ code: 'VHOST_ERR_MIGRATION' });
      await goesOn();
    }
  });

  test('that carry something back: nobody looks at it', async () => {
    const rubbish = Buffer.alloc(1 << 20, 0xff);
    await using to = await pretend(
      ({ stream }) => {
        stream.on('error', () => undefined);
        stream.resume();
        stream.write(rubbish);
      },
      { [FrameType.STATE]: [{ type: FrameType.ERROR, json: { reason: 'as planned' } }] },
    );
    await expect(migration(to, channels)).rejects.toMatchObject({
      code: expect.not.stringMatching(/TIMEOUT/) as string,
    });
    await goesOn();
  });
});

describe('after GO', () => {
  const running: Answer = { type: FrameType.RUNNING, json: { startMs: 1 } };
  const account = { discarded: 0, read: 0 };
  test.each<[string, Answer[], Answer[]]>([
    ['RUNNING twice', [running, running], []],
    ['READY behind RUNNING', [running, { type: FrameType.READY }], []],
    ['ERROR behind RUNNING', [running, { type: FrameType.ERROR, json: { reason: 'oh' } }], []],
    ['half an account', [running], [{ type: FrameType.SETTLED, json: { account } }]],
    ['hashes for an account', [running], [{ type: FrameType.AUDIT, json: 'x'.repeat(4096) }]],
  ])('%s: the guest is there and not here, and nothing is proven', async (_name, go, drained) => {
    await using to = await pretend(({ stream }) => void stream.resume(), {
      [FrameType.GO]: go,
      [FrameType.DRAINED]: drained,
    });
    const result = await rig.source(machine, { channels: 1, timeoutMs: TIMEOUT_MS }).migrate(to.address);
    expect(result.handover).toMatchObject({ destination: null });
    expect(result.handover?.unproven).toContainEqual(expect.stringMatching(/lost before it could say what became/));
    expect(result.audit).toBeNull();
    await sleep(20);
    expect(machine.device.running).toBe(false);
    await rig.discard(machine);
    machine = await boot();
  });
});
