/** A device goes from one data path to another under traffic, on a real tap: needs root and /dev/net/tun. */

import type { Backend } from '../../../lib/backend/backend';
import { EmulatedBackend } from '../../../lib/backend/emulated';
import { BY_TAP } from '../../../lib/backend/tap-features';
import { EVERY_VHOST_NET, requireCarried } from '../../../lib/backend/vhost-kernel-features';
import { VirtioMmio } from '../../../lib/device/virtio-mmio';
import { VirtioNetDevice } from '../../../lib/device/virtio-net-device';
import { PAGE_SIZE } from '../../../lib/memory/address';
import { PageBitmap } from '../../../lib/memory/page-bitmap';
import { hashPages } from '../../../lib/observe/page-audit';
import { DeviceRig, type DeviceRigOptions, EVERYTHING, GUEST_MAC } from '../../helpers/device-rig';
import { errorOf, sleep, until } from '../../helpers/vhost-wait';

const nothingWrong = { lost: 0, duplicated: 0, reordered: 0, corrupted: 0 };
const STATUS = 0x70;
/** Frames a second each way: what a data path in this process moves on a slow machine too. */
const RATE = 1000;

let rig: DeviceRig;
let next: Backend;

/** `active` pairs are in use before the network speaks: a flow to the guest that is moved later may overtake itself. */
async function begin(options: DeviceRigOptions = {}, wanted?: bigint, active = 1): Promise<void> {
  rig = await DeviceRig.create({ rate: RATE, ...options });
  await rig.boot(wanted);
  if (active > 1) expect(await rig.driver.usePairs(active)).toBe(true);
  next = rig.backend('emulated');
  await rig.flows();
}

afterEach(async () => {
  await rig.close();
});

/** Nothing of all that was sent so far went wrong, and the device is as it should be. */
async function nothingLost(): Promise<void> {
  await rig.flows();
  const { toNetwork, toGuest } = await rig.settle();
  expect([toNetwork, toGuest]).toEqual([expect.objectContaining(nothingWrong), expect.objectContaining(nothingWrong)]);
  expect([toNetwork.received > 40, toGuest.received > 40]).toEqual([true, true]);
  expect([rig.violations, rig.broken]).toEqual([[], []]);
}

/** The next call of that name waits; answers when it is there, and how to let it go on. */
function hold<Name extends 'start' | 'stop' | 'prepare'>(backend: Backend, name: Name) {
  const original = backend[name].bind(backend) as (...args: unknown[]) => Promise<unknown>;
  let release = (): void => undefined;
  let arrive = (): void => undefined;
  const gate = new Promise<void>((resolve) => {
    release = resolve;
  });
  const arrived = new Promise<void>((resolve) => {
    arrive = resolve;
  });
  (backend as unknown as Record<string, unknown>)[name] = async (...args: unknown[]) => {
    (backend as unknown as Record<string, unknown>)[name] = original;
    arrive();
    await gate;
    return original(...args);
  };
  return { arrived, release };
}

function failOnce(backend: Backend, name: 'start' | 'prepare', error: Error): void {
  const original = backend[name].bind(backend);
  (backend as unknown as Record<string, unknown>)[name] = async () => {
    (backend as unknown as Record<string, unknown>)[name] = original;
    throw error;
  };
}

