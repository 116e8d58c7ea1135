/** Markup from data: everything that is put into it is escaped, unless it was made here. */

/** Longest text that a page shows: names and messages come from a peer. */
const MAX_TEXT = 2000;

/** Control and format characters (those that change the direction of text are among them), lone surrogates, separators of lines. */
const UNPRINTABLE = /(?![\t\n])[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\p{Noncharacter_Code_Point}]/gu;

const ENTITIES: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };

/** Markup that needs no escaping. */
export class Html {
  readonly #markup: string;

  constructor(markup: string) {
    this.#markup = markup;
  }

  toString(): string {
    return this.#markup;
  }
}

export type Content = Html | string | number | null | undefined | readonly Content[];

/** Text as it may be shown: printable, and not longer than a page can stand. */
export function printable(text: unknown, most = MAX_TEXT): string {
  const whole = String(text);
  const shown = whole.length > most ? `${whole.slice(0, most)}…` : whole;
  return shown.replace(UNPRINTABLE, '\ufffd');
}

export function escapeHtml(text: unknown): string {
  return printable(text).replace(/[&<>"']/g, (character) => ENTITIES[character]!);
}

function render(content: Content): string {
  if (content === null || content === undefined) return '';
  if (content instanceof Html) return content.toString();
  if (Array.isArray(content)) return content.map(render).join('');
  return escapeHtml(content);
}

/** A template whose values are escaped; `null` and `undefined` are nothing, lists are joined. */
export function html(parts: TemplateStringsArray, ...values: Content[]): Html {
  return new Html(parts.map((part, at) => part + render(values[at])).join(''));
}
