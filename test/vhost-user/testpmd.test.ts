/** Debian's dpdk-testpmd as the front end (virtio_user) of `vhost-net serve`, as processes of their own. Emulated data path. */
import { execFile, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { Netns } from '../../lib/host/netns';
import { CliProcess } from '../helpers/cli-process';

const TESTPMD = 'dpdk-testpmd';
const here =
  spawnSync(TESTPMD, ['--version']).error === undefined &&
  existsSync(`/usr/lib/${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}-linux-gnu/librte_net_virtio.so.23`);
const run = promisify(execFile);

async function transmit(socket: string, devargs: string, options: readonly string[]): Promise<string> {
  const eal = ['--lcores', '0@1,1@0', '-n', '1', '--no-pci', '--no-telemetry', `--file-prefix=fe${process.pid}`];
  const memory = ['--no-huge', '-m', '256', '--single-file-segments'];
  const device = `--vdev=net_virtio_user0,path=${socket},${devargs}`;
  const forward = [
    '--forward-mode=txonly',
    '--auto-start',
    '--total-num-mbufs=4096',
    '--stats-period',
    '1',
    ...options,
  ];
  // SIGINT ends it in order: bases are asked for, and the sums are printed.
  const line = ['-s', 'INT', '4', TESTPMD, ...eal, ...memory, device, '--', ...forward];
  const { stdout } = await run('timeout', line).catch((error: { stdout: string }) => error);
  return stdout;
}

(here ? describe : describe.skip)('testpmd (needs dpdk-testpmd with librte-net-virtio)', () => {
  test.each([
    ['split rings', 'queues=1', 1, []],
    ['packed rings', 'queues=1,packed_vq=1', 1, []],
    ['plain split rings of 1024 entries', 'queues=1,mrg_rxbuf=0,in_order=0,queue_size=1024', 1, []],
    ['two queue pairs', 'queues=2', 2, ['--rxq=2', '--txq=2']],
  ] as const)('%s', async (_, devargs, queues, options) => {
    await using netns = await Netns.create();
    const folder = mkdtempSync(join(tmpdir(), 'testpmd-'));
    const socket = join(folder, 'v.sock');
    const where = ['--socket', socket, '--tap', 'dev0', '--netns', netns.path];
    const serve = new CliProcess(['serve', ...where, '--backend', 'emulated', '--queues', `${queues}`, '--trace']);
    try {
      await serve.says(/listening at/);
      const said = await transmit(socket, devargs, options);
      const sums = said.slice(said.lastIndexOf('Accumulated'));
      const sent = Number(/TX-packets: (\d+)/.exec(sums)?.[1]);
      await serve.says(/front end gone\n/);
      const stats = JSON.parse(await netns.ip('-s', '-j', 'link', 'show', 'dev0'))[0].stats64;
      // What testpmd counts lies in its ring; that it was taken to the last frame the base tells, which the ring's size bounds.
      expect(sent).toBeGreaterThan(10_000);
      expect(stats.rx.packets).toBeGreaterThan(sent - 1024 * queues);
      expect(stats.rx.packets).toBeLessThanOrEqual(sent);
      expect(serve.stdout).toMatch(/back end +GET_VRING_BASE reply/);
    } finally {
      serve.kill('SIGTERM');
      await serve.end();
      rmSync(folder, { recursive: true });
    }
    expect(serve.ended).toBe(0);
  });
});
