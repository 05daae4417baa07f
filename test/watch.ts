/**
 * `make watch`: checks types and runs the unit tests, and does both again whenever a file of src/, test/ or plugin/ has
 * changed. A unit test file that was itself changed runs alone.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { watch } from 'node:fs';
import { join, sep } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const CHECKOUT = join(import.meta.dirname, '..');
/** Saving one file is several events. */
const SETTLE_MS = 200;

const changed = new Set<string>();
let wake = () => {};

for (const directory of ['src', 'test', 'plugin']) {
  watch(join(CHECKOUT, directory), { recursive: true }, (_event, name) => {
    if (name === null || !/^[^.].*\.ts$/.test(name)) return;
    changed.add(join(directory, name));
    wake();
  });
}

for (;;) {
  const files = [...changed];
  changed.clear();
  const tests = files.filter((file) => file.startsWith(join('test', 'unit') + sep) && file.endsWith('.test.ts'));
  const isTestsOnly = files.length > 0 && tests.length === files.length;
  await run('tsc');
  await run('tsc', '--project', 'src/page');
  await run('node', 'test/run.ts', ...(isTestsOnly ? tests : ['unit']));
  if (changed.size === 0) await new Promise<void>((resolve) => (wake = resolve));
  await sleep(SETTLE_MS);
}

/** What it says of failures is for the reader; the watch goes on. */
async function run(command: string, ...args: string[]): Promise<void> {
  await once(spawn(command, args, { cwd: CHECKOUT, stdio: 'inherit' }), 'exit');
}
