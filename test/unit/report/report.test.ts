/** The page as text: what it says, and that nothing in it is markup of somebody else. */
import { createHash } from 'node:crypto';
import { type DefaultTreeAdapterTypes, parse } from 'parse5';
import type { MigrationRecord } from '../../../lib/migration/record';
import { doubts } from '../../../lib/report/verdict';
import {
  completedRecord,
  extremeRecord,
  failedEarlyRecord,
  HOSTILE,
  hostileRecord,
  uncertainRecord,
} from '../../helpers/migration-records';
import { renderReports } from '../../helpers/render-report';

type Element = DefaultTreeAdapterTypes.Element;
type Node = DefaultTreeAdapterTypes.Node;

interface Page {
  html: string;
  /** Codes of what a strict parser finds wrong. */
  errors: string[];
  elements: Element[];
  text: string;
}

/** A record whose every number is none, as one from a file of another program may be. */
function emptyRecord(): MigrationRecord {
  const record = failedEarlyRecord();
  return {
    ...record,
    error: null,
    outcome: 'cancelled',
    totalMs: Number.NaN,
    guestMemory: [],
    phases: [],
    source: { ...record.source, offered: '', tap: null },
    rounds: [
      { round: 0, pages: 0, zeroPages: 0, bytes: 0, ms: 0, dirtyAfter: 0, dirtyBy: {}, startMs: 0, hotPages: 0 },
    ],
    heat: [{ gpa: 0, total: 0, pages: 1, rounds: 1, counts: [] }],
    samples: [],
  };
}

const RECORDS = {
  completed: completedRecord(),
  failed: failedEarlyRecord(),
  uncertain: uncertainRecord(),
  empty: emptyRecord(),
  hostile: hostileRecord(),
  extreme: extremeRecord(),
};
type Name = keyof typeof RECORDS;
const NAMES = Object.keys(RECORDS) as Name[];

let pages: Record<Name, Page>;

function parsed(html: string): Page {
  const errors: string[] = [];
  const document = parse(html, { sourceCodeLocationInfo: true, onParseError: ({ code }) => errors.push(code) });
  const elements: Element[] = [];
  const texts: string[] = [];
  const walk = (node: Node, quiet: boolean): void => {
    if ('tagName' in node) elements.push(node);
    if (node.nodeName === '#text' && !quiet) texts.push((node as DefaultTreeAdapterTypes.TextNode).value);
    if ('childNodes' in node) for (const child of node.childNodes) walk(child, quiet || node.nodeName === 'style');
  };
  walk(document, false);
  return { html, errors, elements, text: texts.join(' ').replace(/[\s\u00a0]+/g, ' ') };
}

const attribute = (element: Element, name: string): string | undefined =>
  element.attrs.find((entry) => entry.name === name)?.value;
const named = (page: Page, ...names: string[]): Element[] =>
  page.elements.filter(({ tagName }) => names.includes(tagName));

beforeAll(() => {
  const rendered = renderReports(Object.values(RECORDS));
  pages = Object.fromEntries(NAMES.map((name, at) => [name, parsed(rendered[at]!)])) as Record<Name, Page>;
});

