/** Whether /dev/vhost-net and /dev/net/tun can be used by this process, asked by opening them. */
import { closeSync, openSync } from 'node:fs';
import { TUN_DEVICE } from './tap';
import { DEFAULT_VHOST_PATH } from './vhost-net';

/** Why not, in a few words, or null when they can. */
export function vhostNetUsable(): string | null {
  for (const path of [DEFAULT_VHOST_PATH, TUN_DEVICE]) {
    try {
      closeSync(openSync(path, 'r+'));
    } catch (error) {
      return `${(error as NodeJS.ErrnoException).code} ${path}`;
    }
  }
  return null;
}
