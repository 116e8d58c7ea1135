import { VhostError, type VhostErrorDetails } from '../errors';

/** What kept the test VM from being prepared or from running a command. */
export type VmErrorReason =
  | 'unsupported-host'
  | 'not-root'
  | 'missing-package'
  | 'no-kernel'
  | 'prepare'
  | 'boot'
  | 'lost'
  | 'aborted';

/** Failure of the VM itself, never of the command in it. `code` is VHOST_ERR_VM, or VHOST_ERR_ABORTED for `aborted`. */
export class VmError extends VhostError {
  override readonly name = 'VmError';

  constructor(
    readonly reason: VmErrorReason,
    message: string,
    details: VhostErrorDetails = {},
  ) {
    super(reason === 'aborted' ? 'VHOST_ERR_ABORTED' : 'VHOST_ERR_VM', message, details);
  }
}
