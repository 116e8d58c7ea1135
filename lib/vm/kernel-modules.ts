import { readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { VmError } from './errors';
import { run } from './process';

/** Needed before the machine's file system can be mounted. Those that a kernel has built in have no file and are skipped. */
export const MOUNT_MODULES = ['virtio_pci', 'virtio_console', 'fuse', 'virtiofs', 'overlay'] as const;

/** What commands in the VM find loaded. Everything else of the kernel can be loaded with modprobe. */
export const COMMAND_MODULES = [
  'vhost_net',
  'tun',
  'macvtap',
  'veth',
  'bridge',
  'virtio_net',
  'act_mirred',
  'sch_ingress',
  'cls_matchall',
  'pktgen',
] as const;

export interface KernelModule {
  /** File name without suffix, underscores for dashes, as the kernel compares names. */
  readonly name: string;
  /** Uncompressed ELF image. */
  readonly image: Buffer;
}

const SUFFIX = /\.ko(\.xz)?$/;

/** Paths by normalised module name of everything under `moduleTree` (…/lib/modules/VERSION). */
export function findModules(moduleTree: string): Map<string, string> {
  const found = new Map<string, string>();
  for (const entry of readdirSync(moduleTree, { recursive: true, withFileTypes: true })) {
    if (entry.isFile() && SUFFIX.test(entry.name)) {
      found.set(normalised(entry.name.replace(SUFFIX, '')), join(entry.parentPath, entry.name));
    }
  }
  return found;
}

/** The wanted modules and all they depend on, each after its dependencies. Names without a file are left out. */
export async function loadOrder(
  found: ReadonlyMap<string, string>,
  wanted: readonly string[],
  alreadyLoaded: ReadonlySet<string>,
): Promise<KernelModule[]> {
  const order = new Map<string, KernelModule>();
  const visit = async (rawName: string): Promise<void> => {
    const name = normalised(rawName);
    const path = found.get(name);
    if (path === undefined || order.has(name) || alreadyLoaded.has(name)) return;
    const image = await readModule(path);
    for (const dependency of dependenciesOf(image)) await visit(dependency);
    order.set(name, { name, image });
  };
  for (const name of wanted) await visit(name);
  return [...order.values()];
}

/** The `depends=` entry of the .modinfo section (include/linux/module.h, MODULE_INFO). */
export function dependenciesOf(image: Buffer): string[] {
  const key = Buffer.from('\0depends=');
  const start = image.indexOf(key);
  if (start < 0) return [];
  const from = start + key.length;
  const list = image.toString('latin1', from, image.indexOf(0, from));
  return list === '' ? [] : list.split(',');
}

async function readModule(path: string): Promise<Buffer> {
  const bytes = readFileSync(path);
  if (!path.endsWith('.xz')) return bytes;
  const result = await run('busybox', ['xz', '-dc'], { input: bytes });
  if (result.status !== 0) throw new VmError('prepare', `cannot unpack ${basename(path)}: ${result.stderr}`);
  return result.stdout;
}

export function normalised(name: string): string {
  return name.replaceAll('-', '_');
}
