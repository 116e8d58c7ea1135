/** `vhost-net receive`: waits for a guest and runs it. */
import { Command, Option } from 'commander';
import { BACKENDS, type BackendName, closeTaps, type Machine, machineHost, openTaps } from '../demo/machine';
import { MAX_QUEUE_PAIRS } from '../device/device-properties';
import { invalidArgument, reasonOf, VhostError } from '../errors';
import type { GuestRunner } from '../guest/guest-runner';
import type { Tap } from '../host/tap';
import { type Address, parseAddress } from '../migration/address';
import type { ReceivedMigration } from '../migration/destination';
import { MigrationListener, type MigrationListenerOptions } from '../migration/listener';
import type { MigrationEvent } from '../migration/options';
import { restoreFromFile } from '../migration/restore';
import { accountText } from '../report/account-text';
import { addTlsOptions, eventsTarget, numberFrom, readTlsFiles, type TlsFlags, wholeNumber } from './arguments';
import { EventWriter } from './events';
import { checkControl, ENDINGS, StopSignals, serveMachine } from './service';

interface Flags extends TlsFlags {
  tap?: string;
  netns?: string;
  backend: BackendName;
  pairs: number;
  control?: string;
  events?: string | number;
  once?: boolean;
  deadAfter?: number;
}

const HELP = `
ADDRESS is tcp:HOST:PORT (port 0: any), unix:PATH, or file:PATH to go on with a guest that was saved.
Without a tap of its own it takes guests that come with --local, which bring memory and taps along.
Exit status: 0 the guest was ended or has moved on, 1 failed.`;

export function receiveCommand(): Command {
  const command = new Command('receive')
    .description('waits for a guest that is migrated here, and runs it')
    .argument('<address>', 'where to wait')
    .option('--tap <name>', 'tap that the guest is connected to here')
    .option('--netns <path>', 'network namespace of the tap, such as /run/netns/lab')
    .addOption(new Option('--backend <name>', 'data path').choices(BACKENDS).default('vhost-kernel'))
    .option('--pairs <n>', 'queue pairs that the tap is opened with', wholeNumber(1, MAX_QUEUE_PAIRS), 1)
    .option('--control <path>', 'UNIX socket on which orders are taken once the guest has arrived')
    .option('--events <file>', 'what happens as JSON lines, see docs/events.md', eventsTarget)
    .option('--once', 'end after an attempt that failed')
    .option('--dead-after <ms>', 'a source of which nothing is heard for so long is gone', numberFrom(100, 3_600_000));
  return addTlsOptions(command, 'name that the certificate of the source must have')
    .addHelpText('after', HELP)
    .action(receive);
}

async function receive(text: string, flags: Flags): Promise<void> {
  const address = parseAddress(text);
  const stop = new StopSignals();
  const events = flags.events === undefined ? null : new EventWriter(flags.events);
  let taps: Tap[] | null = null;
  let outcome = 'failed';
  let failure: VhostError | null = null;
  try {
    const { tap: name, netns = null, pairs } = flags;
    if (flags.control !== undefined) await checkControl(flags.control);
    taps = name === undefined ? null : await openTaps({ name, netns, pairs });
    const arrival = await arrive(address, text, flags, taps, stop.signal, (event) => events?.write(event));
    outcome = 'completed';
    // What comes after the arrival is another migration's.
    await events?.close({ outcome });
    const end = await serveMachine({
      machine: arrival.machine,
      control: flags.control,
      stop: stop.signal,
      told: () => process.stdout.write(`${arrival.text}\n`),
      unserved: (error) => process.stderr.write(`no orders are taken: ${(error as Error).message}\n`),
    });
    for (const passed of arrival.taps) await passed.close();
    process.stdout.write(`${ENDINGS[end]}\n`);
    if (end === 'broken') process.exitCode = 1;
  } catch (error) {
    if (stop.signal.aborted) {
      outcome = 'cancelled';
      process.stdout.write(`${ENDINGS.signal}\n`);
    } else {
      failure = error instanceof VhostError ? error : null;
      throw error;
    }
  } finally {
    stop.release();
    await events?.close({ outcome, error: failure });
    if (taps !== null) await closeTaps(taps);
    // A guest that arrives in this very moment must not go on where nobody can order it to.
    if (outcome === 'cancelled') process.exit();
  }
}

interface Arrival {
  machine: Machine;
  /** That came with it. */
  taps: readonly Tap[];
  text: string;
}

async function arrive(
  address: Address,
  text: string,
  flags: Flags,
  taps: readonly Tap[] | null,
  signal: AbortSignal,
  onEvent: (event: MigrationEvent) => void,
): Promise<Arrival> {
  const host = machineHost(flags.backend, taps);
  const tls = readTlsFiles(flags);
  if (address.kind === 'file') {
    if (tls !== null) throw invalidArgument('TLS for a file');
    const { memory, device, guest, pages } = await restoreFromFile(address.path, host, { signal });
    return {
      machine: { memory, device, guest },
      taps: [],
      text: `the guest of ${address.path} runs here: ${pages} pages`,
    };
  }
  const { promise, resolve, reject } = withResolvers<ReceivedMigration<GuestRunner>>();
  const onFailure = (error: unknown): void => {
    if (isDryRun(error)) process.stdout.write('compared with a source, nothing was moved\n');
    else if (flags.once === true) reject(error);
    else process.stderr.write(`an attempt failed, still waiting: ${reasonOf(error)}\n`);
  };
  const options: MigrationListenerOptions = { signal, onEvent, onFailure };
  if (flags.deadAfter !== undefined) options.deadAfterMs = flags.deadAfter;
  if (tls !== null) options.tls = { ...tls, ...(flags.tlsPeer === undefined ? {} : { allowedPeer: [flags.tlsPeer] }) };
  const listener = await MigrationListener.listen(text, host, options);
  try {
    process.stdout.write(`listening at ${listener.address}\n`);
    signal.addEventListener('abort', () => reject(signal.reason), { once: true });
    listener.arrived.then(resolve, reject);
    const { memory, device, guest, startMs, handover, degraded, taps: passed } = await promise;
    if (degraded !== null) process.stderr.write(`on the emulated data path: ${degraded}\n`);
    if (handover !== null) process.stdout.write(`${accountText(handover)}\n`);
    const machine = { memory, device, guest };
    return { machine, taps: passed, text: `the guest ${device.mac} runs here, ${startMs} ms after GO` };
  } finally {
    await listener.close();
  }
}

function isDryRun(error: unknown): boolean {
  return error instanceof VhostError && error.code === 'VHOST_ERR_ABORTED' && error.message.startsWith('a dry run');
}

function withResolvers<T>() {
  let resolve!: (value: T) => void;
  let reject!: (error: unknown) => void;
  const promise = new Promise<T>((yes, no) => {
    resolve = yes;
    reject = no;
  });
  return { promise, resolve, reject };
}
