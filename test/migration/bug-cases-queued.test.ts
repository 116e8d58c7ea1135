/** M55 of docs/bug-cases.md: what lies in a tap's queue from before is never given to the guest, and what waits at the stop is given once. */
import { IFF_NO_PI, IFF_TAP } from '../../lib/constants/if-tun';
import { Tap } from '../../lib/host/tap';
import { HandoverLab } from '../helpers/handover-lab';
import { sleep, until } from '../helpers/vhost-wait';

test('M55: there and back, with frames in every queue', async () => {
  await using lab = await HandoverLab.create();
  await using sender = await Tap.open({ name: 'sender', netns: lab.netns.path, flags: IFF_TAP | IFF_NO_PI });
  await lab.netns.attach('br0', sender.name);
  await lab.boot();
  await lab.traffic({ station: 200, guest: 100 });
  await lab.flows(20);
  let sent = 0;
  /** To everybody: it reaches the queues of both places' taps. */
  const broadcast = (): void => {
    const frame = Buffer.alloc(64);
    frame.fill(0xff, 0, 6).set([2, 0, 0, 0, 0, 9, 0x90, 0x00], 6);
    frame.writeUInt32LE(++sent, 16);
    expect(sender.writeFrames(frame, frame.length, 1, Int32Array.of(frame.length))).toBe(1);
  };
  for (const to of [1, 0, 1]) {
    for (let count = 0; count < 50; count++) broadcast();
    await until('the guest has each', () => lab.record.book.foreign >= sent);
    // Nobody reads the other tap: each of them waits there too.
    expect(lab.record.book.foreign).toBe(sent);
    lab.guest.beforePause = async () => {
      lab.record.deaf = true;
      for (let count = 0; count < 20; count++) broadcast();
      await sleep(20);
    };
    setTimeout(() => {
      lab.record.deaf = false;
    }, 500);
    const { result } = await lab.migrate(to);
    expect(result.handover).toMatchObject({ unproven: [] });
    await until('what waited is given', () => lab.record.book.foreign >= sent);
    await sleep(100);
    expect(lab.record.book.foreign).toBe(sent);
  }
});
