/**
 * What a device is asked for while something else is under way: everything ends, in the order in which it was asked for, and nothing waits
 * for what waits for it. The data path moves nothing and stands still where a test says so; rings and control commands are real.
 */
import * as fc from 'fast-check';
import { VirtioMmio } from '../../../lib/device/virtio-mmio';
import { VirtioNetDevice } from '../../../lib/device/virtio-net-device';
import { NetDriver } from '../../../lib/guest/net-driver';
import { PAGE_SIZE } from '../../../lib/memory/address';
import { GuestMemory } from '../../../lib/memory/guest-memory';
import { PageBitmap } from '../../../lib/memory/page-bitmap';
import { EVERYTHING, GUEST_MAC } from '../../helpers/device-rig';
import { StubBackend } from '../../helpers/stub-backend';
import { codeOf, errorOf, sleep } from '../../helpers/vhost-wait';

const MEMORY = 8 * 2 ** 20;
const STATUS = 0x70;
const PATIENCE_MS = 5000;

let memory: GuestMemory;
let backend: StubBackend;
let next: StubBackend;
let device: VirtioNetDevice;
let mmio: VirtioMmio;
let driver: NetDriver;

beforeEach(async () => {
  memory = GuestMemory.create([{ gpa: 0, size: MEMORY }]);
  backend = new StubBackend();
  next = new StubBackend();
  device = await VirtioNetDevice.offer({ memory, backend, mac: GUEST_MAC, pairs: 2 });
  mmio = new VirtioMmio(device);
  driver = await boot();
});

afterEach(async () => {
  mmio.close();
  await within('close', device.close());
  memory.close();
});

async function boot(): Promise<NetDriver> {
  const started = await NetDriver.start(mmio, memory, {
    wanted: EVERYTHING,
    gpa: 0x10_0000,
    program: 'sink',
    pairs: 2,
    rxSize: 16,
    txSize: 16,
    ledgerCapacity: 1024,
  });
  await device.settled();
  return started;
}

