import { type Duplex, duplexPair, PassThrough } from 'node:stream';
import { Channel } from '../../lib/migration/channel';
import { FRAME_HEADER_SIZE, FRAME_MAX_PAYLOAD, FrameType, frameName, STREAM_VERSION } from '../../lib/migration/frame';

/** Two connected channels and every byte the first one sent. */
async function greeted(): Promise<{ source: Channel; destination: Channel; sent: Buffer[] }> {
  const [near, far] = duplexPair();
  const sent: Buffer[] = [];
  const write = near.write.bind(near) as (chunk: Buffer) => boolean;
  near.write = ((chunk: Buffer) => {
    sent.push(Buffer.from(chunk));
    return write(chunk);
  }) as typeof near.write;
  const source = new Channel(near, { timeoutMs: 2000 });
  const destination = new Channel(far, { timeoutMs: 2000 });
  await Promise.all([source.greet(), destination.answer()]);
  return { source, destination, sent };
}

/** A stream that gives these bytes and ends; what is written to it is thrown away. */
function replay(bytes: Uint8Array): Duplex {
  const [near, far] = duplexPair();
  far.resume();
  far.end(bytes);
  return near;
}

/** What a destination meets when the given bytes arrive: reads HELLO, then `frames` more frames of any control type. */
async function readAll(bytes: Uint8Array, frames: number): Promise<void> {
  const channel = new Channel(replay(bytes), { timeoutMs: 2000 });
  await channel.answer();
  for (let count = 0; count < frames; count++)
    await channel.receive([FrameType.SETUP, FrameType.PAGES, FrameType.ROUND_END]);
}

/** A recorded session: HELLO, SETUP, PAGES, ROUND_END. */
async function recorded(): Promise<{ bytes: Buffer; frames: Buffer[] }> {
  const { source, destination, sent } = await greeted();
  await source.sendJson(FrameType.SETUP, { regions: [] });
  await source.send(FrameType.PAGES, Buffer.alloc(300, 7));
  await source.sendJson(FrameType.ROUND_END, { round: 0, pages: 0, final: false });
  await destination.receive([FrameType.SETUP]);
  const bytes = Buffer.concat(sent);
  const frames: Buffer[] = [];
  for (let at = 0; at < bytes.length; ) {
    const length = FRAME_HEADER_SIZE + bytes.readUInt32LE(at + 12);
    frames.push(bytes.subarray(at, at + length));
    at += length;
  }
  return { bytes, frames };
}

const protocolError = expect.objectContaining({ code: 'VHOST_ERR_PROTOCOL' });

