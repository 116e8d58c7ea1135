/** What the tests of guest memory share. */
import { native } from '../../../lib/native';

export const PAGE = 4096;
export const MIB = 1024 ** 2;
export const GIB = 1024 ** 3;

/** Matches errors by what users look at; errors made outside of jest's realm have another class. */
export const coded = (code: string, ...parts: string[]): Error =>
  expect.objectContaining({
    code,
    message: parts.length === 0 ? expect.any(String) : expect.stringMatching(inOrder(parts)),
  });

function inOrder(parts: readonly string[]): RegExp {
  return new RegExp(parts.map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')).join('.*'));
}

/** Waits until no more mappings than that are left: buffers let go of theirs on a later turn of the event loop. */
export async function mappingsBecome(count: number): Promise<void> {
  const end = Date.now() + 2000;
  while (native().mappingsLive() > count) {
    if (Date.now() > end) throw new Error(`${native().mappingsLive()} mappings are live, not ${count}`);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}