describe('what a switch says', () => {
  test.each([
    ['split', EVERYTHING & ~(1n << 34n)],
    ['packed', EVERYTHING],
  ])('%s rings: the receipt, there and back', async (format, wanted) => {
    await begin({ pairs: 2 }, wanted);
    const first = rig.device.backend;
    for (const [from, to] of [
      [first, next],
      [next, first],
      [first, next],
    ] as const) {
      const began = await from.positions();
      const receipt = await rig.device.switchBackend(to);
      const now = await to.positions();
      expect([rig.device.backend === to, to.running, from.running]).toEqual([true, true, false]);
      expect(receipt).toMatchObject({ from: 'emulated', to: 'emulated' });
      expect(receipt.microseconds).toBeGreaterThan(0);
      expect(receipt.microseconds).toBeLessThan(20_000_000);
      // Of the pair in use both rings, in order.
      expect(receipt.vrings.map(({ queue }) => queue)).toEqual([0, 1]);
      let moved = 0;
      for (const { queue, before, after } of receipt.vrings) {
        expect(before.base).toBe(before.usedIdx);
        // Indexes of a packed ring do not tell whole turns of it.
        if (format === 'packed') continue;
        const ahead = (index: number, of: number): number => (index - of) & 0xffff;
        // It goes from where it was asked to where it is by now, with no step back.
        const steps = [began[queue]!.usedIdx, before.usedIdx, after.usedIdx, now[queue]!.usedIdx];
        for (let step = 1; step < steps.length; step++)
          expect(ahead(steps[step]!, steps[step - 1]!)).toBeLessThan(0x8000);
        moved += ahead(after.usedIdx, began[queue]!.usedIdx);
      }
      // `began` was asked a moment before the switch asked itself.
      if (format === 'split') expect(receipt.framesMoved).toBeLessThanOrEqual(moved);
      else expect(receipt.framesMoved).toBeLessThan(2 * 256);
      await rig.flows();
    }
    await nothingLost();
  });

  test('many switches in a row, all asked for at once', async () => {
    await begin();
    const first = rig.device.backend;
    const receipts = await Promise.all(
      Array.from({ length: 20 }, (_, index) => rig.device.switchBackend(index % 2 === 0 ? next : first)),
    );
    expect(receipts).toHaveLength(20);
    expect(rig.device.backend).toBe(first);
    await nothingLost();
  });

  test('a device that stands: nothing runs before it is started', async () => {
    await begin();
    const first = rig.device.backend;
    await rig.device.stop();
    const queues = structuredClone(rig.device.queues);
    expect(await rig.device.switchBackend(next)).toEqual({
      from: 'emulated',
      to: 'emulated',
      vrings: [],
      framesMoved: 0,
      microseconds: 0,
    });
    expect([rig.device.running, next.running, first.running]).toEqual([false, false, false]);
    expect(rig.device.queues).toEqual(queues);
    await rig.device.start();
    expect([rig.device.backend === next, next.running]).toEqual([true, true]);
    await nothingLost();
  });

  test('a device that nobody has spoken to: the next driver finds the other data path', async () => {
    rig = await DeviceRig.create();
    next = rig.backend('emulated');
    await rig.device.switchBackend(next);
    await rig.boot();
    expect(next.running).toBe(true);
    await nothingLost();
  });

  test('to the one that serves it already: refused', async () => {
    await begin();
    const error = await errorOf(rig.device.switchBackend(rig.device.backend));
    expect(error.code).toBe('VHOST_ERR_INVALID_ARGUMENT');
    await nothingLost();
  });
});

