/** Features, and the rules that this library adds where the kernel says nothing. */
import { VhostNet, type VringAddresses } from '../../lib/host/vhost-net';
import { hva } from '../../lib/memory/address';
import { DirtyLog } from '../../lib/memory/dirty-log';
import { GuestMemory } from '../../lib/memory/guest-memory';
import { FaultPlan } from '../../lib/trace/fault-plan';
import { Trace } from '../../lib/trace/trace';
import { VhostBench } from '../helpers/vhost-bench';
import { codeOf, errorOf } from '../helpers/vhost-wait';

const VERSION_1 = 1n << 32n;
const LOG_ALL = 1n << 26n;
const EVERY_KERNEL = 0x33d008000n;

describe('features', () => {
  test('each offered bit is taken alone, every other is refused', async () => {
    await using vhost = await VhostNet.open();
    const offered = await vhost.getFeatures();
    expect(offered & EVERY_KERNEL).toBe(EVERY_KERNEL);
    expect((offered >> 34n) & 1n).toBe(0n);
    for (let bit = 0n; bit < 64n; bit++) {
      const result = await vhost.unchecked.setFeatures(1n << bit).then(
        () => 'ok',
        (error: { code: string }) => error.code,
      );
      expect([bit, result]).toEqual([bit, (offered >> bit) & 1n ? 'ok' : 'ENOTSUP']);
    }
  });

  test('backend features: IOTLB messages in their second form only', async () => {
    await using vhost = await VhostNet.open();
    expect(await vhost.getBackendFeatures()).toBe(2n);
  });

  test('feature arrays, where the kernel has them, say the same', async () => {
    await using vhost = await VhostNet.open();
    await vhost.setOwner();
    const words = await vhost.getFeaturesArray().catch((error: { code: string }) => error.code);
    if (typeof words === 'string') expect(['ENOTTY', 'EFAULT', 'ENOBUFS']).toContain(words);
    else expect(words[0]).toBe(await vhost.getFeatures());
  });

  test('all words as one number, whatever the kernel has', async () => {
    await using vhost = await VhostNet.open();
    await vhost.setOwner();
    const all = await vhost.getAllFeatures();
    expect(all & ((1n << 64n) - 1n)).toBe(await vhost.getFeatures());
    await vhost.setAllFeatures(1n << 32n);
    // Bit 66 is no vhost feature in any kernel: refused with an error, not dropped.
    await expect(vhost.setAllFeatures(1n << 66n)).rejects.toMatchObject({ syscall: 'VHOST_SET_FEATURES_ARRAY' });
  });

  test('kind of worker, where the kernel has the choice', async () => {
    await using vhost = await VhostNet.open();
    const first = await vhost.getForkFromOwner().catch((error: { code: string }) => error.code);
    if (typeof first === 'string') {
      expect(first).toBe('EPERM');
      return;
    }
    await vhost.setForkFromOwner(0);
    expect(await vhost.getForkFromOwner()).toBe(0);
    expect(await codeOf(vhost.unchecked.setForkFromOwner(2))).toBe('EINVAL');
    await vhost.setOwner();
    expect(await codeOf(vhost.setForkFromOwner(1))).toBe('EBUSY');
    expect(await vhost.getForkFromOwner()).toBe(0);
  });

  test('busy polling can be set and read', async () => {
    await using vhost = await VhostNet.open();
    await vhost.setOwner();
    await vhost.setVringBusyloopTimeout(1, 50);
    expect(await vhost.getVringBusyloopTimeout(1)).toBe(50);
    expect(await vhost.getVringBusyloopTimeout(0)).toBe(0);
  });
});

