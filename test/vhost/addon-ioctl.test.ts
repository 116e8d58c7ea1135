/** The addon's ioctls that need no more than an open /dev/vhost-net. */
import * as vhost from '../../lib/constants/vhost';
import type { VhostHandle } from '../../lib/native';
import { native } from '../../lib/native';
import { ok } from './addon-lab';

const EPERM = -1;
const EFAULT = -14;
const EBUSY = -16;
const EINVAL = -22;

describe('ioctls', () => {
  let device: VhostHandle;
  beforeEach(async () => {
    device = ok(await native().vhostOpen('/dev/vhost-net'));
  });
  afterEach(() => native().vhostClose(device));

  test('a raw request writes its answer back', async () => {
    const features = ok(await native().vhostGetFeatures(device)) as bigint;
    const bytes = new Uint8Array(8);
    expect(await native().vhostIoctl(device, vhost.VHOST_GET_FEATURES, bytes)).toBe(0);
    expect(new DataView(bytes.buffer).getBigUint64(0, true)).toBe(features);
  });

  test('a raw request cannot write behind its argument', async () => {
    const short = new Uint8Array(7).fill(9);
    expect(await native().vhostIoctl(device, vhost.VHOST_GET_FEATURES, short)).toBe(EFAULT);
    expect(await native().vhostIoctl(device, vhost.VHOST_GET_FEATURES, new Uint8Array(0))).toBe(EFAULT);
    expect(await native().vhostIoctl(device, vhost.VHOST_GET_FEATURES, null)).toBe(EFAULT);
  });

  test('an argument that is detached meanwhile is left alone', async () => {
    const bytes = new Uint8Array(8);
    const asking = native().vhostIoctl(device, vhost.VHOST_GET_FEATURES, bytes);
    structuredClone(bytes, { transfer: [bytes.buffer] });
    expect(await asking).toBe(0);
    expect(bytes.length).toBe(0);
  });

  test('who forks the worker can be set before there is an owner, or the kernel does not know', async () => {
    const value = await native().vhostGetForkFromOwner(device);
    if (value < 0) {
      expect(value).toBe(EPERM);
      expect(await native().vhostSetForkFromOwner(device, 1)).toBe(EPERM);
      return;
    }
    expect(await native().vhostSetForkFromOwner(device, 0)).toBe(0);
    expect(await native().vhostGetForkFromOwner(device)).toBe(0);
    expect(await native().vhostSetForkFromOwner(device, 2)).toBe(EINVAL);
    expect(await native().vhostSetForkFromOwner(device, 1)).toBe(0);
    expect(await native().vhostSetOwner(device)).toBe(0);
    expect(await native().vhostSetForkFromOwner(device, 1)).toBe(EBUSY);
    expect(await native().vhostGetForkFromOwner(device)).toBe(1);
  });

  test('an adopted descriptor is the same device', async () => {
    expect(await native().vhostSetOwner(device)).toBe(0);
    const file = ok(native().fdOpen(`/proc/self/fd/${native().vhostFdNumber(device)}`, 2));
    const copy = ok(native().fdDup(file));
    const adopted = ok(native().vhostAdopt(native().fdNumber(copy)));
    expect(typeof (await native().vhostGetFeatures(adopted))).toBe('bigint');
  });

  test('worker requests answer an errno and harm nothing', async () => {
    expect(await native().vhostNewWorker(device)).toBe(EPERM);
    expect(await native().vhostSetOwner(device)).toBe(0);
    for (const answer of [
      native().vhostNewWorker(device),
      native().vhostFreeWorker(device, 0),
      native().vhostAttachVringWorker(device, 0, 0),
      native().vhostGetVringWorker(device, 0),
    ]) {
      expect(await answer).toBeLessThan(0);
    }
    expect(await native().vhostSetVringNum(device, 0, 256)).toBe(0);
  });

  test('busy polling is set and read back', async () => {
    expect(await native().vhostSetOwner(device)).toBe(0);
    expect(await native().vhostSetVringBusyloopTimeout(device, 1, 50)).toBe(0);
    expect(await native().vhostGetVringBusyloopTimeout(device, 1)).toBe(50);
    expect(await native().vhostSetVringBase(device, 0, 65535)).toBe(0);
    expect(await native().vhostGetVringBase(device, 0)).toBe(65535);
  });
});
