/** Whole migrations on this machine: emulated data path, real taps on a real bridge. */

import { createConnection, createServer } from 'node:net';
import type { Duplex } from 'node:stream';
import { EmulatedBackend } from '../../lib/backend/emulated';
import type { Guest } from '../../lib/guest/guest';
import { GuestMemory } from '../../lib/memory/guest-memory';
import { PageBitmap } from '../../lib/memory/page-bitmap';
import { Channel } from '../../lib/migration/channel';
import { FrameType } from '../../lib/migration/frame';
import type { AuditResult } from '../../lib/migration/messages';
import type { MigrationEvent, MigrationPhase } from '../../lib/migration/options';
import { ControlPages } from '../../lib/migration/page-channel';
import { PageSender } from '../../lib/migration/page-sender';
import { native } from '../../lib/native';
import { explainPage } from '../../lib/observe/page-audit';
import { FaultPlan } from '../../lib/trace/fault-plan';
import { memoryChanges } from '../helpers/migration-layout';
import { FEATURES, type Machine, MEMORY, type Place, Rig } from '../helpers/migration-rig';

let rig: Rig;
let here: Place;
let there: Place;
let machine: Machine;

beforeEach(async () => {
  rig = await Rig.create();
  here = await rig.place('emulated');
  there = await rig.place('emulated');
  machine = await rig.boot(here);
  await rig.flows(machine);
});

afterEach(async () => {
  await rig.close();
});

const nothingWrong = { lost: 0, duplicated: 0, reordered: 0, corrupted: 0 };

test('A to B to A to B under load: no page differs, nothing of the guest is lost, doubled or reordered', async () => {
  let at = machine;
  for (const to of [there, here, there]) {
    const { result, machine: moved } = await rig.migrate(at, to);
    expect(result.audit).toEqual({ total: MEMORY / 4096, differing: 0, pages: [] });
    expect(result.handover).toMatchObject({ unproven: [], source: { cutBy: 'marker', markers: 1 } });
    expect(result.rounds.length).toBeGreaterThanOrEqual(2);
    expect(result.rounds[0]!.pages).toBeGreaterThan(100);
    for (const { base, usedIdx } of result.vrings) expect(base).toBe(usedIdx);
    await rig.flows(moved);
    at = moved;
  }
  const { toNetwork, toGuest } = await rig.settle(at);
  for (const way of [toNetwork, toGuest]) {
    expect(way).toMatchObject(nothingWrong);
    expect(way.received).toBe(way.sent);
  }
});

test.each([
  ['legacy layout', 0n],
  ['VERSION_1 alone', 1n << 32n],
  ['without EVENT_IDX', FEATURES & ~(1n << 29n)],
  ['without MRG_RXBUF', FEATURES & ~(1n << 15n)],
])('features: %s', async (_name, features) => {
  await rig.close();
  rig = await Rig.create({ features, ringSize: 64 });
  [here, there] = [await rig.place('emulated'), await rig.place('emulated')];
  machine = await rig.boot(here);
  await rig.flows(machine);
  const { result, machine: moved } = await rig.migrate(machine, there);
  expect(result.audit?.differing).toBe(0);
  await rig.flows(moved);
  const { toNetwork, toGuest } = await rig.settle(moved);
  expect(toNetwork).toMatchObject(nothingWrong);
  expect(toGuest).toMatchObject({ duplicated: 0, reordered: 0, corrupted: 0 });
});

describe('planted faults are found', () => {
  async function audited(faults?: FaultPlan): Promise<AuditResult> {
    rig.slowToPause(machine);
    const { result } = await rig.migrate(machine, there, { source: faults === undefined ? {} : { faults } });
    return result.audit!;
  }

  let ranges: Guest['ranges'];
  beforeEach(() => {
    ranges = machine.runner.guest.ranges;
  });

  const named = ({ pages }: AuditResult): string => pages.map((page) => explainPage(page, ranges)).join('; ');

  test('none planted: none found', async () => {
    expect(await audited()).toMatchObject({ differing: 0 });
  });

  test('a final sync left out', async () => {
    const audit = await audited(new FaultPlan().skip('migration:final-sync'));
    expect(audit.differing).toBeGreaterThan(0);
    expect(named(audit)).toMatch(/boot block|ring|buffers|ledger/);
  });

  test('a last page left out', async () => {
    const audit = await audited(new FaultPlan().skip('migration:last-page'));
    expect(audit).toMatchObject({ differing: 1 });
  });

  test('writes of the guest that nobody logs', async () => {
    machine.runner.startDirtyLog = () => undefined;
    const audit = await audited();
    expect(named(audit)).toMatch(/boot block|available ring|ledger/);
  });

  test('writes of the device that nobody logs', async () => {
    const setDirtyLog = jest.spyOn(EmulatedBackend.prototype, 'setDirtyLog').mockResolvedValue();
    const audit = await audited().finally(() => setDirtyLog.mockRestore());
    expect(named(audit)).toMatch(/receive buffers/);
  });
});

