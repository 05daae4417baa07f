/** What a plugin left behind on a machine whose networks are all removed. */
import assert from 'node:assert/strict';
import { DatabaseSync } from 'node:sqlite';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Machine } from './site.ts';

/** Views of the state file. */
const KINDS = ['networks', 'endpoints', 'pools', 'leases'];
/** Deletions of links are acknowledged first and done a little later. */
const SETTLE_TIMEOUT_MS = 5_000;
/** The link from which the LAN was asked about an address watches over it for 10 s, then lingers for 2 s. */
const PROBE_ALIAS = 'tsmacvlan probe';
const PROBE_TIMEOUT_MS = 15_000;

interface Link {
  ifname: string;
  ifalias?: string;
}

/** Links that are neither the loopback nor one with a cable, and records of any kind; empty when all is clean. */
export async function leftovers(machine: Machine): Promise<string[]> {
  const links = await strangeLinks(machine);
  const lasting = links.filter((link) => link.ifalias !== PROBE_ALIAS);
  return [...lasting.map((link) => `link ${link.ifname}`), ...records(machine.plugin.stateFile)];
}

async function strangeLinks({ host }: Machine): Promise<Link[]> {
  const links = await host.namespace.show<Link>('link');
  return links.filter(({ ifname }) => ifname !== 'lo' && !(ifname in host.ports));
}

function records(stateFile: string): string[] {
  const database = new DatabaseSync(stateFile, { readOnly: true });
  try {
    const rowsOf = (kind: string) => database.prepare(`SELECT * FROM ${kind}`).all();
    return KINDS.flatMap((kind) => rowsOf(kind).map((row) => `${kind}: ${JSON.stringify(row)}`));
  } finally {
    database.close();
  }
}

export async function assertNothingLeft(machine: Machine): Promise<void> {
  assert.deepEqual(await lastOf(() => leftovers(machine), SETTLE_TIMEOUT_MS), []);
}

/** Also the link from which the LAN was asked is gone; takes some seconds after the last container. */
export async function assertNoLinkLeft(machine: Machine): Promise<void> {
  assert.deepEqual(await lastOf(() => strangeLinks(machine), PROBE_TIMEOUT_MS), []);
}

/** Asks until the answer is empty or the time is over. */
export async function lastOf<T>(ask: () => Promise<T[]>, timeoutMs: number): Promise<T[]> {
  const deadlineMs = Date.now() + timeoutMs;
  let answer = await ask();
  while (answer.length > 0 && Date.now() < deadlineMs) {
    await sleep(100);
    answer = await ask();
  }
  return answer;
}
