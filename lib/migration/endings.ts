/** What ends the use of a connection, or an attempt, as errors. */
import { reasonOf, VhostError } from '../errors';
import type { SourceState } from './commit/source-machine';
import { FrameType } from './frame';

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

/** What the end of an attempt that did not succeed is called at the source: its cause, where the guest goes on there. */
export function endOfAttempt(state: SourceState, cause: unknown): unknown {
  const why = reasonOf(cause);
  switch (state) {
    case 'uncertain':
      return new VhostError('VHOST_ERR_UNCERTAIN', `GO was sent, but the destination did not say RUNNING: ${why}`, {
        cause,
        hint: 'look whether the destination runs the guest; only if it certainly does not, start it here: resolve("here")',
      });
    case 'returned':
      return new VhostError('VHOST_ERR_RETURNED', `the destination could not start the guest after GO: ${why}`, {
        cause,
        hint: 'it runs nowhere, and never will there: start it here by resolve("here")',
      });
    case 'stranded':
      return new VhostError('VHOST_ERR_MIGRATION', `${why}; and the source could not go on`, {
        cause,
        hint: 'the guest is whole here and nobody else has it: start it by resolve("here")',
      });
    default:
      return cause;
  }
}
