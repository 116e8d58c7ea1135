/** `vhost-net migrate`: tells the process that owns a guest to give it away, and says how it goes. */
import { closeSync, existsSync, ftruncateSync, openSync, rmSync, writeSync } from 'node:fs';
import { resolve } from 'node:path';
import { Command, Option } from 'commander';
import { invalidArgument, VhostError } from '../errors';
import { parseAddress } from '../migration/address';
import { ControlClient } from '../migration/control-client';
import type { ControlMigrationOptions, ControlOutcome, MigrationAnswer } from '../migration/control-protocol';
import type { MigrationRecord } from '../migration/record';
import { renderReport } from '../report/report';
import { bytes, count, duration } from '../report/units';
import { addTlsOptions, eventsTarget, numberFrom, readTlsFiles, type TlsFlags, wholeNumber } from './arguments';
import { EventWriter } from './events';
import { answerText, differencesText } from './migration-text';
import { createProgress } from './progress';

interface Flags extends TlsFlags {
  dryRun?: boolean;
  channels?: number;
  compression?: ControlMigrationOptions['compression'];
  maxBandwidth?: number;
  downtimeLimit?: number;
  maxRounds?: number;
  maxTime?: number;
  strategy?: ControlMigrationOptions['strategy'];
  local?: boolean;
  audit: boolean;
  handover: boolean;
  deadAfter?: number;
  report?: string;
  events?: string | number;
  json?: boolean;
}

const EXIT_FAILED = 1;
const EXIT_UNCERTAIN = 3;
const EXIT_NOWHERE = 4;
/** 128 and SIGINT, as of a shell. */
const EXIT_INTERRUPTED = 130;

const EXITS: Readonly<Record<ControlOutcome, number>> = {
  completed: 0,
  failed: EXIT_FAILED,
  cancelled: EXIT_FAILED,
  uncertain: EXIT_UNCERTAIN,
  returned: EXIT_NOWHERE,
  stranded: EXIT_NOWHERE,
};

const HELP = `
CONTROL is the socket of a process that runs a guest. ADDRESS is tcp:HOST:PORT or unix:PATH, where vhost-net receive waits, or file:PATH to
save the guest.
Ctrl-C cancels: the guest goes on where it is. A second one leaves the migration alone and ends this command.
Exit status: 0 done, 1 failed with the guest where it was, 3 uncertain where it runs, 4 it runs nowhere (say where by vhost-net resolve),
130 cancelled by Ctrl-C.`;

export function migrateCommand(): Command {
  const command = new Command('migrate')
    .description('moves the guest of a process to another one')
    .argument('<control>', 'control socket of the process that runs the guest')
    .argument('<address>', 'where it is to go')
    .option('--dry-run', 'compare both sides and move nothing')
    .option('--channels <n>', 'connections for pages beside the control connection', wholeNumber(0, 16))
    .addOption(new Option('--compression <how>', 'of pages').choices(['none', 'deflate', 'zstd']))
    .option('--max-bandwidth <MB/s>', 'over all connections together', numberFrom(0, 1_000_000))
    .option('--downtime-limit <ms>', 'longest downtime wanted', numberFrom(0, 86_400_000))
    .option('--max-rounds <n>', 'rounds of pages at most', wholeNumber(0, 1_000_000))
    .option('--max-time <s>', 'time for the rounds at most', numberFrom(0, 1_000_000))
    .addOption(
      new Option('--strategy <what>', 'when it does not converge').choices(['switchover', 'cancel', 'throttle']),
    )
    .option('--local', 'hand over memory and taps to a process of this host')
    .option('--no-audit', 'do not compare the memory of both sides afterwards')
    .option('--no-handover', 'do not hand over the frames that arrive meanwhile')
    .option(
      '--dead-after <ms>',
      'a destination of which nothing is heard for so long is gone',
      numberFrom(100, 3_600_000),
    )
    .option('--report <file>', 'the migration as an HTML page')
    .option('--events <file>', 'what happens as JSON lines, see docs/events.md', eventsTarget)
    .option('--json', 'the outcome as JSON');
  return addTlsOptions(command, 'name that the certificate of the destination must have (default: the host)')
    .addHelpText('after', HELP)
    .action(migrate);
}

async function migrate(control: string, text: string, flags: Flags): Promise<void> {
  const address = parseAddress(text);
  const options = migrationOptions(flags);
  if (address.kind === 'file') await save(control, address.path, flags);
  else if (flags.dryRun === true) await compare(control, text, options, flags);
  else await move(control, text, options, flags);
}

function migrationOptions(flags: Flags): ControlMigrationOptions {
  const tls = readTlsFiles(flags);
  const { channels, compression, maxBandwidth, downtimeLimit, maxRounds, maxTime, strategy, deadAfter, tlsPeer } =
    flags;
  const options: ControlMigrationOptions = { audit: flags.audit, handover: flags.handover };
  if (channels !== undefined) options.channels = channels;
  if (compression !== undefined) options.compression = compression;
  if (maxBandwidth !== undefined) options.maxBandwidth = maxBandwidth * 1_000_000;
  if (downtimeLimit !== undefined) options.downtimeLimitMs = downtimeLimit;
  if (maxRounds !== undefined) options.maxRounds = maxRounds;
  if (maxTime !== undefined) options.maxMs = maxTime * 1000;
  if (strategy !== undefined) options.strategy = strategy;
  if (flags.local === true) options.local = true;
  if (deadAfter !== undefined) options.deadAfterMs = deadAfter;
  if (tls !== null) options.tls = { ...tls, ...(tlsPeer === undefined ? {} : { serverName: tlsPeer }) };
  return options;
}

