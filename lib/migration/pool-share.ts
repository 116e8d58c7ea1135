/**
 * How many calls on page connections may be on libuv's thread pool at once, in the whole process: two threads stay free, so that a device's
 * ioctls never stand in line behind pages.
 */
import { availableParallelism } from 'node:os';

const POOL_SIZE = Number(process.env.UV_THREADPOOL_SIZE ?? '') || 4;
const SHARE = Math.max(1, Math.min(POOL_SIZE - 2, availableParallelism()));

let running = 0;
const waiting: (() => void)[] = [];

export async function onPool<T>(call: () => Promise<T>): Promise<T> {
  if (running >= SHARE) await new Promise<void>((resolve) => waiting.push(resolve));
  else running++;
  try {
    return await call();
  } finally {
    // The place goes to who waited longest, so that no connection starves.
    const next = waiting.shift();
    if (next === undefined) running--;
    else next();
  }
}
