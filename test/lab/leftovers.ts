/** What a plugin left behind on a machine whose networks are all removed. */
import assert from 'node:assert/strict';
import { DatabaseSync } from 'node:sqlite';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Machine } from './site.ts';

/** Views of the state file. */
const KINDS = ['networks', 'endpoints', 'pools', 'leases'];
/** Deletions of links are acknowledged first and done a little later. */
const SETTLE_TIMEOUT_MS = 5_000;

/** Links that are neither the loopback nor one with a cable, and records of any kind; empty when all is clean. */
export async function leftovers({ host, plugin }: Machine): Promise<string[]> {
  const links = await host.namespace.show<{ ifname: string }>('link');
  const strange = links.map((link) => link.ifname).filter((name) => name !== 'lo' && !(name in host.ports));
  return [...strange.map((name) => `link ${name}`), ...records(plugin.stateFile)];
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
  const deadlineMs = Date.now() + SETTLE_TIMEOUT_MS;
  let left = await leftovers(machine);
  while (left.length > 0 && Date.now() < deadlineMs) {
    await sleep(100);
    left = await leftovers(machine);
  }
  assert.deepEqual(left, []);
}
