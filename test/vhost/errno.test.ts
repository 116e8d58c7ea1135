/** What the kernel refuses, ioctl by ioctl: the errors that reach a caller have its code, its ioctl's name and say what to do. */
import { execFileSync } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { closeSync, mkdtempSync, openSync, readdirSync, readlinkSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { VhostBench } from '../helpers/vhost-bench';
import { ERRNO_ROWS, type Fds } from '../helpers/vhost-errno-rows';
import { errorOf } from '../helpers/vhost-wait';

function socketFds(): number[] {
  return readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).startsWith('socket:') ? [Number(fd)] : [];
    } catch {
      return [];
    }
  });
}

describe('what the kernel says', () => {
  let bench: VhostBench;
  let fds: Fds;
  let folder: string;
  const udp = createSocket('udp4');

  beforeAll(async () => {
    bench = await VhostBench.create();
    folder = mkdtempSync(join(tmpdir(), 'vhost-errno-'));
    execFileSync('mkfifo', [join(folder, 'pipe')]);
    const sockets = new Set(socketFds());
    await new Promise<void>((resolve) => udp.bind(0, '127.0.0.1', resolve));
    const file = openSync(join(folder, 'file'), 'w+');
    fds = {
      file,
      pipe: openSync(join(folder, 'pipe'), 'r+'),
      udp: socketFds().find((fd) => !sockets.has(fd))!,
      closed: 1_000_000,
      tun: openSync('/dev/net/tun', 'r+'),
    };
  });

  afterAll(async () => {
    udp.close();
    closeSync(fds.file);
    closeSync(fds.pipe);
    closeSync(fds.tun);
    rmSync(folder, { recursive: true });
    await bench.close();
  });

  const cases = ERRNO_ROWS.map(([stage, what, call, result, syscall, hint]) => ({
    stage,
    what,
    call,
    result,
    syscall,
    hint,
  }));
  test.each(cases)('$stage: $what', async ({ stage, call, result, syscall, hint }) => {
    await using device = await bench.device(stage);
    const done = call(device.vhost.unchecked, bench, fds, device);
    if (result === 'ok') {
      expect(await done.then(() => 'ok')).toBe('ok');
      return;
    }
    const error = await errorOf(done);
    expect(error.code).toBe(result);
    expect(error.errno).toBeLessThan(0);
    expect(error.path).toBe('/dev/vhost-net');
    if (syscall !== undefined) expect(error.syscall).toBe(syscall);
    if (hint !== undefined) expect(error.hint).toMatch(hint);
  });

  test('RESET_OWNER forgets everything, as often as one likes', async () => {
    await using device = await bench.device('attached');
    const { unchecked } = device.vhost;
    for (let round = 0; round < 10; round++) {
      await unchecked.resetOwner();
      expect((await errorOf(unchecked.setVringNum(0, 256))).code).toBe('EPERM');
      await unchecked.setOwner();
      expect((await errorOf(unchecked.setBackend(0, bench.tap.fd))).code).toBe('EFAULT');
      await unchecked.setBackend(0, -1);
      expect(await unchecked.getVringBase(0)).toBe(0);
      await unchecked.setVringBase(0, 77);
    }
  });

  test('who inherits the descriptor is not the owner', async () => {
    await using device = await bench.device('attached');
    const script = `
      const { VhostNet } = require(${JSON.stringify(join(__dirname, '../../lib/host/vhost-net.js'))});
      (async () => {
        const { unchecked } = await VhostNet.open({ fd: 3 });
        const answers = {};
        const calls = {
          SET_OWNER: () => unchecked.setOwner(), SET_VRING_NUM: () => unchecked.setVringNum(0, 256),
          GET_VRING_BASE: () => unchecked.getVringBase(0), DETACH: () => unchecked.setBackend(0, -1),
          SET_MEM_TABLE: () => unchecked.setMemTable([], []), RESET_OWNER: () => unchecked.resetOwner(),
        };
        for (const [name, call] of Object.entries(calls)) answers[name] = await call().then(() => 'ok', (error) => error.code);
        process.stdout.write(JSON.stringify(answers));
      })();`;
    const out = execFileSync(process.execPath, ['-e', script], {
      stdio: ['ignore', 'pipe', 'inherit', device.vhost.fd],
      encoding: 'utf8',
    });
    expect(JSON.parse(out)).toEqual({
      SET_OWNER: 'EBUSY',
      SET_VRING_NUM: 'EPERM',
      GET_VRING_BASE: 'EPERM',
      DETACH: 'EPERM',
      SET_MEM_TABLE: 'EPERM',
      RESET_OWNER: 'EPERM',
    });
    expect(await device.vhost.getVringBase(0, { attached: true })).toBe(0);
  });
});
