/** When a control queue does what: order, stop, kicks and calls. */
import * as fc from 'fast-check';
import { type ControlCommand, encodeControlCommand } from '../../../lib/net/control-command';
import { AREA, ControlRig, turn } from '../../helpers/control-rig';

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
      if (asking && commands < 100_000)
        rig.post({ gpa: AREA + 64, length: 2 }, { gpa: AREA, length: 1, writable: true });
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

  test('no kicks are asked for while there is work, found late or not', async () => {
    const kicks: boolean[] = [];
    const post = (): void => {
      rig.post({ gpa: AREA + 64, length: 2 }, { gpa: AREA, length: 1, writable: true });
      kicks.push(rig.driver.publish());
    };
    const rig: ControlRig = new ControlRig({
      around: (device) => {
        const { enableKicks } = device;
        let looks = 0;
        device.enableKicks = () => {
          enableKicks.call(device);
          // One comes between the request for kicks and the look that follows it.
          if (looks++ === 0) post();
          return enableKicks.call(device);
        };
        return device;
      },
    });
    rig.handler = () => {
      if (rig.handled.length === 1 || rig.handled.length === 3) post();
      return Promise.resolve(true);
    };
    rig.write(AREA + 64, [3, 0]);
    post();
    await rig.queue.run();
    // Before the device runs; while it works; between request and look; while it works again.
    expect(kicks).toEqual([true, false, true, false]);
    expect(rig.driver.pending()).toBe(4);
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
