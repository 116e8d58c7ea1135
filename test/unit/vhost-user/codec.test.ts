import fc from 'fast-check';
import { emitHeader, flagsField, parseHeader, requestField, sizeField } from '../../../lib/vhost-user/header';
import { checkRequestSize, emitReply, emitRequest, parseRequest } from '../../../lib/vhost-user/message';
import {
  emitPayload,
  type PayloadKind,
  type Payloads,
  parsePayload,
  payloadBounds,
} from '../../../lib/vhost-user/payload';
import { REQUESTS, type RequestName, requestName } from '../../../lib/vhost-user/requests';
import { headerOf } from '../../helpers/front-end';

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
const viewOf = (text: string): DataView => {
  const bytes = Uint8Array.from(Buffer.from(text, 'hex'));
  return new DataView(bytes.buffer);
};

describe('header', () => {
  test('as QEMU writes GET_FEATURES, and as it is answered', () => {
    expect(hex(emitRequest('GET_FEATURES', null))).toBe('010000000100000000000000');
    expect(hex(emitReply(1, 'u64', 0x0123456789abcdefn))).toBe('010000000500000008000000efcdab8967452301');
  });

  test.each([
    ['version 0', '010000000000000000000000'],
    ['version 2', '010000000200000000000000'],
    ['a flag nobody knows', '010000001100000000000000'],
    ['the highest flag', '010000000100008000000000'],
    ['an answer that wants one', '010000000d00000000000000'],
  ])('refuses %s', (_, text) => {
    expect(() => parseHeader(viewOf(text))).toThrow(expect.objectContaining({ code: 'VHOST_ERR_PROTOCOL', offset: 4 }));
  });

  test('any 12 bytes have fields, and are a header that comes out as it went in or are refused', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 12, maxLength: 12 }), (bytes) => {
        const view = new DataView(Uint8Array.from(bytes).buffer);
        const fields = [requestField(view), flagsField(view), sizeField(view)];
        expect(fields.every((field) => field >= 0 && field <= 0xffff_ffff)).toBe(true);
        let header: ReturnType<typeof parseHeader>;
        try {
          header = parseHeader(view);
        } catch (error) {
          expect(error).toMatchObject({ code: 'VHOST_ERR_PROTOCOL' });
          return;
        }
        expect([...emitHeader(header)]).toEqual([...bytes]);
      }),
    );
  });
});

const region = (n: bigint) => ({ guestAddr: n, size: n + 1n, userAddr: n + 2n, mmapOffset: n + 3n });
const SAMPLES: { [Kind in PayloadKind]: { value: Payloads[Kind]; bytes: string } } = {
  empty: { value: null, bytes: '' },
  u64: { value: 0xfedcba9876543210n, bytes: '1032547698badcfe' },
  vringState: { value: { index: 1, num: 256 }, bytes: '0100000000010000' },
  vringFd: { value: { index: 3, noFd: true }, bytes: '0301000000000000' },
  vringAddr: {
    value: { index: 2, flags: 1, desc: 0x10n, used: 0x20n, avail: 0x30n, log: 0x40n },
    bytes: '02000000010000001000000000000000200000000000000030000000000000004000000000000000',
  },
  memory: {
    value: [region(0x10n)],
    bytes: '01000000000000001000000000000000110000000000000012000000000000001300000000000000',
  },
  memReg: {
    value: region(0x20n),
    bytes: '00000000000000002000000000000000210000000000000022000000000000002300000000000000',
  },
  log: { value: { size: 0x1000n, offset: 8n }, bytes: '00100000000000000800000000000000' },
  config: {
    value: { offset: 1, size: 2, flags: 3, bytes: Uint8Array.of(9, 8) },
    bytes: '0100000002000000030000000908',
  },
  inflight: {
    value: { mmapSize: 0x1000n, mmapOffset: 1n, numQueues: 2, queueSize: 256 },
    bytes: '001000000000000001000000000000000200000100000000',
  },
  iotlb: {
    value: { iova: 1n, size: 2n, userAddr: 3n, perm: 3, type: 2 },
    bytes: '0100000000000000020000000000000003000000000000000302000000000000',
  },
  deviceState: { value: { direction: 1, phase: 0 }, bytes: '0100000000000000' },
};

