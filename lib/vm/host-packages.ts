import { join } from 'node:path';
import { cacheFolder } from './cache';
import { VmError } from './errors';
import { isExecutable, run, which } from './process';

/** Part of qemu-system-common; not on PATH. The separate Rust virtiofsd of later Debian releases takes other options. */
export const VIRTIOFSD = '/usr/lib/qemu/virtiofsd';

interface Need {
  readonly present: () => boolean;
  readonly debianPackage: string;
}

const NEEDS: readonly Need[] = [
  { present: () => which('qemu-system-x86_64') !== undefined, debianPackage: 'qemu-system-x86' },
  { present: () => isExecutable(VIRTIOFSD), debianPackage: 'qemu-system-common' },
  { present: () => which('busybox') !== undefined, debianPackage: 'busybox-static' },
  { present: () => which('setpriv') !== undefined, debianPackage: 'util-linux' },
  { present: () => which('modprobe') !== undefined, debianPackage: 'kmod' },
  { present: () => which('ip') !== undefined, debianPackage: 'iproute2' },
];

/** Refuses hosts the VM cannot be built for, naming why. */
export function checkHost(): void {
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    throw new VmError(
      'unsupported-host',
      `the test VM runs on x86-64 Linux hosts only; this is ${process.arch} ${process.platform}`,
      { hint: 'use an x86-64 Linux machine, or a host that has /dev/vhost-net itself' },
    );
  }
  if (process.getuid?.() !== 0) {
    throw new VmError(
      'not-root',
      'the test VM needs root: virtiofsd serves the whole file system with chroot and a private mount namespace',
      { hint: 'type: sudo env "PATH=$PATH" npx vhost-net vm -- COMMAND' },
    );
  }
}

/** Installs the Debian packages that are missing, or names the command that does. `log` receives progress lines. */
export async function ensureHostPackages(log: (line: string) => void): Promise<void> {
  const missing = NEEDS.filter((need) => !need.present()).map((need) => need.debianPackage);
  if (missing.length === 0) return;
  const packages = [...new Set(missing)].join(' ');
  const command = `apt-get update && apt-get install -y --no-install-recommends ${packages}`;
  if (which('apt-get') === undefined) {
    throw new VmError('missing-package', `missing programs of the Debian packages: ${packages}`, {
      hint: 'this host has no apt-get: install the same programs with its own package manager',
    });
  }
  log(`installing ${packages}`);
  await updatePackageLists();
  await apt(['install', '-y', '--no-install-recommends', ...new Set(missing)], `type: sudo sh -c '${command}'`);
  const still = NEEDS.filter((need) => !need.present()).map((need) => need.debianPackage);
  if (still.length > 0) {
    throw new VmError('missing-package', `installed, but its program is not where it is expected: ${still.join(' ')}`, {
      hint: `${VIRTIOFSD} comes with the qemu-system-common of Debian 12`,
    });
  }
}

export async function updatePackageLists(): Promise<void> {
  await apt(['update'], 'type: sudo apt-get update');
}

/** Several of these at once wait for each other: apt-get itself gives up at once when its lists are locked. */
async function apt(args: string[], hint: string): Promise<void> {
  const options = { env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' } };
  const lock = join(cacheFolder(), 'apt.lock');
  const command = ['apt-get', '-q', '-o', 'Dpkg::Use-Pty=0', '-o', 'DPkg::Lock::Timeout=300', ...args];
  const result = await run('flock', ['--close', '--timeout', '600', lock, ...command], options);
  if (result.status === 0) return;
  const output = `${result.stdout.toString()}${result.stderr}`.trim();
  throw new VmError('missing-package', `apt-get ${args.join(' ')} failed:\n${output}`, { hint });
}
