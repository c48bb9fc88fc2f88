'use strict';
// The page's own faults are counted where a test can see them.
window.addEventListener('error', () => { document.body.dataset.errors = Number(document.body.dataset.errors || 0) + 1; });

const data = JSON.parse(document.getElementById('data').textContent);
const runs = data.runs;
const COLORS = ['#2f7ed8', '#e1812c', '#3a9e5c', '#c44e8a', '#8c63c9', '#b5892a', '#2aa5a0', '#d1495b'];
const state = { axis: 'step', smoothing: 0, zoom: null, hidden: new Set() };

const byId = (id) => document.getElementById(id);
const color = (i) => COLORS[i % COLORS.length];
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith('on')) made.addEventListener(key.slice(2), value);
    else if (key === 'class') made.className = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}
function vector(name, attributes = {}, text = null) {
  const made = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== null) made.textContent = text;
  return made;
}
function number(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return '–';
  if (value === 0) return '0';
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-3) return value.toExponential(2);
  if (Number.isInteger(value)) return String(value);
  return value.toFixed(size >= 100 ? 1 : size >= 10 ? 2 : size >= 1 ? 3 : 4);
}
// At an axis: no more digits than it takes.
function tick(value) {
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e6 || size < 1e-3)) return Number(value.toPrecision(3)).toExponential().replace('e+', 'e');
  return String(Number(value.toPrecision(6)));
}
function duration(seconds) {
  if (!Number.isFinite(seconds)) return '–';
  if (seconds < 90) return `${seconds.toFixed(0)} s`;
  if (seconds < 5400) return `${(seconds / 60).toFixed(0)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}
const date = (seconds) => new Date(seconds * 1000).toISOString().replace('T', ' ').slice(0, 16) + ' UTC';
const last = (values) => { for (let i = (values || []).length - 1; i >= 0; i--) if (values[i] !== null) return values[i]; return null; };

// What is drawn: a title, and lines with the number's name, what the line is called, and its dashes.
const CHARTS = [
  { title: 'Reconstruction loss', lines: [['mae', 'model', ''], ['mae_of_mean', 'answering the mean', '5 4'], ['mae_of_copy', 'copying the nearest visible', '1.5 3']] },
  { title: 'Contrastive loss over ln B (1: guessing)', lines: [['contrastive_relative', 'model', '']], level: 1 },
  { title: 'Own caption found (top-1)', lines: [['contrastive_top1', 'model', '']] },
  { title: 'kNN probe, top-1', probes: true, lines: [['result', 'model', ''], ['random_encoder', 'random encoder', '5 4'], ['chance', 'chance', '1.5 3']] },
  { title: 'Joint loss', lines: [['loss', 'model', '']] },
  { title: 'Gradient norm', lines: [['grad_norm', 'model', '']], log: true },
  { title: 'Learning rate', lines: [['lr', 'model', '']] },
  { title: 'Temperature', lines: [['temperature', 'model', '']] },
  { title: 'Clips per second', lines: [['clips_per_second', 'model', '']] },
  { title: 'Share of peak arithmetic', lines: [['peak_share', 'model', '']] },
  { title: 'Share of time waiting for data', lines: [['data_wait', 'model', '']] },
];

// The points of a line of a run: [x, y, step]. `hours` counts training time only, not the time between starts.
function points(run, chart, name) {
  const columns = chart.probes ? probeColumns(run) : run.metrics;
  const ys = columns[name];
  if (!ys) return [];
  const xs = state.axis === 'hours' ? hours(run, columns.step) : columns[state.axis] || columns.step;
  const made = [];
  for (let i = 0; i < ys.length; i++) if (xs[i] !== null && ys[i] !== null) made.push([xs[i], ys[i], columns.step[i]]);
  return made;
}
function probeColumns(run) {
  const column = (name) => run.probes.map((probe) => probe[name]);
  const epochs = run.probes.map((probe) => at(run.metrics.step, run.metrics.epoch, probe.step));
  return { step: column('step'), epoch: epochs, result: column('result'), random_encoder: column('random_encoder'), chance: column('chance') };
}
function at(steps = [], values = [], step) {
  for (let i = 0; i < steps.length; i++) if (steps[i] >= step) return values[i];
  return values.length ? values[values.length - 1] : null;
}
function hours(run, steps) {
  if (!run.hoursByStep) {
    let [total, before] = [0, null];
    const [times, all] = [run.metrics.time || [], run.metrics.step || []];
    const starts = new Set(run.environments.map((e) => at(all, all, e.step + 1)));
    run.hoursByStep = times.map((time, i) => {
      const from = starts.has(all[i]) ? startBefore(run, time) : before;
      total += from === null ? 0 : Math.max(0, time - from);
      before = time;
      return total / 3600;
    });
  }
  return steps.map((step) => at(run.metrics.step, run.hoursByStep, step));
}
function startBefore(run, time) {
  return run.environments.map((e) => e.time).filter((t) => t <= time).pop() ?? null;
}
// A moving average that forgets, freed of the weight of its start.
function smoothed(line) {
  let [sum, weight] = [0, 0];
  return line.map(([x, y, step]) => {
    sum = state.smoothing * sum + (1 - state.smoothing) * y;
    weight = state.smoothing * weight + (1 - state.smoothing);
    return [x, sum / weight, step];
  });
}
function ticks(low, high, count) {
  const rough = ((high - low) / count) || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= rough);
  const made = [];
  for (let v = Math.ceil(low / step) * step; v <= high + step * 1e-9; v += step) made.push(Math.abs(v) < step * 1e-9 ? 0 : v);
  return made;
}
function logTicks(low, high) {
  const made = [];
  for (let p = Math.ceil(Math.log10(low) - 1e-9); p <= Math.log10(high) + 1e-9; p++) made.push(10 ** p);
  return made.length >= 2 ? made : ticks(low, high, 5).filter((v) => v > 0);
}

const HEIGHT = 220, LEFT = 52, RIGHT = 10, TOP = 10, BOTTOM = 24;
class Chart {
  constructor(chart) {
    this.chart = chart;
    this.log = Boolean(chart.log);
    this.plot = element('div', { class: 'plot' });
    this.tip = element('div', { class: 'tip', hidden: '' });
    const log = element('button', { type: 'button', 'aria-pressed': this.log, title: 'logarithmic', onclick: () => {
      this.log = !this.log;
      log.setAttribute('aria-pressed', this.log);
      this.draw();
    } }, 'log');
    const key = element('div', { class: 'key' });
    if (chart.lines.length > 1) for (const [, name, dash] of chart.lines) {
      const sample = vector('svg', { viewBox: '0 0 32 10' });
      sample.append(vector('line', { x1: 0, x2: 32, y1: 5, y2: 5, stroke: 'currentColor', 'stroke-width': 2.5, 'stroke-dasharray': dash }));
      const label = element('span');
      label.append(sample, ' ' + name);
      key.append(label);
    }
    this.card = element('div', { class: 'card' }, element('div', { class: 'head' }, element('h3', {}, chart.title), log), key, this.plot);
    this.plot.addEventListener('pointermove', (event) => this.move(event));
    this.plot.addEventListener('pointerdown', (event) => { if (event.button === 0) { this.from = this.x(event); this.plot.setPointerCapture(event.pointerId); } });
    this.plot.addEventListener('pointerup', (event) => this.release(event));
    this.plot.addEventListener('pointercancel', () => { this.from = null; this.band?.remove(); });
    this.plot.addEventListener('pointerleave', () => { this.tip.hidden = true; this.cursor?.remove(); });
    this.plot.addEventListener('dblclick', () => zoomTo(null));
  }
  draw() {
    this.lines = [];
    runs.forEach((run, i) => {
      if (state.hidden.has(i)) return;
      for (const [name, label, dash] of this.chart.lines) {
        const line = points(run, this.chart, name).filter((p) => !this.log || p[1] > 0);
        const smooth = state.smoothing > 0 && !this.chart.probes;
        if (line.length) this.lines.push({ run: i, label, dash, line: smooth ? smoothed(line) : line, raw: smooth ? line : null });
      }
    });
    const shown = this.lines.flatMap(({ line }) => line).filter((p) => !state.zoom || (p[0] >= state.zoom[0] && p[0] <= state.zoom[1]));
    this.card.hidden = !this.lines.length;
    if (this.card.hidden) return;
    this.width = Math.max(200, this.plot.clientWidth || 400);
    const extent = (values) => values.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]);
    this.xs = state.zoom || extent(this.lines.flatMap(({ line }) => line).map((p) => p[0]));
    let ys = shown.length ? extent(shown.map((p) => p[1])) : [0, 1];
    if (this.chart.level !== undefined && !state.zoom) ys = [Math.min(ys[0], this.chart.level), Math.max(ys[1], this.chart.level)];
    if (this.xs[0] === this.xs[1]) this.xs = [this.xs[0] - 0.5, this.xs[1] + 0.5];
    const pad = this.log ? 0 : (ys[1] - ys[0]) * 0.05 || Math.abs(ys[0]) * 0.05 || 0.5;
    this.ys = this.log ? [ys[0] / 1.1, ys[1] * 1.1] : [ys[0] - pad, ys[1] + pad];
    const svg = vector('svg', { viewBox: `0 0 ${this.width} ${HEIGHT}`, role: 'img', 'aria-label': this.chart.title });
    const right = this.width - RIGHT;
    for (const y of this.log ? logTicks(...this.ys) : ticks(...this.ys, 5)) {
      svg.append(vector('line', { class: 'grid', x1: LEFT, x2: right, y1: this.py(y), y2: this.py(y) }));
      svg.append(vector('text', { x: LEFT - 6, y: this.py(y) + 4, 'text-anchor': 'end' }, tick(y)));
    }
    for (const x of ticks(...this.xs, Math.max(2, Math.floor(this.width / 90)))) {
      svg.append(vector('text', { x: this.px(x), y: HEIGHT - 6, 'text-anchor': 'middle' }, tick(x)));
    }
    const id = `clip-${CHARTS.indexOf(this.chart)}`;
    const clip = vector('clipPath', { id });
    clip.append(vector('rect', { x: LEFT, y: TOP - 4, width: right - LEFT, height: HEIGHT - TOP - BOTTOM + 8 }));
    const group = vector('g', { 'clip-path': `url(#${id})` });
    if (this.chart.level !== undefined) group.append(vector('line', { class: 'cursor', x1: LEFT, x2: right, y1: this.py(this.chart.level), y2: this.py(this.chart.level) }));
    const trace = (line) => line.map((p, i) => `${i ? 'L' : 'M'}${this.px(p[0]).toFixed(1)} ${this.py(p[1]).toFixed(1)}`).join('');
    for (const { run, raw } of this.lines) {
      if (raw) group.append(vector('path', { d: trace(raw), fill: 'none', stroke: color(run), 'stroke-width': 1, opacity: 0.22 }));
    }
    for (const { run, dash, line } of this.lines) {
      group.append(vector('path', { d: trace(line), fill: 'none', stroke: color(run), 'stroke-width': dash ? 1.4 : 1.8, 'stroke-dasharray': dash, 'stroke-linejoin': 'round', class: 'curve' }));
      if (line.length < 40 && !dash) for (const p of line) group.append(vector('circle', { cx: this.px(p[0]), cy: this.py(p[1]), r: 2.6, fill: color(run) }));
    }
    svg.append(clip, group);
    this.svg = svg;
    this.plot.replaceChildren(svg, this.tip);
  }
  px(x) { return LEFT + ((x - this.xs[0]) / (this.xs[1] - this.xs[0])) * (this.width - LEFT - RIGHT); }
  py(y) {
    const scale = this.log ? Math.log : (v) => v;
    const [low, high] = this.ys.map(scale);
    return HEIGHT - BOTTOM - ((scale(y) - low) / (high - low)) * (HEIGHT - TOP - BOTTOM);
  }
  x(event) {
    const inside = (event.clientX - this.plot.getBoundingClientRect().left) * (this.width / (this.plot.clientWidth || this.width));
    const share = (inside - LEFT) / (this.width - LEFT - RIGHT);
    return this.xs[0] + Math.min(1, Math.max(0, share)) * (this.xs[1] - this.xs[0]);
  }
  move(event) {
    if (!this.svg) return;
    const x = this.x(event);
    if (this.from !== null && this.from !== undefined) {
      const [a, b] = [this.px(this.from), this.px(x)].sort((p, q) => p - q);
      this.band?.remove();
      this.band = vector('rect', { class: 'band', x: a, y: TOP, width: b - a, height: HEIGHT - TOP - BOTTOM });
      this.svg.append(this.band);
    }
    const near = this.lines.map(({ run, label, line }) => ({ run, label, point: nearest(line, x) }));
    const closest = near.reduce((a, b) => (Math.abs(b.point[0] - x) < Math.abs(a.point[0] - x) ? b : a)).point;
    this.cursor?.remove();
    this.cursor = vector('line', { class: 'cursor', x1: this.px(closest[0]), x2: this.px(closest[0]), y1: TOP, y2: HEIGHT - BOTTOM });
    this.svg.append(this.cursor);
    const rows = near.map(({ run, label, point }) => element('tr', {},
      element('td', {}, element('span', { class: 'swatch', style: `background:${color(run)}` })),
      element('td', {}, (runs.length > 1 ? runs[run].name : '') + (this.chart.lines.length > 1 ? ` ${label}` : '')),
      element('td', {}, number(point[1]))));
    const unit = state.axis === 'hours' ? `${number(closest[0])} hours` : `${state.axis} ${number(closest[0])}`;
    this.tip.replaceChildren(unit, element('table', {}, ...rows));
    this.tip.hidden = false;
    const onLeft = this.px(closest[0]) > this.width / 2;
    this.tip.style.left = onLeft ? `${LEFT}px` : 'auto';
    this.tip.style.right = onLeft ? 'auto' : `${RIGHT}px`;
  }
  release(event) {
    const [from, to] = [this.from, this.x(event)];
    this.from = null;
    this.band?.remove();
    if (from === null || from === undefined) return;
    if (Math.abs(this.px(to) - this.px(from)) > 8) zoomTo([Math.min(from, to), Math.max(from, to)]);
    else if (event.pointerType === 'touch') {
      if (event.timeStamp - (this.tapped || -1e9) < 350) zoomTo(null);
      this.tapped = event.timeStamp;
    }
  }
}
function nearest(line, x) {
  let [low, high] = [0, line.length - 1];
  while (high - low > 1) { const middle = (low + high) >> 1; if (line[middle][0] < x) low = middle; else high = middle; }
  return Math.abs(line[low][0] - x) <= Math.abs(line[high][0] - x) ? line[low] : line[high];
}
function zoomTo(range) {
  state.zoom = range;
  document.body.dataset.zoom = range ? 'in' : 'out';
  drawAll();
}
const charts = CHARTS.map((chart) => new Chart(chart));
function drawAll() { for (const chart of charts) chart.draw(); }

