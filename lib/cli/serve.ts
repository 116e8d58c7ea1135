/** `vhost-net serve`: a vhost-user back end for the guest of a stock virtual machine monitor. */
import { subscribe } from 'node:diagnostics_channel';
import { Command, InvalidArgumentError, Option } from 'commander';
import { closeTaps } from '../demo/machine';
import { Tap } from '../host/tap';
import { MOST_QUEUE_PAIRS } from '../serve/offer';
import { type ServedPath, VhostUserServer } from '../serve/server';
import { TRACE_CHANNEL, type TraceRecord } from '../trace/trace';
import { MESSAGE_COLUMNS, messageLine } from '../vhost-user/message-record';
import { wholeNumber } from './arguments';
import { aborted, StopSignals } from './service';

interface Flags {
  socket: string;
  socketMode?: number;
  socketOwner?: { uid: number; gid: number };
  tap: string;
  netns?: string;
  backend: ServedPath;
  queues: number;
  trace?: true;
}

const HELP = `
The tap is made when there is none of that name, and goes with this process unless it is persistent. Join it to a network by itself.
One front end is served at a time, and another after it. Its memory must be shared: with QEMU
  -object memory-backend-memfd,id=mem,size=1G,share=on -machine memory-backend=mem
  -chardev socket,id=c0,path=PATH,reconnect=1 -netdev vhost-user,id=n0,chardev=c0 -device virtio-net-pci,netdev=n0
With --trace every message is a line on standard output, with the way it went, what it said and the descriptors that came along.
Exit status: 0 ended by a signal, 1 failed.`;

export function serveCommand(): Command {
  return new Command('serve')
    .description('puts the guest of a vhost-user front end, such as QEMU, on a tap')
    .requiredOption('--socket <path>', 'UNIX socket to listen on')
    .option('--socket-mode <octal>', 'permissions of the socket, such as 660 (default: 600)', octalMode)
    .option('--socket-owner <uid:gid>', 'numbers of user and group that own the socket', owner)
    .requiredOption('--tap <name>', 'tap that the guest is connected to')
    .option('--netns <path>', 'network namespace of the tap, such as /run/netns/lab')
    .addOption(new Option('--backend <name>', 'data path').choices(['kernel', 'emulated']).default('kernel'))
    .option('--queues <n>', 'queue pairs at most', wholeNumber(1, MOST_QUEUE_PAIRS), 1)
    .option('--trace', 'writes every message of the protocol')
    .addHelpText('after', HELP)
    .action(serve);
}

function octalMode(text: string): number {
  if (!/^[0-7]{3,4}$/.test(text)) throw new InvalidArgumentError('Give three or four octal digits, such as 660.');
  return Number.parseInt(text, 8);
}

function owner(text: string): { uid: number; gid: number } {
  const match = /^(\d{1,9}):(\d{1,9})$/.exec(text);
  if (match === null) throw new InvalidArgumentError('Give two numbers, such as 1000:1000.');
  return { uid: Number(match[1]), gid: Number(match[2]) };
}

async function serve(flags: Flags): Promise<void> {
  const { socket, socketMode, socketOwner, tap: name, netns = null, backend, queues, trace } = flags;
  const stop = new StopSignals();
  const say = (line: string): void => void process.stdout.write(`${line}\n`);
  if (trace === true) printMessages(say);
  const taps = queues > 1 ? await Tap.openQueues(queues, { name, netns }) : [await Tap.open({ name, netns })];
  try {
    const server = await VhostUserServer.listen({
      socket,
      mode: socketMode,
      owner: socketOwner,
      taps,
      backend,
      onFrontEnd: (event, reason) => say(`front end ${event}${reason === null ? '' : `: ${reason}`}`),
    });
    try {
      say(`listening at ${socket} for tap ${taps[0]!.name}, ${backend} data path`);
      await aborted(stop.signal);
    } finally {
      await server.close();
    }
    say('ended by a signal');
  } finally {
    stop.release();
    await closeTaps(taps);
  }
}

function printMessages(say: (line: string) => void): void {
  const from = performance.now();
  say(MESSAGE_COLUMNS);
  subscribe(TRACE_CHANNEL, (record) => {
    const line = messageLine(record as TraceRecord, from);
    if (line !== null) say(line);
  });
}