describe('a next data path that cannot', () => {
  test.each(['prepare', 'start'] as const)(
    '%s: the old one goes on and nothing is lost; another attempt works',
    async (name) => {
      await begin();
      const first = rig.device.backend;
      const planted = new Error(`planted: ${name}`);
      failOnce(next, name, planted);
      await expect(rig.device.switchBackend(next)).rejects.toBe(planted);
      expect([rig.device.backend === first, first.running, next.running]).toEqual([true, true, false]);
      await rig.flows();
      await rig.device.switchBackend(next);
      expect([rig.device.backend === next, first.running, next.running]).toEqual([true, false, true]);
      await nothingLost();
    },
  );

  test('it has fewer taps than pairs are in use', async () => {
    await begin({ pairs: 2 }, undefined, 2);
    const narrow = new EmulatedBackend({ taps: rig.taps.slice(0, 1), prepareTaps: true });
    const error = await errorOf(rig.device.switchBackend(narrow));
    expect([error.code, error.message]).toEqual(['VHOST_ERR_INVALID_ARGUMENT', expect.stringMatching(/need 2 taps/)]);
    await narrow.close();
    await nothingLost();
  });

  test('neither can: the device stands, its queues say where, and a start takes it on without a loss', async () => {
    await begin();
    const first = rig.device.backend;
    const planted = [new Error('planted: next'), new Error('planted: before')];
    failOnce(next, 'start', planted[0]!);
    failOnce(first, 'start', planted[1]!);
    const error = await errorOf(rig.device.switchBackend(next));
    expect(error.code).toBe('VHOST_ERR_STATE');
    expect((error.cause as AggregateError).errors).toEqual(planted);
    expect([rig.device.backend === first, rig.device.running]).toEqual([true, false]);
    const stood = rig.device.queues.slice(0, 2).map(({ nextAvail }) => nextAvail);
    expect(stood).toEqual(first.stoppedRings.map(({ base }) => base));
    await rig.device.start();
    await nothingLost();
  });

  test('it does not carry what the driver acked: refused by name, before anything stops', async () => {
    await begin({}, EVERYTHING);
    const first = rig.device.backend;
    next.requireFeatures = (features) => requireCarried(features, EVERY_VHOST_NET, BY_TAP);
    const stop = jest.spyOn(first, 'stop');
    const error = await errorOf(rig.device.switchBackend(next));
    expect([error.code, error.message]).toEqual(['VHOST_ERR_FEATURES', expect.stringMatching(/VIRTIO_F_RING_PACKED/)]);
    expect(stop).not.toHaveBeenCalled();
    stop.mockRestore();
    await nothingLost();
  });

  test('it meets a broken ring at once: the device needs a reset, and a driver gets it going again', async () => {
    await begin();
    const first = rig.device.backend;
    const stop = first.stop.bind(first);
    await rig.runner.pause();
    first.stop = async () => {
      const queues = await stop();
      const { availRing, nextAvail, size } = queues[1]!;
      const idx = (nextAvail + size + 10) & 0xffff;
      rig.memory.write(availRing + 2, Uint8Array.of(idx & 0xff, idx >> 8));
      return queues;
    };
    await rig.device.switchBackend(next);
    await until('the ring is found broken', () => rig.broken.length > 0);
    expect(rig.broken).toEqual([expect.stringMatching(/^queue 1: /)]);
    expect(rig.mmio.read(STATUS, 4)).toBe(64 | 15);
    rig.broken.length = 0;
    rig.station.hush();
    await rig.boot();
    await rig.flows();
    expect([rig.broken, rig.device.backend === next]).toEqual([[], true]);
  });

  test('its faults are its own once it has been refused or left', async () => {
    await begin();
    const first = rig.device.backend;
    failOnce(next, 'start', new Error('planted'));
    await errorOf(rig.device.switchBackend(next));
    next.emit('ringError', { queue: 0, message: 'planted' });
    await rig.device.switchBackend(next);
    first.emit('ringError', { queue: 0, message: 'planted' });
    expect(rig.broken).toEqual([]);
    next.emit('ringError', { queue: 0, message: 'planted' });
    expect(rig.broken).toEqual(['queue 0: planted']);
  });
});

