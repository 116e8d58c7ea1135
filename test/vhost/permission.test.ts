/** What a process without rights, or without the device, is told. The process is a child that has given up root. */
import { execFile } from 'node:child_process';
import { chmodSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { VhostNet } from '../../lib/host/vhost-net';
import { VM_MARK } from '../../lib/vm';

const LIB = join(__dirname, '../../lib');

/** Runs `body` (with `lib` in scope) as nobody and answers the error it met. */
async function asNobody(body: string): Promise<Record<string, unknown>> {
  const script = `
    const lib = require(${JSON.stringify(LIB)});
    // The addon is loaded with the first use, which must come while its files may still be read.
    lib.EventFd.create().close();
    process.setgroups([]); process.setgid(65534); process.setuid(65534);
    (async () => { ${body} })().then(
      () => console.log('{}'),
      ({ code, syscall, path, hint, errno }) => console.log(JSON.stringify({ code, syscall, path, hint, errno })),
    );`;
  const { stdout } = await promisify(execFile)(process.execPath, ['-e', script]);
  return JSON.parse(stdout) as Record<string, unknown>;
}

describe('without rights', () => {
  // The VM's nodes are its own; those of a machine are left as they are.
  if (process.env[VM_MARK] !== undefined) {
    chmodSync('/dev/vhost-net', 0o600);
    chmodSync('/dev/net/tun', 0o666);
  }
  const closed = (statSync('/dev/vhost-net').mode & 0o006) === 0;

  (closed ? test : test.skip)('/dev/vhost-net (needs a node that not everybody may open)', async () => {
    expect(await asNobody('await lib.VhostNet.open();')).toEqual({
      code: 'EACCES',
      errno: -13,
      syscall: 'open',
      path: '/dev/vhost-net',
      hint: expect.stringContaining('be root or a member of the group'),
    });
  });

  const everybodys = (statSync('/dev/net/tun').mode & 0o006) === 0o006;
  (everybodys ? test : test.skip)('a new tap (needs a /dev/net/tun that everybody may open)', async () => {
    expect(await asNobody("await lib.Tap.open({ name: 'mine' });")).toMatchObject({
      code: 'EPERM',
      syscall: 'TUNSETIFF',
      hint: expect.stringContaining('CAP_NET_ADMIN'),
    });
  });
});

test('without the device', async () => {
  await expect(VhostNet.open({ path: '/dev/no-such-device' })).rejects.toMatchObject({
    code: 'ENOENT',
    errno: -2,
    syscall: 'open',
    path: '/dev/no-such-device',
  });
});
