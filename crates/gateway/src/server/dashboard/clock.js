// The tables of jobs and of breakers: read again every few seconds, and not there without any.

import { as, visible } from './format.js';

const REFRESH_MS = 2_000;
const ANSWER_MS = 10_000;
/** Groups that are shown, the worst first; /v1/groups has all of them. */
const GROUPS = 25;
const BADNESS = { closed: 0, 'half-open': 1, open: 2 };

const byId = (id) => document.getElementById(id);

export function clockTables() {
  follow('/v1/jobs', (list) => show('job', list.jobs.map(jobCells)));
  follow('/v1/groups', (list) => {
    const groups = list.groups.toSorted((a, b) => BADNESS[b.state] - BADNESS[a.state] || b.refused - a.refused);
    show('group', groups.slice(0, GROUPS).map(groupCells));
    byId('groups-note').textContent = groups.length > GROUPS ? `${as.count(groups.length)} groups; the worst ${GROUPS} are shown.` : '';
  });
}

/** Reads `path` again and again while somebody looks. */
function follow(path, take) {
  let reading = false;
  async function read() {
    if (reading || document.hidden) return;
    reading = true;
    try {
      const response = await fetch(path, { signal: AbortSignal.timeout(ANSWER_MS) });
      if (response.ok) take(await response.json());
    } catch {
      // The stream's state says that the gateway is away.
    } finally {
      reading = false;
    }
  }
  setInterval(read, REFRESH_MS);
  document.addEventListener('visibilitychange', read);
  read();
}

/** Names come from files and from devices: they go to the page as text and nothing else. */
function show(what, rows) {
  const body = byId(`${what}-rows`);
  byId(`${what}s`).hidden = rows.length === 0;
  while (body.children.length > rows.length) body.lastElementChild.remove();
  rows.forEach((cells, i) => {
    const row = body.children[i] ?? body.appendChild(makeRow(cells));
    cells.forEach(({ text, state }, at) => {
      const place = row.children[at].firstElementChild;
      if (place.textContent !== text) place.textContent = text;
      if (state) place.dataset.state = state;
    });
  });
}

function makeRow(cells) {
  const row = document.createElement('tr');
  row.setAttribute('role', 'row');
  for (const { kind, label, state } of cells) {
    const td = document.createElement('td');
    td.setAttribute('role', 'cell');
    td.className = kind ?? '';
    if (label) td.dataset.label = label;
    const place = document.createElement('span');
    if (state) place.className = 'state';
    td.append(place);
    row.append(td);
  }
  return row;
}

function jobCells(job) {
  const last = job.history.at(-1);
  const commands = job.last ? counts(job.last.commands) : '–';
  const waiting = job.last?.waiting > 0 ? `; ${as.count(job.last.waiting)} waited for` : '';
  const ended = last ? `${last.fire_time} ${last.outcome}` : '–';
  return [
    { text: visible(job.name), kind: 'id' },
    { text: visible(job.devices) },
    { text: job.next ?? job.state, label: 'next' },
    { text: job.running > 0 ? `${job.last?.fire_time ?? ''} runs` : ended, label: 'last' },
    { text: commands + waiting, label: 'commands' },
    { text: counts(job.firings), label: 'firings' },
  ];
}

function groupCells(group) {
  return [
    { text: visible(group.group), kind: 'id' },
    { text: group.state, state: group.state },
    { text: `${as.count(group.failures)} of ${as.count(group.calls)}`, kind: 'num', label: 'failed' },
    { text: as.count(group.refused), kind: 'num', label: 'refused' },
    { text: as.count(group.opened), kind: 'num', label: 'opened' },
  ];
}

/** `{"done":2,"timed-out-sent":1}` as words. */
function counts(of) {
  const words = Object.entries(of).map(([name, count]) => `${as.count(count)} ${name}`);
  return words.length > 0 ? words.join(', ') : '–';
}
