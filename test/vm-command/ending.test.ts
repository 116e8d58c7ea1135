import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { ensureVmPrepared, startVm } from '../../lib/vm';
import { CLI, goneWithin, isAlive, pidsIn, scratchFolder, startCli } from './launch';

jest.setTimeout(120_000);

beforeAll(async () => {
  await ensureVmPrepared();
}, 300_000);

function tempFoldersOf(pid: number | undefined): string[] {
  return readdirSync(tmpdir()).filter((name) => name.startsWith(`vhost-net-vm-${pid}-`));
}

test('SIGTERM reaches the command, which decides how it ends', async () => {
  const vm = startCli([
    '--timeout',
    '60',
    '--',
    'sh',
    '-c',
    'trap "echo caught; exit 3" TERM; echo ready; while :; do sleep 0.1; done',
  ]);
  await vm.saw('ready');
  vm.process.kill('SIGTERM');
  const ended = await vm.ended;
  expect(ended.stdout.toString()).toBe('ready\ncaught\n');
  expect(ended.exitCode).toBe(3);
});

test('a command that a signal ends gives 128 + its number, and nothing is left', async () => {
  const vm = startCli(['--verbose', '--timeout', '60', '--', 'sh', '-c', 'echo ready; exec sleep 1000']);
  await vm.saw('ready');
  vm.process.kill('SIGINT');
  const ended = await vm.ended;
  expect(ended.exitCode).toBe(130);
  expect(pidsIn(ended.stderr).length).toBe(2);
  expect(pidsIn(ended.stderr).filter(isAlive)).toEqual([]);
});

test('the time limit ends a stubborn command with 124, and its output folder is complete', async () => {
  const scratch = scratchFolder();
  const out = join(scratch, 'out, folder');
  try {
    const command = `trap '' TERM; echo kept >"$1/file"; echo ready; while :; do sleep 0.1; done`;
    const flags = ['--verbose', '--timeout', '20', '--out', out];
    const vm = startCli([...flags, '--', 'sh', '-c', command, 'sh', out]);
    const ended = await vm.ended;
    expect(ended.stdout.toString()).toBe('ready\n');
    expect(ended.exitCode).toBe(124);
    expect(readFileSync(join(out, 'file'), 'utf8')).toBe('kept\n');
    const pids = pidsIn(ended.stderr);
    expect(pids.length).toBe(3);
    expect(pids.filter(isAlive)).toEqual([]);
    expect(tempFoldersOf(vm.process.pid)).toEqual([]);
  } finally {
    rmSync(scratch, { recursive: true });
  }
});

test('the time limit counts while the guest still boots', async () => {
  const started = performance.now();
  const ended = await startCli(['--verbose', '--timeout', '0.8', '--', 'true']).ended;
  expect(ended.exitCode).toBe(124);
  expect(performance.now() - started).toBeLessThan(5_000);
  expect(pidsIn(ended.stderr).filter(isAlive)).toEqual([]);
});

test('a caller killed by SIGKILL takes machine and file servers along; the next start cleans up', async () => {
  const vm = startCli(['--verbose', '--timeout', '60', '--', 'sh', '-c', 'echo ready; exec sleep 1000']);
  let stderr = '';
  vm.process.stderr?.on('data', (chunk: Buffer) => {
    stderr += chunk.toString();
  });
  await vm.saw('ready');
  const pids = pidsIn(stderr);
  expect(pids.filter(isAlive)).toEqual(pids);
  const owned = tempFoldersOf(vm.process.pid);
  expect(owned).toHaveLength(1);

  vm.process.kill('SIGKILL');

  expect(await goneWithin(pids, 3_000)).toEqual([]);
  await startCli(['--timeout', '0.1', '--', 'true']).ended;
  expect(existsSync(join(tmpdir(), owned[0]!))).toBe(false);
});

test('an npm killed by SIGKILL takes the VM along', async () => {
  const words = [...CLI, '--verbose', '--timeout', '60', '--', 'sh', '-c', 'echo ready; exec sleep 1000'];
  const line = words.map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(' ');
  const npm = startCli(['exec', '--offline', '-c', line], ['npm']);
  let stderr = '';
  npm.process.stderr?.on('data', (chunk: Buffer) => {
    stderr += chunk.toString();
  });
  await npm.saw('ready');
  const pids = pidsIn(stderr);
  expect(pids.filter(isAlive)).toEqual(pids);
  npm.process.kill('SIGKILL');
  expect(await goneWithin(pids, 3_000)).toEqual([]);
});

test('an AbortSignal ends the VM, a reader that goes away ends the command', async () => {
  const stop = new AbortController();
  const aborted = await startVm({
    command: 'sh',
    args: ['-c', 'exec sleep 1000'],
    signal: stop.signal,
    stdout: new PassThrough(),
    stderr: new PassThrough(),
  });
  stop.abort();
  await expect(aborted.finished).rejects.toMatchObject({ code: 'VHOST_ERR_ABORTED' });
  expect(aborted.pids.filter(isAlive)).toEqual([]);

  const words = [...CLI, '--timeout', '60', '--', 'yes'].map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(' ');
  const piped = spawnSync('bash', ['-c', `${words} | head -n 1; echo "\${PIPESTATUS[0]}"`], { timeout: 60_000 });
  expect(piped.stdout.toString()).toBe('y\n141\n');
});
