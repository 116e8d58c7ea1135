import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { cached, markUsed } from './cache';
import { VmError } from './errors';
import { updatePackageLists } from './host-packages';
import { run, which } from './process';
import { extractVmlinux } from './vmlinux';

/** Debian kernels the VM is known to run on. In 6.1 a vhost worker is a kernel thread, in 6.12 a vhost_task of its owner. */
export const KERNEL_SERIES = ['6.12', '6.1'] as const;
export type KernelSeries = (typeof KERNEL_SERIES)[number];

export interface Kernel {
  /** Debian package, for example linux-image-6.12.117+deb12-cloud-amd64-unsigned. */
  readonly packageName: string;
  /** As `uname -r` prints it. */
  readonly release: string;
  /** Bootable image: ELF vmlinux where it could be unpacked (QEMU enters it directly through PVH), else bzImage. */
  readonly image: string;
  /** …/lib/modules/RELEASE with modules.dep. */
  readonly moduleTree: string;
  /** Changes with any byte of the package. */
  readonly id: string;
}

interface Pointer {
  readonly packageName: string;
  readonly id: string;
}

/** The prepared kernel of a series, fetched when it is not in the cache yet or when `refresh` asks for the newest one. */
export async function ensureKernel(
  cache: string,
  series: KernelSeries,
  refresh: boolean,
  log: (line: string) => void,
): Promise<Kernel> {
  const pointerPath = join(cache, `kernel-${series}.json`);
  const pointer = refresh ? undefined : readPointer(pointerPath);
  if (pointer !== undefined) {
    const kernel = kernelIn(join(cache, pointer.id), pointer);
    if (kernel !== undefined) {
      markUsed(join(cache, pointer.id));
      return kernel;
    }
  }
  return fetchKernel(cache, series, pointerPath, log);
}

async function fetchKernel(
  cache: string,
  series: KernelSeries,
  pointerPath: string,
  log: (line: string) => void,
): Promise<Kernel> {
  if (which('apt-get') === undefined || which('dpkg-deb') === undefined) {
    throw new VmError('no-kernel', 'the VM kernel is a Debian package, and this host has no apt-get', {
      hint: 'use a Debian or Ubuntu host or container, or copy a filled cache folder here and set VHOST_NET_CACHE',
    });
  }
  let fetched: Pointer | undefined;
  // Package lists that are missing or point at files already gone from the mirror need one update.
  for (let attempt = 0; attempt < 2 && fetched === undefined; attempt++) {
    if (attempt === 1) await updatePackageLists();
    const packageName = await newestPackage(series);
    if (packageName !== undefined) fetched = await downloadInto(cache, packageName, log);
  }
  if (fetched === undefined) {
    throw new VmError('no-kernel', `no downloadable package linux-image-${series}*-cloud-amd64`, {
      hint: 'add the suites of Debian 12 (bookworm, bookworm-security) to the apt sources, then type: sudo apt-get update',
    });
  }
  const kernel = kernelIn(join(cache, fetched.id), fetched);
  if (kernel === undefined) throw new VmError('prepare', `${fetched.packageName} holds no kernel image or no modules`);
  const temporary = `${pointerPath}.${process.pid}`;
  writeFileSync(temporary, JSON.stringify(fetched));
  renameSync(temporary, pointerPath);
  return kernel;
}

async function newestPackage(series: KernelSeries): Promise<string | undefined> {
  const pattern = `^linux-image-${series.replace('.', '\\.')}\\.[0-9][^ ]*-cloud-amd64(-unsigned)?$`;
  const result = await run('apt-cache', ['search', '--names-only', pattern]);
  const names = result.stdout
    .toString()
    .split('\n')
    .map((line) => line.split(' ')[0] ?? '')
    .filter((name) => name !== '');
  return newestOf(names);
}

/** The package of the highest version; of two with one version the unsigned, whose modules and image are the same. */
export function newestOf(names: readonly string[]): string | undefined {
  return [...names].sort(compareVersions).at(-1);
}

function compareVersions(a: string, b: string): number {
  const [left, right] = [a, b].map((name) => (name.match(/\d+/g) ?? []).map(Number));
  for (let i = 0; i < Math.max(left!.length, right!.length); i++) {
    const difference = (left![i] ?? -1) - (right![i] ?? -1);
    if (difference !== 0) return difference;
  }
  return a.length - b.length;
}

async function downloadInto(
  cache: string,
  packageName: string,
  log: (line: string) => void,
): Promise<Pointer | undefined> {
  log(`fetching ${packageName}`);
  let id = '';
  const unpacked = await cached(cache, `kernel-incoming-${process.pid}-${Date.now()}`, async (staging) => {
    const result = await run('apt-get', ['-q', '-o', 'APT::Sandbox::User=root', 'download', packageName], {
      cwd: staging,
    });
    const archive = readdirSync(staging).find((name) => name.endsWith('.deb'));
    if (result.status !== 0 || archive === undefined) return;
    const path = join(staging, archive);
    id = `kernel-${createHash('sha256').update(readFileSync(path)).digest('hex').slice(0, 16)}`;
    await mustRun('dpkg-deb', ['-x', path, staging]);
    rmSync(path);
    await finishTree(staging);
  });
  try {
    if (id === '') return undefined;
    await cached(cache, id, async (staging) => {
      rmSync(staging, { recursive: true });
      renameSync(unpacked, staging);
    });
    return { packageName, id };
  } finally {
    rmSync(unpacked, { recursive: true, force: true });
  }
}

async function finishTree(root: string): Promise<void> {
  const release = releaseIn(root);
  if (release === undefined) return;
  rmSync(join(root, 'usr'), { recursive: true, force: true });
  const vmlinux = await extractVmlinux(readFileSync(join(root, 'boot', `vmlinuz-${release}`)));
  if (vmlinux !== undefined) writeFileSync(join(root, 'boot', 'vmlinux'), vmlinux);
  if (which('depmod') !== undefined) await mustRun(which('depmod')!, ['-b', root, release]);
}

async function mustRun(program: string, args: string[]): Promise<void> {
  const result = await run(program, args);
  if (result.status !== 0) throw new VmError('prepare', `${program} failed: ${result.stderr.trim()}`);
}

function readPointer(path: string): Pointer | undefined {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as Pointer;
  } catch {
    return undefined;
  }
}

function kernelIn(root: string, pointer: Pointer): Kernel | undefined {
  const release = releaseIn(root);
  if (release === undefined) return undefined;
  const images = [join(root, 'boot', 'vmlinux'), join(root, 'boot', `vmlinuz-${release}`)];
  const image = images.find((path) => existsSync(path));
  const moduleTree = join(root, 'lib', 'modules', release);
  if (image === undefined || !existsSync(moduleTree)) return undefined;
  return { packageName: pointer.packageName, release, image, moduleTree, id: pointer.id };
}

function releaseIn(root: string): string | undefined {
  try {
    return readdirSync(join(root, 'lib', 'modules'))[0];
  } catch {
    return undefined;
  }
}
