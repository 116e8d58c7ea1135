import * as fc from 'fast-check';
import { MAX_COMMAND_BYTES } from '../../../lib/device/control-queue';
import type { ControlFraming } from '../../../lib/guest/control-driver';
import { type ControlCommand, encodeControlCommand } from '../../../lib/net/control-command';
import { bytesOf, COMMANDS, macs, macTable } from '../../helpers/control-commands';
import { AREA, AREA_BYTES, ControlRig, RINGS, type RigOptions, turn } from '../../helpers/control-rig';

const RING_ERROR = expect.objectContaining({ code: 'VHOST_ERR_RING' }) as Error;

const RINGS_KINDS: { title: string; options: RigOptions }[] = [
  { title: 'flags, descriptors in the table', options: {} },
  { title: 'EVENT_IDX, indirect tables', options: { eventIdx: true, indirect: true } },
];

/** Every way to cut `bytes` bytes into pieces. */
function* cuts(bytes: number): Generator<number[]> {
  for (let mask = 0; mask < 2 ** (bytes - 1); mask++) {
    const pieces = [1];
    for (let at = 0; at < bytes - 1; at++) {
      if ((mask & (1 << at)) === 0) pieces[pieces.length - 1]!++;
      else pieces.push(1);
    }
    yield pieces;
  }
}

/** As expect(...).toEqual, which is too slow for every framing. */
function same(actual: unknown, expected: unknown, what: unknown): void {
  if (JSON.stringify(actual) !== JSON.stringify(expected)) {
    throw new Error(`${JSON.stringify(what)}: ${JSON.stringify(actual)} instead of ${JSON.stringify(expected)}`);
  }
}

/** One command there and back; everything that must hold of it. */
async function exchange(rig: ControlRig, command: ControlCommand, ok: boolean, framing: ControlFraming): Promise<void> {
  rig.handled.length = 0;
  rig.handler = () => Promise.resolve(ok);
  const kick = rig.control.send(command, framing);
  same(rig.log.takeMissed(), [], framing);
  if (kick) rig.queue.wake();
  const { ack, length } = await rig.ack();
  const served = command.kind !== 'unknown';
  same(ack, served && ok ? 0 : 1, framing);
  same(length, 1, framing);
  if (rig.handled.length !== (served ? 1 : 0)) throw new Error(`handled ${rig.handled.length} times`);
  if (served) expect(rig.handled[0]).toEqual(command);
  same(rig.log.takeMissed(), [], framing);
  // Behind the ack nothing was written, whatever room there was.
  same([...rig.memory.bytes(AREA + 1, 7)], [255, 255, 255, 255, 255, 255, 255], framing);
}

describe.each(RINGS_KINDS)('every command in every framing: $title', ({ options }) => {
  test.each(COMMANDS.filter(({ hex }) => hex.length <= 20))('$hex $command.kind', async ({ hex, command }) => {
    const rig = new ControlRig(options);
    let framings = 0;
    for (const readable of cuts(hex.length / 2)) {
      for (const writable of [[1], [5], [1, 2]]) {
        await exchange(rig, command, framings % 2 === 0, { readable, writable });
        framings++;
      }
    }
    expect(framings).toBe(3 * 2 ** (hex.length / 2 - 1));
    expect([rig.device.nextAvail, rig.broken]).toEqual([framings & 0xffff, []]);
  });

  test.each([
    macTable(macs(2), macs(1, 1)),
    macTable(macs(40), macs(24, 1)),
    macTable([], [], true, false),
    macTable(macs(5), [], false, true),
  ])('MAC table %#', async (command) => {
    const rig = new ControlRig(options);
    const bytes = encodeControlCommand(command).length;
    const places = fc.uniqueArray(fc.integer({ min: 1, max: bytes - 1 }), { maxLength: 13 });
    await fc.assert(
      fc.asyncProperty(places, fc.boolean(), async (ends, ok) => {
        const edges = [0, ...ends.sort((a, b) => a - b), bytes];
        await exchange(rig, command, ok, { readable: edges.slice(1).map((edge, index) => edge - edges[index]!) });
      }),
      { numRuns: 100 },
    );
  });
});

