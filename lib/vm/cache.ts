import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, statSync, utimesSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';

const STAGING_PREFIX = 'staging-';
const DAY_MS = 24 * 60 * 60 * 1000;
/** Work that a killed process left behind; and entries, kernels and initramfs of older versions, that nobody has used. */
const STAGING_LIFETIME_MS = DAY_MS;
const UNUSED_LIFETIME_MS = 30 * DAY_MS;

/** $VHOST_NET_CACHE, $XDG_CACHE_HOME/vhost-net or ~/.cache/vhost-net; created when missing. */
export function cacheFolder(): string {
  const base = process.env.XDG_CACHE_HOME ?? '';
  const folder =
    process.env.VHOST_NET_CACHE || join(base.startsWith('/') ? base : join(homedir(), '.cache'), 'vhost-net');
  mkdirSync(folder, { recursive: true });
  return folder;
}

/**
 * A cache entry that is whole or absent: `fill` works in a staging folder, which is then renamed to `name`. When two
 * prepare the same entry at once, the first rename counts and the other's work is thrown away.
 */
export async function cached(folder: string, name: string, fill: (staging: string) => Promise<void>): Promise<string> {
  const path = join(folder, name);
  if (existsSync(path)) {
    markUsed(path);
    return path;
  }
  removeOld(folder, STAGING_PREFIX, STAGING_LIFETIME_MS);
  removeOld(folder, 'initrd-', UNUSED_LIFETIME_MS);
  removeOld(folder, 'kernel-', UNUSED_LIFETIME_MS);
  const staging = mkdtempSync(join(folder, STAGING_PREFIX));
  try {
    await fill(staging);
    publish(staging, path);
  } finally {
    rmSync(staging, { recursive: true, force: true });
  }
  return path;
}

function publish(staging: string, path: string): void {
  try {
    renameSync(staging, path);
  } catch (error) {
    if (!existsSync(path)) throw error;
  }
}

/** Keeps an entry from being removed as unused. */
export function markUsed(path: string): void {
  const now = new Date();
  try {
    utimesSync(path, now, now);
  } catch {
    // A cache that may only be read is as good.
  }
}

function removeOld(folder: string, prefix: string, lifetimeMs: number): void {
  for (const name of readdirSync(folder).filter((entry) => entry.startsWith(prefix))) {
    const path = join(folder, name);
    const stat = statSync(path, { throwIfNoEntry: false });
    if (stat?.isDirectory() && Date.now() - stat.mtimeMs > lifetimeMs) rmSync(path, { recursive: true, force: true });
  }
}
