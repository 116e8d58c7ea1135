/** What the network hears of a guest that moves: nothing from the destination before GO, then announcements. Emulated data path, real taps. */
import { setTimeout as sleep } from 'node:timers/promises';
import { IFF_NO_PI, IFF_TAP } from '../../lib/constants/if-tun';
import type { VirtioNetDevice } from '../../lib/device/virtio-net-device';
import { NetDeviceCounters } from '../../lib/host/net-device-counters';
import { Tap } from '../../lib/host/tap';
import type { Announcements } from '../../lib/migration/announce';
import { AnnounceRounds } from '../../lib/migration/announce-rounds';
import { etherType } from '../../lib/net/ethernet';
import { Rig } from '../helpers/migration-rig';

const ETH_P_RARP = 0x8035;
const STRIDE = 2048;
const GUEST = '020000000002';

/** Another port of the bridge, which everything that is flooded reaches. */
class Ear {
  readonly tap: Tap;
  readonly rarps: Buffer[] = [];
  readonly #timer: NodeJS.Timeout;
  readonly #arena = new Uint8Array(64 * STRIDE);
  readonly #lengths = new Int32Array(64);

  private constructor(tap: Tap) {
    this.tap = tap;
    this.#timer = setInterval(() => this.listen(), 1);
  }

  static async open(rig: Rig): Promise<Ear> {
    const tap = await Tap.open({ name: 'ear', netns: rig.netns.path, flags: IFF_TAP | IFF_NO_PI });
    await rig.netns.attach('br0', tap.name);
    return new Ear(tap);
  }

  listen(): void {
    for (let count = 64; count === 64; ) {
      count = this.tap.readFrames(this.#arena, STRIDE, 64, this.#lengths);
      for (let index = 0; index < count; index++) {
        const at = index * STRIDE;
        if (etherType(this.#arena, at) !== ETH_P_RARP) continue;
        this.rarps.push(Buffer.from(this.#arena.subarray(at, at + this.#lengths[index]!)));
      }
    }
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.tap.close();
  }
}

test('a quiet destination, one announcement as the cut, then rounds', async () => {
  const rig = await Rig.create({ rate: 500 });
  const [here, there] = [await rig.place('emulated'), await rig.place('emulated')];
  const machine = await rig.boot(here);
  const ear = await Ear.open(rig);
  await rig.flows(machine);
  const counters = await NetDeviceCounters.open(there.tap.name, rig.netns.path);
  const said: number[] = [];
  const { machine: moved } = await rig.migrate(machine, there, {
    source: {
      onEvent: (event) => {
        if (event.kind !== 'phase' || event.phase !== 'ready') return;
        ear.listen();
        // From the host's side: frames that came out of the tap's descriptor.
        said.push(counters.read()!.rx.packets, ear.rarps.length);
      },
    },
    destination: { announceInitial: 20, announceStep: 10, announceRounds: 3 },
  });
  // What the network heard by then is the source, which makes sure that the guest is where it is thought to be.
  expect(said).toEqual([0, 1]);
  await sleep(400);
  expect(ear.rarps.shift()!.subarray(42, 58).toString('hex')).toBe('0'.repeat(32));
  const nonces = ear.rarps.map((frame) => frame.subarray(42, 58).toString('hex'));
  expect(ear.rarps).toHaveLength(4);
  for (const frame of ear.rarps) {
    expect(frame.subarray(0, 12).toString('hex')).toBe(`ffffffffffff${GUEST}`);
    expect(frame.subarray(22, 42).toString('hex')).toBe(`${GUEST}00000000${GUEST}00000000`);
  }
  // The cut has a nonce of its own; what follows is as everybody sends it.
  expect(nonces[0]).not.toBe('0'.repeat(32));
  expect(nonces.slice(1)).toEqual(Array(3).fill('0'.repeat(32)));
  await rig.flows(moved);
  counters.close();
  await ear.close();
  await rig.close();
});

describe('rounds', () => {
  const announcements: Announcements = { macs: ['02:00:00:00:00:02'], vlans: [] };
  let rig: Rig;
  let tap: Tap;
  let ear: Ear;

  beforeEach(async () => {
    rig = await Rig.create();
    tap = (await rig.place('emulated')).tap;
    ear = await Ear.open(rig);
  });

  afterEach(async () => {
    await ear.close();
    await rig.close();
  });

  function device(asked: { times: number }, byGuest: boolean): VirtioNetDevice {
    return {
      running: true,
      linkUp: true,
      backend: { taps: [tap] },
      announce: () => {
        asked.times++;
        return byGuest;
      },
    } as unknown as VirtioNetDevice;
  }

  const soon = { announceInitial: 1, announceStep: 1, announceRounds: 4 };

  test.each([
    ['a guest that announces itself is asked, and nothing is said for it', true, [], 4, 0],
    ['but in VLANs that only this side knows of', true, [7, 9], 4, 12],
    ['a guest that cannot is announced', false, [], 4, 4],
    ['on every VLAN too', false, [7, 9], 4, 12],
  ] as const)('%s', async (_, byGuest, vlans, times, frames) => {
    const asked = { times: 0 };
    const rounds = new AnnounceRounds(device(asked, byGuest), { ...announcements, vlans }, soon);
    await rounds.ended;
    await sleep(50);
    ear.listen();
    expect(asked.times).toBe(times);
    expect(rounds.rounds).toBe(times);
    // Tagged ones have another EtherType in front: counted by the tap they came from.
    const counters = await NetDeviceCounters.open(tap.name, rig.netns.path);
    expect(counters.read()!.rx.packets).toBe(frames);
    counters.close();
  });

  test('end when asked to', async () => {
    const asked = { times: 0 };
    const rounds = new AnnounceRounds(device(asked, false), announcements, { ...soon, announceInitial: 60_000 });
    rounds.stop();
    await rounds.ended;
    expect(asked.times).toBe(0);
  });
});
