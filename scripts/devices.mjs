// What this machine lets a script open.
import { closeSync, openSync } from 'node:fs';

export function canOpen(path) {
  try {
    closeSync(openSync(path, 'r+'));
    return true;
  } catch {
    return false;
  }
}
