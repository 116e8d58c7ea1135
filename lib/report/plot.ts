/** Plots as SVG text, by vega, which is loaded when the first one is drawn: a library that draws nothing does not pay for it. */
import type { Spec } from 'vega';
import { Html, html } from './html';

/** Width of a plot for a screen or paper, and for a small screen. Pixels; text keeps its size in both. */
const WIDE = 860;
const NARROW = 340;

/** Room on the left of a plot for the labels of its axis. Without a canvas vega only guesses how wide text is. */
const AXIS_ROOM = 52;

const CONFIG = {
  background: 'transparent',
  axis: {
    labelColor: 'var(--muted)',
    titleColor: 'var(--muted)',
    labelFont: 'inherit',
    titleFont: 'inherit',
    labelFontSize: 11,
    titleFontSize: 11,
    titleFontWeight: 'normal',
    domainColor: 'var(--line)',
    tickColor: 'var(--line)',
    gridColor: 'var(--line)',
    labelOverlap: true,
    // What stands over the edge would be cut off.
    labelBound: 18,
    labelPadding: 4,
    tickSize: 4,
  },
  axisLeft: { minExtent: AXIS_ROOM, maxExtent: AXIS_ROOM, domain: false, ticks: false, grid: true },
} as const;

export interface Plot {
  /** Begins the identifiers of its title and description. */
  id: string;
  title: string;
  /** What the plot shows, in a sentence: for those who do not see it. */
  description: string;
  /** `height` in pixels, `marks` and what belongs to them. */
  spec: (width: number) => Spec;
}

// The names of roles and attributes that vega gives to every mark describe the drawing, not what it means.
const MARK_ROLES = / (?:role|aria-[a-z]+|class|xmlns(?::xlink)?|pointer-events)="[^"]*"/g;
const INVISIBLE =
  /<path d="[^"]*" display="none"\/>|<path d="M0,0h0v0h0Z"\/>|<(text|line)[^>]* opacity="0"(?:\/>|[^>]*>[^<]*<\/\1>)/g;

async function drawSvg(plot: Plot, width: number, size: string): Promise<Html> {
  const { parse, View } = await import('vega');
  const spec: Spec = {
    ...plot.spec(width),
    width,
    autosize: { type: 'fit-x', contains: 'padding' },
    padding: { left: 2, right: 14, top: 6, bottom: 2 },
    config: CONFIG,
  };
  const view = new View(parse(spec), { renderer: 'none' });
  try {
    const svg = await view.toSVG();
    const { width: w, height: h } = /width="(?<width>[\d.]+)" height="(?<height>[\d.]+)"/.exec(svg)!.groups!;
    const body = svg.slice(svg.indexOf('>') + 1, svg.lastIndexOf('</svg>'));
    const drawing = new Html(body.replaceAll(MARK_ROLES, '').replaceAll(INVISIBLE, ''));
    const id = `${plot.id}-${size}`;
    return html`<svg class="${size}" viewBox="0 0 ${w} ${h}" role="img" aria-labelledby="${id}-title ${id}-desc">
<title id="${id}-title">${plot.title}</title><desc id="${id}-desc">${plot.description}</desc>${drawing}</svg>`;
  } finally {
    view.finalize();
  }
}

/** One figure in both widths; the style sheet shows one of them. */
export async function drawPlot(plot: Plot): Promise<Html> {
  return html`${await drawSvg(plot, WIDE, 'wide')}${await drawSvg(plot, NARROW, 'narrow')}`;
}
