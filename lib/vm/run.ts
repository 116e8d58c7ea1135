import { VmError } from './errors';
import { checkedOptions, type VmOptions } from './options';
import { ensureVmPrepared } from './prepare';
import { type Accelerator, mayHaveKvm } from './qemu';
import { powerOn, type RunningVm, type VmResult } from './virtual-machine';

/** QEMU before 8.1 can fail in rare races while the guest kernel boots; see guest-init.ts. */
const EMULATED_TRIES = 3;

/** Runs a command in a new VM to its end. Rejects when the VM fails, never because of what the command does. */
export async function runInVm(options: VmOptions): Promise<VmResult> {
  const vm = await startVm(options);
  return vm.finished;
}

/**
 * Prepares what is missing, powers a VM on and starts the command in it. Resolves when the command
 * starts, or when the time limit came first.
 */
export async function startVm(options: VmOptions): Promise<RunningVm> {
  const checked = checkedOptions(options);
  const prepared = await ensureVmPrepared({ kernelSeries: checked.kernelSeries, log: checked.log });
  if (checked.signal?.aborted) throw new VmError('aborted', 'aborted before the VM was started');
  const tcg = Array<Accelerator>(EMULATED_TRIES).fill('tcg');
  const fallback = checked.accelerator === 'kvm' ? [] : tcg;
  const withKvm = checked.accelerator === 'kvm' || (checked.accelerator === 'auto' && mayHaveKvm());
  return powerOn(checked, prepared, [...(withKvm ? (['kvm'] as const) : []), ...fallback]);
}
