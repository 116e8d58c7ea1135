/** What is answered VIRTIO_NET_ERR changes nothing, and what cannot be answered breaks the device until its driver resets it. */
import { VIRTIO_MMIO_INT_CONFIG } from '../../lib/constants/virtio-mmio';
import { VIRTIO_F_VERSION_1, VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_MRG_RXBUF } from '../../lib/constants/virtio-net';
import { VIRTIO_NET_CTRL_HDR_SIZE, VIRTIO_NET_ERR, VIRTIO_NET_OK } from '../../lib/constants/virtio-net-ctrl';
import { MAX_COMMAND_BYTES } from '../../lib/device/control-queue';
import { encodeControlCommand, parseControlCommand } from '../../lib/net/control-command';
import { bits } from '../../lib/net/features';
import { bytesOf, COMMANDS } from '../helpers/control-commands';
import { BROADCAST, everyKind, LET_THROUGH, named, namesOf, narrow } from '../helpers/control-frames';
import { UNWRITTEN } from '../helpers/control-guest';
import { ControlLab, controlPaths, expectFiltered } from '../helpers/control-lab';
import { sleep, until } from '../helpers/vhost-wait';

/** By class: how many commands from 0 on are served. */
const SERVED = [6, 2, 2, 1, 1, 1];
const BYTES = [0, 1, 2, 3, 4, 5, 6, 9, 0x7f, 0xff];
const TOGGLE = { kind: 'rx-mode', mode: 'allmulti' } as const;

