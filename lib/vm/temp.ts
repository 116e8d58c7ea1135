import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const PREFIX = 'vhost-net-vm-';

/** A new folder named after this process, so that a later start can tell whether its owner still lives. */
export function makeTempFolder(): string {
  removeLeftovers();
  return mkdtempSync(join(tmpdir(), `${PREFIX}${process.pid}-${startTimeOf(process.pid) ?? 0}-`));
}

/** Removes the folders of callers that were killed before they could do it. */
export function removeLeftovers(): void {
  for (const name of readdirSync(tmpdir())) {
    const owner = /^vhost-net-vm-(\d+)-(\d+)-/.exec(name);
    if (owner === null || startTimeOf(Number(owner[1])) === owner[2]) continue;
    rmSync(join(tmpdir(), name), { recursive: true, force: true });
  }
}

/** Field 22 of /proc/PID/stat (proc_pid_stat(5)); undefined when there is no such process. Pid and start time name a process for good. */
export function startTimeOf(pid: number): string | undefined {
  return statFields(pid)?.[19];
}

/** Field 4 of /proc/PID/stat. */
export function parentOf(pid: number): number | undefined {
  const fields = statFields(pid);
  return fields === undefined ? undefined : Number(fields[1]);
}

/** The fields after the command name, from the third on. */
function statFields(pid: number): string[] | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  } catch {
    return undefined;
  }
}
