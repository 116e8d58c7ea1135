import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { packageRoot } from '../../../lib/native';
import { builtStream } from '../../helpers/built-stream';

const folder = mkdtempSync(join(tmpdir(), 'inspect-stream-'));
const file = join(folder, 'stream');

afterAll(() => rmSync(folder, { recursive: true }));

function run(bytes: Uint8Array, ...args: string[]) {
  writeFileSync(file, bytes);
  const line = [join(packageRoot(), 'bin', 'vhost-net'), 'inspect-stream', file, ...args];
  const { status, stdout } = spawnSync(process.execPath, line, { encoding: 'utf8' });
  return { status, stdout };
}

test('a whole stream: a line for each frame, nothing that moves a terminal, status 0', () => {
  const { status, stdout } = run(Buffer.concat(builtStream()), '--pages', '--device');
  expect(status).toBe(0);
  expect(stdout).toMatch(/^ +\d+ {2}2 PAGES \d+ ok round 0, 2 runs/m);
  expect(stdout).toMatch(/0x9 \+ 3 zero/);
  expect(stdout).toContain('"version": 2');
  expect(stdout).toMatch(/round 0: 5 pages, 3 of them zero, \d+ bytes\n\d+ bytes: whole\n$/);
  expect(stdout).toMatch(/^[\n -~]*$/);
});

test('a damaged one as JSON: status 1', () => {
  const bytes = Buffer.concat(builtStream());
  bytes[bytes.length - 1]! ^= 1;
  const { status, stdout } = run(bytes, '--json');
  const documents = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
  expect(status).toBe(1);
  expect(documents.at(-2)).toMatchObject({ name: 'END', checksum: 'bad' });
  expect(documents.at(-1)).toMatchObject({ summary: { whole: false } });
});

test('no file: status 2', () => {
  const line = [join(packageRoot(), 'bin', 'vhost-net'), 'inspect-stream', join(folder, 'none')];
  expect(spawnSync(process.execPath, line).status).toBe(2);
});
