import { constants } from 'node:os';
import { Command, InvalidArgumentError, Option } from 'commander';
import { VhostError } from '../errors';
import { defaultEnvironment, type KernelSeries, type RunningVm, startVm, type VmOptions } from '../vm';
import { KERNEL_SERIES } from '../vm/kernel';
import { watchRunner } from '../vm/parent-watch';
import { ensureVmPrepared } from '../vm/prepare';

interface Flags {
  env: string[];
  out?: string;
  memory: number;
  cpus?: number;
  hugepages: number;
  timeout: number;
  kernelAppend?: string;
  kernelSeries: KernelSeries;
  refresh?: boolean;
  verbose?: boolean;
}

const PASSED_ON: readonly NodeJS.Signals[] = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'];
/** As of env(1), timeout(1) and docker-run(1): the command was not what failed. */
const EXIT_VM_FAILED = 125;

const HELP = `
The command sees this machine's files, its changes to them are gone afterwards, and it is root. Its standard input is empty.
Environment: PATH, HOME, LANG, LC_ALL, TERM, TZ, CI, NO_COLOR, FORCE_COLOR, NODE_* and what --env names; VHOST_NET_VM=1 tells
where it is. The exit status is the command's (128 + number after a signal, 127 not found), 124 when the time is up,
125 when the VM itself fails.`;

/** `vhost-net vm`: runs a command in a disposable VM that has a real /dev/vhost-net. */
export function vmCommand(): Command {
  return new Command('vm')
    .description('run a command in a disposable virtual machine that has a real /dev/vhost-net')
    .argument('<command>', 'program to run, after --')
    .argument('[args...]', 'its arguments, passed on unchanged')
    .option('-e, --env <name[=value]>', 'set a variable, or pass it on from here (repeatable)', collected, [])
    .option('-o, --out <dir>', 'folder that the command may write to, same path inside and outside')
    .option('-m, --memory <size>', 'guest RAM, with suffix M or G', memorySize, memorySize('4G'))
    .option('-c, --cpus <n>', 'processors (default: 2, or 1 where there is but one)', wholeNumber)
    .option('--hugepages <n>', '2 MiB pages to reserve, mounted at /dev/hugepages', wholeNumber, 0)
    .option('-t, --timeout <seconds>', 'limit for boot and command together', seconds, 3600)
    .option('--kernel-append <args>', 'added to the kernel command line')
    .addOption(new Option('--kernel-series <series>', 'Debian kernel').choices(KERNEL_SERIES).default('6.12'))
    .option('--refresh', 'look for a newer kernel package first')
    .option('-v, --verbose', 'kernel console and times to standard error')
    .passThroughOptions()
    .addHelpText('after', HELP)
    .action(run);
}

async function run(command: string, args: string[], flags: Flags): Promise<void> {
  try {
    process.exitCode = await exitCodeOf(command, args, flags);
  } catch (error) {
    if (!(error instanceof VhostError)) throw error;
    process.stderr.write(`vhost-net vm: ${error.message}\n`);
    process.exitCode = EXIT_VM_FAILED;
  }
}

async function exitCodeOf(command: string, args: string[], flags: Flags): Promise<number> {
  const stop = new AbortController();
  const unwatch = watchRunner(process.env, () => stop.abort());
  let vm: RunningVm | undefined;
  let early: NodeJS.Signals | undefined;
  const handler = (signal: NodeJS.Signals): void => {
    if (vm !== undefined) vm.kill(signal);
    else {
      early = signal;
      stop.abort();
    }
  };
  for (const signal of PASSED_ON) process.on(signal, handler);
  try {
    const options = vmOptions(command, args, flags, stop.signal);
    if (flags.refresh)
      await ensureVmPrepared({ kernelSeries: flags.kernelSeries, refresh: true, log: options.log ?? noLog });
    vm = await startVm(options);
    return (await vm.finished).exitCode;
  } catch (error) {
    if (early === undefined) throw error;
    return 128 + constants.signals[early];
  } finally {
    for (const signal of PASSED_ON) process.off(signal, handler);
    unwatch();
  }
}

function vmOptions(command: string, args: string[], flags: Flags, signal: AbortSignal): VmOptions {
  return {
    command,
    args,
    env: { ...defaultEnvironment(process.env), ...chosenVariables(flags.env) },
    memory: flags.memory,
    hugepages: flags.hugepages,
    timeoutMs: flags.timeout * 1000,
    kernelSeries: flags.kernelSeries,
    signal,
    ...(flags.out === undefined ? {} : { out: flags.out }),
    ...(flags.cpus === undefined ? {} : { cpus: flags.cpus }),
    ...(flags.kernelAppend === undefined ? {} : { kernelAppend: flags.kernelAppend }),
    ...(flags.verbose ? { console: process.stderr, log: verboseLog } : {}),
  };
}

function chosenVariables(choices: readonly string[]): Record<string, string> {
  const chosen: Record<string, string> = {};
  for (const choice of choices) {
    const equals = choice.indexOf('=');
    const name = equals < 0 ? choice : choice.slice(0, equals);
    const value = equals < 0 ? process.env[name] : choice.slice(equals + 1);
    if (value !== undefined) chosen[name] = value;
  }
  return chosen;
}

function verboseLog(line: string): void {
  process.stderr.write(`vhost-net vm: ${line}\n`);
}

function noLog(): void {}

function collected(value: string, previous: string[]): string[] {
  return [...previous, value];
}

function memorySize(text: string): number {
  const match = /^(\d+)([MG])$/i.exec(text);
  if (match === null) throw new InvalidArgumentError('Give a number with suffix M or G, for example 4G.');
  return Number(match[1]) * 1024 ** (match[2]!.toUpperCase() === 'G' ? 3 : 2);
}

function wholeNumber(text: string): number {
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError('Give a whole number.');
  return Number(text);
}

function seconds(text: string): number {
  const value = Number(text);
  if (!(value > 0)) throw new InvalidArgumentError('Give a number of seconds above 0.');
  return value;
}
