// The dashboard in a real browser, in front of a real gateway.
//
//     node dashboard.mjs MAINSTAY-BINARY
//
// MAINSTAY_PLAYWRIGHT names the node_modules folder with playwright-core, MAINSTAY_CHROMIUM the browser.
// Prints a line for each thing that it checked; the exit code is 0 when all of them hold.
// With MAINSTAY_SCREENSHOTS=DIR it leaves pictures of the page there.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createRequire } from 'node:module';
import { chromiumOptions, Console, Process, until } from './support.mjs';
import { contrasts, overflowing } from './inpage.mjs';

const [binary] = process.argv.slice(2);
const { chromium } = createRequire(join(process.env.MAINSTAY_PLAYWRIGHT, 'x.js'))('playwright-core');

const DEMO = 120;
const EXTRA = 30;
/** Whatever a device may call itself: markup, path, query, quotes, and a right-to-left override. */
const HOSTILE = `<img src=x onerror=alert(1)>/../%41?#é"'\u202e`;
/** A row's text shows what cannot be seen. */
const SHOWN = HOSTILE.replace('\u202e', '\\u202e');

/** A job that fires every second, and breakers of which none opens. */
const CONFIG = `
[breaker]
separator = "-"
[[job]]
name = "<b>tick"
every = "1s"
command = { blink = 0 }
devices = "dev-0000*"
`;

const data = mkdtempSync(join(tmpdir(), 'mainstay-dashboard-'));
const closing = [() => rmSync(data, { recursive: true, force: true })];
let failed = false;
try {
  await run();
} catch (error) {
  failed = true;
  console.error(error);
}
for (const close of closing.reverse()) await close();
process.exit(failed ? 1 : 0);

async function run() {
  const config = join(data, 'gateway.toml');
  writeFileSync(config, CONFIG);
  const gateway = await startGateway(['--demo', String(DEMO), '--http', '127.0.0.1:0', '--config', config]);
  const browser = await chromium.launch(chromiumOptions());
  closing.push(() => browser.close());
  const seen = new Console();
  const desktop = await open(browser, seen, gateway.url, { colorScheme: 'light', viewport: { width: 1280, height: 900 } });
  await policy(desktop, gateway.url);
  await modules(desktop);
  await numbersMove(desktop, gateway);
  await sendsAndReplays(desktop);
  await saysWhatIsWrong(desktop);
  await findsDevices(desktop);
  await jobsAndGroups(desktop);
  await keyboard(desktop);
  for (const colorScheme of ['light', 'dark']) {
    await looks(browser, seen, gateway.url, colorScheme);
  }
  seen.assertQuiet();
  checked('no console message, no page error, no violation of the policy');
  await drainsAndReturns(desktop, gateway);
}

async function startGateway(args) {
  const gateway = new Process(binary, ['gateway', '--listen', '127.0.0.1:0', '--data', data, '--json', ...args]);
  closing.push(() => gateway.kill());
  const ready = JSON.parse(await gateway.line());
  assert.equal(ready.event, 'ready');
  return Object.assign(gateway, { url: `http://${ready.http}/`, http: ready.http, listen: ready.listen });
}

function startSwarm(gateway, devices, prefix) {
  const swarm = new Process(binary, ['swarm', '--connect', gateway.listen, '--devices', String(devices), '--beat', '1s', '--prefix', prefix, '--json']);
  closing.push(() => swarm.kill());
  return swarm;
}

async function open(browser, seen, url, options) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  await seen.watch(page);
  const response = await page.goto(url);
  assert.equal(response.status(), 200);
  page.policy = response.headers()['content-security-policy'];
  await until('the stream is live', async () => (await text(page, 'stream-state')) === 'live');
  return page;
}

async function policy(page, url) {
  assert.match(page.policy, /script-src 'self'/);
  assert.doesNotMatch(page.policy, /unsafe|\*|https?:/);
  const hosts = await page.evaluate(() => performance.getEntriesByType('resource').map((entry) => new URL(entry.name).host));
  assert.deepEqual([...new Set(hosts)], [new URL(url).host]);
  checked('everything comes from the gateway, under a policy without inline code');
}

