/** The program for conflicts: which is taken, what it is told, and how often it runs whatever strangers do. */
import assert from 'node:assert/strict';
import {
  chmodSync,
  chownSync,
  existsSync,
  lchownSync,
  mkdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Clock } from '../../src/clock.ts';
import type { ToldHappening } from '../../src/happenings.ts';
import { checkHook, Hook } from '../../src/hook.ts';
import { type Line, logInto } from './server/door.ts';
import { temporaryDirectory } from './temporary.ts';

test('a program that cannot be killed does not hold the end', async () => {
  const lines: Line[] = [];
  const endClock = new Stopped();
  const run = () => new Promise<never>(() => undefined);
  const hook = new Hook({ path: '/hook', log: logInto(lines), clock: new Stopped(), endClock, run });
  hook.hear(conflict('192.0.2.70'));
  const closed = hook.close();
  endClock.pass(2000);
  await closed;
  assert.deepEqual(
    lines.map(({ message }) => message),
    ['the hook cannot be killed, and is left behind'],
  );
});

const isRoot = process.getuid?.() === 0;

function conflict(address: string, state: 'begun' | 'ended' | 'changed' = 'begun'): ToldHappening {
  return {
    time: '2026-11-20T10:00:00.000Z',
    what: 'conflict',
    state,
    kind: 'address',
    parent: 'eth0',
    address,
    macAddress: '06:00:00:00:00:01',
    ourMacAddress: '02:42:c0:00:02:46',
    hostLink: null,
    node: 'two\u0000\u001b[31m',
    count: 2,
    firstSeenAt: '2026-11-20T10:00:00.000Z',
    seenAt: '2026-11-20T10:00:00.000Z',
    endedAt: null,
    endpointId: 'e',
    networkId: 'n',
  };
}

