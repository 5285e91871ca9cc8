// Small charts of the last two minutes, from zero, with a gap where nothing was measured.

import { as } from './format.js';

const WINDOW_MS = 120_000;
/** Two points that are farther apart than this are not joined: nobody knows what was between them. */
const GAP_MS = 3_000;
const WIDTH = 120;
const HEIGHT = 40;

export class Chart {
  #points = [];
  #svg;
  #area = shape('path', 'area');
  #line = shape('path', 'line');
  #peak;

  /** Draws into `svg`; `peak` says what its top is. */
  constructor(svg, peak) {
    this.#svg = svg;
    this.#peak = peak;
    svg.setAttribute('viewBox', `0 0 ${WIDTH} ${HEIGHT}`);
    svg.setAttribute('preserveAspectRatio', 'none');
    const base = shape('path', 'base');
    base.setAttribute('d', `M0 ${HEIGHT}H${WIDTH}`);
    svg.append(this.#area, base, this.#line);
    svg.setAttribute('aria-label', `${svg.dataset.label}: no value yet`);
  }

  /** Adds what was measured at `now_ms`; anything but a number is a gap. */
  add(now_ms, value) {
    this.#points.push({ at: now_ms, value: Number.isFinite(value) ? value : null });
    while (this.#points[0].at < now_ms - WINDOW_MS) this.#points.shift();
    this.#draw(now_ms);
  }

  #draw(now_ms) {
    const values = this.#points.map((point) => point.value).filter((value) => value !== null);
    const top = Math.max(...values, 0) || 1;
    const x = (point) => round(WIDTH - ((now_ms - point.at) / WINDOW_MS) * WIDTH);
    const y = (point) => round(HEIGHT - (point.value / top) * (HEIGHT - 2));
    let line = '';
    let area = '';
    for (const run of runs(this.#points)) {
      const path = run.map((point) => `${x(point)} ${y(point)}`).join('L');
      // A line of no length is drawn as a dot.
      line += `M${path}${run.length === 1 ? 'h0' : ''}`;
      area += `M${x(run[0])} ${HEIGHT}L${path}V${HEIGHT}Z`;
    }
    this.#line.setAttribute('d', line);
    this.#area.setAttribute('d', area);
    const { label } = this.#svg.dataset;
    const write = as[this.#svg.dataset.as];
    const most = write(values.length === 0 ? null : Math.max(...values));
    const now = write(this.#points.at(-1).value);
    this.#svg.setAttribute('aria-label', `${label}: now ${now}, at most ${most} in the last two minutes`);
    this.#peak.textContent = `max ${most}`;
  }
}

/** Stretches of points without a gap. */
function runs(points) {
  const found = [];
  let before = null;
  for (const point of points) {
    if (point.value === null) {
      before = null;
      continue;
    }
    if (before === null || point.at - before.at > GAP_MS) found.push([]);
    found.at(-1).push(point);
    before = point;
  }
  return found;
}

function shape(name, kind) {
  const element = document.createElementNS('http://www.w3.org/2000/svg', name);
  element.setAttribute('class', kind);
  return element;
}

function round(value) {
  return Math.round(value * 100) / 100;
}
