/** The command line: one file per command. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Command } from 'commander';
import { VhostError } from '../errors';
import { announceCommand } from './announce';
import { demoCommand } from './demo';
import { dirtyRateCommand } from './dirty-rate';
import { doctorCommand } from './doctor';
import { inspectCommand } from './inspect';
import { inspectStreamCommand } from './inspect-stream';
import { migrateCommand } from './migrate';
import { receiveCommand } from './receive';
import { resolveCommand } from './resolve';
import { runCommand } from './run';
import { serveCommand } from './serve';
import { vmCommand } from './vm';

function version(): string {
  const file = join(__dirname, '..', '..', '..', 'package.json');
  return (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version;
}

const program = new Command('vhost-net')
  .description("drives Linux's /dev/vhost-net and moves a running virtio-net device between processes")
  .version(version())
  .enablePositionalOptions()
  .addCommand(doctorCommand())
  .addCommand(vmCommand())
  .addCommand(demoCommand())
  .addCommand(inspectCommand())
  .addCommand(runCommand())
  .addCommand(serveCommand())
  .addCommand(receiveCommand())
  .addCommand(migrateCommand())
  .addCommand(resolveCommand())
  .addCommand(announceCommand())
  .addCommand(dirtyRateCommand())
  .addCommand(inspectStreamCommand());

program.parseAsync().catch((error: unknown) => {
  // A known failure is one line with its hint; anything else is a defect and shows where it came from.
  process.stderr.write(
    error instanceof VhostError || isSystemError(error)
      ? `vhost-net: ${error.message}\n`
      : `${error instanceof Error ? error.stack : String(error)}\n`,
  );
  // A command may know better how it ended.
  process.exitCode ||= 1;
});

/** Such as a file that cannot be opened. */
function isSystemError(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && typeof (error as NodeJS.ErrnoException).syscall === 'string';
}
