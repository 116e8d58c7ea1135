/** Debian's chromium without a window, and what it finds wrong with a page. */
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import puppeteer, { type Browser, type Page } from 'puppeteer-core';

/** Where the browser is; null where there is none. */
export const chromium =
  ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find((path) => existsSync(path)) ?? null;

export async function launchBrowser(): Promise<Browser> {
  // Its sandbox cannot be set up as root, and what it shows is our own.
  return puppeteer.launch({ executablePath: chromium!, args: ['--no-sandbox', '--disable-gpu'] });
}

export interface View {
  width: number;
  scheme: 'light' | 'dark';
  media?: 'screen' | 'print';
}

export interface PageFaults {
  /** Errors and warnings of the console, and exceptions. */
  console: string[];
  /** Requests beside the file's own. */
  requests: string[];
  /** Elements that reach over the edge. */
  overflowing: string[];
  /** Texts that differ too little from what is behind them (WCAG 2 level AA). */
  faint: string[];
}

/** Opens the page from a file, as a person would, and answers what is wrong with it; `look` may do more with it. */
export async function pageFaults(
  browser: Browser,
  html: string,
  view: View,
  look: (page: Page) => Promise<void> = async () => {},
): Promise<PageFaults> {
  const folder = mkdtempSync(join(tmpdir(), 'report-'));
  const file = join(folder, 'report.html');
  writeFileSync(file, html);
  const address = pathToFileURL(file).href;
  const page = await browser.newPage();
  try {
    const said: string[] = [];
    const requests: string[] = [];
    page.on('console', (message) => {
      if (['error', 'warn'].includes(message.type())) said.push(message.text());
    });
    page.on('pageerror', (error) => said.push(String(error)));
    page.on('request', (request) => {
      if (request.url() !== address) requests.push(request.url());
    });
    await page.setViewport({ width: view.width, height: 900 });
    await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: view.scheme }]);
    if (view.media !== undefined) await page.emulateMediaType(view.media);
    await page.goto(address, { waitUntil: 'load' });
    const overflowing = (await page.evaluate(OVERFLOWING)) as string[];
    const faint = (await page.evaluate(FAINT)) as string[];
    await look(page);
    return { console: said, requests, overflowing, faint };
  } finally {
    await page.close();
    rmSync(folder, { recursive: true, force: true });
  }
}

// These run in the browser, where this program's own scope does not reach: hence text.

const OVERFLOWING = `(() => {
  const edge = document.documentElement.clientWidth;
  const found = document.documentElement.scrollWidth > edge + 0.5 ? ['the page scrolls sideways'] : [];
  for (const element of document.body.querySelectorAll('*')) {
    const { left, right, width } = element.getBoundingClientRect();
    const frame = element.tagName === 'text' ? element.closest('svg').getBoundingClientRect() : { left: 0, right: edge };
    // A plot cuts off what stands over its own edge.
    if (width > 0 && (right > frame.right + 0.5 || left < frame.left - 0.5)) {
      found.push(element.tagName + ' ' + element.textContent.slice(0, 40) + ' to ' + right + ' of ' + frame.right);
    }
  }
  return found;
})()`;

const FAINT = `(() => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const luminance = (colour) => {
    const [r, g, b] = numbers(colour).slice(0, 3).map((value) => {
      const part = value / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let at = element; at !== null; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (numbers(colour)[3] !== 0) return colour;
    }
    return 'rgb(255, 255, 255)';
  };
  const found = [];
  for (const element of document.body.querySelectorAll('*')) {
    const own = [...element.childNodes].filter((node) => node.nodeType === 3 && node.data.trim() !== '');
    const style = getComputedStyle(element);
    if (own.length === 0 || ['title', 'desc'].includes(element.tagName) || element.getBoundingClientRect().width === 0) continue;
    const inPlot = element instanceof SVGElement;
    // What stands on a bar has the bar behind it, which is no background.
    if (inPlot && element.getAttribute('fill') === 'var(--on-colour)') continue;
    const [one, other] = [luminance(inPlot ? style.fill : style.color), luminance(behind(element))];
    const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (contrast < 4.5) found.push(element.tagName + ' ' + own[0].data.trim().slice(0, 40) + ': ' + contrast.toFixed(2));
  }
  return found;
})()`;
