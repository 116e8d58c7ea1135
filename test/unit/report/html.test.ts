/** Escaping, and figures with units. */
import { escapeHtml, type Html, html, printable } from '../../../lib/report/html';
import * as units from '../../../lib/report/units';

describe('markup', () => {
  test('what is put into a template is escaped, unless it was made by one', () => {
    const inner = html`<b>${'<i>'}</b>`;
    expect(`${html`<p title="${'"'}">${inner}${[inner, '&', null, undefined, 7]}</p>`}`).toBe(
      '<p title="&quot;"><b>&lt;i&gt;</b><b>&lt;i&gt;</b>&amp;7</p>',
    );
    // An object of the wire that looks like markup is none.
    expect(`${html`${{ toString: () => '<x>' } as unknown as Html}`}`).toBe('&lt;x&gt;');
  });

  test('every character that ends a text or an attribute', () => {
    expect(escapeHtml(`<>&"'`)).toBe('&lt;&gt;&amp;&quot;&#39;');
  });

  test('control characters, directions and halves of characters become visible', () => {
    expect(printable('a\u0000\u001b[2J\u202e\u2066\ud800b\udc00\ufffe\n\t')).toBe(
      'a\ufffd\ufffd[2J\ufffd\ufffd\ufffdb\ufffd\ufffd\n\t',
    );
    expect(printable('Grüße 😀')).toBe('Grüße 😀');
  });

  test('a text has an end', () => {
    expect(printable('x'.repeat(5000))).toHaveLength(2001);
    expect(printable('abc', 2)).toBe('ab…');
    expect(printable('😀😀', 3)).toBe('😀\ufffd…');
  });
});

describe('units', () => {
  const spaced = (text: string): string => text.replaceAll('\u00a0', ' ');

  test.each([
    [units.count(1234567), '1,234,567'],
    [units.bytes(0), '0 bytes'],
    [units.bytes(1023), '1,023 bytes'],
    [units.bytes(1024), '1.00 KiB'],
    [units.bytes(75_657_216), '72.2 MiB'],
    [units.bytes(5 * 2 ** 70), '5,242,880 PiB'],
    [units.bytesPerSecond(410e6), '410 MB/s'],
    [units.pagesPerSecond(21400.4), '21,400 pages/s'],
    [units.duration(0), '0 ms'],
    [units.duration(0.0123), '0.012 ms'],
    [units.duration(8.437), '8.44 ms'],
    [units.duration(999.4), '999 ms'],
    [units.duration(1000), '1.00 s'],
    [units.duration(119_999), '120 s'],
    [units.duration(125_000), '2 min 5 s'],
    [units.duration(3 * 3_600_000 + 5 * 60_000), '3 h 5 min'],
    [units.share(1, 8), '12.5 %'],
    [units.share(1, 0), '–'],
    [units.address(0x7fff000), '0x7fff000'],
    [units.address(-1), '–'],
    [units.moment('2026-03-01T12:34:56.789Z'), '2026-03-01 12:34:56 UTC'],
    [units.moment('yesterday'), 'yesterday'],
    [units.plural(1, 'round'), '1 round'],
    [units.plural(2000, 'round'), '2,000 rounds'],
  ])('%s', (text, expected) => expect(spaced(text)).toBe(expected));

  test.each([null, undefined, Number.NaN, Number.POSITIVE_INFINITY, '7' as unknown as number])(
    '%p is not measured',
    (value) => {
      for (const of of [
        units.count,
        units.bytes,
        units.bytesPerSecond,
        units.pagesPerSecond,
        units.duration,
        units.address,
      ]) {
        expect(of(value)).toBe('–');
      }
    },
  );
});