memoryChanges(() => ({ rig, here, there, machine }));

/** Runs one migration that must fail, and what must be true of the source afterwards: running, logging off, ready for the next. */
async function failing(run: () => Promise<unknown>): Promise<Error> {
  const error = await run().then(
    () => new Error('the migration did not fail'),
    (thrown: Error) => thrown,
  );
  expect(machine.device.running).toBe(true);
  expect(machine.runner.running).toBe(true);
  expect(machine.device.dirtyLog).toBeNull();
  expect(machine.runner.dirtySource.enabled).toBe(false);
  await rig.flows(machine);
  return error;
}

async function movesNow(): Promise<void> {
  const { result, machine: moved } = await rig.migrate(machine, there);
  expect(result.audit?.differing).toBe(0);
  await rig.flows(moved);
}

describe('before GO the source goes on, and the next migration succeeds', () => {
  const phases: MigrationPhase[] = ['setup', 'precopy', 'switchover', 'ready'];

  test.each(phases)('cancelled in phase %s', async (phase) => {
    const controller = new AbortController();
    const mappings = native().mappingsLive();
    const error = await failing(() =>
      rig.migrate(machine, there, {
        source: {
          signal: controller.signal,
          onEvent: (event) => {
            if (event.kind === 'phase' && event.phase === phase) controller.abort(new Error('not now'));
          },
        },
      }),
    );
    expect(error).toMatchObject({ code: 'VHOST_ERR_ABORTED' });
    expect(native().mappingsLive()).toBeLessThanOrEqual(mappings + 1);
    await movesNow();
  });

  test.each(phases.slice(0, 3))('the destination cancels in phase %s', async (phase) => {
    const controller = new AbortController();
    const error = await failing(() =>
      rig.migrate(machine, there, {
        destination: {
          signal: controller.signal,
          onEvent: (event) => {
            if (event.kind === 'phase' && event.phase === phase) controller.abort(new Error('no room'));
          },
        },
      }),
    );
    expect(error).toMatchObject({ code: expect.stringMatching(/VHOST_ERR_(ABORTED|MIGRATION|PROTOCOL)/) });
    await movesNow();
  });

  test.each(['createMemory', 'createDevice', 'createGuest', 'compare'] as const)(
    'the destination fails in %s',
    async (step) => {
      const host = there.host();
      host[step] = (() => {
        throw new Error('out of luck');
      }) as never;
      const error = await failing(() => rig.migrate(machine, there, { host }));
      expect(error.message).toContain('out of luck');
      await movesNow();
    },
  );

  test('a fatal difference ends it before the first page', async () => {
    const host = there.host();
    host.compare = async () => [{ what: 'features', source: 'many', destination: 'few', severity: 'fatal' }];
    host.createMemory = () => {
      throw new Error('no page may be sent');
    };
    const error = await failing(() => rig.migrate(machine, there, { host }));
    expect(error).toMatchObject({
      code: 'VHOST_ERR_INCOMPATIBLE',
      message: expect.stringContaining('features: many here, few there'),
    });
    await movesNow();
  });

  test('the connection breaks after any number of bytes', async () => {
    for (const limit of [0, 10, 100, 1000, 100_000, 1_000_000]) {
      const error = await failing(async () => {
        const [near, far] = rig.streams();
        breakAfter(near, far, limit);
        const receiving = rig
          .destination(there, undefined, { timeoutMs: 3000 })
          .receive(far)
          .catch((thrown: Error) => thrown);
        const sending = rig.source(machine, { timeoutMs: 3000 }).migrate(near);
        const [sent] = await Promise.allSettled([sending, receiving]);
        if (sent.status === 'rejected') throw sent.reason;
      });
      expect(error).toMatchObject({ code: expect.stringMatching(/VHOST_ERR_(MIGRATION|PROTOCOL|TIMEOUT)/) });
    }
    await movesNow();
  });

  test('a foreign peer is named by what was expected of it', async () => {
    const server = createServer((socket) => {
      socket.on('error', () => undefined);
      socket.end('SSH-2.0-OpenSSH_9.2\r\n');
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as { port: number };
    const error = await failing(() => rig.source(machine).migrate(createConnection({ port, host: '127.0.0.1' })));
    server.close();
    expect(error).toMatchObject({
      code: 'VHOST_ERR_PROTOCOL',
      message: expect.stringContaining('expected a vhost-net migration stream'),
    });
    await movesNow();
  });
});

/** Ends both ends when `limit` bytes have gone from near to far. */
function breakAfter(near: Duplex, far: Duplex, limit: number): void {
  let passed = 0;
  const write = near.write.bind(near) as (chunk: Buffer) => boolean;
  near.write = ((chunk: Buffer) => {
    passed += chunk.byteLength;
    if (passed > limit) {
      near.destroy(new Error('cable cut'));
      far.destroy(new Error('cable cut'));
      return false;
    }
    return write(chunk);
  }) as typeof near.write;
}

describe('after GO', () => {
  test('a lost RUNNING is reported as uncertain and the source does not run the guest', async () => {
    const [near, far] = rig.streams();
    const onEvent = (event: MigrationEvent): void => {
      if (event.kind === 'phase' && event.phase === 'running') far.destroy(new Error('cable cut'));
    };
    const [sent, received] = await Promise.allSettled([
      rig.source(machine, { timeoutMs: 3000 }).migrate(near),
      rig.destination(there, undefined, { onEvent }).receive(far),
    ]);
    expect(sent).toMatchObject({ status: 'rejected', reason: { code: 'VHOST_ERR_UNCERTAIN' } });
    expect(machine.runner.running).toBe(false);
    expect(machine.device.running).toBe(false);
    // The destination had GO: it runs, whatever became of the connection.
    if (received.status !== 'fulfilled') throw received.reason;
    const { memory, device, guest } = received.value;
    await rig.flows({ memory, device, runner: guest });
    await rig.discard({ memory, device, runner: guest });
  });

  test('a destination that never hears GO does not run', async () => {
    const [near, far] = rig.streams();
    const source = new Channel(near, { timeoutMs: 3000 });
    const receiving = rig.destination(there, undefined, { timeoutMs: 500 }).receive(far);
    const outcome = receiving.catch((thrown: Error) => thrown);
    await playSource(source);
    expect(await outcome).toMatchObject({ code: 'VHOST_ERR_TIMEOUT' });
    // Its tap is free again.
    there.tap.claim('the next user')();
    await movesNow();
  });
});

/** The source's part up to READY with the state of the machine, by hand. */
async function playSource(channel: Channel): Promise<void> {
  await channel.greet();
  const { memory, device } = machine;
  const queues = device.queues.map((queue) => ({ ...queue }));
  await channel.sendJson(FrameType.SETUP, {
    regions: memory.regions.map(({ gpa, size }) => ({ gpa, size })),
    features: `0x${device.features.toString(16)}`,
    pairs: 1,
    mac: device.mac,
    mtu: 1500,
    kernel: 'any',
  });
  await channel.receive([FrameType.SETUP_ACK]);
  const copy = GuestMemory.create([{ gpa: 0, size: MEMORY }]);
  copy.write(0x10_0000, memory.read(0x10_0000, 0x30_0000));
  const bitmap = new PageBitmap(MEMORY / 4096);
  bitmap.setRange(0x100, 0x300);
  await new PageSender(copy, [new ControlPages(channel)]).send(bitmap, 0);
  copy.close();
  await channel.sendJson(FrameType.ROUND_END, { round: 0, pages: 0x300, final: true });
  await channel.sendJson(FrameType.STATE, {
    device: {
      version: 1,
      mandatory: [],
      features: `0x${device.features.toString(16)}`,
      mac: device.mac,
      mtu: 1500,
      queues,
    },
    addresses: [machine.device.mac],
    vlans: [],
    guest: { gpa: 0x10_0000 },
  });
  await channel.receive([FrameType.READY]);
}
