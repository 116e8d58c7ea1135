import { copyFileSync, existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Command, InvalidArgumentError, Option } from 'commander';
import { runDemo } from '../demo/demo';
import { runSwitchDemo } from '../demo/switch';
import { MAX_QUEUE_PAIRS } from '../device/device-properties';
import { vhostNetUsable } from '../host/usable';
import { defaultEnvironment, runInVm, VM_MARK } from '../vm';

interface Flags {
  json?: string;
  switch?: boolean;
  rate: number;
  frameSize: number;
  memory: number;
  seconds: number;
  downtimeLimit: number;
  switches: number;
  pairs: number;
}

const DEFAULT_RATE = 1000;
const DEFAULT_SWITCH_RATE = 4000;

function number(text: string): number {
  const value = Number(text);
  if (!Number.isFinite(value) || value <= 0) throw new InvalidArgumentError('a number above 0');
  return value;
}

function whole(most: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!Number.isInteger(value) || value < 1 || value > most)
      throw new InvalidArgumentError(`a whole number from 1 to ${most}`);
    return value;
  };
}

/** `vhost-net demo`: a running device moves between two processes, or from one data path to another. */
export function demoCommand(): Command {
  const command = new Command('demo')
    .description('show a running virtio-net device move between two processes, under traffic')
    .option('--json <file>', 'write the summary as JSON')
    .option('--switch', 'change the data path of a running device instead, emulated to vhost-kernel and back')
    .addOption(
      new Option(
        '--rate <frames>',
        `frames a second, each way (default: ${DEFAULT_RATE}; ${DEFAULT_SWITCH_RATE} with --switch)`,
      ).argParser(number),
    )
    .option('--frame-size <bytes>', 'bytes of a frame', number, 128)
    .option('--memory <MiB>', 'guest memory', number, 128)
    .option('--seconds <s>', 'traffic before and after the migration', number, 2)
    .option('--downtime-limit <ms>', 'the source stops when what is left fits this', number, 100)
    .option('--switches <n>', 'with --switch: how many', whole(10_000), 20)
    .option('--pairs <n>', 'with --switch: queue pairs', whole(MAX_QUEUE_PAIRS), 1);
  return command.action(async (flags: Flags) => {
    flags.rate ??= flags.switch === true ? DEFAULT_SWITCH_RATE : DEFAULT_RATE;
    await demo(flags);
  });
}

async function demo(flags: Flags): Promise<void> {
  const trouble = vhostNetUsable();
  if (trouble === null) {
    const vm = process.env[VM_MARK] !== undefined;
    if (!vm) process.stderr.write('using /dev/vhost-net of this machine\n');
    process.exitCode = await demoHere(flags, vm);
    return;
  }
  process.stderr.write(`/dev/vhost-net cannot be used here (${trouble}): running in the test VM\n`);
  process.exitCode = await demoInVm(flags);
}

function demoHere(flags: Flags, vm: boolean): Promise<number> {
  const { rate, frameSize, seconds, switches, pairs, downtimeLimit: downtimeLimitMs } = flags;
  const common = { vm, json: flags.json ?? null, rate, frameSize, memory: flags.memory * 1024 ** 2 };
  return flags.switch === true
    ? runSwitchDemo({ ...common, switches, pairs })
    : runDemo({ ...common, seconds, downtimeLimitMs });
}

/** The same command in the VM; its JSON file comes back through an output folder. */
async function demoInVm(flags: Flags): Promise<number> {
  const out = mkdtempSync(join(tmpdir(), 'vhost-net-demo-'));
  const json = join(out, 'demo.json');
  const args = [join(__dirname, 'main.js'), 'demo', '--json', json];
  if (flags.switch === true) args.push('--switch');
  args.push('--rate', `${flags.rate}`, '--frame-size', `${flags.frameSize}`, '--memory', `${flags.memory}`);
  args.push('--seconds', `${flags.seconds}`, '--downtime-limit', `${flags.downtimeLimit}`);
  args.push('--switches', `${flags.switches}`, '--pairs', `${flags.pairs}`);
  try {
    const { exitCode } = await runInVm({
      command: process.execPath,
      args,
      out,
      env: defaultEnvironment(process.env),
      timeoutMs: 300_000 + flags.switches * 1000,
    });
    // A demo that found frames missing has its figures too.
    if (flags.json !== undefined && existsSync(json)) copyFileSync(json, flags.json);
    return exitCode;
  } finally {
    rmSync(out, { recursive: true, force: true });
  }
}
