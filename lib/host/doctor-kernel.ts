/** What the kernel has beside its devices. */
import { accessSync, constants, existsSync, readFileSync } from 'node:fs';
import { type FdHandle, type MappingHandle, native } from '../native';
import { type Finding, finding } from './finding';

const READ_WRITE = 3;
const PAGE = 4096;

function sysctl(name: string): string | null {
  try {
    return readFileSync(`/proc/sys/${name}`, 'utf8').trim();
  } catch {
    return null;
  }
}

function writable(path: string): boolean {
  try {
    accessSync(path, constants.R_OK | constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

export async function kernelFindings(): Promise<Finding[]> {
  return [await membarrierFinding(), ...memoryFindings(), userfaultFinding(), kvmFinding()];
}

async function membarrierFinding(): Promise<Finding> {
  const result = await native().membarrier();
  return finding(
    'optional',
    'membarrier(2), global',
    result >= 0,
    result >= 0 ? 'yes' : `errno ${-result}`,
    result >= 0
      ? undefined
      : 'a move between taps waits a fixed time instead and can prove less (the kernel runs with nohz_full)',
  );
}

/** A memfd, and whether the pages written through its mapping can be told (PAGEMAP_SCAN). */
function memoryFindings(): Finding[] {
  const addon = native();
  const memfd = addon.memfdCreate('vhost-net-doctor', PAGE, 0);
  if (typeof memfd === 'number') {
    return [finding('everything', 'memfd', false, `errno ${-memfd}`, 'guest memory is memfds: allow memfd_create')];
  }
  const findings = [finding('everything', 'memfd', true, 'yes')];
  const mapping = addon.mappingCreate(memfd as FdHandle, 0, PAGE, 0, READ_WRITE);
  if (typeof mapping === 'number') {
    findings.push(
      finding('everything', 'shared mapping', false, `errno ${-mapping}`, 'raise the limit of virtual memory'),
    );
  } else {
    const witness = addon.writeWitnessStart(mapping as MappingHandle);
    const found = typeof witness !== 'number';
    findings.push(
      finding(
        'optional',
        'PAGEMAP_SCAN',
        found,
        found ? 'yes' : `errno ${-(witness as number)}`,
        found ? undefined : 'checking a dirty log against what was really written needs Linux 6.7 and userfaultfd',
      ),
    );
    if (typeof witness !== 'number') addon.fdClose(witness);
    addon.mappingClose(mapping as MappingHandle);
  }
  addon.fdClose(memfd as FdHandle);
  return findings;
}

function userfaultFinding(): Finding {
  const unprivileged = sysctl('vm/unprivileged_userfaultfd');
  const device = existsSync('/dev/userfaultfd') && writable('/dev/userfaultfd');
  const full = process.getuid?.() === 0 || unprivileged === '1' || device;
  const value = `vm.unprivileged_userfaultfd=${unprivileged ?? 'absent'}, /dev/userfaultfd ${device ? 'usable' : 'not usable'}`;
  return finding(
    'optional',
    'userfaultfd, with faults of the kernel',
    unprivileged !== null && full,
    value,
    full ? undefined : 'post-copy needs root, access to /dev/userfaultfd, or "sysctl vm.unprivileged_userfaultfd=1"',
  );
}

function kvmFinding(): Finding {
  const there = existsSync('/dev/kvm');
  const usable = there && writable('/dev/kvm');
  const cpu = existsSync('/proc/cpuinfo')
    ? /\b(svm|vmx)\b/.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1]
    : undefined;
  const value = `${usable ? 'usable' : there ? 'not permitted' : 'not there'}, processor ${cpu ?? 'without svm or vmx'}`;
  return finding(
    'optional',
    '/dev/kvm',
    usable && cpu !== undefined,
    value,
    'without it the test VM runs under emulation, slower',
  );
}