describe.each(controlPaths())('$name', (path) => {
  let lab: ControlLab;
  beforeAll(async () => {
    lab = await ControlLab.create(path, { mmio: { watchCalls: false } });
  });
  afterAll(() => lab.close());
  beforeEach(async () => {
    lab.rig.broken.length = 0;
    await lab.restart();
    await narrow(lab);
  });
  afterEach(() => expect(lab.rig.violations).toEqual([]));

  /** VIRTIO_NET_ERR in the first byte of the answer, no other byte changed. */
  async function expectRefused(bytes: Uint8Array): Promise<void> {
    const { written, length } = await lab.guest.request(bytes, { readable: [bytes.length], writable: [4] });
    const refused = written[0] === VIRTIO_NET_ERR && written.subarray(1).every((byte) => byte === UNWRITTEN);
    const sent = Buffer.from(bytes).toString('hex').slice(0, 64);
    if (!refused || length !== 1) throw new Error(`${sent} is answered ${written}, ${length} bytes`);
  }

  /** Nothing has changed, and the queue goes on. */
  async function expectUnharmed(): Promise<void> {
    expect(await lab.deliver(everyKind())).toEqual(LET_THROUGH);
    await lab.say({ ...TOGGLE, on: true });
    await expectFiltered(lab, everyKind());
    await lab.say({ ...TOGGLE, on: false });
    expect(lab.rig.broken).toEqual([]);
  }

  test('unknown classes and commands, whatever data they have', async () => {
    for (const klass of BYTES) {
      for (const command of BYTES) {
        if (command < (SERVED[klass] ?? 0)) continue;
        for (const data of [0, 1, 6]) await expectRefused(Uint8Array.of(klass, command, ...new Uint8Array(data)));
      }
    }
    await expectUnharmed();
  });

  test('commands cut short anywhere, and with more behind them', async () => {
    for (const { hex } of COMMANDS) {
      const whole = bytesOf(hex);
      for (let length = VIRTIO_NET_CTRL_HDR_SIZE; length < whole.length; length++) {
        await expectRefused(whole.subarray(0, length));
      }
      for (const more of [1, 6, 100]) await expectRefused(Uint8Array.of(...whole, ...new Uint8Array(more)));
    }
    await expectUnharmed();
  });

  test('a MAC table of more addresses than there are bytes, and commands longer than any', async () => {
    for (const entries of [1, 2, 0x10000, 0x80000000, 0xffffffff]) {
      const table = new Uint8Array(VIRTIO_NET_CTRL_HDR_SIZE + 8);
      table[0] = 1;
      new DataView(table.buffer).setUint32(2, entries, true);
      await expectRefused(table);
      table.copyWithin(6, 2, 6).fill(0, 2, 6);
      await expectRefused(table);
    }
    // A table that is sound but for its length, and one of the longest that is looked at.
    const table = (entries: number): Uint8Array => {
      const bytes = new Uint8Array(VIRTIO_NET_CTRL_HDR_SIZE + 8 + 6 * entries);
      bytes[0] = 1;
      new DataView(bytes.buffer).setUint32(2, entries, true);
      return bytes;
    };
    const most = Math.floor((MAX_COMMAND_BYTES - 10) / 6);
    await expectRefused(table(most + 1));
    await expectUnharmed();
    expect((await lab.guest.request(table(most))).written[0]).toBe(VIRTIO_NET_OK);
    // More unicast addresses than fit, and no multicast address any more.
    expect(await lab.deliver(everyKind())).toEqual(['first', 'other', 'listed', 'new', 'first, VLAN 5', 'new, VLAN 5']);
  });

  test('every command whose feature was not acked', async () => {
    await lab.restart({ wanted: bits(VIRTIO_F_VERSION_1, VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_MRG_RXBUF) });
    for (const { hex } of COMMANDS) await expectRefused(bytesOf(hex));
    expect(await lab.deliver(everyKind())).toEqual(namesOf(everyKind()));
    expect(lab.guest.mmio.needsReset).toBe(false);
  });

  const PROMISC = encodeControlCommand({ kind: 'rx-mode', mode: 'promisc', on: true });
  test.each([
    ['no byte for the ack', [3], []],
    ['no byte for the ack, cut', [1, 1, 1], []],
    ['nothing but a byte for the ack', [], [1]],
    ['half a header', [1], [1]],
  ])('%s: the device needs a reset, frames go on until it comes', async (_, readable, writable) => {
    const { mmio } = lab.guest;
    mmio.takeInterrupts();
    const generation = lab.rig.device.configGeneration;
    lab.guest.post(PROMISC.subarray(0, 3), readable, writable);
    await until('the device needs a reset', () => mmio.needsReset);
    expect(mmio.takeInterrupts() & VIRTIO_MMIO_INT_CONFIG).toBe(VIRTIO_MMIO_INT_CONFIG);
    expect(lab.rig.device.configGeneration).toBe(generation + 1);
    expect(lab.rig.broken).toEqual([expect.stringContaining('control queue')]);
    expect(await lab.deliver(everyKind())).toEqual(LET_THROUGH);
    await expectHeard();
    // Kicks of a broken queue are no reason to look at it again.
    mmio.kick(lab.guest.controlQueue);
    await sleep(5);
    expect(lab.guest.answered).toBe(0);
    expect(lab.rig.broken).toHaveLength(1);

    await lab.restart();
    expect(lab.guest.mmio.needsReset).toBe(false);
    expect(await lab.deliver(everyKind())).toEqual(namesOf(everyKind()));
    await expectHeard();
    await narrow(lab);
    expect(await lab.deliver(everyKind())).toEqual(LET_THROUGH);
  });

  /** The network gets what the guest sends. */
  async function expectHeard(): Promise<void> {
    const { name, frame } = named('from the guest', BROADCAST);
    frame.set([2, 0, 0, 0, 0, 2], 6);
    lab.heard();
    await lab.guest.send(frame);
    await until(name, () => lab.heard().some((one) => Buffer.compare(one, frame) === 0));
  }
});

test('what is called served here is what is parsed', () => {
  const served = (klass: number): number[] =>
    Array.from({ length: 256 }, (_, command) => command).filter(
      (command) => parseControlCommand(Uint8Array.of(klass, command))?.kind !== 'unknown',
    );
  const classes = Array.from({ length: 256 }, (_, klass) => served(klass));
  expect(classes.slice(0, SERVED.length).map(({ length }) => length)).toEqual(SERVED);
  expect(classes.every((commands) => commands.every((command, index) => command === index))).toBe(true);
  expect(classes.slice(SERVED.length).flat()).toEqual([]);
});
