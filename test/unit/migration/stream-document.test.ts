/** docs/migration-stream.md says the numbers that the code has. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { STRIDE } from '../../../lib/backend/frame-arena';
import { AUDIT_PIECE } from '../../../lib/migration/audit';
import {
  FRAME_HEADER_SIZE,
  FRAME_MAX_PAYLOAD,
  FrameType,
  STREAM_MAGIC,
  STREAM_MIN_VERSION,
  STREAM_VERSION,
} from '../../../lib/migration/frame';
import { FrameBatch } from '../../../lib/migration/handover/frame-batch';
import { GroupEntries } from '../../../lib/migration/handover/group-record';
import { MOST_PAGE_CONNECTIONS } from '../../../lib/migration/hello';
import { HASH_SIZE, PAGES_FIXED, PAGES_MAX_DATA, PAGES_MAX_RUNS, RUN_SIZE } from '../../../lib/migration/page-layout';
import { packageRoot } from '../../../lib/native';

const text = readFileSync(join(packageRoot(), 'docs', 'migration-stream.md'), 'utf8');

/** Cells of the rows of the section's tables. */
function rows(section: string): string[][] {
  const part = text.split(/^## /m).find((each) => each.startsWith(`${section}\n`))!;
  return [...part.matchAll(/^\| (?!-)(.*) \|$/gm)].map(([, row]) => row!.split('|').map((cell) => cell.trim()));
}

test('every type with its number, and no other', () => {
  const said = rows('Types')
    .filter(([number]) => /^\d+$/.test(number!))
    .map(([number, name]) => [name, Number(number)]);
  expect(Object.fromEntries(said)).toEqual(FrameType);
});

test('the header', () => {
  const fields = Object.fromEntries(rows('Frame').map(([offset, , field, rule]) => [field, { offset, rule }]));
  expect(fields.payload!.offset).toBe(String(FRAME_HEADER_SIZE));
  expect(fields.length!.rule).toContain(`at most ${FRAME_MAX_PAYLOAD};`);
  expect(fields.magic!.rule).toContain(`0x${STREAM_MAGIC.toString(16)}`);
});

test('versions and connections', () => {
  expect(text).toContain(`# The migration stream, version ${STREAM_VERSION}\n`);
  expect(text).toContain(`${STREAM_MIN_VERSION} and ${STREAM_VERSION} now`);
  expect(text).toContain(`0 to ${MOST_PAGE_CONNECTIONS} page connections`);
});

test('PAGES', () => {
  const fields = rows('PAGES');
  expect(fields.find(([, , field]) => field!.startsWith('runs'))![2]).toBe(`runs, up to ${PAGES_MAX_RUNS}`);
  expect(fields.find(([offset]) => offset === String(PAGES_FIXED))![1]).toBe(`${RUN_SIZE} each`);
  expect(fields.find(([offset]) => offset === 'behind the runs')![1]).toBe(`${HASH_SIZE} each`);
  expect(fields.find(([offset]) => offset === 'behind the hashes')![2]).toContain(`${PAGES_MAX_DATA} pages at most`);
});

test('FRAMES, GROUP and AUDIT', () => {
  const batch = new FrameBatch();
  batch.add(0, new Uint8Array(24));
  expect(rows('FRAMES').find(([, size]) => size === 'length')![0]).toBe(String(batch.take().length - 24));
  expect(rows('FRAMES').find(([offset]) => offset === '4')![2]).toContain(`the longest ${STRIDE}`);
  const entries = new GroupEntries('late');
  const empty = entries.take().length;
  entries.add(1n, 2n);
  expect(rows('GROUP').find(([offset]) => offset === String(empty))![1]).toBe(`${entries.take().length - empty} each`);
  expect(text).toContain(`frames of up to ${AUDIT_PIECE} bytes`);
});
