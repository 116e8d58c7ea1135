/** Reports in a real browser: on wide and narrow screens, light and dark, and on paper. */
import { createHash } from 'node:crypto';
import type { Browser } from 'puppeteer-core';
import { chromium, launchBrowser, pageFaults, type View } from '../helpers/browser';
import {
  completedRecord,
  extremeRecord,
  failedEarlyRecord,
  hostileRecord,
  uncertainRecord,
} from '../helpers/migration-records';
import { renderReports } from '../helpers/render-report';

const RECORDS = {
  completed: completedRecord,
  failed: failedEarlyRecord,
  uncertain: uncertainRecord,
  hostile: hostileRecord,
  extreme: extremeRecord,
};
const NAMES = Object.keys(RECORDS) as (keyof typeof RECORDS)[];

/** What A4 leaves between the margins, in CSS pixels. */
const PAPER_WIDTH = Math.floor(((210 - 2 * 14) / 25.4) * 96);
const VIEWS: View[] = [
  { width: 1280, scheme: 'light', media: 'screen' },
  { width: 1280, scheme: 'dark', media: 'screen' },
  { width: 761, scheme: 'light', media: 'screen' },
  { width: 400, scheme: 'light', media: 'screen' },
  { width: 400, scheme: 'dark', media: 'screen' },
  { width: PAPER_WIDTH, scheme: 'dark', media: 'print' },
];
const FAULTLESS = { console: [], requests: [], overflowing: [], faint: [] };

(chromium === null ? describe.skip : describe)('a report in a browser (needs chromium)', () => {
  let browser: Browser;
  let pages: Record<keyof typeof RECORDS, string>;

  beforeAll(async () => {
    const rendered = renderReports(NAMES.map((name) => RECORDS[name]()));
    pages = Object.fromEntries(NAMES.map((name, at) => [name, rendered[at]!])) as typeof pages;
    browser = await launchBrowser();
  });

  afterAll(() => browser?.close());

  describe.each(NAMES)('%s', (name) => {
    test.each(VIEWS)('shows without a fault: $width px, $scheme, $media', async (view) => {
      expect(await pageFaults(browser, pages[name], view)).toEqual(FAULTLESS);
    });
  });

  test.each([
    [1280, 'wide'],
    [400, 'narrow'],
  ])('at %i px the %s plots are seen, and no other', async (width, size) => {
    await pageFaults(browser, pages.completed, { width, scheme: 'light' }, async (page) => {
      const seen = (await page.evaluate(
        "[...document.querySelectorAll('svg[class]')].filter((svg) => svg.getBoundingClientRect().height > 60).map((svg) => svg.getAttribute('class'))",
      )) as string[];
      expect(seen).toEqual([size, size, size, size]);
    });
  });

  test('light and dark are different pictures, and neither is empty', async () => {
    const pictures: string[] = [];
    for (const scheme of ['light', 'dark'] as const) {
      await pageFaults(browser, pages.completed, { width: 1280, scheme }, async (page) => {
        const picture = await page.screenshot({ fullPage: true });
        expect(picture.byteLength).toBeGreaterThan(50_000);
        pictures.push(createHash('sha256').update(picture).digest('hex'));
        const back = await page.evaluate('getComputedStyle(document.body).backgroundColor');
        expect(back).toBe(scheme === 'light' ? 'rgb(255, 255, 255)' : 'rgb(18, 22, 27)');
      });
    }
    expect(pictures[0]).not.toBe(pictures[1]);
  });

  test.each([
    ['completed', 3, 6],
    ['failed', 1, 3],
    ['extreme', 8, 60],
  ] as const)('%s on paper: %i to %i sheets', async (name, least, most) => {
    await pageFaults(browser, pages[name], { width: 1280, scheme: 'dark' }, async (page) => {
      const pdf = Buffer.from(await page.pdf({ preferCSSPageSize: true })).toString('latin1');
      const sheets = pdf.match(/\/Type\s*\/Page\b(?!s)/g)?.length ?? 0;
      expect(sheets).toBeGreaterThanOrEqual(least);
      expect(sheets).toBeLessThanOrEqual(most);
      // A4 in points.
      expect(pdf).toMatch(/\/MediaBox\s*\[0 0 59[45]\.\d+ 84[12]\.\d+\]/);
    });
  });

  describe('a planted fault is found', () => {
    const VIEW: View = { width: 1280, scheme: 'light' };
    const plant = (what: string): string => pages.completed.replace('<footer>', `${what}<footer>`);
    const unguarded = (html: string): string => html.replace(/<meta http-equiv="Content-Security-Policy"[^>]*>/, '');
    const IMAGE = '<img alt="" src="http://127.0.0.1:9/planted.png">';

    test('an outside image: refused by the policy, and told', async () => {
      const { console: said, requests } = await pageFaults(browser, plant(IMAGE), VIEW);
      expect([...said, ...requests].join()).toContain('http://127.0.0.1:9/planted.png');
      expect(said.join()).toContain('Content Security Policy');
    });

    test('an outside image where there is no policy: a request', async () => {
      const { requests } = await pageFaults(browser, unguarded(plant(IMAGE)), VIEW);
      expect(requests).toEqual(['http://127.0.0.1:9/planted.png']);
    });

    test('a script: refused', async () => {
      const { console: said } = await pageFaults(
        browser,
        plant('<script>document.title = "ran"</script>'),
        VIEW,
        async (page) => {
          expect(await page.title()).not.toBe('ran');
        },
      );
      expect(said.join()).toContain('Content Security Policy');
    });

    test('a line that is too long, and text that is too faint', async () => {
      const { overflowing } = await pageFaults(browser, plant(`<pre>${'x'.repeat(400)}</pre>`), VIEW);
      expect(overflowing).toContain('the page scrolls sideways');
      const cut = pages.completed.replaceAll(/<text text-anchor="middle"/g, '<text text-anchor="middle" dx="500"');
      expect((await pageFaults(browser, cut, VIEW)).overflowing.length).toBeGreaterThan(5);
      const faded = unguarded(pages.completed).replace('--muted:#57606a', '--muted:#b0b0b0');
      expect((await pageFaults(browser, faded, VIEW)).faint.length).toBeGreaterThan(10);
    });
  });
});
