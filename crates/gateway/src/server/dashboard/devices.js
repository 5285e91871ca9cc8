// The table of devices: one page of the list, read again every few seconds while somebody sees it.

import { as, justBefore, visible } from './format.js';

const ROWS = 25;
const REFRESH_MS = 2_000;
const ANSWER_MS = 10_000;
const TYPING_MS = 200;

const byId = (id) => document.getElementById(id);

/** Calls `onChoose(id)` when a device is clicked. Returns `mark(id)`, which shows the chosen one. */
export function deviceTable(onChoose) {
  const body = byId('device-rows');
  const search = byId('search');
  const rows = new Map();
  /** Where each page up to the shown one starts: the value of `after`. */
  let pages = [''];
  let next = null;
  let reading = null;
  let inView = true;
  let chosen = '';

  async function read() {
    reading?.abort();
    const mine = new AbortController();
    reading = mine;
    const late = setTimeout(() => mine.abort(), ANSWER_MS);
    try {
      const query = new URLSearchParams({ limit: ROWS, after: pages.at(-1) });
      const response = await fetch(`/v1/devices?${query}`, { signal: mine.signal });
      if (!response.ok) throw new Error(`status ${response.status}`);
      show(await response.json());
    } catch (error) {
      // Whoever aborted has asked again; the timer has not.
      if (reading === mine) say(`The list cannot be read (${error.message}); what it shows is old.`);
    } finally {
      clearTimeout(late);
      if (reading === mine) reading = null;
    }
  }

  function show(list) {
    next = list.next;
    const wanted = new Set(list.devices.map((device) => device.id));
    for (const [id, row] of rows) {
      if (!wanted.has(id)) {
        row.element.remove();
        rows.delete(id);
      }
    }
    list.devices.forEach((device, i) => {
      let row = rows.get(device.id);
      if (!row) rows.set(device.id, (row = makeRow(device.id)));
      fill(row, device);
      row.element.dataset.chosen = device.id === chosen;
      // A row that stays where it is keeps its focus.
      if (body.children[i] !== row.element) body.insertBefore(row.element, body.children[i] ?? null);
    });
    byId('page-back').disabled = pages.length === 1;
    byId('page-next').disabled = next === null;
    byId('page-count').textContent = `${as.count(list.devices.length)} of ${as.count(list.known)} known`;
    say(remark(list));
  }

  function remark(list) {
    if (list.known === 0) return 'No device has said HELLO yet. “mainstay swarm --connect ADDRESS” brings some.';
    const text = search.value;
    if (text === '' || pages.length > 2 || list.devices[0]?.id.startsWith(text)) return '';
    if (list.devices.length === 0) return `No id starts with “${visible(text)}”, and none comes after it.`;
    return `No id starts with “${visible(text)}”; the list goes on behind it.`;
  }

  const turnTo = (turned) => {
    pages = turned;
    read();
  };
  byId('page-next').addEventListener('click', () => next !== null && turnTo([...pages, next]));
  byId('page-back').addEventListener('click', () => pages.length > 1 && turnTo(pages.slice(0, -1)));

  const jump = () => turnTo(search.value === '' ? [''] : ['', justBefore(search.value)]);
  let typing = 0;
  search.addEventListener('input', () => {
    clearTimeout(typing);
    typing = setTimeout(jump, TYPING_MS);
  });
  byId('search-form').addEventListener('submit', (event) => {
    event.preventDefault();
    clearTimeout(typing);
    jump();
  });

  body.addEventListener('click', (event) => {
    const row = event.target.closest('tr');
    // Somebody who selects text does not choose.
    if (row && getSelection().isCollapsed) onChoose(row.deviceId);
  });

  const refresh = () => !document.hidden && inView && reading === null && read();
  setInterval(refresh, REFRESH_MS);
  document.addEventListener('visibilitychange', refresh);
  new IntersectionObserver(([entry]) => {
    inView = entry.isIntersecting;
    refresh();
  }).observe(byId('devices'));
  read();

  return (id) => {
    chosen = id;
    for (const row of rows.values()) row.element.dataset.chosen = row.element.deviceId === id;
  };
}

function say(text) {
  const note = byId('devices-note');
  if (note.textContent !== text) note.textContent = text;
}

/** Ids are whatever a device says: they go to the page as text and nothing else. */
function makeRow(id) {
  const element = document.createElement('tr');
  element.setAttribute('role', 'row');
  element.deviceId = id;
  const cell = (kind, label) => {
    const td = document.createElement('td');
    td.setAttribute('role', 'cell');
    td.className = kind;
    if (label) td.dataset.label = label;
    element.append(td);
    return td;
  };
  const button = document.createElement('button');
  button.type = 'button';
  button.textContent = visible(id);
  cell('id').append(button);
  const state = document.createElement('span');
  state.className = 'state';
  cell('').append(state);
  const beat = cell('num', 'beat');
  const rtt = cell('num', 'rtt');
  const bar = document.createElement('span');
  bar.className = 'load';
  bar.setAttribute('aria-hidden', 'true');
  bar.append(document.createElement('i'));
  const load = document.createElement('span');
  cell('load-cell', 'load').append(bar, load);
  const phi = cell('num', 'φ');
  return { element, state, beat, rtt, bar, load, phi };
}

function fill(row, device) {
  row.state.textContent = device.state;
  row.state.dataset.state = device.state;
  const ago = as.ago(device.last_beat_ms_ago);
  row.beat.textContent = Number.isFinite(device.last_beat_ms_ago) ? `${ago} ago` : ago;
  // What an absent device said last is no news of it.
  const { rtt_ms, load_percent, phi } = device.state === 'online' || device.state === 'suspect' ? device : {};
  row.rtt.textContent = as.wholeMs(rtt_ms);
  row.load.textContent = as.percent(load_percent);
  row.bar.hidden = !Number.isFinite(load_percent);
  row.bar.style.setProperty('--load', `${Math.min(Math.max(load_percent ?? 0, 0), 100)}%`);
  row.phi.textContent = as.phi(phi);
}