test('a command that crosses into the next region', async () => {
  const next = { gpa: AREA + AREA_BYTES, size: 0x1000 };
  const rig = new ControlRig({ more: [next] });
  rig.write(next.gpa - 3, bytesOf('01010a'));
  rig.write(next.gpa, bytesOf('1b2c3d4e5f'));
  rig.post({ gpa: next.gpa - 3, length: 8 }, { gpa: next.gpa - 1, length: 3, writable: true });
  rig.publish();
  await rig.used(1);
  expect(rig.handled).toEqual([{ kind: 'mac-addr-set', mac: '0a:1b:2c:3d:4e:5f' }]);
  expect([...rig.memory.bytes(next.gpa - 1, 1), ...rig.memory.bytes(next.gpa, 2)]).toEqual([0, 0x1b, 0x2c]);
  expect(rig.log.takeMissed()).toEqual([]);
});

describe('a write that is not marked is found', () => {
  test.each([true, false])('ack marked: %p', async (marked) => {
    const rig = new ControlRig({
      logOf: (log) => ({
        enabled: true,
        mark: (gpa, length) => {
          if (marked || length !== 1) log.mark(gpa, length);
        },
      }),
    });
    rig.control.send({ kind: 'announce-ack' });
    // The driver marked where the ack will be; that is not the device's mark.
    expect(rig.log.takeMissed()).toEqual([]);
    await rig.queue.run();
    expect(rig.log.takeMissed()).toEqual(marked ? [] : [AREA]);
  });
});

test('a log turned on while a command is in work hears of the ack', async () => {
  const rig = new ControlRig();
  let release = (_: boolean): void => undefined;
  rig.handler = () => new Promise((resolve) => (release = resolve));
  rig.log.enabled = false;
  rig.control.send({ kind: 'announce-ack' });
  rig.queue.wake();
  rig.log.forget();
  rig.log.enabled = true;
  release(true);
  expect((await rig.ack()).ack).toBe(0);
  expect(rig.log.takeMissed()).toEqual([]);
});

describe('malformed framing breaks the queue, alone', () => {
  const readable = (length: number) => ({ gpa: AREA + 64, length });
  const writable = (length: number) => ({ gpa: AREA, length, writable: true });

  test.each([
    { title: 'no byte for the ack', chain: [readable(3)] },
    { title: 'nothing but an ack', chain: [writable(1)] },
    { title: 'half a header', chain: [readable(1), writable(1)] },
    { title: 'half a header and no ack', chain: [readable(1)] },
    { title: 'a buffer outside guest memory', chain: [{ gpa: RINGS - 8, length: 16 }, writable(1)] },
    { title: 'a buffer of no bytes', chain: [readable(0), writable(1)] },
  ])('$title', async ({ chain }) => {
    let touched = 0;
    const rig = new ControlRig({
      around: (device) =>
        new Proxy(device, {
          get: (_, name) => {
            touched++;
            const value: unknown = Reflect.get(device, name, device);
            return typeof value === 'function' ? (value.bind(device) as unknown) : value;
          },
        }),
    });
    const other = new ControlRig();
    rig.write(AREA + 64, [3, 0, 0]);
    rig.post(readable(2), writable(1));
    rig.post(...chain);
    rig.post(readable(2), writable(1));
    rig.publish();
    await rig.queue.run();
    expect(rig.broken).toEqual([RING_ERROR]);
    expect(rig.queue.error).toBe(rig.broken[0]);
    expect(rig.device.error).toBe(rig.broken[0]);
    // What was before it was answered; it and what is behind it are not, however often the driver kicks.
    expect([rig.driver.pending(), rig.handled.length]).toEqual([1, 1]);
    const before = touched;
    for (let kick = 0; kick < 10; kick++) {
      rig.queue.wake();
      await turn();
    }
    await rig.queue.stop();
    expect([touched, rig.broken.length, rig.driver.pending()]).toEqual([before, 1, 1]);
    expect(rig.trace.records.filter(({ kind }) => kind === 'fault')).toHaveLength(1);
    expect(rig.log.takeMissed()).toEqual([]);
    other.control.send({ kind: 'announce-ack' });
    await other.queue.run();
    expect(other.control.poll()).toBe(0);
    // Nothing taken is missing from the state, and whoever serves it next finds the fault again.
    expect(rig.device.state().nextAvail).toBe(1);
    rig.restart();
    await rig.queue.run();
    expect([rig.broken.length, rig.driver.pending()]).toEqual([2, 1]);
  });

  test('a queue that was broken before is not served', async () => {
    const rig = new ControlRig({
      around: (device) => {
        device.fail('broken elsewhere');
        return device;
      },
    });
    rig.control.send({ kind: 'announce-ack' });
    await rig.queue.run();
    expect([rig.queue.error?.code, rig.handled, rig.broken]).toEqual(['VHOST_ERR_RING', [], []]);
  });

  test('a call that cannot be made breaks it too', async () => {
    const rig = new ControlRig({
      around: (device) =>
        new Proxy(device, {
          get: (_, name) => {
            if (name === 'publish') throw new Error('no eventfd');
            const value: unknown = Reflect.get(device, name, device);
            return typeof value === 'function' ? (value.bind(device) as unknown) : value;
          },
        }),
    });
    rig.control.send({ kind: 'announce-ack' });
    await rig.queue.run();
    expect(rig.broken).toEqual([expect.objectContaining({ message: expect.stringContaining('no eventfd') as string })]);
  });
});