describe.each(NAMES)('%s', (name) => {
  test('is well-formed', () => {
    const { errors, elements, html } = pages[name];
    expect(errors).toEqual([]);
    const ids = elements.flatMap((element) => attribute(element, 'id') ?? []);
    expect(new Set(ids).size).toBe(ids.length);
    const unclosed = elements.filter(({ sourceCodeLocation: at, tagName }) => {
      const tag = at?.startTag ?? at!;
      return at?.endTag === undefined && !VOID.includes(tagName) && !html.startsWith('/>', tag.endOffset - 2);
    });
    expect(unclosed.map(({ tagName }) => tagName)).toEqual([]);
  });

  test('has only elements and attributes that load and run nothing', () => {
    const { elements } = pages[name];
    const tags = new Set(elements.map(({ tagName }) => tagName));
    for (const tag of [
      'script',
      'link',
      'img',
      'image',
      'iframe',
      'object',
      'embed',
      'use',
      'base',
      'form',
      'a',
      'foreignObject',
    ]) {
      expect(tags).not.toContain(tag);
    }
    const attributes = new Set(elements.flatMap(({ attrs }) => attrs.map((entry) => entry.name)));
    for (const attribute of attributes) {
      expect(attribute).not.toMatch(/^on|^(?:src|href|xlink:href|style|srcset|action|data|background)$/);
    }
  });

  test('mentions no address outside, unless as text', () => {
    const { elements, html } = pages[name];
    const style = /<style>([\s\S]*?)<\/style>/.exec(html)![1]!;
    expect(style).not.toMatch(/url\(|@import|https?:/);
    for (const { attrs } of elements)
      for (const { value } of attrs) expect(value).not.toMatch(/^\s*(?:https?:|\/\/|data:|javascript:)/);
  });

  test('allows nothing but its own style sheet', () => {
    const { html, elements } = pages[name];
    const style = /<style>([\s\S]*?)<\/style>/.exec(html)![1]!;
    const hash = createHash('sha256').update(style).digest('base64');
    const policy = elements.find((element) => attribute(element, 'http-equiv') === 'Content-Security-Policy')!;
    expect(attribute(policy, 'content')).toBe(
      `default-src 'none'; style-src 'sha256-${hash}'; base-uri 'none'; form-action 'none'`,
    );
  });

  test('can be read without seeing it', () => {
    const page = pages[name];
    const headings = named(page, 'h1', 'h2').map(({ tagName }) => tagName);
    expect(headings[0]).toBe('h1');
    expect(headings.filter((tag) => tag === 'h1')).toHaveLength(1);
    for (const table of named(page, 'table')) {
      expect(table.childNodes.map(({ nodeName }) => nodeName)).toContain('caption');
    }
    const ids = new Set(page.elements.flatMap((element) => attribute(element, 'id') ?? []));
    for (const svg of named(page, 'svg')) {
      expect(attribute(svg, 'role')).toBe('img');
      for (const id of attribute(svg, 'aria-labelledby')!.split(' ')) expect(ids).toContain(id);
    }
    for (const cell of named(page, 'th')) expect(attribute(cell, 'scope')).toMatch(/^(?:row|col)$/);
  });

  test('is below 2 MB', () => expect(Buffer.byteLength(pages[name].html)).toBeLessThan(2_000_000));

  test('shows no value that is none', () => {
    expect(pages[name].text).not.toMatch(/\bNaN\b|Infinity|undefined|\[object/);
    expect(pages[name].html).not.toMatch(/"[^"]*\b(?:NaN|Infinity|undefined)\b[^"]*"/);
  });
});

const VOID = ['meta'];

test('figures of a migration that went well', () => {
  const { text } = pages.completed;
  for (const said of [
    'The guest moved in 265 ms and stood still for 8.44 ms',
    'Completed',
    'alder → birch',
    '2026-03-01 12:34:56 UTC',
    'Downtime 8.44 ms',
    'Blackout 11.9 ms',
    'Frames none lost 737 handed over, proven',
    'Pages differing 0 of 32,768 compared',
    'pages in 9 rounds',
    'Expected downtime: 7.90 ms , measured: 8.44 ms',
    'last pages 2.91 ms 34.5 %',
    'between the parts 0.45 ms',
    '32,768 21,044 12',
    'guest 2,692, vhost 1,154',
    'Proven: no frame was lost, doubled or reordered.',
    'after the cut 52',
    'discarded 1,207',
    'Equal: all 32,768 pages',
    '6.18.2-amd64',
    'MRG_RXBUF',
    'mtu 9000 1500 ! degraded',
    'Guest memory: 128 MiB in 1 region',
  ]) {
    expect(text).toContain(said);
  }
});

test('every plot is there in both widths', () => {
  const ids = pages.completed.elements.flatMap((element) => attribute(element, 'id') ?? []);
  for (const plot of ['switchover', 'rounds', 'bandwidth', 'dirty-rate']) {
    for (const size of ['wide', 'narrow']) expect(ids).toContain(`${plot}-${size}-title`);
  }
  expect(ids).toContain('heat-0-title');
});

test('a migration that never began says so, and why', () => {
  const { text } = pages.failed;
  for (const said of [
    'Failed after 3.20 ms: the guest runs at the source',
    'ECONNREFUSED connect ECONNREFUSED 192.0.2.7:4444',
    'Is `vhost-net receive` running there?',
    'alder → no destination',
    'Downtime none the guest was never stopped',
    'No round was finished.',
    'No account of frames was kept.',
    'Pages were not compared.',
    'The two sides were not compared.',
  ]) {
    expect(text).toContain(said);
  }
  expect(text).not.toContain('Proven');
});

test('what is not proven is said, and never called none lost', () => {
  const { text } = pages.uncertain;
  for (const said of [
    'Uncertain',
    'Frames not proven 737 handed over, 4 doubts',
    'Not proven. The source was cut by time, since no marker arrived.',
    'No marker came back within 200 ms.',
    'tap overflowed: 7 frames are lost',
    '2 streams of repeated frames could be joined in several ways',
    '3 of 32,768 pages differ',
    '0x1000 0x2f000 0x7fff000',
  ]) {
    expect(text).toContain(said);
  }
  expect(text).not.toContain('none lost');
  expect(text).not.toContain('Proven:');
});

test('hostile text is shown as text', () => {
  const { text, elements, html } = pages.hostile;
  expect(text).toContain('"><script>alert(1)</script><img src="https://evil.example/x.png" onerror=alert(1)>');
  expect(html).not.toContain('<script');
  expect(html).not.toContain('<img');
  for (const character of ['\u202e', '\u0000', '\ud800']) expect(html).not.toContain(character);
  // Its structure is that of the page without it, but for what the sentences and names of classes depend on.
  const shape = (page: Page): number => page.elements.filter(({ tagName }) => tagName === 'section').length;
  expect(shape(pages.hostile)).toBe(shape(pages.uncertain));
  expect(elements.some(({ attrs }) => attrs.some(({ name }) => name.startsWith('on')))).toBe(false);
  expect(HOSTILE).toContain('\u202e');
});

test('very much of everything is cut, and the cut is told', () => {
  const { text, elements } = pages.extreme;
  expect(text).toContain('round 0 9,999');
  for (const said of [
    '9,950 rounds',
    'One bar stands for 167 rounds',
    'Each point is the mean of',
    'Differences (5,000, the first 100 shown)',
  ]) {
    expect(text).toContain(said);
  }
  expect(elements.filter(({ tagName }) => tagName === 'tr').length).toBeLessThan(300);
});

describe('the account of a hand-over', () => {
  const account = completedRecord().handover!;

  test('proves something only when it adds up', () => {
    expect(doubts(account)).toEqual([]);
    expect(doubts({ ...account, source: { ...account.source!, read: 413 } })).toEqual([
      'the source read 413 frames and accounts for 412',
    ]);
    expect(doubts({ ...account, destination: { ...account.destination!, matched: 60 } })).toEqual([
      'the destination read 498 frames and accounts for 497',
    ]);
    expect(
      doubts({ ...account, destination: { ...account.destination!, ambiguous: 1 }, unproven: ['why'] }),
    ).toHaveLength(2);
    expect(doubts({ ...account, source: { ...account.source!, dropped: 1 } })).toHaveLength(1);
  });
});
