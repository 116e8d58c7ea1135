import * as fc from 'fast-check';
import { MAX_COMMAND_BYTES } from '../../../lib/device/control-queue';
import type { ControlFraming } from '../../../lib/guest/control-driver';
import { type ControlCommand, encodeControlCommand } from '../../../lib/net/control-command';
import { bytesOf, COMMANDS, macs, macTable } from '../../helpers/control-commands';
import { AREA, AREA_BYTES, ControlRig, RINGS, type RigOptions, turn } from '../../helpers/control-rig';

const RING_ERROR = expect.objectContaining({ code: 'VHOST_ERR_RING' }) as Error;
const STATE_ERROR = expect.objectContaining({ code: 'VHOST_ERR_STATE' }) as Error;
const ARGUMENT_ERROR = expect.objectContaining({ code: 'VHOST_ERR_INVALID_ARGUMENT' }) as Error;

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

test('framed as Linux does by default', async () => {
  const rig = new ControlRig();
  for (const { hex, command } of COMMANDS) {
    rig.queue.wake();
    rig.control.send(command);
    const lengths: number[] = [];
    const desc = rig.memory.view(rig.layout.desc, 16 * 16);
    for (let at = rig.driver.inFlight > 0 ? 0 : -1; at >= 0; ) {
      lengths.push(desc.getUint32(16 * at + 8, true));
      at = (desc.getUint16(16 * at + 12, true) & 1) === 0 ? -1 : desc.getUint16(16 * at + 14, true);
    }
    expect(lengths).toEqual(hex.length === 4 ? [2, 1] : [2, hex.length / 2 - 2, 1]);
    rig.queue.wake();
    expect((await rig.ack()).length).toBe(1);
  }
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

describe('order and time', () => {
  const PAIRS = { kind: 'mq-vq-pairs-set' } as const;
  /** Makes `count` commands available at once, with pairs 1 to `count`, and their acks in AREA. */
  function postMany(rig: ControlRig, count: number): void {
    for (let index = 0; index < count; index++) {
      const at = AREA + 64 + 8 * index;
      rig.write(at, encodeControlCommand({ ...PAIRS, pairs: index + 1 }));
      rig.write(AREA + index, [0xff]);
      rig.post({ gpa: at, length: 4 }, { gpa: AREA + index, length: 1, writable: true });
    }
  }
  const acks = (rig: ControlRig, count: number) => [...rig.memory.bytes(AREA, count)];

  test('many at once, one after the other, each effect before its ack', async () => {
    const rig = new ControlRig({ size: 64 });
    let inWork = 0;
    const usedBefore: number[] = [];
    rig.handler = async (command) => {
      expect(++inWork).toBe(1);
      usedBefore.push(rig.driver.pending());
      const { pairs } = command as ControlCommand & { kind: 'mq-vq-pairs-set' };
      expect(acks(rig, 32)[pairs - 1]).toBe(0xff);
      if (pairs % 3 === 0) await turn();
      inWork--;
      return pairs % 2 === 0;
    };
    postMany(rig, 32);
    expect(rig.log.takeMissed()).toEqual([]);
    rig.publish();
    // More wakes than commands do not make a second loop.
    for (let wake = 0; wake < 40; wake++) {
      rig.queue.wake();
      await Promise.resolve();
    }
    await rig.used(32);
    expect(usedBefore).toEqual(Array.from({ length: 32 }, (_, index) => index));
    expect(rig.handled).toEqual(usedBefore.map((index) => ({ ...PAIRS, pairs: index + 1 })));
    expect(acks(rig, 32)).toEqual(usedBefore.map((index) => 1 - (index % 2)));
    expect(usedBefore.map((position) => rig.driver.usedLength(position))).toEqual(usedBefore.map(() => 1));
    expect(rig.log.takeMissed()).toEqual([]);
    expect(rig.calls).toBe(32);
  });

  test('the event loop gets its turn from a driver that never stops asking', async () => {
    const rig = new ControlRig();
    let commands = 0;
    let timers = 0;
    let asking = true;
    rig.handler = () => {
      commands++;
      return Promise.resolve(true);
    };
    const again = setInterval(() => timers++, 0);
    const device = rig.device;
    const push = device.push.bind(device);
    device.push = (id, length) => {
      push(id, length);
      device.publish();
      rig.driver.release(rig.driver.pending());
      if (asking) rig.post({ gpa: AREA + 64, length: 2 }, { gpa: AREA, length: 1, writable: true });
      rig.driver.publish();
    };
    rig.write(AREA + 64, [3, 0]);
    rig.post({ gpa: AREA + 64, length: 2 }, { gpa: AREA, length: 1, writable: true });
    rig.publish();
    while (timers < 5 && commands < 100_000) await turn();
    asking = false;
    await rig.queue.run();
    clearInterval(again);
    expect([timers, commands > 16, commands < 100_000]).toEqual([5, true, true]);
  });

  test('no calls when the driver asks for none', async () => {
    const rig = new ControlRig();
    rig.driver.disableCalls();
    rig.control.send({ kind: 'announce-ack' });
    await rig.queue.run();
    expect([rig.calls, rig.control.poll()]).toEqual([0, 0]);
    rig.driver.enableCalls();
    rig.control.send({ kind: 'announce-ack' });
    await rig.queue.run();
    expect([rig.calls, rig.control.poll()]).toEqual([1, 0]);
  });

  test('stop waits for the command in work and takes no other', async () => {
    const rig = new ControlRig();
    let release = (_: boolean): void => undefined;
    rig.handler = () => new Promise((resolve) => (release = resolve));
    postMany(rig, 3);
    rig.publish();
    let stopped = false;
    const stop = rig.queue.stop().then(() => {
      stopped = true;
    });
    for (let turns = 0; turns < 5; turns++) {
      rig.queue.wake();
      await turn();
    }
    expect([stopped, rig.handled.length, rig.driver.pending(), acks(rig, 1)]).toEqual([false, 1, 0, [0xff]]);
    release(true);
    await stop;
    expect([rig.driver.pending(), acks(rig, 3)]).toEqual([1, [0, 0xff, 0xff]]);
    expect([rig.device.state().nextAvail, rig.device.usedIdx]).toEqual([1, 1]);
    rig.queue.wake();
    await rig.queue.run();
    await rig.queue.stop();
    expect([rig.handled.length, rig.driver.pending()]).toEqual([1, 1]);
    // The next one needs no kick for what is there already.
    rig.handler = () => Promise.resolve(true);
    rig.restart();
    await rig.queue.run();
    expect([rig.driver.pending(), acks(rig, 3)]).toEqual([3, [0, 0, 0]]);
    expect(rig.log.takeMissed()).toEqual([]);
  });

  test('stop of a queue that sleeps or never ran', async () => {
    const rig = new ControlRig();
    await rig.queue.run();
    await rig.queue.stop();
    const idle = new ControlRig();
    await idle.queue.stop();
    idle.control.send({ kind: 'announce-ack' });
    await idle.queue.run();
    expect([idle.handled, idle.device.state().nextAvail]).toEqual([[], 0]);
  });

  test('what the driver writes while its command is in work changes nothing of it', async () => {
    const rig = new ControlRig();
    let release = (_: boolean): void => undefined;
    rig.handler = () => new Promise((resolve) => (release = resolve));
    rig.control.send({ kind: 'mac-addr-set', mac: '02:00:00:00:00:07' });
    rig.queue.wake();
    rig.write(AREA + 8, new Uint8Array(8).fill(0xee));
    rig.write(rig.layout.desc, new Uint8Array(16 * 16).fill(0xee));
    expect(rig.handled).toEqual([{ kind: 'mac-addr-set', mac: '02:00:00:00:00:07' }]);
    release(true);
    expect(await rig.ack()).toEqual({ ack: 0, length: 1 });
    expect(rig.handled).toEqual([{ kind: 'mac-addr-set', mac: '02:00:00:00:00:07' }]);
    expect(rig.memory.bytes(AREA + 8, 8)).toEqual(new Uint8Array(8).fill(0xee));
  });
});

describe('no kick is lost', () => {
  interface Script {
    eventIdx: boolean;
    /** Microtasks between the commands the driver sends by itself; 9 is a turn of the event loop. */
    pauses: number[];
    /** Of the looks at the queue, after which the driver sends another. */
    afterPop: number[];
    afterEnable: number[];
    /** How long the commands take. */
    handling: number[];
  }
  const pause = async (ticks: number): Promise<void> => {
    if (ticks === 9) await turn();
    else for (let tick = 0; tick < ticks; tick++) await Promise.resolve();
  };
  const ticks = fc.integer({ min: 0, max: 9 });
  const looks = fc.uniqueArray(fc.nat(12), { maxLength: 4 });
  const scripts = fc.record<Script>({
    eventIdx: fc.boolean(),
    pauses: fc.array(ticks, { minLength: 1, maxLength: 8 }),
    afterPop: looks,
    afterEnable: looks,
    handling: fc.array(ticks, { minLength: 1, maxLength: 4 }),
  });

  /** Answers how many commands were sent and how many of them answered, kicked for only as the rings ask. */
  async function play(script: Script, fault: boolean): Promise<[sent: number, answered: number]> {
    let sent = 0;
    let pops = 0;
    let enables = 0;
    const send = (): void => {
      rig.post({ gpa: AREA + 64, length: 2 }, { gpa: AREA, length: 1, writable: true });
      sent++;
      // The kick travels: an eventfd is read by a later turn, never within the call that signalled it.
      if (rig.driver.publish()) void Promise.resolve().then(() => rig.queue.wake());
    };
    const rig: ControlRig = new ControlRig({
      size: 64,
      eventIdx: script.eventIdx,
      around: (device) => {
        const { pop, enableKicks } = device;
        device.pop = () => {
          const id = pop.call(device);
          if (id < 0 && script.afterPop.includes(pops++)) send();
          return id;
        };
        device.enableKicks = () => {
          const more = enableKicks.call(device);
          if (script.afterEnable.includes(enables++)) send();
          return more && !fault;
        };
        return device;
      },
    });
    let handled = 0;
    rig.handler = async () => {
      await pause(script.handling[handled++ % script.handling.length]!);
      return true;
    };
    rig.write(AREA + 64, [3, 0]);
    rig.queue.wake();
    for (const ticks of script.pauses) {
      await pause(ticks);
      send();
    }
    for (let turns = 0; turns < 30 && rig.driver.pending() < sent; turns++) await turn();
    return [sent, rig.driver.pending()];
  }

  const property = (fault: boolean) =>
    fc.asyncProperty(scripts, async (script) => {
      const [sent, answered] = await play(script, fault);
      if (answered !== sent) throw new Error(`${answered} of ${sent} commands were answered`);
    });

  test('in any interleaving', async () => {
    await fc.assert(property(false), { numRuns: 400 });
  });

  test('a device that does not look again after asking for kicks is found', async () => {
    const details = await fc.check(property(true), { numRuns: 400, endOnFailure: true });
    expect(details.failed).toBe(true);
  });
});

describe('the driver', () => {
  test('sends one command at a time', async () => {
    const rig = new ControlRig();
    expect([rig.control.busy, rig.control.poll()]).toEqual([false, null]);
    rig.control.send({ kind: 'announce-ack' });
    expect(rig.control.busy).toBe(true);
    expect(() => rig.control.send({ kind: 'announce-ack' })).toThrow(STATE_ERROR);
    expect(rig.control.poll()).toBeNull();
    await rig.queue.run();
    expect([rig.control.poll(), rig.control.busy, rig.control.poll()]).toEqual([0, false, null]);
    expect(rig.driver.free).toBe(16);
  });

  test('sees a device that writes no ack', () => {
    const rig = new ControlRig();
    rig.control.send({ kind: 'announce-ack' });
    rig.device.push(rig.device.pop(), 0);
    rig.device.publish();
    expect(rig.control.poll()).toBe(0xff);
  });

  test('refuses what its area or framing cannot hold, without a trace in the ring', () => {
    const rig = new ControlRig({ size: 4 });
    const vlan = { kind: 'vlan-add', vid: 1 } as const;
    for (const framing of [
      { readable: [2, 1] },
      { readable: [2, 3] },
      { readable: [] },
      { readable: [0, 4] },
      { readable: [5, -1] },
      { readable: [1.5, 2.5] },
      { readable: [2, 2], writable: [] },
      { readable: [2, 2], writable: [9] },
    ]) {
      expect(() => rig.control.send(vlan, framing)).toThrow(ARGUMENT_ERROR);
    }
    expect(() => rig.control.send(vlan, { readable: [1, 1, 1, 1] })).toThrow(ARGUMENT_ERROR);
    expect(() => rig.control.send(macTable(macs(700), []))).toThrow(ARGUMENT_ERROR);
    expect([rig.driver.free, rig.driver.inFlight, rig.control.busy]).toEqual([4, 0, false]);
  });
});