/** Time that stands still but for pass(). */
class Stopped implements Clock {
  #atMs = 0;
  readonly #due: { atMs: number; run: () => void }[] = [];
  nowMs = () => this.#atMs;
  after = (delayMs: number, run: () => void) => {
    const one = { atMs: this.#atMs + delayMs, run };
    this.#due.push(one);
    return () => void this.#due.splice(this.#due.indexOf(one), 1);
  };
  pass(ms: number): void {
    this.#atMs += ms;
    for (const one of this.#due.filter(({ atMs }) => atMs <= this.#atMs)) {
      this.#due.splice(this.#due.indexOf(one), 1);
      one.run();
    }
  }
}

/** A program that runs until it is told to end. */
function stage() {
  const clock = new Stopped();
  const lines: Line[] = [];
  const running: { address: string; event: string; end: (failure?: string) => void }[] = [];
  const outcomes: string[] = [];
  const hook = new Hook({
    path: '/hook',
    log: logInto(lines),
    clock,
    onRun: (outcome) => outcomes.push(outcome),
    run: (_, env, signal) => {
      const { promise, resolve } = Promise.withResolvers<{ failure: string | null; said: string }>();
      const one = {
        address: env['TSMACVLAN_ADDRESS'] ?? '',
        event: env['TSMACVLAN_EVENT'] ?? '',
        end: (failure?: string) => {
          running.splice(running.indexOf(one), 1);
          resolve({ failure: failure ?? null, said: '' });
        },
      };
      running.push(one);
      signal.addEventListener('abort', () => one.end('killed'), { once: true });
      return promise;
    },
  });
  const turn = () => new Promise<void>((resolve) => setImmediate(resolve));
  return { clock, lines, running, outcomes, hook, turn };
}

test('one at a time for an address, in order, and a few at once', async () => {
  const { hook, running, turn } = stage();
  hook.hear(conflict('192.0.2.1'));
  hook.hear(conflict('192.0.2.1', 'changed'));
  hook.hear({ ...conflict('192.0.2.9'), ourMacAddress: null } as ToldHappening);
  hook.hear(conflict('192.0.2.1', 'ended'));
  for (let last = 2; last <= 6; last++) hook.hear(conflict(`192.0.2.${last}`));
  assert.deepEqual(
    running.map(({ address, event }) => [address, event]),
    [1, 2, 3, 4].map((last) => [`192.0.2.${last}`, 'conflict-begun']),
  );
  running[1]?.end();
  await turn();
  assert.equal(running.at(-1)?.address, '192.0.2.5');
  running[0]?.end();
  await turn();
  assert.deepEqual([running.at(-1)?.address, running.at(-1)?.event], ['192.0.2.1', 'conflict-ended']);
  await hook.close();
  assert.equal(running.length, 0);
});

test('one that does not end is killed and said, and the next has its turn', async () => {
  const { hook, clock, lines, running, outcomes, turn } = stage();
  hook.hear(conflict('192.0.2.1'));
  hook.hear(conflict('192.0.2.1', 'ended'));
  clock.pass(10_000);
  await turn();
  assert.match(String(lines[0]?.fields['error']), /did not end within 10 seconds and was killed/);
  assert.deepEqual([running.length, running[0]?.event], [1, 'conflict-ended']);
  running[0]?.end('exit code 7');
  await turn();
  assert.equal(lines[1]?.fields['error'], 'exit code 7');
  assert.deepEqual(outcomes, ['failed', 'failed']);
  await hook.close();
});

test('a storm runs sixty and then one a second, and how many were left out is said once a minute', async () => {
  const { hook, clock, lines, running, outcomes, turn } = stage();
  const finish = async () => {
    while (running.length > 0) {
      running[0]?.end();
      await turn();
    }
  };
  for (let number = 0; number < 10_000; number++) hook.hear(conflict(`10.0.${number >> 8}.${number & 255}`));
  await finish();
  assert.equal(outcomes.filter((one) => one === 'ok').length, 60);
  clock.pass(3000);
  for (let number = 0; number < 100; number++) hook.hear(conflict('192.0.2.1'));
  await finish();
  assert.equal(outcomes.filter((one) => one === 'ok').length, 63);
  assert.deepEqual(
    lines.filter(({ level }) => level === 'warn'),
    [],
  );
  clock.pass(60_000);
  const warnings = lines.filter(({ level }) => level === 'warn');
  assert.deepEqual(
    warnings.map(({ fields }) => fields),
    [{ left_out: 10_037 }],
  );
  await hook.close();
});

test('a program runs without a shell, with what there is to say in its environment, and takes its children along', {
  skip: !isRoot,
}, async (t) => {
  const directory = temporaryDirectory(t);
  const [program, out] = [join(directory, 'ho ok;x'), join(directory, 'out')];
  writeFileSync(program, `#!/bin/sh\nenv > ${out}.new; mv ${out}.new ${out}; echo "bad \\033[1m" >&2; exit 3\n`);
  chmodSync(program, 0o700);
  const lines: Line[] = [];
  const ended = Promise.withResolvers<void>();
  const hook = new Hook({ path: program, log: logInto(lines), onRun: () => setImmediate(ended.resolve) });
  hook.hear(conflict('192.0.2.1'));
  await ended.promise;
  const environment = readFileSync(out, 'utf8');
  for (const line of [
    'TSMACVLAN_EVENT=conflict-begun',
    'TSMACVLAN_ADDRESS=192.0.2.1',
    'TSMACVLAN_MAC=06:00:00:00:00:01',
    'TSMACVLAN_NODE=two\\u0000\\u001b[31m',
    'TSMACVLAN_HOST_LINK=',
  ])
    assert.ok(environment.includes(`${line}\n`), `${line}\n${environment}`);
  assert.deepEqual(
    lines.map(({ level, fields }) => [level, fields['error']]),
    [['warn', 'exit code 3']],
  );
  assert.match(String(lines[0]?.fields['said']), /^bad/);
  await hook.close();
});

test('a program that others may change since the start is not run', { skip: !isRoot }, async (t) => {
  const directory = temporaryDirectory(t);
  const [program, out] = [join(directory, 'hook'), join(directory, 'out')];
  writeFileSync(program, `#!/bin/sh\ntouch ${out}\n`);
  chmodSync(program, 0o722);
  const lines: Line[] = [];
  const ended = Promise.withResolvers<void>();
  const hook = new Hook({ path: program, log: logInto(lines), onRun: () => setImmediate(ended.resolve) });
  hook.hear(conflict('192.0.2.1'));
  await ended.promise;
  assert.match(String(lines[0]?.fields['error']), /others than root may write ".*hook"/);
  assert.equal(existsSync(out), false);
  await hook.close();
});

test('a program that others than root could change is refused, with what is wrong', { skip: !isRoot }, (t) => {
  const directory = temporaryDirectory(t);
  const program = join(directory, 'hook');
  const refused = (reason: RegExp, path = program) => assert.throws(() => checkHook(path), reason);
  refused(/HOOK="bin\/true" cannot be run \(it is not an absolute path\); give the absolute path/, 'bin/true');
  refused(/no such file or directory/);
  writeFileSync(program, '#!/bin/sh\n');
  chmodSync(program, 0o600);
  refused(/it is not executable/);
  chmodSync(program, 0o722);
  refused(/others than root may write ".*hook"/);
  chmodSync(program, 0o700);
  checkHook(program);
  chownSync(program, 65_534, 0);
  refused(/".*hook" does not belong to root/);
  chownSync(program, 0, 0);
  chmodSync(directory, 0o777);
  refused(/others than root may write/);
  chmodSync(directory, 0o700);
  mkdirSync(join(directory, 'd'));
  refused(/it is not a file/, join(directory, 'd'));
  symlinkSync(program, join(directory, 'link'));
  assert.equal(checkHook(join(directory, 'link')), program);
  // Who may put another link there says what is run.
  mkdirSync(join(directory, 'open'));
  chmodSync(join(directory, 'open'), 0o777);
  symlinkSync('../hook', join(directory, 'open/link'));
  refused(/others than root may write ".*open"/, join(directory, 'open/link'));
  symlinkSync('open', join(directory, 'way'));
  refused(/others than root may write ".*open"/, join(directory, 'way/link'));
  lchownSync(join(directory, 'link'), 65_534, 0);
  refused(/".*link" does not belong to root/, join(directory, 'link'));
});
