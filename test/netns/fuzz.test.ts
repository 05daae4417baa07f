/**
 * Whatever is sent, the daemon goes on, answers in time and in a sentence, and a refused request changes nothing. Real
 * drivers, store and links; one request after the other, so that every change of state has one cause.
 *
 *     make fuzz COUNT=100000        SEED=… repeats a run
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { Agent, type IncomingMessage, request } from 'node:http';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { describe, test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { IpamDriver } from '../../src/ipam/driver.ts';
import { Links } from '../../src/kernel/link.ts';
import { createCalls } from '../../src/server/calls.ts';
import { PluginServer } from '../../src/server/server.ts';
import { writtenEndpoint } from '../../src/store/codec.ts';
import { type LocalStore, openLocalStore } from '../../src/store/local.ts';
import { randomOf } from '../lab/drill.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { Fuzzer, type Hostile } from '../lab/fuzz.ts';
import { quietDriver } from '../lab/networkdriver.ts';
import { type Line, logInto, quietConflicts, quietLeaks } from '../unit/server/door.ts';
import { temporaryDirectory } from '../unit/temporary.ts';
import { KEEPS_NOTHING, NOBODY_ANSWERS } from '../lab/quiet.ts';

const ip = (words: string) => execFileSync('ip', words.split(' '), { encoding: 'utf8' });

/** The same in every `make test`, so that a change is judged and not a dice; `make fuzz` takes another each time. */
const SEED = Number(process.env.SEED ?? 116072);
const COUNT = process.env.COUNT === undefined ? null : Number(process.env.COUNT);
/** Without COUNT as many as this time allows. */
const TIME_MS = 8000;
/** Everything is taken back by orderly calls after so many. */
const CHAPTER = 1000;
const ANSWER_MS = 9500;

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

interface Answer {
  readonly status: number;
  readonly body: Record<string, unknown>;
}

describe('fuzz', { skip: outsideLab(), timeout: 3_600_000 }, () => {
  test(`hostile requests, seed ${SEED}`, async (t) => {
    ip('link add lan0 type veth peer name lan1');
    for (const name of ['lan0', 'lan1']) ip(`link set ${name} up`);
    const directory = temporaryDirectory(t);
    const store = openLocalStore(directory);
    const links = Links.open();
    const lines: Line[] = [];
    const ipam = new IpamDriver({ store, probe: NOBODY_ANSWERS, keeper: KEEPS_NOTHING });
    const log = logInto(lines);
    const network = quietDriver({ store, links, hostAddresses: ipam, parentAliases: new Map(), log });
    const calls = createCalls({
      network,
      ipam,
      leaks: quietLeaks,
      conflicts: quietConflicts,
      scope: 'local',
      state: { read: async () => ({ schema: 4, node: null, pieces: [Buffer.from('{"networks":[]}')] }) },
      filteredParents: () => [],
      health: async () => ({ status: 'ok', reasons: [] }),
    });
    const server = new PluginServer({ calls, log });
    const socketPath = join(directory, 's.sock');
    await server.listen(socketPath);
    const agent = new Agent({ keepAlive: true });
    t.after(async () => {
      agent.destroy();
      await server.close();
      await network.close();
      links.close();
      await store.close();
    });

    const fuzzer = new Fuzzer(randomOf(SEED));
    const statuses: Record<number, number> = {};
    const memory: number[] = [];
    const begin = performance.now();
    let sent = 0;
    let slowestMs = 0;
    let known = await dump(store);
    while (COUNT === null ? performance.now() - begin < TIME_MS : sent < COUNT) {
      const hostile = fuzzer.next();
      const asked = performance.now();
      const answer = await send({ socketPath, agent }, hostile);
      slowestMs = Math.max(slowestMs, performance.now() - asked);
      statuses[answer.status] = (statuses[answer.status] ?? 0) + 1;
      judge(hostile, answer, sent);
      const now = await dump(store);
      if (answer.status !== 200)
        assert.equal(now, known, `request ${sent} was refused and changed state: ${inWords(hostile)}`);
      known = now;
      if (typeof answer.body['PoolID'] === 'string') fuzzer.pools.add(answer.body['PoolID']);
      if (++sent % CHAPTER === 0) {
        await takeBack(store, { socketPath, agent });
        await network.close();
        assert.deepEqual(leftLinks(), [], 'links are left');
        fuzzer.pools.clear();
        lines.length = 0;
        known = await dump(store);
        collectGarbage();
        memory.push(Math.round(process.memoryUsage().rss / 2 ** 20));
        if (sent % (50 * CHAPTER) === 0) console.log(`${sent} requests`, memory.at(-1), 'MB');
      }
    }
    await takeBack(store, { socketPath, agent });
    const durationMs = Math.round(performance.now() - begin);
    const figures = {
      seed: SEED,
      sent,
      durationMs,
      slowestMs: Math.round(slowestMs),
      statuses,
      memoryMb: [memory[1], memory.at(-1)],
    };
    console.log(JSON.stringify(figures));
    t.diagnostic(JSON.stringify(figures));
    assert.equal(({} as Record<string, unknown>)['NetworkID'], undefined, 'a prototype was polluted');
    assert.ok((statuses[200] ?? 0) > sent / 20 && (statuses[400] ?? 0) > sent / 20, JSON.stringify(statuses));
    // Code that is compiled, buffers and SQLite's cache grow at first: the second half is what counts.
    const halfway = memory[Math.floor(memory.length / 2)] ?? 0;
    if (sent >= 40 * CHAPTER) assert.ok((memory.at(-1) ?? 0) < halfway * 1.1, `memory: ${memory.join(' ')}`);
  });
});

