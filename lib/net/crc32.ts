/**
 * CRC-32 (IEEE 802.3, reflected polynomial 0xedb88320) over a range of bytes without a view of it. Four bytes a step: table k is for a
 * byte that has k more behind it in the step.
 */
const POLYNOMIAL = 0xedb88320;

const TABLES = new Int32Array(4 * 256);
for (let byte = 0; byte < 256; byte++) {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ ((crc & 1) * POLYNOMIAL);
  TABLES[byte] = crc;
}
for (let at = 256; at < TABLES.length; at++) {
  const crc = TABLES[at - 256]!;
  TABLES[at] = (crc >>> 8) ^ TABLES[crc & 0xff]!;
}

/** Before the first byte. */
export const CRC32_BEGIN = 0;

/** Goes on with `crc` over bytes[offset, offset + length). Unsigned. */
export function crc32(bytes: Uint8Array, offset: number, length: number, crc = CRC32_BEGIN): number {
  let state = ~crc;
  const end = offset + length;
  let at = offset;
  for (; at + 4 <= end; at += 4) {
    state ^= bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
    state =
      TABLES[768 + (state & 0xff)]! ^
      TABLES[512 + ((state >>> 8) & 0xff)]! ^
      TABLES[256 + ((state >>> 16) & 0xff)]! ^
      TABLES[state >>> 24]!;
  }
  for (; at < end; at++) state = (state >>> 8) ^ TABLES[(state ^ bytes[at]!) & 0xff]!;
  return ~state >>> 0;
}
