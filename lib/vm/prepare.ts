import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { cached, cacheFolder } from './cache';
import { type CpioEntry, cpioArchive, S_IFDIR, S_IFLNK, S_IFREG } from './cpio';
import { VmError } from './errors';
import { APPLETS, STAGE_1, STAGE_2 } from './guest-init';
import { checkHost, ensureHostPackages } from './host-packages';
import { ensureKernel, type Kernel, type KernelSeries } from './kernel';
import { COMMAND_MODULES, findModules, type KernelModule, loadOrder, MOUNT_MODULES } from './kernel-modules';
import { which } from './process';

export interface PrepareOptions {
  /** Default 6.12. */
  readonly kernelSeries?: KernelSeries;
  /** Look for a newer kernel package instead of taking the one in the cache. */
  readonly refresh?: boolean;
  /** Receives progress lines. */
  readonly log?: (line: string) => void;
}

export interface PreparedVm {
  readonly kernel: Kernel;
  /** Path of the initramfs without a job. */
  readonly initrd: string;
}

/**
 * Makes sure that everything a boot needs is on this host: Debian packages, kernel, modules, initramfs. The first call
 * fetches about 35 MB; later ones take some milliseconds.
 */
export async function ensureVmPrepared(options: PrepareOptions = {}): Promise<PreparedVm> {
  const log = options.log ?? (() => {});
  checkHost();
  await ensureHostPackages(log);
  const cache = cacheFolder();
  const kernel = await ensureKernel(cache, options.kernelSeries ?? '6.12', options.refresh ?? false, log);
  const name = `initrd-${initrdKey(kernel)}`;
  const folder = await cached(cache, name, async (staging) => {
    log(`making the initramfs for ${kernel.release}`);
    writeFileSync(join(staging, 'initrd.cpio'), await buildInitrd(kernel));
  });
  return { kernel, initrd: join(folder, 'initrd.cpio') };
}

function initrdKey(kernel: Kernel): string {
  const hash = createHash('sha256');
  for (const part of [kernel.id, ...MOUNT_MODULES, ...COMMAND_MODULES, ...APPLETS, STAGE_1, STAGE_2]) {
    hash.update(`${part.length}:${part}`);
  }
  return hash.update(readFileSync(busyboxPath())).digest('hex').slice(0, 16);
}

async function buildInitrd(kernel: Kernel): Promise<Buffer> {
  const found = findModules(kernel.moduleTree);
  const missing = ['vhost_net', 'tun'].filter((name) => !found.has(name));
  if (missing.length > 0) throw new VmError('prepare', `${kernel.packageName} has no module ${missing.join(', ')}`);
  const forMount = await loadOrder(found, MOUNT_MODULES, new Set());
  const loaded = new Set(forMount.map((module) => module.name));
  const forCommand = await loadOrder(found, COMMAND_MODULES, loaded);
  const lists: [string, KernelModule[]][] = [
    ['mount', forMount],
    ['command', forCommand],
  ];

  const entries: CpioEntry[] = [
    { name: 'bin', mode: S_IFDIR | 0o755 },
    { name: 'modules', mode: S_IFDIR | 0o755 },
    { name: 'bin/busybox', mode: S_IFREG | 0o755, data: readFileSync(busyboxPath()) },
    { name: 'init', mode: S_IFREG | 0o755, data: Buffer.from(STAGE_1) },
    { name: 'stage2', mode: S_IFREG | 0o755, data: Buffer.from(STAGE_2) },
  ];
  for (const applet of APPLETS) {
    entries.push({ name: `bin/${applet}`, mode: S_IFLNK | 0o777, data: Buffer.from('busybox') });
  }
  const images = new Map(lists.flatMap(([, modules]) => modules.map((module) => [module.name, module.image] as const)));
  for (const [name, data] of images) entries.push({ name: `modules/${name}.ko`, mode: S_IFREG | 0o644, data });
  for (const [list, modules] of lists) {
    const names = modules.map((module) => `${module.name}\n`).join('');
    entries.push({ name: `modules/${list}`, mode: S_IFREG | 0o644, data: Buffer.from(names) });
  }
  return cpioArchive(entries);
}

function busyboxPath(): string {
  const path = which('busybox');
  if (path === undefined)
    throw new VmError('missing-package', 'no busybox', { hint: 'type: sudo apt-get install busybox-static' });
  return path;
}
