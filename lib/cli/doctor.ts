/** `vhost-net doctor`: what this machine has of what the library needs. */
import { Command } from 'commander';
import { diagnose, type Finding, VERDICT_STATUS, type Verdict, verdict } from '../host/doctor';

const CONCLUSIONS: Readonly<Record<Verdict, string>> = {
  here: 'vhost-net can be used on this machine',
  vm: 'vhost-net cannot be used on this machine itself; "vhost-net vm -- COMMAND" runs it in the test VM',
  nowhere: 'vhost-net can be used neither on this machine nor in the test VM',
};

function mark({ found, neededFor }: Finding): string {
  return found ? 'ok' : neededFor === 'optional' ? '-' : 'missing';
}

/** One line a finding, what to do in a line below where there is something to do. */
export function table(findings: readonly Finding[]): string {
  const width = Math.max(...findings.map(({ name }) => name.length));
  return findings
    .flatMap((finding) => {
      const line = `${mark(finding).padEnd(8)}${finding.name.padEnd(width + 2)}${finding.value}`;
      return finding.found || finding.advice === undefined ? [line] : [line, `${' '.repeat(8)}${finding.advice}`];
    })
    .join('\n');
}

export function doctorCommand(): Command {
  return new Command('doctor')
    .description('says what this machine has of what the library needs, and what to do about the rest')
    .option('--json', 'findings as JSON')
    .addHelpText('after', '\nExit status: 0 vhost-net can be used here, 1 only in the test VM, 2 neither.')
    .action(async ({ json }: { json?: boolean }) => {
      const findings = await diagnose();
      const where = verdict(findings);
      process.stdout.write(
        json === true
          ? `${JSON.stringify({ verdict: where, findings }, null, 2)}\n`
          : `${table(findings)}\n\n${CONCLUSIONS[where]}\n`,
      );
      process.exitCode = VERDICT_STATUS[where];
    });
}
