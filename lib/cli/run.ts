/** `vhost-net run`: a guest that sends and accounts for frames, to be migrated. */
import { Command, Option } from 'commander';
import { BACKENDS, type BackendName, bootMachine, closeTaps, openBackend, openTaps } from '../demo/machine';
import { MAX_QUEUE_PAIRS } from '../device/device-properties';
import { GuestMemory } from '../memory/guest-memory';
import { numberFrom, wholeNumber } from './arguments';
import { ENDINGS, StopSignals, serveMachine } from './service';

interface Flags {
  tap: string;
  netns?: string;
  backend: BackendName;
  pairs: number;
  memory: number;
  rate: number;
  frameSize: number;
  mac: string;
  peerMac: string;
  control: string;
}

const MIB = 1024 ** 2;
/** Frames of a flow that are told apart. */
const LEDGER_CAPACITY = 1 << 20;

const HELP = `
The tap is made when there is none of that name, and goes with this process unless it is persistent. Join it to a network by itself.
Exit status: 0 the guest was ended or has moved, 1 failed.`;

export function runCommand(): Command {
  return new Command('run')
    .description(
      'runs a guest that sends numbered frames and accounts for those it gets, until it is migrated or ended',
    )
    .requiredOption('--tap <name>', 'tap that the guest is connected to')
    .option('--netns <path>', 'network namespace of the tap, such as /run/netns/lab')
    .addOption(new Option('--backend <name>', 'data path').choices(BACKENDS).default('vhost-kernel'))
    .option('--pairs <n>', 'queue pairs', wholeNumber(1, MAX_QUEUE_PAIRS), 1)
    .option('--memory <MiB>', 'guest memory', wholeNumber(4, 1 << 20), 128)
    .option('--rate <frames>', 'frames a second that it sends, of all pairs together', numberFrom(0, 10_000_000), 1000)
    .option('--frame-size <bytes>', 'bytes of a frame', wholeNumber(66, 65_535), 128)
    .option('--mac <address>', "the guest's address", '02:00:00:00:00:02')
    .option('--peer-mac <address>', 'address that its frames go to', '02:00:00:00:00:01')
    .requiredOption('--control <path>', 'UNIX socket on which orders are taken')
    .addHelpText('after', HELP)
    .action(run);
}

async function run(flags: Flags): Promise<void> {
  const { tap: name, netns = null, backend, pairs, memory, rate, frameSize, mac, peerMac, control } = flags;
  const stop = new StopSignals();
  const taps = await openTaps({ name, netns, pairs });
  try {
    const path = await openBackend(backend, taps);
    const machine = await bootMachine(GuestMemory.create([{ gpa: 0, size: memory * MIB }]), path, {
      program: 'traffic',
      mac,
      peerMac,
      rate,
      frameSize,
      pairs,
      ledgerCapacity: LEDGER_CAPACITY,
    });
    const told = (): void => {
      process.stdout.write(`the guest ${mac} runs on tap ${taps[0]!.name}, orders are taken at ${control}\n`);
    };
    const end = await serveMachine({ machine, control, stop: stop.signal, told });
    process.stdout.write(`${ENDINGS[end]}\n`);
    if (end === 'broken') process.exitCode = 1;
  } finally {
    stop.release();
    await closeTaps(taps);
  }
}