describe('migration channel', () => {
  test('frames arrive in order, whole, of any size', async () => {
    const { source, destination } = await greeted();
    const large = Buffer.alloc(3_000_000, 5);
    const sending = (async () => {
      await source.send(FrameType.PAGES, Buffer.from([1, 2, 3]));
      await source.send(FrameType.PAGES, large);
      await source.send(FrameType.GO, Buffer.alloc(0));
    })();
    expect([...(await destination.receive([FrameType.PAGES])).payload]).toEqual([1, 2, 3]);
    expect((await destination.receive([FrameType.PAGES])).payload.equals(large)).toBe(true);
    expect((await destination.receive([FrameType.GO])).payload.byteLength).toBe(0);
    await sending;
    expect(destination.bytesReceived).toBe(source.bytesSent);
  });

  test('a stream cut at any byte is refused with what was expected and where', async () => {
    const { bytes } = await recorded();
    await expect(readAll(bytes, 3)).resolves.toBeUndefined();
    for (let length = 0; length < bytes.length; length++) {
      const error = await readAll(bytes.subarray(0, length), 3).catch((thrown: unknown) => thrown);
      expect(error).toEqual(protocolError);
      expect((error as { offset: number }).offset).toBe(length);
      expect((error as { expected: string }).expected).toMatch(/HELLO|SETUP|PAGES|ROUND_END/);
    }
  });

  test('a flipped bit anywhere is refused', async () => {
    const { bytes } = await recorded();
    for (let bit = 0; bit < bytes.length * 8; bit += 3) {
      const damaged = Buffer.from(bytes);
      damaged[bit >> 3]! ^= 1 << (bit & 7);
      // The identity in HELLO may be flipped into another valid one: then the next frame's checksum fails.
      await expect(readAll(damaged, 3)).rejects.toEqual(
        expect.objectContaining({ code: expect.stringMatching(/PROTOCOL/) }),
      );
    }
  });

  test.each([
    ['dropped', (frames: Buffer[]) => [frames[0]!, frames[1]!, frames[3]!]],
    ['doubled', (frames: Buffer[]) => [frames[0]!, frames[1]!, frames[1]!, frames[2]!]],
    ['swapped', (frames: Buffer[]) => [frames[0]!, frames[2]!, frames[1]!, frames[3]!]],
  ])('a %s frame is refused by its number', async (_name, change) => {
    const { frames } = await recorded();
    await expect(readAll(Buffer.concat(change(frames)), 3)).rejects.toThrow(
      /has number \d+ at offset \d+: expected number \d+/,
    );
  });

  test('a frame of another run is refused by its checksum', async () => {
    const one = await recorded();
    const other = await recorded();
    const spliced = Buffer.concat([one.frames[0]!, one.frames[1]!, other.frames[2]!, one.frames[3]!]);
    await expect(readAll(spliced, 3)).rejects.toThrow(/another stream/);
  });

  test('something else than a migration is refused at its first bytes', async () => {
    const request = Buffer.from('GET / HTTP/1.1\r\nHost: somebody\r\n\r\n');
    await expect(readAll(request, 1)).rejects.toThrow(
      /begins with 0x20544547 at offset 0: expected a vhost-net migration stream/,
    );
  });

  test('a length beyond the limit is refused before anything is allocated', async () => {
    const { bytes } = await recorded();
    const huge = Buffer.from(bytes);
    huge.writeUInt32LE(FRAME_MAX_PAYLOAD + 1, 12);
    await expect(readAll(huge, 1)).rejects.toThrow(new RegExp(`at most ${FRAME_MAX_PAYLOAD}`));
  });

  test('a version this side does not speak is refused', async () => {
    const [near, far] = duplexPair();
    const source = new Channel(near, { timeoutMs: 2000 });
    const destination = new Channel(far, { timeoutMs: 2000 });
    const hello = {
      version: STREAM_VERSION + 5,
      minVersion: STREAM_VERSION + 1,
      product: 'later',
      identity: '0'.repeat(32),
    };
    await source.sendJson(FrameType.HELLO, hello);
    await expect(destination.answer()).rejects.toThrow(/speaks versions 3 to 7.*expected one of 2 to 2/);
  });

  test('the wrong frame names what came and what was expected', async () => {
    const { source, destination } = await greeted();
    await source.send(FrameType.GO, Buffer.alloc(0));
    await expect(destination.receive([FrameType.STATE])).rejects.toThrow(
      /GO \(frame 1\) at offset \d+: expected STATE/,
    );
  });

  test('CANCEL and ERROR of the peer end whatever was awaited, with the reason', async () => {
    for (const [type, code] of [
      [FrameType.CANCEL, 'VHOST_ERR_ABORTED'],
      [FrameType.ERROR, 'VHOST_ERR_MIGRATION'],
    ] as const) {
      const { source, destination } = await greeted();
      await source.sendLast(type, 'the disk is full');
      await expect(destination.receive([FrameType.GO])).rejects.toEqual(
        expect.objectContaining({ code, message: expect.stringContaining('the disk is full') }),
      );
    }
  });

  test('a silent peer is noticed within the bound', async () => {
    const [near] = duplexPair();
    const channel = new Channel(near, { timeoutMs: 50 });
    await expect(channel.receive([FrameType.GO])).rejects.toEqual(
      expect.objectContaining({ code: 'VHOST_ERR_TIMEOUT' }),
    );
  });

  test('a peer that takes nothing is noticed within the bound', async () => {
    const [near] = duplexPair();
    const channel = new Channel(near, { timeoutMs: 50 });
    const sending = (async () => {
      for (let count = 0; count < 100; count++) await channel.send(FrameType.PAGES, Buffer.alloc(100_000));
    })();
    await expect(sending).rejects.toEqual(expect.objectContaining({ code: 'VHOST_ERR_TIMEOUT' }));
  });

  test('an abort ends a wait at once, but not after the commit', async () => {
    const controller = new AbortController();
    const [near, far] = duplexPair();
    const channel = new Channel(near, { timeoutMs: 2000, signal: controller.signal });
    const waiting = channel.receive([FrameType.GO]);
    controller.abort(new Error('no longer wanted'));
    await expect(waiting).rejects.toEqual(
      expect.objectContaining({ code: 'VHOST_ERR_ABORTED', message: expect.stringContaining('no longer wanted') }),
    );
    channel.commit();
    await channel.send(FrameType.GO, Buffer.alloc(0));
    expect((far.read() as Buffer).byteLength).toBe(FRAME_HEADER_SIZE);
  });

  test('a destroyed stream is an error of the connection', async () => {
    const stream = new PassThrough();
    const channel = new Channel(stream, { timeoutMs: 2000 });
    const waiting = channel.receive([FrameType.GO]);
    stream.destroy(new Error('reset by peer'));
    await expect(waiting).rejects.toThrow(/stream ends after 0 of 20 bytes|connection lost/);
    await expect(channel.send(FrameType.GO, Buffer.alloc(0))).rejects.toThrow(
      /connection lost while sending GO: reset by peer/,
    );
  });

  test('every frame type has a name', () => {
    for (const [name, type] of Object.entries(FrameType)) expect(frameName(type)).toBe(name);
    expect(frameName(99)).toBe('type 99');
  });
});
