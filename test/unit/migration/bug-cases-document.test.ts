/** docs/bug-cases.md names tests that are there. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../../../lib/native';

const text = readFileSync(join(packageRoot(), 'docs', 'bug-cases.md'), 'utf8');
const rows = [...text.matchAll(/^\| (M\d+) .*$/gm)].map(([row]) => row.split('|').map((cell) => cell.trim()));

test('every case has a test that exists, or a reason', () => {
  expect(rows.length).toBeGreaterThan(50);
  for (const [, number, , file, name] of rows) {
    if (file === 'none') {
      expect({ number, reason: name!.length > 10 }).toEqual({ number, reason: true });
      continue;
    }
    const source = readFileSync(join(packageRoot(), file!.replaceAll('`', '')), 'utf8');
    expect({ number, found: source.includes(name!) }).toEqual({ number, found: true });
  }
});
