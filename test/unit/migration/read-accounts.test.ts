/** What one side says of the frames of a hand-over, and of the pages, is read field by field: a wrong one is refused, with its name. */
import { duplexPair } from 'node:stream';
import { Channel } from '../../../lib/migration/channel';
import { FrameType } from '../../../lib/migration/frame';
import { receiveAudit, receiveDestinationAccount, receiveSourceAccount } from '../../../lib/migration/read-messages';
import { completedRecord } from '../../helpers/migration-records';

const { source, destination } = completedRecord().handover!;
const AUDIT = { total: 3, differing: 1, pages: [4096] };

/** What is read of a message with this payload. */
async function read<T>(
  type: FrameType,
  json: unknown,
  by: (channel: Channel, type: FrameType) => Promise<T>,
): Promise<T> {
  const [near, far] = duplexPair();
  const [sender, receiver] = [near, far].map((stream) => new Channel(stream, { timeoutMs: 2000 })) as [
    Channel,
    Channel,
  ];
  await Promise.all([sender.greet(), receiver.answer()]);
  try {
    const [found] = await Promise.all([by(receiver, type), sender.sendJson(type, json)]);
    return found;
  } finally {
    sender.close();
    receiver.close();
  }
}

const refusal = (what: string) =>
  expect.objectContaining({ code: 'VHOST_ERR_PROTOCOL', message: expect.stringContaining(what) as string }) as Error;

const ACCOUNTS = [
  ['DRAINED', FrameType.DRAINED, source!, receiveSourceAccount],
  ['SETTLED', FrameType.SETTLED, destination!, receiveDestinationAccount],
] as const;

describe.each(ACCOUNTS)('%s', (_name, type, account, by) => {
  test('is read as it was sent, and of what else there is nothing', async () => {
    expect(await read<object>(type, { account: { ...account, other: 1 } }, by)).toEqual(account);
  });

  test.each(Object.keys(account))('%s', async (field) => {
    const good = (account as unknown as Record<string, unknown>)[field];
    const numbers = typeof good === 'number' || good === null;
    const milliseconds = field.endsWith('Ms');
    const bad: unknown[] = [undefined, 'text', {}, [], numbers ? true : 0];
    if (numbers && !milliseconds) bad.push(-1, 1.5, 2 ** 53);
    if (!['dropped', 'firstReceivedMs', 'firstSentMs'].includes(field)) bad.push(null);
    for (const value of bad) {
      await expect(read<object>(type, { account: { ...account, [field]: value } }, by)).rejects.toThrow(refusal(field));
    }
  });

  test.each([[{}], [{ account: null }], [{ account: [] }], [{ account: 'none' }]])('%j', async (json) => {
    await expect(read<object>(type, json, by)).rejects.toThrow(refusal('account'));
  });
});

describe('END', () => {
  test('is read as it was sent', async () => {
    expect(await read(FrameType.END, { audit: AUDIT }, receiveAudit)).toEqual(AUDIT);
    expect(await read(FrameType.END, { audit: null }, receiveAudit)).toBeNull();
  });

  test.each<[string, unknown]>([
    ['audit', undefined],
    ['audit', 'equal'],
    ['total', { ...AUDIT, total: -1 }],
    ['differing', { ...AUDIT, differing: '1' }],
    ['pages', { ...AUDIT, pages: null }],
    ['pages', { ...AUDIT, pages: ['4096'] }],
    ['pages', { ...AUDIT, pages: Array(5000).fill(0) }],
  ])('%s', async (what, audit) => {
    await expect(read(FrameType.END, { audit }, receiveAudit)).rejects.toThrow(refusal(what));
  });
});