describe('in the middle of it', () => {
  test('control commands are carried out and answered, in whichever order they come', async () => {
    await begin({ pairs: 4 });
    const first = rig.device.backend;
    for (const [index, pairs] of [4, 2, 3, 1, 4].entries()) {
      const to = index % 2 === 0 ? next : first;
      const pending = hold(to, 'prepare');
      const switched = index < 3 ? rig.device.switchBackend(to) : null;
      if (switched !== null) await pending.arrived;
      const commanded = rig.driver.usePairs(pairs);
      // The command is taken while the switch is under way, or the switch asked for while the command is.
      await sleep(5);
      const late = switched ?? rig.device.switchBackend(to);
      await pending.arrived;
      pending.release();
      expect(await commanded).toBe(true);
      await late;
      await rig.device.settled();
      expect([rig.device.backend === to, rig.device.activePairs]).toEqual([true, pairs]);
      await rig.flows();
    }
    // A flow to the guest that is moved to another queue of the tap may overtake itself, and a parked queue is emptied by the kernel.
    const { toNetwork, toGuest } = await rig.settle();
    expect(toNetwork).toMatchObject(nothingWrong);
    expect(toGuest).toMatchObject({ duplicated: 0, corrupted: 0 });
    expect([rig.violations, rig.broken]).toEqual([[], []]);
  });

  test.each(['prepare', 'start'] as const)('a reset during %s ends the next data path too', async (name) => {
    await begin();
    const pending = hold(next, name);
    const switched = rig.device.switchBackend(next);
    await pending.arrived;
    rig.mmio.write(STATUS, 4, 0);
    expect(rig.mmio.read(STATUS, 4)).toBe(15);
    pending.release();
    expect((await switched).vrings).toHaveLength(2);
    await rig.device.settled();
    expect([rig.mmio.read(STATUS, 4), next.running, rig.device.running]).toEqual([0, false, false]);
    rig.station.hush();
    await rig.boot();
    expect([rig.device.backend === next, next.running]).toEqual([true, true]);
    await rig.flows();
    expect([rig.violations, rig.broken]).toEqual([[], []]);
  });

  test('a driver that resets and begins anew within it gets the next data path', async () => {
    await begin();
    const pending = hold(next, 'start');
    const switched = rig.device.switchBackend(next);
    await pending.arrived;
    rig.station.hush();
    await rig.runner.pause();
    const booted = rig.boot();
    await sleep(5);
    pending.release();
    await switched;
    await booted;
    expect([rig.mmio.read(STATUS, 4), rig.device.backend === next]).toEqual([15, true]);
    await rig.flows();
  });

  test('close waits for it, and leaves the data path before to its owner', async () => {
    await begin();
    const first = rig.device.backend;
    const pending = hold(next, 'start');
    const switched = rig.device.switchBackend(next);
    await pending.arrived;
    const closed = rig.device.close();
    pending.release();
    await switched;
    await closed;
    expect([first.running, next.running]).toEqual([false, false]);
    await expect(next.prepare({} as never)).rejects.toMatchObject({ code: 'VHOST_ERR_CLOSED' });
    await first.setDirtyLog(null);
    await expect(rig.device.switchBackend(first)).rejects.toMatchObject({ code: 'VHOST_ERR_CLOSED' });
  });

  test.each(['prepare', 'stop', 'start'] as const)(
    'memory that comes during %s, logged, is there and in the log afterwards',
    async (name) => {
      await begin();
      await rig.device.startDirtyLog();
      await rig.flows();
      const before = rig.memory.end;
      const pending = hold(name === 'stop' ? rig.device.backend : next, name);
      const switched = rig.device.switchBackend(next);
      await pending.arrived;
      let there = false;
      const size = 4096 * PAGE_SIZE * 32;
      const added = rig.memory.addRegion({ gpa: before, size }).then(() => {
        there = true;
      });
      await sleep(5);
      expect(there).toBe(false);
      pending.release();
      await switched;
      await added;
      // A log smaller than the region's end would have been grown by then.
      const bitmap = new PageBitmap(1);
      rig.device.dirtyLog!.takeInto(bitmap);
      expect(bitmap.pages).toBeGreaterThanOrEqual((before + size) / PAGE_SIZE);
      expect(bitmap.count()).toBeGreaterThan(10);
      await nothingLost();
    },
  );
});

