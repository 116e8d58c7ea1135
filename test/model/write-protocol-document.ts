/** Brings docs/protocol.md up to date: `node dist/test/model/write-protocol-document.js`. */
import { writeFileSync } from 'node:fs';
import { EXPLORATIONS } from './environment';
import { exploreMigration } from './migration-model';
import { DOCUMENT, figuresTable, GENERATED, readDocument, withPart } from './protocol-document';

let document = readDocument();
for (const [name, text] of Object.entries(GENERATED)) document = withPart(document, name, text);
const figures = EXPLORATIONS.map(([name, env]): [string, { states: number; transitions: number }] => [
  name,
  exploreMigration(env),
]);
writeFileSync(DOCUMENT, withPart(document, 'figures', figuresTable(figures)));
