// Values as words. Whatever was not measured is a dash: never NaN, never a made-up zero.

const NONE = '–';

const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const tenths = new Intl.NumberFormat('en', { maximumFractionDigits: 1 });
const hundredths = new Intl.NumberFormat('en', { maximumFractionDigits: 2 });
const oneTenth = new Intl.NumberFormat('en', { minimumFractionDigits: 1, maximumFractionDigits: 1 });

const given = (write) => (value) => (Number.isFinite(value) ? write(value) : NONE);

/** About three digits: 0.04, 3.1, 42, 1,234. */
function short(value) {
  const size = Math.abs(value);
  return (size < 1 ? hundredths : size < 10 ? tenths : whole).format(value);
}

/** Two digits at least, so that a time that changes does not also change its width. */
function us(value) {
  if (value < 1000) return `${whole.format(value)} µs`;
  const [scaled, unit] = value < 1e6 ? [value / 1e3, 'ms'] : [value / 1e6, 's'];
  return `${(scaled < 10 ? oneTenth : whole).format(scaled)} ${unit}`;
}

function bytes(value) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? whole.format(value) : short(value)} ${units[unit]}`;
}

/** A length of time in its two largest units. */
function span(seconds) {
  const s = Math.floor(seconds);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor(s / 60) % 60} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor(s / 3600) % 24} h`;
}

/** The ways to write a value; the page names them in `data-as`. */
export const as = {
  count: given((value) => whole.format(value)),
  rate: given(short),
  us: given(us),
  ms: given((value) => us(value * 1000)),
  // Devices report whole milliseconds: anything below one is no more than that.
  wholeMs: given((value) => (value < 1 ? '< 1 ms' : us(value * 1000))),
  bytes: given(bytes),
  span: given(span),
  ago: given((ms) => (ms < 60_000 ? `${oneTenth.format(ms / 1000)} s` : span(ms / 1000))),
  percent: given((value) => `${whole.format(value)} %`),
  phi: given((value) => oneTenth.format(value)),
  text: (value) => (value === null || value === undefined ? NONE : String(value)),
};

/** The value at `path` ("store.keys"); undefined where there is none. */
export function at(value, path) {
  return path.split('.').reduce((inner, name) => inner?.[name], value);
}

/**
 * Indents JSON text without reading its values: no digit of a number changes.
 * Text that is no JSON keeps its shape.
 */
export function pretty(text) {
  try {
    JSON.parse(text);
  } catch {
    return visible(text);
  }
  const tokens = text.match(/"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/g) ?? [];
  let depth = 0;
  let out = '';
  const line = () => `\n${'  '.repeat(Math.min(depth, 32))}`;
  tokens.forEach((token, i) => {
    if (token === '{' || token === '[') {
      depth += 1;
      const empty = tokens[i + 1] === '}' || tokens[i + 1] === ']';
      out += token + (empty ? '' : line());
    } else if (token === '}' || token === ']') {
      depth -= 1;
      const empty = tokens[i - 1] === '{' || tokens[i - 1] === '[';
      out += (empty ? '' : line()) + token;
    } else if (token === ',') {
      out += token + line();
    } else {
      out += token === ':' ? ': ' : token;
    }
  });
  return visible(out);
}

/**
 * Text from a stranger with its invisible characters spelled out: a right-to-left override could
 * make one device look like another. In JSON the spelling means the same.
 */
export function visible(text) {
  const spell = (character) => character.replace(/[^]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`);
  return text.replace(/[\p{Cf}\p{Zl}\p{Zp}]/gu, spell);
}

/** An answer's bytes as text: as they are when they are UTF-8, in hexadecimal when not. */
export function readable(buffer) {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(buffer);
  } catch {
    return Array.from(new Uint8Array(buffer), (byte) => byte.toString(16).padStart(2, '0')).join(' ');
  }
}

/**
 * The largest `after` that still shows `id`, in the order of Unicode code points.
 * Sixteen times the last code point is as long as a device id may be, so no id hides behind it.
 */
export function justBefore(id) {
  const points = Array.from(id);
  const last = points.pop()?.codePointAt(0) ?? 0;
  const start = points.join('');
  if (last === 0) return start;
  const before = last === 0xe000 ? 0xd7ff : last - 1;
  return start + String.fromCodePoint(before) + '\u{10ffff}'.repeat(16);
}
