/**
 * Who uses which tap queue, in this process. The kernel lets two devices have the same one, without any error: each would get some of
 * the frames.
 */
import { fstatSync } from 'node:fs';
import { IFF_MULTI_QUEUE } from '../constants/if-tun';
import { check, VhostError } from '../errors';
import { type FdHandle, native } from '../native';

const users = new Map<string, string>();

/** The same for every descriptor of one queue. Queues of one multiqueue tap are told apart by descriptor. */
export function queueIdentity(handle: FdHandle, netns: string | null): string {
  const addon = native();
  const { name, flags } = check<{ name: string; flags: number }>(addon.tunGetIff(handle), 'TUNGETIFF');
  let space = netns ?? 'own';
  const found = addon.tunGetDevNetns(handle);
  if (typeof found !== 'number') {
    const { dev, ino } = fstatSync(addon.fdNumber(found));
    space = `${dev}:${ino}`;
    addon.fdClose(found);
  }
  const queue = `${space}/${name}`;
  return (flags & IFF_MULTI_QUEUE) === 0 ? queue : `${queue}/${addon.fdNumber(handle)}`;
}

export function queueInUse(name: string, key: string): VhostError {
  return new VhostError('VHOST_ERR_STATE', `tap ${name} is in use by ${users.get(key) ?? 'a device'}`, {
    hint: 'stop the device that uses it: a tap queue has one user at a time',
  });
}

/** Answers how to give the queue back, which in turn answers false when that was done before. Throws VHOST_ERR_STATE when it is taken. */
export function claimQueue(key: string, name: string, user: string): () => boolean {
  if (users.has(key)) throw queueInUse(name, key);
  users.set(key, user);
  let given = false;
  return () => {
    // A second call must not free the queue under who claimed it since.
    if (given) return false;
    given = true;
    return users.delete(key);
  };
}
