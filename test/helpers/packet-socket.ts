import type { Netns } from '../../lib/host/netns';
import { runTool } from '../../lib/host/run-tool';

/** AF_PACKET, SOCK_RAW; a frame that the interface drops is answered with ENOBUFS, and is no error here. */
const SCRIPT = `
  socket(my $s, 17, 3, 0) or die "socket: $!";
  bind($s, pack("S n i S C C a8", 17, 0, $ARGV[0], 0, 0, 0, "")) or die "bind: $!";
  while (<STDIN>) {
    chomp;
    defined(syswrite($s, pack("H*", $_))) or $! + 0 == 105 or die "send: $!";
  }`;

/** Sends frames on an interface as they are, tags in them included. Perl does it, which is everywhere; Node has no such sockets. */
export async function sendPackets(netns: Netns, interfaceIndex: number, frames: readonly Uint8Array[]): Promise<void> {
  const input = frames.map((frame) => `${Buffer.from(frame).toString('hex')}\n`).join('');
  await runTool('ip', ['netns', 'exec', netns.name, 'perl', '-e', SCRIPT, String(interfaceIndex)], { input });
}
