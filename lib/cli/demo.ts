import { copyFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Command, InvalidArgumentError } from 'commander';
import { type DemoOptions, runDemo } from '../demo/demo';
import { vhostNetUsable } from '../host/usable';
import { defaultEnvironment, runInVm, VM_MARK } from '../vm';

interface Flags {
  json?: string;
  rate: number;
  frameSize: number;
  memory: number;
  seconds: number;
  downtimeLimit: number;
}

function number(text: string): number {
  const value = Number(text);
  if (!Number.isFinite(value) || value <= 0) throw new InvalidArgumentError('a number above 0');
  return value;
}

/** `vhost-net demo`: a running device moves between two processes. */
export function demoCommand(): Command {
  return new Command('demo')
    .description('show a running virtio-net device move between two processes, under traffic')
    .option('--json <file>', 'write the summary as JSON')
    .option('--rate <frames>', 'frames a second, each way', number, 1000)
    .option('--frame-size <bytes>', 'bytes of a frame', number, 128)
    .option('--memory <MiB>', 'guest memory', number, 128)
    .option('--seconds <s>', 'traffic before and after the migration', number, 2)
    .option('--downtime-limit <ms>', 'the source stops when what is left fits this', number, 100)
    .action(demo);
}

async function demo(flags: Flags): Promise<void> {
  const trouble = vhostNetUsable();
  if (trouble === null) {
    const vm = process.env[VM_MARK] !== undefined;
    if (!vm) process.stderr.write('using /dev/vhost-net of this machine\n');
    process.exitCode = await runDemo(demoOptions(flags, vm));
    return;
  }
  process.stderr.write(`/dev/vhost-net cannot be used here (${trouble}): running in the test VM\n`);
  process.exitCode = await demoInVm(flags);
}

function demoOptions(flags: Flags, vm: boolean): DemoOptions {
  return {
    vm,
    json: flags.json ?? null,
    rate: flags.rate,
    frameSize: flags.frameSize,
    memory: flags.memory * 1024 ** 2,
    seconds: flags.seconds,
    downtimeLimitMs: flags.downtimeLimit,
  };
}

/** The same command in the VM; its JSON file comes back through an output folder. */
async function demoInVm(flags: Flags): Promise<number> {
  const out = mkdtempSync(join(tmpdir(), 'vhost-net-demo-'));
  const json = join(out, 'demo.json');
  const args = [join(__dirname, 'main.js'), 'demo', '--json', json];
  args.push('--rate', `${flags.rate}`, '--frame-size', `${flags.frameSize}`, '--memory', `${flags.memory}`);
  args.push('--seconds', `${flags.seconds}`, '--downtime-limit', `${flags.downtimeLimit}`);
  try {
    const { exitCode } = await runInVm({
      command: process.execPath,
      args,
      out,
      env: defaultEnvironment(process.env),
      timeoutMs: 300_000,
    });
    if (exitCode === 0 && flags.json !== undefined) copyFileSync(json, flags.json);
    return exitCode;
  } finally {
    rmSync(out, { recursive: true, force: true });
  }
}
