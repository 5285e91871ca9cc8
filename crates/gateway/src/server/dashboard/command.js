// The form that sends a command, and what came of it.

import { as, pretty, readable, visible } from './format.js';

const byId = (id) => document.getElementById(id);

/** Where the form stands below the table instead of beside it. */
const STACKED = '(max-width: 61.99rem)';

/** Returns `choose(id)`, which puts a device into the form and brings the form into view. */
export function commandForm(onDevice) {
  const field = { device: byId('device'), payload: byId('payload'), key: byId('key'), timeout: byId('timeout') };
  let keyIsOurs = true;
  let sending = null;

  const renewKey = () => {
    field.key.value = randomKey();
    keyIsOurs = true;
    check('key');
  };

  /** Marks a field and says what is wrong with it; true when nothing is. */
  function check(name) {
    const wrong = CHECKS[name](field[name].value);
    byId(`${name}-error`).textContent = wrong;
    if (wrong === '') field[name].removeAttribute('aria-invalid');
    else field[name].setAttribute('aria-invalid', 'true');
    return wrong === '';
  }

  for (const name of Object.keys(CHECKS)) {
    // Mistakes show when a field is left, and go as soon as they are mended.
    field[name].addEventListener('change', () => check(name));
    field[name].addEventListener('input', () => field[name].hasAttribute('aria-invalid') && check(name));
  }
  field.payload.addEventListener('input', () => check('payload'));
  field.key.addEventListener('input', () => (keyIsOurs = false));
  field.device.addEventListener('input', () => onDevice(field.device.value));
  byId('new-key').addEventListener('click', renewKey);
  byId('stop-waiting').addEventListener('click', () => sending?.abort());

  byId('command-form').addEventListener('submit', async (event) => {
    event.preventDefault();
    if (sending) return;
    const wrong = Object.keys(CHECKS).filter((name) => !check(name));
    if (wrong.length > 0) {
      field[wrong[0]].focus();
      return;
    }
    sending = new AbortController();
    busy(true);
    const started = performance.now();
    try {
      const answer = await send(field, sending.signal);
      show(answer, performance.now() - started);
    } catch (error) {
      show(broken(error), performance.now() - started);
    } finally {
      sending = null;
      busy(false);
    }
  });

  renewKey();
  return (id) => {
    // A key belongs to one device's command; one that somebody typed stays for them to judge.
    if (field.device.value !== id && keyIsOurs) renewKey();
    field.device.value = id;
    check('device');
    onDevice(id);
    byId('command').scrollIntoView({ block: matchMedia(STACKED).matches ? 'start' : 'nearest' });
    // A finger gets no keyboard that it did not ask for.
    const target = matchMedia('(pointer: coarse)').matches ? byId('command') : field.payload;
    target.focus({ preventScroll: true });
  };
}

const CHECKS = {
  device(id) {
    if (id === '') return 'Name a device, or choose one in the table.';
    if (id === '.' || id === '..') return 'Browsers cannot send to this id: in an address it means another place.';
    if (/\p{Cs}/u.test(id)) return 'This id ends inside a character.';
    return new TextEncoder().encode(id).length > 64 ? 'A device id has at most 64 bytes.' : '';
  },
  payload(text) {
    try {
      JSON.parse(text);
      return '';
    } catch (error) {
      return text.trim() === '' ? 'The payload is empty; the smallest JSON is null.' : `Not JSON: ${error.message}`;
    }
  },
  key(key) {
    if (key === '') return 'A command needs a key; “New key” makes one.';
    return /^[\x21-\x7e]{1,255}$/.test(key) ? '' : 'A key has 1 to 255 visible ASCII characters and no spaces.';
  },
  timeout(text) {
    return /^[1-9]\d*$/.test(text) ? '' : 'A whole number of milliseconds, at least 1.';
  },
};

async function send(field, signal) {
  const response = await fetch(`/v1/devices/${encodeURIComponent(field.device.value)}/commands`, {
    method: 'POST',
    headers: {
      'Content-Type': 'application/json',
      'Idempotency-Key': field.key.value,
      'Mainstay-Timeout-Ms': field.timeout.value,
    },
    // The text itself: reading and writing it again could change its numbers.
    body: field.payload.value,
    cache: 'no-store',
    signal,
  });
  const text = readable(await response.arrayBuffer());
  const replayed = response.headers.get('Idempotency-Replayed') === 'true';
  const status = `${response.status} ${response.statusText}`.trim();
  const type = response.headers.get('Content-Type') ?? '';
  if (type.startsWith('application/problem+json')) {
    return { status, good: false, replayed, words: inWords(JSON.parse(text), response), body: '' };
  }
  return { status, good: response.ok, replayed, words: '', body: pretty(text) || '(no bytes)' };
}

function inWords(problem, response) {
  const where = problem.line ? ` (line ${problem.line}, column ${problem.column ?? '?'})` : '';
  const retry = response.headers.get('Retry-After');
  const again = retry ? ` Try again in ${retry} s.` : '';
  return visible(`${problem.title}: ${problem.detail}${where}.${again} [${problem.code}]`);
}

function broken(error) {
  const words = error.name === 'AbortError'
    ? 'You stopped waiting. That cancels nothing: if the command was sent it still runs. Send again with the same key to hear its result.'
    : `The gateway did not answer (${error.message}). Whether the command runs is not known; send again with the same key to find out.`;
  return { status: 'no answer', good: false, replayed: false, words, body: '' };
}

function show(answer, took_ms) {
  const status = byId('result-status');
  status.textContent = answer.status;
  status.className = `chip ${answer.good ? 'good' : 'bad'}`;
  const kind = byId('result-kind');
  kind.hidden = !answer.good && !answer.replayed;
  kind.textContent = answer.replayed ? 'replayed' : 'executed now';
  kind.className = `chip ${answer.replayed ? 'warn' : ''}`;
  byId('result-time').textContent = `took ${as.ms(took_ms)}`;
  byId('result-words').textContent = answer.words;
  byId('result-body').textContent = answer.body;
  byId('result').hidden = false;
  if (matchMedia(STACKED).matches) byId('result').scrollIntoView({ block: 'nearest' });
}

function busy(is) {
  byId('send').disabled = is;
  byId('send').textContent = is ? 'Waiting…' : 'Send';
  byId('stop-waiting').hidden = !is;
  byId('command-form').setAttribute('aria-busy', String(is));
}

/** `randomUUID` is missing where the page comes from another machine without TLS; this never is. */
function randomKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(8));
  return `page-${Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')}`;
}