/** The pure parts, where they run. */
async function modules(page) {
  const results = await page.evaluate(async () => {
    const { as, at, justBefore, pretty, readable, visible } = await import('/dashboard/format.js');
    const absent = [null, undefined, NaN, Infinity, 'x', {}];
    return {
      absent: ['count', 'rate', 'us', 'ms', 'wholeMs', 'bytes', 'span', 'ago', 'percent', 'phi'].flatMap((name) => absent.map(as[name])),
      noText: [as.text(null), as.text(undefined)],
      values: [as.count(12345), as.rate(0.125), as.us(1900), as.ms(0.25), as.wholeMs(0), as.bytes(16777216), as.ago(900), as.span(3720)],
      at: [at({ a: { b: 7 } }, 'a.b'), at({}, 'a.b.c')],
      pretty: [pretty('{"a":9007199254740993,"b":[1e400,{}],"c":"x, {y}: \\" z"}'), pretty('{nope')],
      visible: visible('a\u202eb\u{e0001}'),
      readable: [readable(new TextEncoder().encode('é').buffer), readable(new Uint8Array([255, 0]).buffer)],
      before: [justBefore('dev-7') < 'dev-7', justBefore('dev-7') > 'dev-6z', justBefore('')],
    };
  });
  assert.deepEqual(new Set([...results.absent, ...results.noText]), new Set(['–']));
  assert.deepEqual(results.values, ['12,345', '0.13', '1.9 ms', '250 µs', '< 1 ms', '16 MiB', '0.9 s', '1 h 2 min']);
  assert.deepEqual(results.at, [7, undefined]);
  const lines = ['{', '  "a": 9007199254740993,', '  "b": [', '    1e400,', '    {}', '  ],', '  "c": "x, {y}: \\" z"', '}'];
  assert.deepEqual(results.pretty, [lines.join('\n'), '{nope']);
  assert.equal(results.visible, 'a\\u202eb\\udb40\\udc01');
  assert.deepEqual(results.readable, ['é', 'ff 00']);
  assert.deepEqual(results.before, [true, true, '']);
  checked('values that were not measured are dashes; JSON is indented without touching a digit');
}

