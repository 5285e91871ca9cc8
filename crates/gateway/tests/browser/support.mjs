// Processes, waiting, and a page's complaints.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';

const PATIENCE_MS = 120_000;

/** Asks until the answer is yes; names what it waited for when it never is. */
export async function until(what, holds) {
  const deadline = Date.now() + PATIENCE_MS;
  while (!(await holds())) {
    assert.ok(Date.now() < deadline, `waited in vain until: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** What a browser in a container needs, and nothing that calls home. */
export function chromiumOptions() {
  return {
    executablePath: process.env.MAINSTAY_CHROMIUM,
    headless: true,
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  };
}

/** A child process that speaks in lines. */
export class Process {
  #child;
  #lines;
  #exit;

  constructor(program, args) {
    this.#child = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    this.#exit = once(this.#child, 'exit').then(([code]) => code);
    this.#lines = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
  }

  /** The next line of its standard output. */
  async line() {
    const { value, done } = await this.#lines.next();
    assert.ok(!done, 'the process ended without a word');
    return value;
  }

  terminate() {
    this.#child.kill('SIGTERM');
  }

  /** Makes it stand still, as a machine does that hangs; only `kill` reaches it then. */
  freeze() {
    this.#child.kill('SIGSTOP');
  }

  /** Its exit code. */
  ended() {
    return this.#exit;
  }

  async interrupt() {
    this.#child.kill('SIGINT');
    await this.#exit;
  }

  async kill() {
    this.#child.kill('SIGKILL');
    await this.#exit;
  }
}

/** Everything that pages complain about. */
export class Console {
  #complaints = [];

  async watch(page) {
    page.on('pageerror', (error) => this.#complaints.push(String(error)));
    page.on('console', (message) => {
      // The browser logs every answer of 400 and above; the test asks for some of them.
      const asked = message.location().url.endsWith('/commands') && /status of (404|422)/.test(message.text());
      if (!asked) this.#complaints.push(`${message.type()}: ${message.text()}`);
    });
    await page.addInitScript(() => {
      document.addEventListener('securitypolicyviolation', (event) => {
        console.error(`policy violation: ${event.violatedDirective} ${event.blockedURI}`);
      });
    });
  }

  assertQuiet() {
    assert.deepEqual(this.#complaints, []);
  }
}
