import { createHash } from 'node:crypto';
import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { ensureVmPrepared, runInVm } from '../../lib/vm';
import { CLI, capture, scratchFolder, startCli } from './launch';

jest.setTimeout(120_000);

beforeAll(async () => {
  await ensureVmPrepared();
}, 300_000);

test('both streams arrive whole and apart, with the exit status, and only chosen variables go in', async () => {
  const mebibyte = 1024 * 1024;
  const script = `
    const bytes = Buffer.alloc(${mebibyte});
    for (let i = 0; i < bytes.length; i++) bytes[i] = (i * 7 + (i >> 8)) & 255;
    require('fs').writeSync(2, JSON.stringify(process.env));
    for (let at = 0; at < bytes.length; ) at += require('fs').writeSync(1, bytes, at);
    process.exitCode = 7;`;
  const expected = Buffer.alloc(mebibyte);
  for (let i = 0; i < mebibyte; i++) expected[i] = (i * 7 + (i >> 8)) & 255;

  process.env.VM_TEST_SECRET = 'secret';
  process.env.VM_TEST_CHOSEN = 'chosen';
  const flags = ['--env', 'VM_TEST_CHOSEN', '--env', 'VM_TEST_SET=a=b', '--timeout', '60'];
  const ended = await startCli([...flags, '--', process.execPath, '-e', script]).ended;

  expect(ended.exitCode).toBe(7);
  const env = JSON.parse(ended.stderr) as Record<string, string>;
  expect(env).toMatchObject({ VM_TEST_CHOSEN: 'chosen', VM_TEST_SET: 'a=b', VHOST_NET_VM: '1' });
  expect(env).not.toHaveProperty('VM_TEST_SECRET');
  expect(ended.stdout.length).toBe(mebibyte);
  const digest = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');
  expect(digest(ended.stdout)).toBe(digest(expected));
});

test('arguments, folder and environment arrive unchanged', async () => {
  const scratch = scratchFolder();
  const cwd = join(scratch, "a folder with 'quotes' and $dollars");
  mkdirSync(cwd);
  const everyCodePoint = Array.from({ length: 0x17f }, (_, i) => String.fromCodePoint(i + 1)).join('');
  const args = [
    '',
    'two words',
    `'single' "double"`,
    'line\nbreak\n',
    '$HOME `id` \\ * ~',
    '--timeout',
    '日本 🜁',
    everyCodePoint,
  ];
  const env = { PATH: process.env.PATH ?? '', WITH_SPACE: ' a b ', EMPTY: '', QUOTED: `it's\n"so"` };
  const script = 'console.log(JSON.stringify([process.argv.slice(1), process.cwd(), process.env]))';
  try {
    const result = await capture({ command: 'node', args: ['-e', script, '--', ...args], cwd, env });
    expect(result.stderr).toBe('');
    expect(JSON.parse(result.stdout.toString())).toEqual([args, cwd, env]);
    expect(result).toMatchObject({ exitCode: 0, signal: null, timedOut: false });
  } finally {
    rmSync(scratch, { recursive: true });
  }
});

test('a command that is not there gives 127', async () => {
  const ended = await startCli(['--timeout', '60', '--', 'no-such-command-anywhere']).ended;
  expect(ended.exitCode).toBe(127);
  expect(ended.stderr).toContain('no-such-command-anywhere');
  expect(ended.stdout).toHaveLength(0);
});

test('a process left behind with the output open does not keep the VM up', async () => {
  const result = await capture({ command: 'sh', args: ['-c', 'sleep 1000 & setsid sleep 1000 & echo done'] });
  expect(result).toMatchObject({ exitCode: 0, timedOut: false });
  expect(result.stdout.toString()).toBe('done\n');
  expect(result.seconds).toBeLessThan(50);
});

test('arguments that make no sense are refused before anything starts', async () => {
  await expect(runInVm({ command: '' })).rejects.toMatchObject({ code: 'VHOST_ERR_INVALID_ARGUMENT' });
  await expect(runInVm({ command: 'true', memory: 1024 })).rejects.toThrow('memory');
  await expect(runInVm({ command: 'true', args: ['a\0b'] })).rejects.toThrow('NUL');
  await expect(runInVm({ command: 'true', cwd: '/no/such/folder' })).rejects.toThrow('no folder');
  await expect(runInVm({ command: 'true', env: { 'A=B': '' } })).rejects.toThrow('A=B');
  const ended = await startCli(['--memory', 'lots', '--', 'true'], CLI).ended;
  expect(ended.exitCode).toBe(1);
  expect(ended.stderr).toContain('suffix M or G');
});