async function numbersMove(page, gateway) {
  const online = async () => Number((await text(page, 'devices-online')).replaceAll(',', ''));
  await until(`${DEMO} devices online`, async () => (await online()) === DEMO);
  const swarm = startSwarm(gateway, EXTRA, HOSTILE);
  await until(`${DEMO + EXTRA} devices online`, async () => (await online()) === DEMO + EXTRA);
  await until('beats and commands are counted', async () =>
    (await text(page, 'beats-per-s')) !== '0' && (await text(page, 'commands-done')) !== '0');
  assert.equal(await text(page, 'devices-known'), String(DEMO + EXTRA));
  assert.doesNotMatch(await page.innerText('main'), /NaN|undefined|null|Infinity|\[object/);
  const label = await page.locator('[data-chart="devices.online"]').getAttribute('aria-label');
  assert.match(label, /^Devices online: now 150, at most 150 /);
  const line = await page.locator('[data-chart="devices.online"] .line').getAttribute('d');
  assert.match(line, /^M[\d.]+ [\d.]+L/);
  checked(`the device count went from ${DEMO} to ${DEMO + EXTRA} when a swarm came; beats, commands and charts move`);

  await page.getByTestId('device-rows').getByText(`${SHOWN}-00003`, { exact: true }).click();
  await page.getByTestId('send').click();
  const answer = await result(page);
  assert.equal(answer.status, '200 OK');
  assert.equal(JSON.parse(answer.body).device, `${HOSTILE}-00003`);
  assert.equal(await page.locator('img').count(), 0);
  checked('a device whose name is markup, path and query shows as text and gets its command');

  await swarm.interrupt();
  await until(`${DEMO} devices online again`, async () => (await online()) === DEMO);
  await until(`${EXTRA} devices offline`, async () => (await text(page, 'devices-offline')) === String(EXTRA));
  await until('rows say offline', async () => (await page.locator('#device-rows [data-state=offline]').count()) >= 20);
  const cells = await page.locator('#device-rows tr').first().locator('td').allInnerTexts();
  assert.deepEqual(cells.slice(3), ['–', '–', '–']);
  checked('the swarm went: the count fell and its rows are offline');
}

async function sendsAndReplays(page) {
  await page.getByTestId('search').fill('dev-00007');
  const rows = page.getByTestId('device-rows').locator('button');
  await until('the search jumps to its device', async () => (await rows.first().innerText()) === 'dev-00007');
  await rows.first().click();
  assert.equal(await page.getByTestId('device').inputValue(), 'dev-00007');
  await page.getByTestId('payload').fill('{"valve": "open", "n": 9007199254740993}');
  const key = await page.getByTestId('key').inputValue();
  assert.match(key, /^page-[0-9a-f]{16}$/);

  await page.getByTestId('send').click();
  const first = await result(page);
  assert.equal(first.status, '200 OK');
  assert.equal(first.kind, 'executed now');
  assert.match(first.time, /^took [\d.]+ (µs|ms|s)$/);
  assert.match(first.body, /"device": "dev-00007",\n/);
  assert.match(first.body, /"n": 9007199254740993/);
  checked('a command sent from the page comes back with the device’s answer');

  const replayed = Number(await text(page, 'commands-replayed'));
  await page.getByTestId('send').click();
  await until('the answer is replayed', async () => (await text(page, 'result-kind')) === 'replayed');
  const second = await result(page);
  assert.deepEqual([second.status, second.body], [first.status, first.body]);
  assert.equal(await page.getByTestId('key').inputValue(), key);
  await until('the replay is counted', async () => Number(await text(page, 'commands-replayed')) === replayed + 1);
  checked('the same key again: the same answer, marked as replayed, and counted');

  await page.getByTestId('new-key').click();
  assert.notEqual(await page.getByTestId('key').inputValue(), key);
  await page.getByTestId('send').click();
  await until('a new key runs anew', async () => (await text(page, 'result-kind')) === 'executed now');
  checked('a new key: executed again');
}

async function saysWhatIsWrong(page) {
  const payload = page.getByTestId('payload');
  const before = await text(page, 'result-time');
  await payload.fill('{"valve": open}');
  await page.getByTestId('send').click();
  assert.match(await text(page, 'payload-error'), /^Not JSON: /);
  assert.equal(await payload.getAttribute('aria-invalid'), 'true');
  assert.equal(await text(page, 'result-time'), before);
  await payload.fill('{"valve": "shut"}');
  assert.equal(await text(page, 'payload-error'), '');
  checked('a payload that is no JSON is not sent and says why');

  await page.getByTestId('send').click();
  await until('the other payload is refused', async () => (await text(page, 'result-status')).startsWith('422'));
  assert.match(await text(page, 'result-words'), /The key belongs to another payload.*\[key-reused\]$/);
  await page.getByTestId('device').fill('nobody');
  await page.getByTestId('send').click();
  await until('the stranger is refused', async () => (await text(page, 'result-status')).startsWith('404'));
  assert.match(await text(page, 'result-words'), /There is no such device.*\[unknown-device\]$/);
  checked('the gateway’s problems are told in words: key of another payload, unknown device');
}

async function findsDevices(page) {
  const names = () => page.getByTestId('device-rows').locator('button').allInnerTexts();
  const starts = (id) => until(`the page starts at ${id}`, async () => (await names())[0] === id);
  await page.getByTestId('search').fill('dev-0001');
  await starts('dev-00010');
  await page.getByTestId('page-next').click();
  await starts('dev-00035');
  await page.getByTestId('page-back').click();
  await starts('dev-00010');
  await page.getByTestId('search').fill('dev-00010x');
  await starts('dev-00011');
  assert.equal(await text(page, 'devices-note'), 'No id starts with “dev-00010x”; the list goes on behind it.');
  await page.getByTestId('search').fill('');
  await starts(`${SHOWN}-00000`);
  assert.equal(await text(page, 'page-count'), `25 of ${DEMO + EXTRA} known`);
  checked('the list turns pages, jumps to an id, and says when there is none');
}

async function jobsAndGroups(page) {
  const job = page.getByTestId('job-rows').locator('td');
  await until('a firing reached its ten devices', async () => (await job.nth(4).innerText()) === '10 done');
  assert.deepEqual((await job.allInnerTexts()).slice(0, 2), ['<b>tick', 'dev-0000*']);
  const before = await job.nth(5).innerText();
  await until('the next firing is counted', async () => (await job.nth(5).innerText()) !== before);
  const groups = page.getByTestId('group-rows').locator('tr');
  const dev = await groups.filter({ hasText: 'dev' }).locator('td').allInnerTexts();
  assert.deepEqual(dev.slice(0, 2), ['dev', 'closed']);
  checked('the job and its last firing are shown, and the breaker of its devices');
}

/** A row keeps the focus over the refreshes of the table; Enter chooses it; Enter in the form sends. */
async function keyboard(page) {
  await page.getByTestId('search').fill('dev-00042');
  const row = page.getByTestId('device-rows').getByText('dev-00042', { exact: true });
  await row.focus();
  let refreshes = 0;
  page.on('response', (response) => (refreshes += response.url().includes('/v1/devices?') ? 1 : 0));
  await until('the table was refreshed', async () => refreshes >= 2);
  assert.equal(await page.evaluate(() => document.activeElement.textContent), 'dev-00042');
  await page.keyboard.press('Enter');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'payload');
  await page.getByTestId('key').press('Enter');
  await until('Enter sends', async () => (await result(page)).body.includes('"dev-00042"'));
  checked('by keyboard alone: choose a device while the table refreshes, send with Enter');
}

