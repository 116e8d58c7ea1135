/**
 * Our side of the packet rate benchmarks, the path that users of the library run: a guest in guest memory, polled, a virtio-net device and
 * the kernel's data path. Takes the same arguments and prints the same lines as peers/vhost_flood.c.
 */
import { writeSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { VhostKernelBackend } from '../../lib/backend/vhost-kernel';
import { IFF_NAPI, IFF_NO_PI, IFF_TAP, IFF_VNET_HDR } from '../../lib/constants/if-tun';
import { VIRTIO_F_VERSION_1, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_RING_F_EVENT_IDX } from '../../lib/constants/virtio-net';
import { VirtioNetDevice } from '../../lib/device/virtio-net-device';
import { Guest } from '../../lib/guest/guest';
import { Tap } from '../../lib/host/tap';
import { GuestMemory } from '../../lib/memory/guest-memory';
import { native } from '../../lib/native';
import { udpFrame } from './udp-frame';

const RAM = 0x100000;
const MAC = '02:00:00:00:00:01';
const PAGE = 4096;
const REPORT_MICROS = 200_000;
/** Polls by one reading of the clock, and by one turn of the event loop. */
const POLLS_PER_CLOCK = 64;
const CLOCKS_PER_TURN = 16;

interface Counters {
  looks: number;
  idle: number;
  kicks: number;
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      tap: { type: 'string' },
      ring: { type: 'string', default: '256' },
      batch: { type: 'string', default: '32' },
      frame: { type: 'string', default: '64' },
      buffer: { type: 'string', default: '2048' },
      'event-idx': { type: 'boolean', default: false },
      napi: { type: 'boolean', default: false },
      'multi-queue': { type: 'boolean', default: false },
    },
  });
  const transmit = positionals[0] === 'tx';
  const ring = Number(values.ring);
  const frameSize = Number(values.frame);
  const bits = [VIRTIO_F_VERSION_1, VIRTIO_NET_F_MRG_RXBUF, ...(values['event-idx'] ? [VIRTIO_RING_F_EVENT_IDX] : [])];
  const options = {
    gpa: RAM,
    program: transmit ? ('flood-transmit' as const) : ('flood-receive' as const),
    features: bits.reduce((features, number) => features | (1n << BigInt(number)), 0n),
    mac: MAC,
    frameSize,
    rxSize: ring,
    txSize: ring,
    rxBufferSize: Number(values.buffer),
    batch: Number(values.batch),
  };
  const { control, buffers } = Guest.bytes(options);
  const memory = GuestMemory.create([{ gpa: RAM, size: Math.ceil((control + buffers) / PAGE) * PAGE }]);
  const counters: Counters = { looks: 0, idle: 0, kicks: 0 };
  const guest = Guest.boot(memory, options);
  if (transmit) writeFrames(memory, guest, ring, frameSize);
  guest.disarmInterrupts();

  const flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (values.napi ? IFF_NAPI : 0);
  const tap = await Tap.open({ name: values.tap, flags, multiQueue: values['multi-queue'] });
  const backend = new VhostKernelBackend({ taps: [tap], prepareTaps: true });
  const { features, mac } = guest;
  const device = new VirtioNetDevice({ memory, backend, features, queues: guest.queues, mac });
  device.backend.on('ringError', ({ queue, message }) => {
    process.stderr.write(`flood: ring ${queue}: ${message}\n`);
    process.exit(1);
  });
  const kicks = device.notifiers.map(({ kick }) => kick);
  guest.onKick = (queue) => {
    counters.kicks++;
    kicks[queue]!.signal();
  };
  await device.start();
  run(guest, transmit, counters);
}

/** The frame that the peers send, instead of the guest's own kind, which the host's stack would take another way. */
function writeFrames(memory: GuestMemory, guest: Guest, ring: number, frameSize: number): void {
  const { gpa, length } = guest.ranges.find(({ name }) => name === 'transmit buffers')!;
  const frame = udpFrame(frameSize);
  for (let id = 0; id < ring; id++) memory.write(gpa + (id * length) / ring + guest.headerLength, frame);
}

function run(guest: Guest, transmit: boolean, counters: Counters): void {
  const addon = native();
  let reportAt = 0;
  const turn = (): void => {
    for (let clock = 0; clock < CLOCKS_PER_TURN; clock++) {
      const now = addon.monotonicMicros();
      if (now >= reportAt) {
        report(now, guest, transmit, counters);
        reportAt = now + REPORT_MICROS;
      }
      let idle = 0;
      for (let look = 0; look < POLLS_PER_CLOCK; look++) if (guest.poll(now) === 0) idle++;
      counters.looks += POLLS_PER_CLOCK;
      counters.idle += idle;
    }
    setImmediate(turn);
  };
  turn();
}

function report(micros: number, guest: Guest, transmit: boolean, counters: Counters): void {
  const { sentDone, received } = guest.counters;
  writeSync(1, `${JSON.stringify({ micros, frames: transmit ? sentDone : received, ...counters })}\n`);
}

main().catch((error: unknown) => {
  process.stderr.write(`flood: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exit(1);
});
