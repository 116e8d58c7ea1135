/** Programs that are called, and what the test VM is made of. */
import { accessSync, constants } from 'node:fs';
import { join } from 'node:path';
import { type Finding, finding } from './finding';

/** Where Debian keeps it: not on PATH. */
const VIRTIOFSD = ['/usr/lib/qemu/virtiofsd', '/usr/libexec/virtiofsd'];

function executable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** Path of a program, or undefined. */
export function which(name: string, path = process.env.PATH ?? ''): string | undefined {
  return [...path.split(':'), '/usr/sbin', '/sbin']
    .filter((folder) => folder !== '')
    .map((folder) => join(folder, name))
    .find(executable);
}

export function toolFindings(): Finding[] {
  const tool = (name: string, debianPackage: string): Finding => {
    const path = which(name);
    return finding(
      'optional',
      name,
      path !== undefined,
      path ?? 'not installed',
      `install the package ${debianPackage}`,
    );
  };
  return [tool('ip', 'iproute2'), tool('nsenter', 'util-linux')];
}

/** Missing programs count as found where the VM command installs them itself: as root, with apt-get. */
export function vmFindings(): Finding[] {
  const root = process.getuid?.() === 0;
  const installs = root && which('apt-get') !== undefined;
  const part = (name: string, path: string | undefined, debianPackage: string): Finding =>
    finding(
      'vm',
      `test VM: ${name}`,
      path !== undefined || installs,
      path ?? (installs ? 'not installed; "vhost-net vm" installs it' : 'not installed'),
      path === undefined && !installs ? `install the package ${debianPackage}` : undefined,
    );
  return [
    finding('vm', 'test VM: x86-64', process.arch === 'x64', process.arch, 'the VM runs on x86-64 hosts only'),
    finding(
      'vm',
      'test VM: root',
      root,
      root ? 'yes' : 'no',
      "virtiofsd shares this machine's files as root: use sudo",
    ),
    part('qemu-system-x86_64', which('qemu-system-x86_64'), 'qemu-system-x86'),
    part('virtiofsd', VIRTIOFSD.find(executable), 'qemu-system-common'),
    part('busybox', which('busybox'), 'busybox-static'),
    part('modprobe', which('modprobe'), 'kmod'),
  ];
}
