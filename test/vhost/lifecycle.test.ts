/** Nothing is left behind: descriptors, kernel workers, mappings, interfaces, namespaces. */
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { native } from '../../lib/native';
import { VhostBench } from '../helpers/vhost-bench';
import { VhostLab } from '../helpers/vhost-lab';
import { Traffic } from '../helpers/vhost-traffic';
import { sleep, until } from '../helpers/vhost-wait';

interface Held {
  fds: number;
  workers: number;
  maps: number;
  mappings: number;
}

/** Workers of vhost devices run as threads of this process, named after the thread that became the owner. */
function workers(): number {
  return readdirSync('/proc/self/task').filter((task) => {
    try {
      return readFileSync(`/proc/self/task/${task}/comm`, 'utf8').startsWith('vhost-');
    } catch {
      return false;
    }
  }).length;
}

function held(): Held {
  const maps = readFileSync('/proc/self/maps', 'utf8').split('\n');
  return {
    fds: readdirSync('/proc/self/fd').length,
    workers: workers(),
    maps: maps.filter((line) => line.includes('memfd:')).length,
    mappings: native().mappingsLive(),
  };
}

test('1,000 times opened, attached, detached, closed', async () => {
  const bench = await VhostBench.create();
  await (await bench.device('attached'))[Symbol.asyncDispose]();
  const before = held();
  for (let cycle = 0; cycle < 1000; cycle++) {
    const { vhost, event } = await bench.device('attached');
    if (cycle % 2 === 0) {
      await vhost.setBackend(0, null);
      await vhost.setBackend(1, null);
    }
    await vhost.close();
    event.close();
  }
  await sleep(100);
  expect(held()).toEqual(before);
  await bench.close();
}, 900_000);

test('a whole device, 10 times, half of them closed under traffic', async () => {
  const before = held();
  for (let round = 0; round < 10; round++) {
    const lab = await VhostLab.create();
    const traffic = new Traffic(lab);
    await lab.start();
    traffic.start();
    await traffic.pass(50);
    if (round % 2 === 0) await lab.stop();
    const closing = lab.backend.close();
    expect(lab.backend.running).toBe(round % 2 === 1);
    await closing;
    expect(workers()).toBe(before.workers);
    await traffic.pause();
    await lab.close();
    expect(existsSync(lab.netns.path)).toBe(false);
  }
  await sleep(100);
  expect(held()).toEqual(before);
});

test('a Worker that ends with everything open and traffic under way', async () => {
  const before = held();
  for (let round = 0; round < 3; round++) {
    const worker = new Worker(join(__dirname, '../helpers/vhost-worker.js'));
    const message = await new Promise<{ netns: string; error?: string }>((resolve, reject) => {
      worker.once('message', resolve);
      worker.once('error', reject);
    });
    expect(message.error).toBeUndefined();
    expect(workers()).toBe(before.workers + 1);
    await worker.terminate();
    await until('its kernel worker is gone', () => workers() === before.workers);
    const links = execFileSync('ip', ['-n', message.netns, '-o', 'link'], { encoding: 'utf8' });
    expect(links).not.toMatch(/dev0|peer0/);
    execFileSync('ip', ['netns', 'delete', message.netns]);
  }
  await sleep(200);
  const after = held();
  expect(after.mappings).toBe(before.mappings);
  expect([after.maps, after.workers]).toEqual([before.maps, before.workers]);
  expect(after.fds).toBe(before.fds);
}, 240_000);

test('a process that is killed with everything open leaves its tap free at once', async () => {
  const script = `
    const { VhostLab } = require(${JSON.stringify(join(__dirname, '../helpers/vhost-lab.js'))});
    const { Traffic } = require(${JSON.stringify(join(__dirname, '../helpers/vhost-traffic.js'))});
    (async () => {
      const lab = await VhostLab.create();
      await lab.start();
      const traffic = new Traffic(lab);
      traffic.start();
      await traffic.pass(50);
      process.stdout.write(lab.netns.name, () => process.kill(process.pid, 'SIGKILL'));
      await new Promise((resolve) => setTimeout(resolve, 60_000));
    })();`;
  let netns = '';
  try {
    execFileSync(process.execPath, ['-e', script], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] });
  } catch (error) {
    const { signal, stdout } = error as { signal: string; stdout: string };
    expect(signal).toBe('SIGKILL');
    netns = stdout;
  }
  expect(execFileSync('ip', ['-n', netns, '-o', 'link'], { encoding: 'utf8' })).not.toMatch(/dev0|peer0/);
  execFileSync('ip', ['netns', 'delete', netns]);
});

test('a child that is started meanwhile inherits none of it', async () => {
  await using lab = await VhostLab.create();
  await lab.start();
  const links = execFileSync('sh', ['-c', 'ls -l /proc/self/fd'], { encoding: 'utf8' });
  expect(links).not.toMatch(/vhost-net|net\/tun|memfd|eventfd/);
});
