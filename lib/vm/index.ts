/** A disposable virtual machine with a real /dev/vhost-net that runs one command on this machine's own files. */
export { defaultEnvironment, VM_MARK } from './environment';
export { VmError, type VmErrorReason } from './errors';
export type { KernelSeries } from './kernel';
export type { VmOptions } from './options';
export { ensureVmPrepared, type PreparedVm, type PrepareOptions } from './prepare';
export { runInVm, startVm } from './run';
export type { RunningVm, VmResult } from './virtual-machine';
