/** A small stream built by hand: every kind of frame that a source sends, with pages of two kinds. */
import { PAGE_SIZE } from '../../lib/memory/address';
import { encodeFrameHeader, FrameType, streamSeed } from '../../lib/migration/frame';
import { FrameBatch } from '../../lib/migration/handover/frame-batch';
import { GroupEntries } from '../../lib/migration/handover/group-record';
import { encodePages } from '../../lib/migration/page-frame';
import { native } from '../../lib/native';

const IDENTITY = '00112233445566778899aabbccddeeff';

function pages(): Uint8Array {
  const data = Buffer.alloc(2 * PAGE_SIZE, 7);
  const hashes = new BigUint64Array(2);
  native().pageHashesOf(data, hashes, 0);
  const runs = [
    { page: 1, pages: 2, kind: 1 as const },
    { page: 9, pages: 3, kind: 0 as const },
  ];
  return encodePages({ round: 0, encoding: 0, runs, hashes: [...hashes], data });
}

/** Frame by frame. */
export function builtStream(): Buffer[] {
  const batch = new FrameBatch();
  batch.add(1, new Uint8Array(60));
  const group = new GroupEntries('after');
  group.add(1n, 2n);
  const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));
  const hello = { version: 2, minVersion: 2, product: 'x', identity: IDENTITY, channel: 'control', index: 0 };
  const frames: [FrameType, Uint8Array][] = [
    [FrameType.HELLO, json(hello)],
    [FrameType.SETUP, json({ mac: 'red \u001b[31m \u009b' })],
    [FrameType.PAGES, pages()],
    [FrameType.ROUND_END, json({ round: 0, pages: 5, final: true })],
    [FrameType.KEEPALIVE, Buffer.alloc(0)],
    [FrameType.FRAMES, batch.take()],
    [FrameType.GROUP, group.take()],
    [FrameType.STATE, json({ device: { version: 2 }, guest: {} })],
    [FrameType.GO, Buffer.alloc(0)],
    [FrameType.END, json({ audit: null })],
  ];
  const seed = streamSeed(Buffer.from(IDENTITY, 'hex'));
  return frames.map(([type, payload], sequence) =>
    Buffer.concat([encodeFrameHeader(type, sequence, payload, sequence === 0 ? 0 : seed), payload]),
  );
}