async function compare(
  control: string,
  address: string,
  options: ControlMigrationOptions,
  { report, events, json }: Flags,
): Promise<void> {
  if (report !== undefined || events !== undefined) throw invalidArgument('a report or events of a dry run');
  const client = await ControlClient.connect(control);
  try {
    const { differences } = await client.call('preflight', { address, options });
    process.stdout.write(`${json === true ? JSON.stringify(differences, null, 2) : differencesText(differences)}\n`);
    if (differences.some(({ severity }) => severity === 'fatal')) process.exitCode = EXIT_FAILED;
  } finally {
    client.close();
  }
}

async function save(control: string, path: string, { report, events, dryRun, json }: Flags): Promise<void> {
  if (report !== undefined || events !== undefined) throw invalidArgument('a report or events of a save');
  if (dryRun === true) throw invalidArgument('a dry run of a save');
  const client = await ControlClient.connect(control);
  const interrupt = new Interrupt(client);
  try {
    const saved = await interrupt.orDetach(client.call('save', { path: resolve(path) }));
    const text = `saved to ${path}: ${count(saved.pages)} pages, ${bytes(saved.bytes)}, the guest stood for ${duration(saved.pausedMs)}`;
    process.stdout.write(`${json === true ? JSON.stringify(saved, null, 2) : text.replaceAll('\u00a0', ' ')}\n`);
  } catch (error) {
    if (!interrupt.came) throw error;
    process.stderr.write(`vhost-net: ${(error as Error).message}\n`);
    process.exitCode = EXIT_INTERRUPTED;
  } finally {
    interrupt.release();
    client.close();
  }
}

async function move(control: string, address: string, options: ControlMigrationOptions, flags: Flags): Promise<void> {
  // Whatever cannot be written is found out while there is nothing to lose.
  const report = flags.report === undefined ? null : new ReportFile(flags.report);
  let events: EventWriter | null = null;
  try {
    events = flags.events === undefined ? null : new EventWriter(flags.events);
    const client = await ControlClient.connect(control);
    try {
      const answer = await watch(client, address, options, events);
      await events?.close({ outcome: recordOutcome(answer.outcome), error: answer.error });
      process.stdout.write(`${flags.json === true ? JSON.stringify(answer, null, 2) : answerText(answer)}\n`);
      await report?.write(answer.record);
    } finally {
      client.close();
    }
  } catch (error) {
    const { code = 'ERROR', message } = error as VhostError;
    await events?.close({ outcome: error instanceof GoneError ? 'uncertain' : 'failed', error: { code, message } });
    if (!(error instanceof GoneError)) throw error;
    process.stderr.write(`vhost-net: ${message}\n`);
    process.exitCode = EXIT_UNCERTAIN;
  } finally {
    report?.close();
  }
}

/** Who owned the guest went away in the middle of it. */
class GoneError extends VhostError {}

async function watch(
  client: ControlClient,
  address: string,
  options: ControlMigrationOptions,
  events: EventWriter | null,
): Promise<MigrationAnswer> {
  const progress = createProgress(process.stderr);
  const interrupt = new Interrupt(client);
  try {
    const answer = await interrupt.orDetach(
      client.call('migrate', { address, options }, (event) => {
        progress.event(event);
        events?.write(event);
      }),
    );
    process.exitCode = interrupt.came && answer.outcome === 'cancelled' ? EXIT_INTERRUPTED : EXITS[answer.outcome];
    return answer;
  } catch (error) {
    if (interrupt.detached) process.exitCode = EXIT_INTERRUPTED;
    else if (error instanceof VhostError && error.code === 'VHOST_ERR_CLOSED') {
      const hint = 'look where the guest runs before anything is started again';
      throw new GoneError(error.code, error.message, { hint, cause: error });
    }
    throw error;
  } finally {
    interrupt.release();
    progress.close();
  }
}

/** Ctrl-C: once cancels, twice leaves what goes on alone. */
class Interrupt {
  readonly #client: ControlClient;
  #detach: ((error: Error) => void) | null = null;
  came = false;
  detached = false;
  readonly #onSignal = (): void => {
    if (this.came) {
      this.detached = true;
      this.#detach?.(new VhostError('VHOST_ERR_ABORTED', 'not watched any more: what was begun goes on by itself'));
      return;
    }
    this.came = true;
    process.stderr.write('cancelling; Ctrl-C again stops watching only\n');
    this.#client.call('cancel', {}).catch(() => undefined);
  };

  constructor(client: ControlClient) {
    this.#client = client;
    process.on('SIGINT', this.#onSignal);
  }

  async orDetach<T>(answer: Promise<T>): Promise<T> {
    answer.catch(() => undefined);
    const detached = new Promise<never>((_, reject) => {
      this.#detach = reject;
    });
    return Promise.race([answer, detached]);
  }

  release(): void {
    process.off('SIGINT', this.#onSignal);
  }
}

function recordOutcome(outcome: ControlOutcome): MigrationRecord['outcome'] {
  return outcome === 'returned' || outcome === 'stranded' ? 'failed' : outcome;
}

/** Opened before the migration, written after it, and gone again where there was nothing to write. */
class ReportFile {
  readonly #path: string;
  readonly #new: boolean;
  readonly #fd: number;
  #written = false;

  constructor(path: string) {
    this.#path = path;
    this.#new = !existsSync(path);
    this.#fd = openSync(path, 'a', 0o644);
  }

  async write(record: MigrationRecord | null): Promise<void> {
    if (record === null) {
      process.stderr.write('no report: the two sides never spoke\n');
      return;
    }
    const page = await renderReport(record);
    ftruncateSync(this.#fd);
    writeSync(this.#fd, page);
    this.#written = true;
  }

  close(): void {
    closeSync(this.#fd);
    if (this.#new && !this.#written) rmSync(this.#path, { force: true });
  }
}
