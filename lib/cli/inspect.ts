/** `vhost-net inspect`: what the virtqueues of a running process hold, and why one does not move. */
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { Command, InvalidArgumentError } from 'commander';
import { invalidArgument, VhostError } from '../errors';
import { inspectDescription, type NumberedInspection } from '../observe/inspect-description';
import { type Description, parseDescription } from '../observe/queue-description';
import { inspectionText } from '../virtqueue/ring-inspector-text';

interface Flags {
  description: string;
  queue?: number;
  json?: boolean;
  limit: number;
  watch?: number;
}

const EXIT_VIOLATIONS = 1;
const EXIT_UNREADABLE = 2;
const STDIN = 0;

const HELP = `
The description is JSON: { pid, features: "0x...", regions: [{ gpa, size, path, offset }], queues: [{ size, ready, descTable, availRing,
usedRing, nextAvail, role }] }; describeQueues of the library writes it. Paths are typically /proc/PID/fd/N: the memory is opened for
reading only.
Exit status: 0 no rule is violated, 1 one is, 2 the description or the memory cannot be read.`;

export function inspectCommand(): Command {
  return (
    new Command('inspect')
      .description('decodes the virtqueues of a running process and says why one does not move')
      .requiredOption('-d, --description <file>', 'where the queues lie; - for standard input')
      .option('-q, --queue <n>', 'this queue only', wholeNumber)
      .option('--json', 'inspections as JSON, one document a look')
      .option('-l, --limit <n>', 'available chains to list', wholeNumber, 16)
      .option('-w, --watch <seconds>', 'look again and again', seconds)
      .addHelpText('after', HELP)
      // A mistake on the command line is no violation.
      .exitOverride(({ exitCode }) => process.exit(exitCode === 0 ? 0 : EXIT_UNREADABLE))
      .action(inspect)
  );
}

async function inspect(flags: Flags): Promise<void> {
  try {
    const description = read(flags.description);
    for (;;) {
      const inspections = inspectDescription(description, { queue: flags.queue, limit: flags.limit });
      process.stdout.write(`${flags.json === true ? JSON.stringify(inspections, null, 2) : text(inspections)}\n`);
      const violated = inspections.some(({ inspection }) => inspection.violations.length > 0);
      process.exitCode = violated ? EXIT_VIOLATIONS : 0;
      if (flags.watch === undefined) return;
      await sleep(flags.watch * 1000);
    }
  } catch (error) {
    if (!(error instanceof VhostError)) throw error;
    process.stderr.write(`vhost-net inspect: ${error.message}\n`);
    process.exitCode = EXIT_UNREADABLE;
  }
}

function read(file: string): Description {
  let json: string;
  try {
    json = readFileSync(file === '-' ? STDIN : file, 'utf8');
  } catch (cause) {
    throw invalidArgument(`description ${file}: ${(cause as Error).message}`);
  }
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch (cause) {
    throw invalidArgument(`description ${file} is no JSON: ${(cause as Error).message}`);
  }
  return parseDescription(value);
}

function text(inspections: readonly NumberedInspection[]): string {
  return inspections.map(({ queue, inspection }) => `queue ${queue}: ${inspectionText(inspection)}`).join('\n\n');
}

function wholeNumber(value: string): number {
  if (!/^\d+$/.test(value)) throw new InvalidArgumentError('Give a whole number.');
  return Number(value);
}

function seconds(value: string): number {
  const number = Number(value);
  if (!(number > 0 && number <= 86400)) throw new InvalidArgumentError('Give a number of seconds above 0.');
  return number;
}
