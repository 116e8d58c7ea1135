/** Lines of a stream, of bounded length: what has no end of line is not kept for ever. */
import type { Readable } from 'node:stream';
import { VhostError } from '../errors';

const NEW_LINE = 10;

/** Calls `onLine` for each line without its end, and `onEnd` once, with what ended the stream: null when it was its end. */
export function readLines(
  stream: Readable,
  longest: number,
  onLine: (line: string) => void,
  onEnd: (error: Error | null) => void,
): void {
  let pieces: Buffer[] = [];
  let length = 0;
  let over = false;
  const end = (error: Error | null): void => {
    if (over) return;
    over = true;
    onEnd(error);
  };
  stream.on('data', (chunk: Buffer) => {
    let from = 0;
    while (!over) {
      const at = chunk.indexOf(NEW_LINE, from);
      const piece = chunk.subarray(from, at < 0 ? chunk.length : at);
      length += piece.length;
      if (length > longest) {
        pieces = [];
        end(new VhostError('VHOST_ERR_PROTOCOL', `a line of more than ${longest} bytes`));
        return;
      }
      pieces.push(piece);
      if (at < 0) return;
      const line = Buffer.concat(pieces, length).toString('utf8');
      pieces = [];
      length = 0;
      from = at + 1;
      onLine(line);
    }
  });
  stream.on('error', end);
  stream.on('end', () => end(null));
  stream.on('close', () => end(null));
}
