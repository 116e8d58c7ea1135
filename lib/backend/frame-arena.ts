/**
 * Where frames stand between tap and rings. One for the whole thread: a batch is read and delivered, or gathered and written, in one go, and
 * nothing of it is left behind.
 */

/** Frames of a batch. */
export const BATCH = 64;
/** The largest GSO frame with its header. */
export const STRIDE = 65_536 + 24;

let arena: Uint8Array | null = null;

export function frameArena(): Uint8Array {
  arena ??= new Uint8Array(BATCH * STRIDE);
  return arena;
}
