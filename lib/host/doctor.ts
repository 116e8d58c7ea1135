/** Looks at a machine and says what of it this library needs, whether it is there, and what to do when it is not. */

import { moduleFindings, parameterFindings, tunFindings, vhostFindings } from './doctor-devices';
import { kernelFindings } from './doctor-kernel';
import { addonFinding, archFinding, nodeFinding, platformFinding } from './doctor-process';
import { toolFindings, vmFindings } from './doctor-tools';
import type { Finding } from './finding';

export type { Finding } from './finding';

/** Everything, in the order in which a person would fix it. Changes nothing that outlives the call. */
export async function diagnose(): Promise<Finding[]> {
  const addon = addonFinding();
  const process = [platformFinding(), archFinding(), nodeFinding(), addon];
  if (!addon.found)
    return [...process, ...moduleFindings(), ...parameterFindings(), ...toolFindings(), ...vmFindings()];
  return [
    ...process,
    ...(await vhostFindings()),
    ...moduleFindings(),
    ...parameterFindings(),
    ...(await tunFindings()),
    ...(await kernelFindings()),
    ...toolFindings(),
    ...vmFindings(),
  ];
}

/** Where a device can run: with this machine's own vhost-net, in the test VM, or nowhere. */
export type Verdict = 'here' | 'vm' | 'nowhere';

export function verdict(findings: readonly Finding[]): Verdict {
  const met = (need: Finding['neededFor']): boolean =>
    findings.every((finding) => finding.neededFor !== need || finding.found);
  if (!met('everything')) return 'nowhere';
  if (met('vhost-net')) return 'here';
  return met('vm') ? 'vm' : 'nowhere';
}

/** Exit status of `vhost-net doctor`. */
export const VERDICT_STATUS: Readonly<Record<Verdict, number>> = { here: 0, vm: 1, nowhere: 2 };