describe.each(Object.keys(SAMPLES) as PayloadKind[])('payload %s', (kind) => {
  const { value, bytes } = SAMPLES[kind];

  test('out and in', () => {
    expect(hex(emitPayload(kind, value))).toBe(bytes);
    expect(parsePayload(kind, Buffer.from(bytes, 'hex'))).toEqual(value);
  });

  test('refuses a byte less than the least and one more than the most', () => {
    const { least, most } = payloadBounds(kind);
    const lengths = [least - 1, most + 1].filter((length) => length >= 0);
    for (const length of lengths) {
      expect(() => parsePayload(kind, new Uint8Array(length))).toThrow(
        expect.objectContaining({ code: 'VHOST_ERR_PROTOCOL' }),
      );
    }
  });

  test('any bytes are parsed or refused', () => {
    const { most } = payloadBounds(kind);
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: most + 8 }), (any) => {
        try {
          parsePayload(kind, any);
        } catch (error) {
          expect(error).toMatchObject({ code: 'VHOST_ERR_PROTOCOL' });
        }
      }),
    );
  });
});

test('no region, and 8 of them; 9 are refused, and so is a length that is not that of the count', () => {
  expect(parsePayload('memory', new Uint8Array(8))).toEqual([]);
  const eight = Array.from({ length: 8 }, (_, n) => region(BigInt(n)));
  expect(parsePayload('memory', emitPayload('memory', eight))).toEqual(eight);
  const nine = new Uint8Array(8 + 8 * 32);
  nine[0] = 9;
  expect(() => parsePayload('memory', nine)).toThrow('9 memory regions at offset 0: expected at most 8');
  expect(() => parsePayload('memory', new Uint8Array(8 + 32))).toThrow('40 bytes for 0 memory regions');
});

test('a ring of more than 8 bits beside its descriptor is refused', () => {
  for (const value of [0x200n, 1n << 31n, 0xffff_ffffn, 1n << 63n]) {
    expect(() => parsePayload('vringFd', emitPayload('u64', value))).toThrow(/bits of 0x1ff/);
  }
});

test('a configuration says how long it is', () => {
  const bytes = emitPayload('config', { offset: 0, size: 3, flags: 0, bytes: Uint8Array.of(1, 2) });
  expect(() => parsePayload('config', bytes)).toThrow('3 bytes of configuration');
});

describe.each(Object.keys(REQUESTS) as RequestName[])('%s', (name) => {
  const { request, payload: kind, fds } = REQUESTS[name];
  const counts = { none: [0, 0], one: [1, 1], maybe: [0, 1], vring: [0, 0], regions: [1, 1] }[fds] as [number, number];
  const message = emitRequest(name, SAMPLES[kind].value as never, { needReply: true });
  const header = headerOf(message);
  const payload = message.subarray(12);

  test('comes back as it was', () => {
    expect(requestName(request)).toBe(name);
    expect(header).toEqual({ request, reply: false, needReply: true, size: payload.length });
    checkRequestSize(header);
    for (const count of counts) {
      expect(parseRequest(header, payload, count)).toEqual({ name, payload: SAMPLES[kind].value, needReply: true });
    }
  });

  test('is refused with descriptors less or more', () => {
    for (const count of [counts[0] - 1, counts[1] + 1].filter((n) => n >= 0)) {
      expect(() => parseRequest(header, payload, count)).toThrow(
        expect.objectContaining({ code: 'VHOST_ERR_PROTOCOL' }),
      );
    }
  });

  test('is refused before its payload is read when that cannot be', () => {
    const { least, most } = payloadBounds(kind);
    for (const size of [least - 1, most + 1, 2 ** 31, 2 ** 32 - 1].filter((n) => n >= 0)) {
      expect(() => checkRequestSize({ ...header, size })).toThrow(
        expect.objectContaining({ code: 'VHOST_ERR_PROTOCOL', offset: 8 }),
      );
    }
    expect(() => checkRequestSize({ ...header, reply: true })).toThrow(`an answer to ${name}`);
  });
});

test('a request that nobody knows has a payload of 4096 bytes at most', () => {
  const header = { request: 999, reply: false, needReply: false, size: 4096 };
  checkRequestSize(header);
  expect(parseRequest(header, new Uint8Array(4096), 3)).toBeNull();
  expect(() => checkRequestSize({ ...header, size: 4097 })).toThrow('request 999 with 4097 bytes');
});
