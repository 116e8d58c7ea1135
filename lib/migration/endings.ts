/** What ends the use of a connection, as errors. */
import { VhostError } from '../errors';
import { FrameType } from './frame';

/** Ended by whoever waits for it. */
export function abortedError(doing: string, reason: unknown): VhostError {
  const why = reason instanceof Error ? reason.message : String(reason ?? 'aborted');
  return new VhostError('VHOST_ERR_ABORTED', `cancelled while ${doing}: ${why}`);
}

/** What a CANCEL or ERROR of the peer becomes. */
export function peerEnded(type: FrameType, payload: Buffer): VhostError {
  let reason = 'no reason given';
  try {
    reason = String((JSON.parse(payload.toString('utf8')) as { reason?: unknown }).reason ?? reason);
  } catch {
    // A peer that fails badly may not manage a reason; that it failed is what counts.
  }
  return type === FrameType.CANCEL
    ? new VhostError('VHOST_ERR_ABORTED', `the peer cancelled: ${reason}`)
    : new VhostError('VHOST_ERR_MIGRATION', `the peer failed: ${reason}`);
}

export function silentError(forMs: number): VhostError {
  return new VhostError('VHOST_ERR_TIMEOUT', `nothing was heard of the peer for ${Math.round(forMs)} ms`, {
    hint: 'the peer, its host or the network is gone',
  });
}
