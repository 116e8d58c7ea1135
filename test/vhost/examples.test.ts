import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';

test('examples/echo runs a guest on the real device and ends by itself', async () => {
  const { stdout } = await promisify(execFile)(process.execPath, [join(__dirname, '../../examples/echo.js')]);
  expect(stdout).toMatch(/^02:00:00:00:00:02 answers on tap0 in vhost-net-/);
});
