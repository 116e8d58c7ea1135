/** Parts that sections are made of. */
import { type Content, type Html, html } from './html';

export function section(title: string, ...content: Content[]): Html {
  return html`<section><h2>${title}</h2>
${content}</section>
`;
}

/** A drawing with its heading, legend and remark; kept on one sheet of paper. */
export function figure(title: string, drawing: Html, { legend, note }: { legend?: Html; note?: Content } = {}): Html {
  return html`<figure><figcaption>${title}</figcaption>${legend ?? null}
${drawing}${note === undefined || note === null ? null : html`<p class="note">${note}</p>`}</figure>
`;
}

export function legend(entries: readonly { swatch: string; text: string }[]): Html {
  return html`<ul class="legend">${entries.map(({ swatch, text }) => html`<li><i class="${swatch}"></i>${text}</li>`)}</ul>`;
}

export interface Column {
  title: string;
  /** Figures stand on the right, below each other. */
  figures?: boolean;
}

export type Cell = Content;

/**
 * On a small screen a table of many columns (`stacked`) becomes one block a row, each figure behind the title of its column. `kind` names
 * tables whose columns have the same widths.
 */
export function table(
  caption: string,
  columns: readonly Column[],
  rows: readonly (readonly Cell[])[],
  { stacked = false, kind = '' }: { stacked?: boolean; kind?: 'ledger' | 'sides' | '' } = {},
): Html {
  const align = (at: number): string => (columns[at]?.figures === true ? 'n' : 't');
  const head = columns.map(({ title }, at) => html`<th scope="col" class="${align(at)}">${title}</th>`);
  const body = rows.map((cells) => {
    const [first, ...others] = cells.map((cell, at) =>
      at === 0
        ? html`<th scope="row" class="${align(0)}"${stacked ? html` data-of="${columns[0]!.title}"` : null}>${cell}</th>`
        : html`<td class="${align(at)}"${stacked ? html` data-of="${columns[at]!.title}"` : null}>${cell}</td>`,
    );
    return html`<tr>${first}${others}</tr>
`;
  });
  return html`<table class="${stacked ? 'stacked' : kind}"><caption>${caption}</caption>
<thead><tr>${head}</tr></thead>
<tbody>${body}</tbody></table>
`;
}