describe('what the library refuses before the kernel', () => {
  let bench: VhostBench;
  const trace = new Trace();
  beforeAll(async () => {
    bench = await VhostBench.create();
  });
  afterAll(() => bench.close());

  const addresses = (index: number, overrides: Partial<VringAddresses> = {}): VringAddresses =>
    ({ ...bench.addresses(index), ...overrides }) as VringAddresses;

  test('features that change under attached rings, LOG_ALL alone may', async () => {
    await using device = await bench.device('attached');
    const { vhost } = device;
    const offered = await vhost.getFeatures();
    for (let bit = 0n; bit < 64n; bit++) {
      if (((offered >> bit) & 1n) === 0n || 1n << bit === LOG_ALL) continue;
      expect([bit, await codeOf(vhost.setFeatures(VERSION_1 ^ (1n << bit)))]).toEqual([bit, 'VHOST_ERR_STATE']);
    }
    const log = DirtyLog.create(bench.memory.end);
    await vhost.setLogBase(log);
    await vhost.setFeatures(VERSION_1 | LOG_ALL);
    await vhost.setFeatures(VERSION_1);
    await vhost.setLogBase(null);
    log.close();
  });

  test('logging without a log', async () => {
    await using device = await bench.device('attached');
    expect((await errorOf(device.vhost.setFeatures(VERSION_1 | LOG_ALL))).code).toBe('VHOST_ERR_STATE');
    expect((await errorOf(device.vhost.setVringAddr(0, addresses(0, { flags: 1 })))).hint).toMatch(/setLogBase/);
    await using rings = await bench.device('rings');
    await rings.vhost.setFeatures(VERSION_1 | LOG_ALL);
    expect(await codeOf(rings.vhost.setBackend(0, bench.tap))).toBe('VHOST_ERR_STATE');
  });

  test('a log that is too short, closed, or taken away in use', async () => {
    await using device = await bench.device('attached');
    const { vhost } = device;
    const short = DirtyLog.create(4096);
    expect(short.covers(bench.memory.end)).toBe(true);
    short.close();
    expect(await codeOf(vhost.setLogBase(short))).toBe('VHOST_ERR_CLOSED');

    // One page of log covers 128 MiB: memory that ends behind it needs another.
    const high = GuestMemory.create([{ gpa: 0x8000_0000, size: 0x10000 }]);
    const log = DirtyLog.create(bench.memory.end);
    await vhost.setLogBase(log);
    const refused = await errorOf(vhost.setMemTable(high));
    expect(refused.code).toBe('VHOST_ERR_LOG_SIZE');
    expect(refused.syscall).toBe('VHOST_SET_MEM_TABLE');
    await vhost.setLogBase(null);
    await vhost.setMemTable(high);
    expect((await errorOf(vhost.setLogBase(log))).code).toBe('VHOST_ERR_LOG_SIZE');
    await vhost.setMemTable(bench.memory);

    await vhost.setLogBase(log);
    await vhost.setVringAddr(0, addresses(0, { flags: 1 }));
    expect(await codeOf(vhost.setLogBase(null))).toBe('VHOST_ERR_STATE');
    expect(await codeOf(vhost.setVringAddr(1, addresses(1, { flags: 1, logGuestAddr: 0x9000_0000 as never })))).toBe(
      'VHOST_ERR_LOG_SIZE',
    );
    await vhost.setVringAddr(0, addresses(0));
    await vhost.setLogBase(null);
    log.close();
    high.close();
  });

  test('a used ring at the very end of the log, one byte too far', async () => {
    await using device = await bench.device('table');
    const { vhost } = device;
    const log = DirtyLog.create(bench.memory.end);
    await vhost.setLogBase(log);
    await vhost.setVringNum(0, 256);
    const last = log.pages * 4096 - (6 + 8 * 256);
    expect(log.covers(last + 6 + 8 * 256)).toBe(true);
    await vhost.setVringAddr(0, addresses(0, { flags: 1, logGuestAddr: (last - (last % 4)) as never }));
    expect(
      await codeOf(vhost.setVringAddr(0, addresses(0, { flags: 1, logGuestAddr: (last - (last % 4) + 4) as never }))),
    ).toBe('VHOST_ERR_LOG_SIZE');
    log.close();
  });

  test('more regions than the kernel takes, a misaligned descriptor table, ring 2, a base that moves', async () => {
    await using device = await bench.device('attached');
    const { vhost } = device;
    const table = { regions: Array.from({ length: 65 * 3 }, () => 4096), mappings: [], end: 4096 };
    expect((await errorOf(vhost.restoreMemTable(table))).hint).toMatch(/max_mem_regions/);
    expect(await codeOf(vhost.restoreMemTable({ regions: [0, 0, 4096], mappings: [], end: 1 }))).toBe(
      'VHOST_ERR_MEMORY_TABLE',
    );
    expect(await codeOf(vhost.setVringAddr(0, addresses(0, { desc: hva(addresses(0).desc + 8) })))).toBe(
      'VHOST_ERR_RING',
    );
    expect(await codeOf(vhost.setVringNum(2, 256))).toBe('VHOST_ERR_INVALID_ARGUMENT');
    expect(await codeOf(vhost.getVringBase(0))).toBe('VHOST_ERR_STATE');
    expect(await vhost.getVringBase(0, { attached: true })).toBe(0);
    await vhost.setBackend(0, null);
    expect(await vhost.getVringBase(0)).toBe(0);
    expect(await codeOf(vhost.getVringBase(1))).toBe('VHOST_ERR_STATE');
  });

  test('anything on a closed device; close is idempotent', async () => {
    const device = await bench.device('attached');
    await device.vhost.close();
    await device.vhost.close();
    expect(device.vhost.closed).toBe(true);
    expect(await codeOf(device.vhost.getFeatures())).toBe('VHOST_ERR_CLOSED');
    expect(() => device.vhost.fd).toThrow(/closed/);
    device.event.close();
  });

  test('calls that run while the device is closed end before it', async () => {
    const { vhost, event } = await bench.device('attached');
    const calls = Array.from({ length: 20 }, (_, i) =>
      vhost.unchecked.getVringBase(i % 2).catch((error: { code: string }) => error.code),
    );
    await vhost.close();
    for (const result of await Promise.all(calls)) expect([0, 'VHOST_ERR_CLOSED', 'EBADF']).toContain(result);
    event.close();
  });

  test('every call is traced and can be made to fail, before or after, or be left out', async () => {
    const faults = new FaultPlan()
      .fail('VHOST_SET_OWNER', { errno: 12 })
      .fail('VHOST_SET_FEATURES', { nth: 2, errno: 14, after: true })
      .skip('VHOST_RESET_OWNER');
    await using vhost = await VhostNet.open({ trace, faults });
    expect((await errorOf(vhost.setOwner())).code).toBe('ENOMEM');
    await vhost.setOwner();
    expect(await codeOf(vhost.unchecked.setOwner())).toBe('EBUSY');
    await vhost.setFeatures(0n);
    expect((await errorOf(vhost.setFeatures(VERSION_1))).code).toBe('EFAULT');
    await vhost.resetOwner();
    expect(await codeOf(vhost.unchecked.setOwner())).toBe('EBUSY');
    expect(trace.ioctls(vhost.fd)).toEqual([
      'VHOST_SET_OWNER',
      'VHOST_SET_OWNER',
      'VHOST_SET_OWNER',
      'VHOST_SET_FEATURES',
      'VHOST_SET_FEATURES',
      'VHOST_RESET_OWNER',
      'VHOST_SET_OWNER',
    ]);
    expect(faults.struck).toEqual(['VHOST_SET_OWNER', 'VHOST_SET_FEATURES', 'VHOST_RESET_OWNER']);
  });

  test('opening fails with a hint', async () => {
    const error = await errorOf(VhostNet.open({ path: '/dev/no-such-vhost' }));
    expect([error.code, error.syscall, error.path]).toEqual(['ENOENT', 'open', '/dev/no-such-vhost']);
    const planned = await errorOf(VhostNet.open({ faults: new FaultPlan().fail('open', { errno: 13 }) }));
    expect(planned.hint).toMatch(/group/);
  });
});