/** Fails where the promise does not end: that is a deadlock. */
async function within<T>(what: string, promise: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} did not end`)), PATIENCE_MS);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

const pairs = (count: number): Promise<number> => driver.command({ kind: 'mq-vq-pairs-set', pairs: count });
/** Long enough for a kick to be noticed and a command to be taken. */
const taken = (): Promise<void> => sleep(20);

describe('a command waits for its effect', () => {
  test('and is answered after it', async () => {
    const release = backend.hold('settingsChanged');
    let acked: number | null = null;
    const command = pairs(2).then((ack) => {
      acked = ack;
    });
    await taken();
    expect([acked, backend.calls.at(-1), device.activePairs]).toEqual([null, 'settingsChanged', 2]);
    release();
    await within('the command', command);
    expect(acked).toBe(0);
  });

  test('an effect that fails leaves everything as it was', async () => {
    backend.fail('settingsChanged');
    expect(await within('the command', pairs(2))).toBe(1);
    expect([device.activePairs, backend.calls.slice(-2)]).toEqual([1, ['settingsChanged', 'settingsChanged']]);
    expect(mmio.read(STATUS, 4)).toBe(15);
    expect(await within('the next command', pairs(2))).toBe(0);
  });

  /** Each waits in turn before the effect of a command does, and has to end the control queue, which waits for the effect. */
  const enders: [string, () => Promise<unknown>][] = [
    ['stop', () => device.stop()],
    ['close', () => device.close()],
    [
      'a reset',
      async () => {
        mmio.write(STATUS, 4, 0);
        await device.settled();
      },
    ],
    [
      'a reset of the control queue',
      async () => {
        mmio.write(0x30, 4, 4);
        mmio.write(0xc0, 4, 1);
        await device.settled();
      },
    ],
  ];

  test.each(enders)('%s that comes before the effect does not wait for it', async (name, end) => {
    const release = backend.hold('setDirtyLog');
    const logged = device.startDirtyLog();
    const ended = end();
    const command = pairs(2).catch((error: unknown) => error);
    await taken();
    expect(device.activePairs).toBe(name === 'a reset' ? 1 : 2);
    release();
    await within('the log', logged);
    await within(name, ended);
    expect(backend.running).toBe(name === 'a reset of the control queue');
    if (name !== 'a reset') expect(await within('the command', command)).toBe(0);
  });

  test.each(enders)('%s while the effect is under way waits for it, and not the other way round', async (name, end) => {
    const release = backend.hold('settingsChanged');
    const command = pairs(2);
    await taken();
    let done = false;
    const ended = end().then(() => {
      done = true;
    });
    await sleep(10);
    expect(done).toBe(false);
    release();
    await within(name, ended);
    expect(await within('the command', command)).toBe(0);
  });

  test('the data path of a life that is over is told nothing any more', async () => {
    const release = backend.hold('setDirtyLog');
    const logged = device.startDirtyLog();
    const command = pairs(2);
    await taken();
    mmio.write(STATUS, 4, 0);
    release();
    await within('all of them', Promise.all([logged, command, device.settled()]));
    expect(backend.calls.slice(-2)).toEqual(['setDirtyLog', 'stop']);
    expect([mmio.read(STATUS, 4), device.activePairs]).toEqual([0, 1]);
  });

  test('what a stopped data path was not told, the next one is told when it starts', async () => {
    const release = backend.hold('setDirtyLog');
    const logged = device.startDirtyLog();
    const stopped = device.stop();
    const command = pairs(2);
    await taken();
    release();
    await within('all of them', Promise.all([logged, stopped, command]));
    expect(backend.calls).not.toContain('settingsChanged');
    await device.switchBackend(next);
    await device.start();
    expect(next.device!.settings!.activePairs).toBe(2);
    expect(await within('another command', pairs(1))).toBe(0);
  });
});

describe('a switch is under way', () => {
  test('stop, close, commands, logs and memory wait for it, in their order', async () => {
    const release = next.hold('start');
    const order: string[] = [];
    const note = (what: string, promise: Promise<unknown>): Promise<void> =>
      promise.then(
        () => void order.push(what),
        (error: { code?: string }) => void order.push(`${what}: ${error.code}`),
      );
    const all = [
      note('switch', device.switchBackend(next)),
      note('command', pairs(2)),
      note('log', device.startDirtyLog()),
      note('memory', memory.addRegion({ gpa: MEMORY, size: 2 ** 20 })),
      note('link', device.setLink(false)),
      note('stop', device.stop()),
      note('start', device.start()),
      note('close', device.close()),
      note(
        'late',
        device.stop().then(() => device.start()),
      ),
    ];
    await taken();
    expect(order).toEqual([]);
    release();
    await within('all of them', Promise.all(all));
    expect(order.filter((what) => what !== 'command' && what !== 'memory')).toEqual([
      'switch',
      'log',
      'link',
      'stop',
      'start',
      'close',
      'late: VHOST_ERR_CLOSED',
    ]);
    expect(order).toEqual(expect.arrayContaining(['command', 'memory']));
    expect([backend.running, next.running, next.calls.at(-1)]).toEqual([false, false, 'close']);
    expect(backend.calls).not.toContain('close');
  });

  test('a command that comes within it has its effect on the next data path', async () => {
    const release = next.hold('prepare');
    const switched = device.switchBackend(next);
    const command = pairs(2);
    await taken();
    release();
    await within('both', Promise.all([switched, command]));
    expect([next.calls.at(-1), next.device!.settings!.activePairs]).toEqual(['settingsChanged', 2]);
    expect(backend.calls).not.toContain('settingsChanged');
  });
});

describe('memory changes', () => {
  test('during a command: the log grows, and nothing that it had is lost', async () => {
    const log = await device.startDirtyLog();
    const release = backend.hold('settingsChanged');
    const command = pairs(2);
    await taken();
    const size = 2 ** 31;
    const added = memory.addRegion({ gpa: MEMORY, size });
    await sleep(5);
    release();
    await within('both', Promise.all([command, added]));
    expect(backend.log!.covers(MEMORY + size)).toBe(true);
    expect(backend.calls.slice(-2)).toEqual(['setDirtyLog', 'memoryChanged']);
    const bitmap = new PageBitmap(1);
    log.takeInto(bitmap);
    // The ack was written to the log before.
    expect(bitmap.count()).toBeGreaterThan(0);
    expect(bitmap.pages).toBeGreaterThanOrEqual((MEMORY + size) / PAGE_SIZE);
    await within('the removal', memory.removeRegion(MEMORY));
  });

  test('a data path that refuses them keeps the memory as it was', async () => {
    const planted = backend.fail('memoryChanged');
    expect(await errorOf(memory.addRegion({ gpa: MEMORY, size: 2 ** 20 }))).toBe(planted);
    expect(memory.regions).toHaveLength(1);
    expect(await within('a command', pairs(2))).toBe(0);
  });

  test('during a reset, and after close', async () => {
    const release = backend.hold('stop');
    mmio.write(STATUS, 4, 0);
    const added = memory.addRegion({ gpa: MEMORY, size: 2 ** 20 });
    release();
    await within('the region', added);
    expect([mmio.read(STATUS, 4), backend.calls.includes('memoryChanged')]).toEqual([0, false]);
    await device.close();
    await within('another region', memory.addRegion({ gpa: 2 * MEMORY, size: 2 ** 20 }));
    expect(memory.regions).toHaveLength(3);
  });
});

describe('starts that fail', () => {
  test('a control queue that cannot be served leaves no data path running', async () => {
    await device.stop();
    const state = device.save();
    state.controlQueue.descTable = 0x7fff_f000 as never;
    const other = VirtioNetDevice.restore(state, { memory, backend: next });
    expect(await codeOf(within('the start', other.start()))).toBe('VHOST_ERR_RING');
    expect([next.running, next.calls]).toEqual([false, ['start', 'stop']]);
    await other.close();
  });

  test('a second start is refused by the data path and changes nothing', async () => {
    backend.fail('start');
    await errorOf(device.start());
    expect(device.running).toBe(true);
    expect(await within('a command', pairs(2))).toBe(0);
  });
});

test('whatever is asked for at once, all of it ends', async () => {
  let region = 2 * MEMORY;
  const asks: Record<string, () => Promise<unknown>> = {
    stop: () => device.stop(),
    start: () => (device.running ? Promise.resolve() : device.start()),
    switch: () => device.switchBackend(device.backend === backend ? next : backend),
    log: () => device.startDirtyLog(),
    noLog: () => device.stopDirtyLog(),
    link: () => device.setLink(!device.linkUp),
    memory: () => {
      region += 2 ** 20;
      return memory.addRegion({ gpa: region, size: 2 ** 20 });
    },
    reset: async () => mmio.write(STATUS, 4, 0),
    queueReset: async () => {
      mmio.write(0x30, 4, 1);
      mmio.write(0xc0, 4, 1);
    },
    controlReset: async () => {
      mmio.write(0x30, 4, 4);
      mmio.write(0xc0, 4, 1);
    },
    kick: async () => mmio.write(0x50, 4, 4),
    prepare: () => (device.running ? Promise.resolve() : device.prepare()),
  };
  const names = fc.constantFrom(...Object.keys(asks));
  let ended = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(names, fc.nat(3)), { minLength: 2, maxLength: 12 }),
      fc.boolean(),
      async (steps, command) => {
        for (const path of [backend, next]) path.calls.length = 0;
        const work: Promise<unknown>[] = [];
        // The driver may be reset before its command is answered: only that the device ends is at stake.
        if (command) mmio.write(0x50, 4, 4);
        for (const [name, turns] of steps) {
          work.push(asks[name]!().catch(() => undefined));
          for (let turn = 0; turn < turns; turn++) await Promise.resolve();
        }
        await within(
          steps.map(([name]) => name).join(', '),
          Promise.all(work).then(() => device.settled()),
        );
        driver = await within('a driver', boot());
        expect(await within('a command', pairs(2))).toBe(0);
        expect([mmio.read(STATUS, 4), device.running]).toEqual([15, true]);
        ended++;
      },
    ),
    { numRuns: 60, endOnFailure: true },
  );
  expect(ended).toBe(60);
});