describe('what is answered ERR', () => {
  test('truncated commands, which never reach the handler', async () => {
    const rig = new ControlRig();
    for (const { hex, command } of COMMANDS) {
      if (command.kind === 'unknown') continue;
      for (let length = 2; length < hex.length / 2; length++) {
        rig.write(AREA + 64, bytesOf(hex).subarray(0, length));
        rig.write(AREA, [0xff]);
        rig.post({ gpa: AREA + 64, length }, { gpa: AREA, length: 1, writable: true });
        rig.publish();
        expect(await rig.ack()).toEqual({ ack: 1, length: 1 });
      }
    }
    expect(rig.handled).toEqual([]);
  });

  test('a handler that fails, and the queue goes on', async () => {
    const rig = new ControlRig();
    rig.handler = () => Promise.reject(new Error('the tap is gone'));
    rig.control.send({ kind: 'mq-vq-pairs-set', pairs: 2 });
    rig.queue.wake();
    expect((await rig.ack()).ack).toBe(1);
    rig.handler = () => {
      throw new Error('at once');
    };
    if (rig.control.send({ kind: 'mq-vq-pairs-set', pairs: 3 })) rig.queue.wake();
    expect((await rig.ack()).ack).toBe(1);
    await exchange(rig, { kind: 'mq-vq-pairs-set', pairs: 1 }, true, { readable: [2, 2] });
    expect(rig.trace.records).toMatchObject([
      { kind: 'fault', object: 'control queue', message: 'mq-vq-pairs-set: the tap is gone' },
      { kind: 'control', command: 'mq-vq-pairs-set', args: { pairs: 2 }, ack: 1 },
      { kind: 'fault', object: 'control queue', message: 'mq-vq-pairs-set: at once' },
      { kind: 'control', command: 'mq-vq-pairs-set', args: { pairs: 3 }, ack: 1 },
      { kind: 'control', command: 'mq-vq-pairs-set', args: { pairs: 1 }, ack: 0 },
    ]);
  });

  test('a command longer than the device looks at', async () => {
    const big = { gpa: 0x100000, size: 0x20000 };
    const rig = new ControlRig({ more: [big] });
    const entries = (MAX_COMMAND_BYTES - 10) / 6;
    const table = encodeControlCommand(macTable(macs(entries), []));
    expect(table.length).toBe(MAX_COMMAND_BYTES);
    rig.write(big.gpa, table);
    rig.post({ gpa: big.gpa, length: table.length }, { gpa: AREA, length: 1, writable: true });
    rig.publish();
    expect(await rig.ack()).toEqual({ ack: 0, length: 1 });
    expect(rig.handled).toEqual([macTable([], [], true, false)]);
    rig.post(
      { gpa: big.gpa, length: 1 },
      { gpa: big.gpa + 1, length: MAX_COMMAND_BYTES },
      { gpa: AREA, length: 1, writable: true },
    );
    rig.publish();
    expect(await rig.ack()).toEqual({ ack: 1, length: 1 });
    expect(rig.handled).toHaveLength(1);
    expect(rig.trace.records.at(-1)).toMatchObject({ command: 'malformed', args: { class: 1, command: 0 }, ack: 1 });
  });
});

test('every command leaves a record', async () => {
  const rig = new ControlRig();
  for (const { command } of COMMANDS) {
    rig.control.send(command);
    await rig.queue.run();
    rig.control.poll();
  }
  const records = rig.trace.records.map((record) => (record.kind === 'control' ? record : null));
  expect(records).toHaveLength(COMMANDS.length);
  for (const [index, { command }] of COMMANDS.entries()) {
    const { kind, ...args } = command;
    expect(records[index]).toMatchObject({ command: kind, args, ack: kind === 'unknown' ? 1 : 0 });
  }
});