function table(id, head, rows) {
  const cell = (kind, value, i) => element(kind, { class: typeof value === 'number' || (kind === 'th' && rows.some((r) => typeof r[i] === 'number')) ? 'number' : '' }, value instanceof Node ? value : typeof value === 'number' ? number(value) : value ?? '–');
  byId(id).replaceChildren(
    element('thead', {}, element('tr', {}, ...head.map((v, i) => cell('th', v, i)))),
    element('tbody', {}, ...rows.map((row) => element('tr', {}, ...row.map((v, i) => cell('td', v, i))))));
}
function runName(i) {
  const made = element('span', {}, element('span', { class: 'swatch', style: `background:${color(i)}` }), ' ' + runs[i].name);
  return made;
}
function glance() {
  table('glance-table', ['run', 'steps', 'epochs', 'masked loss', '÷ mean', '÷ copy', 'contrastive / ln B', 'kNN top-1', 'clips/s', 'skipped steps', 'time'], runs.map((run, i) => {
    const m = run.metrics;
    const [mae, mean, copy] = [last(m.mae), last(m.mae_of_mean), last(m.mae_of_copy)];
    const time = m.step && m.step.length ? last(hours(run, m.step)) * 3600 : NaN;
    const probe = run.probes.length ? run.probes[run.probes.length - 1].result : null;
    const share = (a, b) => (a === null || !b ? null : a / b);
    return [runName(i), last(m.step), last(m.epoch), mae, share(mae, mean), share(mae, copy), last(m.contrastive_relative), probe, last(m.clips_per_second), last(m.skipped_steps), duration(time)];
  }));
}
function legend() {
  byId('legend').replaceChildren(...runs.map((run, i) => {
    const toggle = element('button', { type: 'button', 'aria-pressed': true, title: run.path, onclick: () => {
      if (state.hidden.has(i)) state.hidden.delete(i); else state.hidden.add(i);
      toggle.setAttribute('aria-pressed', !state.hidden.has(i));
      drawAll();
    } }, element('span', { class: 'swatch', style: `background:${color(i)}` }), run.name);
    return toggle;
  }));
}
function galleries() {
  const made = runs.map((run, i) => ({ run, i })).filter(({ run }) => run.pictures.length).map(({ run, i }) => {
    const images = element('div', { class: 'images' });
    const label = element('span', {});
    const slider = element('input', { type: 'range', min: 0, max: run.pictures.length - 1, step: 1, value: run.pictures.length - 1, 'aria-label': `step of ${run.name}` });
    const show = () => {
      const moment = run.pictures[Number(slider.value)];
      label.textContent = `step ${moment.step}`;
      images.replaceChildren(...moment.images.map((src, clip) => element('img', { src, alt: `clip ${clip} at step ${moment.step}: original, visible part, reconstruction` })));
    };
    slider.addEventListener('input', show);
    let timer = null;
    const play = element('button', { type: 'button', title: 'play', onclick: () => {
      if (timer) { clearInterval(timer); timer = null; play.textContent = '▶'; return; }
      play.textContent = '❚❚';
      timer = setInterval(() => { slider.value = (Number(slider.value) + 1) % run.pictures.length; show(); }, 700);
    } }, '▶');
    show();
    const bar = element('div', { class: 'bar' }, runName(i), label);
    if (run.pictures.length > 1) bar.append(play, slider);
    return element('div', { class: 'gallery card' }, bar, images);
  });
  byId('galleries').replaceChildren(...made);
  byId('pictures').hidden = !made.length;
}
function probes() {
  const rows = runs.flatMap((run, i) => run.probes.map((p) => [runName(i), p.step, p.name, p.result, `${number(p.interval[0])} – ${number(p.interval[1])}`, p.random_encoder, p.chance]));
  table('probe-table', ['run', 'step', 'probe', 'result', '95 % interval', 'random encoder', 'chance'], rows);
  byId('probes').hidden = !rows.length;
}
function configuration() {
  const single = runs.length === 1;
  byId('config-title').textContent = single ? 'Configuration, where it is not the default' : 'Configuration, where the runs differ';
  const rows = data.differences.map((d) => [element('code', {}, d.key), element('code', {}, d.default ?? '–'), ...d.values.map((v) => element('code', { class: v === d.default ? '' : 'changed' }, v ?? '–'))]);
  table('config-table', ['key', 'default', ...runs.map((_, i) => runName(i))], rows.length ? rows : [['no difference', '', ...runs.map(() => '')]]);
  byId('full-config').replaceChildren(...runs.map((run, i) => {
    const body = Object.entries(run.config).map(([key, value]) => element('tr', {}, element('td', {}, element('code', {}, key)), element('td', {}, element('code', {}, value))));
    return element('details', {}, element('summary', {}, `every key of ${run.name}`), element('div', { class: 'scroll' }, element('table', {}, element('tbody', {}, ...body))));
  }));
}
function environment() {
  const rows = runs.flatMap((run, i) => run.environments.map((e) => [runName(i), e.step, date(e.time), `${e.version} (${e.build})`, e.system, `${e.processor}, ${e.cores} threads`, e.memory_gib ? `${e.memory_gib.toFixed(0)} GiB` : '–', e.peak_gflops, element('code', {}, e.command)]));
  table('environment-table', ['run', 'from step', 'started', 'tgm', 'system', 'processor', 'memory', 'GFLOP/s', 'command'], rows);
  byId('environment').hidden = !rows.length;
}
function currentTheme() {
  return document.documentElement.dataset.theme || (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light');
}
byId('theme').addEventListener('click', () => { document.documentElement.dataset.theme = currentTheme() === 'dark' ? 'light' : 'dark'; });
byId('x-axis').addEventListener('change', (event) => { state.axis = event.target.value; zoomTo(null); });
byId('smoothing').addEventListener('input', (event) => { state.smoothing = Number(event.target.value); drawAll(); });
// Curves are drawn for the width that they have, whenever that changes.
let drawnWidth = 0;
new ResizeObserver(() => {
  const width = byId('charts').clientWidth;
  if (width !== drawnWidth) { drawnWidth = width; requestAnimationFrame(drawAll); }
}).observe(byId('charts'));

document.title = `tgm: ${runs.map((run) => run.name).join(', ')}`;
byId('summary').textContent = `${runs.length} run${runs.length > 1 ? 's' : ''}, ${date(data.generated)}`;
byId('footer').textContent = `Written by tgm ${data.version}. Curves of more than 1,500 steps show means.`;
byId('charts').append(...charts.map((chart) => chart.card));
glance(); legend(); drawAll(); galleries(); probes(); configuration(); environment();
document.body.dataset.ready = 'yes';
