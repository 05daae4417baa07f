/**
 * Recorded sessions of real engines played to the whole daemon, on real links. The file's own network namespace is the
 * host; nobody moves a link into a container, so each stays here until its DeleteEndpoint. The LAN, on which nobody is, is
 * not asked about addresses:
 *
 *     lan0 ── veth ── lan1
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { before, describe, type TestContext, test } from 'node:test';
import { type Daemon, startDaemon } from '../../src/main.ts';
import { readSettings } from '../../src/settings.ts';
import { type ReadonlyStore, readLocalStore } from '../../src/store/local.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { ask, type Line, logInto } from '../unit/server/door.ts';
import {
  describeExchange,
  type Exchange,
  isAddressTaken,
  PLAYS,
  play,
  type Recorded,
} from '../unit/server/transcripts.ts';
import { temporaryDirectory } from '../unit/temporary.ts';

const ip = (...words: string[]) => execFileSync('ip', words, { encoding: 'utf8' });
const ourLinks = () => [...ip('-o', 'link').matchAll(/^\d+: (tsm\w+)@/gm)].map(([, name = '']) => name);

describe('the whole daemon', { skip: outsideLab(), timeout: 500_000 }, () => {
  before(() => {
    ip('link', 'add', 'lan0', 'type', 'veth', 'peer', 'name', 'lan1');
    for (const name of ['lan0', 'lan1']) ip('link', 'set', name, 'up');
  });

  for (const { title, requests } of PLAYS) {
    test(`plays through ${title}, and what the engine took back is gone`, (t) => playThrough(t, requests));
  }
});

async function playThrough(t: TestContext, requests: readonly Recorded[]): Promise<void> {
  const directory = temporaryDirectory(t);
  const settings = readSettings({
    SOCKET: join(directory, 's.sock'),
    STATE_DIR: join(directory, 'state'),
    PROBE: 'off',
  });
  const lines: Line[] = [];
  const daemon = await startDaemon(settings, logInto(lines));
  t.after(() => tidyUp(daemon));
  const exchanges = await play(requests, (call, body) => ask({ socket: join(directory, 's.sock') }, call, body));
  for (const exchange of exchanges) {
    assert.equal(exchange.reply.status, mustRefuse(exchange) ? 400 : 200, describeExchange(exchange));
  }
  await daemon.stop();
  assert.deepEqual(
    lines.filter(({ level }) => level === 'error'),
    [],
  );

  const store = readLocalStore(settings.stateDirectory);
  t.after(() => store.close());
  const { networks, endpoints } = remaining(exchanges);
  assert.deepEqual(await idsIn(store, 'networks'), networks);
  assert.deepEqual(await idsIn(store, 'endpoints'), endpoints);
  const names = (await store.endpoints.list()).map(({ linkName }) => linkName);
  assert.deepEqual(ourLinks().sort(), names.sort());
}

/** Some nodes end in the middle, killed: their links would be in the way of the next session. */
async function tidyUp(daemon: Daemon): Promise<void> {
  await daemon.stop();
  for (const name of ourLinks()) ip('link', 'delete', name);
}

/** `--ipam-driver null` gives a network no subnet. */
function mustRefuse(exchange: Exchange): boolean {
  const { recorded, body } = exchange;
  const isNullIpam = recorded.call === 'NetworkDriver.CreateNetwork' && JSON.stringify(body).includes('"null"');
  return isNullIpam || isAddressTaken(exchange);
}

/** The ids of what was made and not taken back. */
function remaining(exchanges: readonly Exchange[]): { networks: string[]; endpoints: string[] } {
  const networks = new Set<string>();
  const endpoints = new Map<string, string>();
  for (const { recorded, body, reply } of exchanges) {
    if (reply.status !== 200) continue;
    const { NetworkID: network = '', EndpointID: endpoint = '' } = (body ?? {}) as Record<string, string>;
    if (recorded.call === 'NetworkDriver.CreateNetwork') networks.add(network);
    if (recorded.call === 'NetworkDriver.CreateEndpoint') endpoints.set(endpoint, network);
    if (recorded.call === 'NetworkDriver.DeleteEndpoint') endpoints.delete(endpoint);
    if (recorded.call !== 'NetworkDriver.DeleteNetwork') continue;
    networks.delete(network);
    for (const [id, of] of endpoints) if (of === network) endpoints.delete(id);
  }
  return { networks: [...networks].sort(), endpoints: [...endpoints.keys()].sort() };
}

async function idsIn(store: ReadonlyStore, table: 'networks' | 'endpoints'): Promise<string[]> {
  return (await store[table].list()).map(({ id }) => id);
}
