/** `vhost-net inspect-stream`: what a recorded migration stream, or a saved file, holds. */

import { once } from 'node:events';
import { createReadStream } from 'node:fs';
import { Command } from 'commander';
import { type InspectedLine, StreamInspector, type StreamSummary } from '../migration/inspect-stream';

interface Flags {
  json?: boolean;
  device?: boolean;
  pages?: boolean;
}

const HELP = `
FILE holds what one side sent over one connection (option \`record\` of a migration) or a saved machine. It is read to its end whatever is wrong
with it.
Exit status: 0 the stream is whole, 1 something is wrong with it, 2 it cannot be read.`;

export function inspectStreamCommand(): Command {
  return new Command('inspect-stream')
    .description('decodes a recorded migration stream or a saved machine, good or bad')
    .argument('<file>', 'the recording; - for standard input')
    .option('--json', 'one JSON document a line: frames, then the summary')
    .option('--device', 'device states in full')
    .option('--pages', 'every run of pages')
    .addHelpText('after', HELP)
    .action(inspectStream);
}

async function inspectStream(file: string, flags: Flags): Promise<void> {
  const inspector = new StreamInspector();
  const input = file === '-' ? process.stdin : createReadStream(file, { highWaterMark: 1 << 20 });
  try {
    for await (const line of inspector.lines(input as AsyncIterable<Uint8Array>)) await print(line, flags);
  } catch (error) {
    process.stderr.write(`vhost-net inspect-stream: ${(error as Error).message}\n`);
    process.exitCode = 2;
    return;
  }
  const { summary } = inspector;
  await write(flags.json === true ? JSON.stringify({ summary }) : summaryText(summary));
  process.exitCode = summary.whole && summary.errors === 0 ? 0 : 1;
}

async function print(line: InspectedLine, flags: Flags): Promise<void> {
  const { runs, device, ...rest } = line;
  const shown = flags.pages === true ? runs : null;
  const withDevice = flags.device === true && device !== null;
  if (flags.json === true) {
    await write(
      JSON.stringify({ ...rest, ...(shown === null ? {} : { runs: shown }), ...(withDevice ? { device } : {}) }),
    );
    return;
  }
  const { offset, name, sequence, length, checksum, what, errors } = line;
  await write(
    `${String(offset).padStart(10)}  ${sequence ?? '-'} ${name ?? 'bytes'} ${length} ${checksum ?? ''} ${what}`.trimEnd(),
  );
  for (const error of errors) await write(`            ! ${error}`);
  for (const { page, pages, zero } of shown ?? []) {
    await write(`            0x${page.toString(16)} + ${pages}${zero ? ' zero' : ''}`);
  }
  if (withDevice) await write(JSON.stringify(device, null, 2));
}

function summaryText({ bytes, errors, whole, types, rounds }: StreamSummary): string {
  const lines = Object.entries(types).map(
    ([name, { frames, bytes: each }]) => `${name}: ${frames} frames, ${each} bytes`,
  );
  for (const [round, sum] of Object.entries(rounds)) {
    lines.push(`round ${round}: ${sum.pages} pages, ${sum.zeroPages} of them zero, ${sum.bytes} bytes`);
  }
  const verdict = errors > 0 ? `${errors} errors` : whole ? 'whole' : 'ends before its end';
  return [...lines, `${bytes} bytes: ${verdict}`].join('\n');
}

/** What comes from a stream must not move the cursor of a terminal. */
function harmless(line: string): string {
  return line.replace(/[^\n -~]/g, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

async function write(line: string): Promise<void> {
  if (!process.stdout.write(`${harmless(line)}\n`)) await once(process.stdout, 'drain');
}
