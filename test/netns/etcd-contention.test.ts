/** Hosts that want the same addresses at the same time, while the members of etcd die and come back. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, test, type TestContext } from 'node:test';
import { outsideLab } from '../lab/enclosure.ts';
import { EtcdCluster } from '../lab/etcd.ts';
import { until } from '../lab/patience.ts';
import { openShared } from '../lab/shared.ts';

/** `make claims CLAIMS=2000`; in the usual run fewer. */
const CLAIMS = Number(process.env.CLAIMS ?? 150);
const HOSTS = 4;

interface Line {
  readonly host: string;
  readonly verb: string;
  readonly rest: string;
}

describe('etcd members that die', { skip: outsideLab(), timeout: 1_800_000 }, () => {
  test(`${HOSTS} processes with ${CLAIMS} addresses each, members killed at random: none is had twice, none lost`, async (t) => {
    const directory = mkdtempSync('/run/etcd-');
    const etcd = await EtcdCluster.start({ directory, members: 3 });
    t.after(() => etcd.stop());
    const log = join(directory, 'log');
    const begin = performance.now();
    const directories = Array.from({ length: HOSTS }, (_, i) => join(directory, `host${i}`));
    const hosts = directories.map((one) => host(one, etcd, log));
    const stop = new AbortController();
    const kills = killAtRandom(etcd, stop.signal);
    const codes = await Promise.all(hosts);
    stop.abort();
    const seconds = (performance.now() - begin) / 1000;
    const killed = await kills;
    await etcd.ready();

    const lines = readLog(log);
    const { had, faults } = replay(lines);
    const claims = await claimsIn(etcd);
    const lost = [...had.keys()].filter((address) => !claims.has(address));
    const refused = lines.filter(({ verb }) => verb === 'refused').length;
    const total = lines.filter(({ verb }) => verb === 'claimed').length;
    console.log(
      `${total} claims by ${HOSTS} processes in ${seconds.toFixed(1)} s, ${killed} kills, ${refused} refused; ` +
        `${faults.length} duplicates, ${lost.length} lost`,
    );
    assert.deepEqual(
      codes,
      hosts.map(() => 0),
    );
    assert.deepEqual([faults, lost], [[], []]);
    assert.equal(had.size, HOSTS * CLAIMS);
    assert.ok(killed > 0);
    // What a host could not give back before it ended, for want of a quorum, it gives back when it is there again.
    startAgain(t, directories, etcd);
    await until(async () => (await claimsIn(etcd)).size === had.size);
    assert.deepEqual([...(await claimsIn(etcd)).keys()].sort(), [...had.keys()].sort());
  });
});

async function host(directory: string, etcd: EtcdCluster, log: string): Promise<unknown> {
  const words = [directory, etcd.endpoints.join(','), 'contended', String(CLAIMS), log];
  const child = spawn(process.execPath, [join(import.meta.dirname, '../lab/claimant.ts'), ...words], {
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  const [code] = (await once(child, 'exit')) as [unknown];
  return code;
}

function startAgain(t: TestContext, directories: readonly string[], etcd: EtcdCluster): void {
  const stores = directories.map((directory) => openShared(directory, etcd.endpoints, 'contended'));
  t.after(() => Promise.all(stores.map((store) => store.close())));
}

/** One at a time for the most part; now and then two, and there is no quorum until one is back. */
async function killAtRandom(etcd: EtcdCluster, signal: AbortSignal): Promise<number> {
  let kills = 0;
  await sleep(300);
  while (!signal.aborted) {
    const first = Math.floor(Math.random() * 3);
    const victims = Math.random() < 0.25 ? [first, (first + 1) % 3] : [first];
    await Promise.all(victims.map((member) => etcd.stopMember(member)));
    kills += victims.length;
    await sleep(300 + Math.random() * 1000);
    for (const member of victims) etcd.startMember(member);
    await sleep(1000 + Math.random() * 1500);
  }
  return kills;
}

function readLog(file: string): Line[] {
  const lines = readFileSync(file, 'utf8').trimEnd().split('\n');
  return lines.map((line) => {
    const [host = '', verb = '', ...rest] = line.split(' ');
    return { host, verb, rest: rest.join(' ') };
  });
}

/** Who has what at the end, and what two had at one time. */
function replay(lines: readonly Line[]): { had: Map<string, string>; faults: string[] } {
  const had = new Map<string, string>();
  const faults: string[] = [];
  for (const { host: name, verb, rest } of lines) {
    const [address = ''] = rest.split(' ');
    if (verb === 'released') had.delete(address);
    if (verb !== 'claimed') continue;
    const other = had.get(address);
    if (other !== undefined) faults.push(`${address}: ${name} while ${other} had it`);
    had.set(address, name);
  }
  return { had, faults };
}

async function claimsIn(etcd: EtcdCluster): Promise<Map<string, string>> {
  const prefix = '/tsmacvlan/contended/leases/';
  const words = (await etcd.must('get', '--prefix', prefix)).split('\n');
  const claims = new Map<string, string>();
  for (let at = 0; at + 1 < words.length; at += 2) claims.set(words[at]?.split('/').at(-1) ?? '', words[at + 1] ?? '');
  return claims;
}