/** Phone and desktop in one color scheme: nothing sticks out, everything can be read. */
async function looks(browser, seen, url, colorScheme) {
  for (const [name, size, mobile] of [['phone', { width: 360, height: 740 }, true], ['desktop', { width: 1280, height: 900 }, false]]) {
    const page = await open(browser, seen, url, { colorScheme, viewport: size, isMobile: mobile, hasTouch: mobile, reducedMotion: 'reduce' });
    await page.getByTestId('device-rows').locator('tr').first().waitFor();
    await page.getByTestId('device').fill('dev-00001');
    await page.getByTestId('send').click();
    assert.equal((await result(page)).status, '200 OK');
    await page.getByTestId('timeout').fill('');
    await page.getByTestId('send').click();
    await page.locator('#timeout-error:not(:empty)').waitFor();
    assert.deepEqual(await page.evaluate(overflowing), [], `${name} sticks out`);
    const { worst, dark } = await page.evaluate(contrasts);
    assert.equal(dark, colorScheme === 'dark');
    assert.ok(worst.ratio >= 4.5, `${name} ${colorScheme}: contrast ${worst.ratio} of ${JSON.stringify(worst.text)}`);
    const pictures = process.env.MAINSTAY_SCREENSHOTS;
    if (pictures) await page.screenshot({ path: join(pictures, `dash-${name}-${colorScheme}.png`), fullPage: true });
    checked(`${name}, ${colorScheme}: fits ${size.width} px, contrast of text at least ${worst.ratio.toFixed(1)}`);
    await page.context().close();
  }
}

async function drainsAndReturns(page, gateway) {
  // A device that takes a command and stands still holds the drain up.
  const swarm = startSwarm(gateway, 1, 'still');
  await until('the device is online', async () => (await text(page, 'devices-online')) === String(DEMO + 1));
  swarm.freeze();
  await page.getByTestId('device').fill('still-00000');
  await page.getByTestId('send').click();
  await page.getByTestId('stop-waiting').waitFor();
  await until('the command is out', async () => Number(await text(page, 'commands-open')) === 1);
  gateway.terminate();
  await page.getByTestId('draining').waitFor();
  await until('the command ends in words', async () => /\[(draining|timed-out-sent)\]$/.test(await text(page, 'result-words')));
  await until('the stream is lost', async () => (await text(page, 'stream-state')) === 'reconnecting…');
  await until('the age is told', async () => /^numbers are \d+ s old$/.test(await text(page, 'stream-age')));
  assert.equal(await gateway.ended(), 0);
  checked('the drain has its banner; afterwards the page says that it reconnects and how old its numbers are');

  await startGateway(['--http', gateway.http]);
  await until('the stream is live again', async () => (await text(page, 'stream-state')) === 'live');
  await until('the new numbers are shown', async () => (await text(page, 'devices-online')) === '0');
  assert.equal(await page.getByTestId('draining').isVisible(), false);
  assert.equal(await text(page, 'stream-age'), '');
  checked('the gateway is back: the page found it alone');
}

async function result(page) {
  await page.getByTestId('result').waitFor();
  await until('the answer is there', async () => (await text(page, 'send')) === 'Send');
  const part = (name) => text(page, `result-${name}`);
  return { status: await part('status'), kind: await part('kind'), time: await part('time'), body: await part('body') };
}

function text(page, id) {
  return page.getByTestId(id).textContent();
}

function checked(what) {
  console.log(`ok  ${what}`);
}
