// The event stream: connects, connects again, and says which of the two is going on.

/** Ticks come once a second; after this long without one the connection is given up. */
const SILENCE_MS = 5_000;
const RETRY_MS = [500, 1_000, 2_000, 5_000];
/** A page in the background gives its place among the listeners back after this long. */
const BACKGROUND_MS = 60_000;

/** Calls `onTick(tick)`, and `onState('connecting' | 'live' | 'lost' | 'paused')` when that changes. */
export function listen(onTick, onState) {
  let source = null;
  let failures = 0;
  let timer = 0;
  let state = '';

  const say = (next) => {
    if (state !== next) onState((state = next));
  };
  const wait = (ms, then) => {
    clearTimeout(timer);
    timer = setTimeout(then, ms);
  };
  const close = () => {
    clearTimeout(timer);
    source?.close();
    source = null;
  };
  const open = () => {
    close();
    const opened = new EventSource('/v1/events');
    source = opened;
    opened.addEventListener('tick', (event) => {
      if (source !== opened) return;
      failures = 0;
      wait(SILENCE_MS, lose);
      say('live');
      onTick(JSON.parse(event.data));
    });
    // The browser's own retry never comes after an HTTP error, so this one stands in for it always.
    opened.addEventListener('error', () => source === opened && lose());
    wait(SILENCE_MS, lose);
  };
  const lose = () => {
    close();
    say('lost');
    wait(RETRY_MS[Math.min(failures, RETRY_MS.length - 1)], open);
    failures += 1;
  };
  const pause = () => {
    close();
    say('paused');
  };

  let hidden = 0;
  document.addEventListener('visibilitychange', () => {
    clearTimeout(hidden);
    if (document.hidden) hidden = setTimeout(pause, BACKGROUND_MS);
    else if (source === null) open();
  });
  window.addEventListener('pagehide', close);
  window.addEventListener('pageshow', (event) => event.persisted && open());
  say('connecting');
  open();
}