describe('the dirty log', () => {
  /** Pages that changed in `work` and while frames flowed before and after it, and how many of them no log has. */
  async function missed(work: () => Promise<unknown>): Promise<{ changed: number; missing: number; byDevice: number }> {
    const device = rig.device.dirtyLog ?? (await rig.device.startDirtyLog());
    rig.runner.startDirtyLog();
    device.takeInto(new PageBitmap(1));
    const before = await hashPages(rig.memory);
    await rig.flows(100);
    await work();
    await rig.flows(100);
    await rig.runner.pause();
    await rig.device.stop();
    const after = await hashPages(rig.memory);
    const log = new PageBitmap(rig.memory.end / PAGE_SIZE);
    const byDevice = device.takeInto(log);
    rig.runner.dirtySource.takeInto(log);
    const changed = [...before.keys()].filter((page) => before[page] !== after[page]);
    return { changed: changed.length, missing: changed.filter((page) => !log.has(page)).length, byDevice };
  }

  test('has every page that changed, across switches', async () => {
    await begin({ pairs: 2 }, undefined, 2);
    const first = rig.device.backend;
    const { changed, missing, byDevice } = await missed(async () => {
      for (const to of [next, first, next]) {
        await rig.device.switchBackend(to);
        await rig.flows(150);
      }
      expect(await rig.driver.command({ kind: 'rx-mode', mode: 'allmulti', on: true })).toBe(0);
    });
    expect([changed > 50, byDevice > 50, missing]).toEqual([true, true, 0]);
    await rig.device.stopDirtyLog();
  });

  test('planted: a next data path that is not told of the log is found out', async () => {
    await begin();
    next.setDirtyLog = async () => undefined;
    await rig.device.startDirtyLog();
    await rig.device.switchBackend(next);
    const { missing } = await missed(async () => undefined);
    expect(missing).toBeGreaterThan(0);
  });

  test('goes with the device: the one before no longer has it, the next one has', async () => {
    await begin();
    const first = rig.device.backend;
    const told: [string, boolean][] = [];
    for (const [name, backend] of [
      ['first', first],
      ['next', next],
    ] as const) {
      const original = backend.setDirtyLog.bind(backend);
      backend.setDirtyLog = (log) => {
        told.push([name, log !== null]);
        return original(log);
      };
    }
    await rig.device.startDirtyLog();
    await rig.device.switchBackend(next);
    await rig.device.stopDirtyLog();
    expect(told).toEqual([
      ['first', true],
      ['next', true],
      ['first', false],
      ['next', false],
    ]);
    await nothingLost();
  });
});

describe('the link', () => {
  const carrier = async (): Promise<boolean> =>
    !(await rig.netns.ip('-o', 'link', 'show', 'dev0')).includes('NO-CARRIER');

  test('goes with the device, and a data path that comes back finds it as another left it', async () => {
    await begin();
    const first = rig.device.backend;
    await rig.device.switchBackend(next);
    await rig.device.setLink(false);
    await until('the carrier is gone', async () => !(await carrier()));
    await rig.device.switchBackend(first);
    expect(await carrier()).toBe(false);
    await rig.device.setLink(true);
    await until('the carrier is back', carrier);
    await rig.device.switchBackend(next);
    await rig.flows();
    await rig.device.setLink(false);
    await until('the carrier is gone again', async () => !(await carrier()));
    await rig.runner.pause();
    await rig.device.close();
    // Another device, whose link is up, on the data path that last saw it up.
    const device = await VirtioNetDevice.offer({ memory: rig.memory, backend: first, mac: GUEST_MAC });
    const mmio = new VirtioMmio(device, { watchCalls: false });
    mmio.write(STATUS, 4, 3);
    mmio.write(0x24, 4, 1);
    mmio.write(0x20, 4, 1);
    mmio.write(STATUS, 4, 15);
    await device.settled();
    expect([mmio.read(STATUS, 4), device.running]).toEqual([15, true]);
    await until('the carrier is there', carrier);
    mmio.close();
    await device.close();
  });
});
