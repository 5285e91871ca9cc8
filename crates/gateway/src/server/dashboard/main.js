// Puts each tick's numbers where the page names them, and ties the parts together.

import { as, at } from './format.js';
import { Chart } from './charts.js';
import { listen } from './stream.js';
import { deviceTable } from './devices.js';
import { clockTables } from './clock.js';
import { commandForm } from './command.js';

const WORDS = { connecting: 'connecting…', live: 'live', lost: 'reconnecting…', paused: 'paused' };

const byId = (id) => document.getElementById(id);
const places = [...document.querySelectorAll('[data-value]')];
const charts = [...document.querySelectorAll('[data-chart]')].map((svg) => {
  return [svg.dataset.chart, new Chart(svg, svg.parentElement.querySelector('.peak'))];
});
let newest_ms = null;

function show(tick) {
  newest_ms = performance.now();
  for (const place of places) put(place, as[place.dataset.as](at(tick, place.dataset.value)));
  for (const [path, chart] of charts) chart.add(newest_ms, at(tick, path));
  byId('draining').hidden = !tick.draining;
  byId('disk-full').hidden = !tick.store?.disk_full;
  byId('poisoned').hidden = !tick.store?.poisoned;
}

function showState(state) {
  const pill = byId('stream-state');
  pill.dataset.state = state;
  put(pill, WORDS[state]);
  byId('now').dataset.stale = state !== 'live';
  showAge();
}

/** How old the numbers are, while they are not live. */
function showAge() {
  const live = byId('stream-state').dataset.state === 'live';
  const age = newest_ms === null || live ? '' : `numbers are ${as.span((performance.now() - newest_ms) / 1000)} old`;
  put(byId('stream-age'), age);
}

function put(place, text) {
  if (place.textContent !== text) place.textContent = text;
}

listen(show, showState);
setInterval(showAge, 1_000);
clockTables();

let mark = () => {};
const choose = commandForm((id) => mark(id));
mark = deviceTable(choose);