interface Door {
  readonly socketPath: string;
  readonly agent: Agent;
}

async function send({ socketPath, agent }: Door, { call, body }: Hostile): Promise<Answer> {
  const options = { socketPath, agent, path: `/${call}`, method: 'POST', signal: AbortSignal.timeout(ANSWER_MS) };
  const question = request(options).end(body);
  const [response] = (await once(question, 'response')) as [IncomingMessage];
  return { status: response.statusCode ?? 0, body: JSON.parse(await text(response)) as Record<string, unknown> };
}

function judge(hostile: Hostile, { status, body }: Answer, number: number): void {
  if (status === 200) return;
  const sentence = String(body['Err']);
  const where = `request ${number}: ${inWords(hostile)}: ${status} ${sentence}`;
  assert.ok([400, 500].includes(status), where);
  assert.doesNotMatch(sentence, /internal error|undefined|\[object/, where);
  // Nothing that a terminal would obey, and no second line in a log.
  assert.doesNotMatch(sentence, /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/, where);
}

function inWords({ call, body }: Hostile): string {
  return `${call} ${JSON.stringify(body.slice(0, 600))}`;
}

/** The state, without what the kernel is just deleting. */
async function dump(store: LocalStore): Promise<string> {
  const endpoints = (await store.endpoints.list()).filter(({ state }) => state !== 'deleting').map(writtenEndpoint);
  return JSON.stringify([await store.networks.list(), endpoints, await store.pools.list(), await store.leases.list()]);
}

async function takeBack(store: LocalStore, door: Door): Promise<void> {
  for (const { id } of await store.networks.list()) {
    const answer = await send(door, { call: 'NetworkDriver.DeleteNetwork', body: JSON.stringify({ NetworkID: id }) });
    assert.equal(answer.status, 200, JSON.stringify(answer.body));
  }
  for (const { realm, address, poolIds } of await store.leases.list()) {
    for (const PoolID of poolIds)
      await send(door, { call: 'IpamDriver.ReleaseAddress', body: JSON.stringify({ PoolID, Address: address }) });
    void realm;
  }
  for (const { swarm } of await store.pools.list()) {
    for (const NetworkID of Object.keys(swarm?.networks ?? {}))
      await send(door, { call: 'NetworkDriver.FreeNetwork', body: JSON.stringify({ NetworkID }) });
  }
  for (const { id } of await store.pools.list())
    await send(door, { call: 'IpamDriver.ReleasePool', body: JSON.stringify({ PoolID: id }) });
  assert.equal(await dump(store), '[[],[],[],[]]', 'records are left');
}

function leftLinks(): string[] {
  return [...ip('-o link').matchAll(/^\d+: (tsm\w+|lan0\.\w+)/gm)].map(([, name = '']) => name);
}
