/** What a plugin left behind on a machine whose networks are all removed. */
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Machine } from './site.ts';

const KINDS = ['networks', 'endpoints', 'pools', 'leases'];
/** Deletions of links are acknowledged first and done a little later. */
const SETTLE_TIMEOUT_MS = 5_000;

/** Links that are neither the loopback nor one with a cable, and records of any kind; by name, empty when all is clean. */
export async function leftovers({ host, plugin }: Machine): Promise<string[]> {
  const links = await host.namespace.show<{ ifname: string }>('link');
  const strange = links.map((link) => link.ifname).filter((name) => name !== 'lo' && !(name in host.ports));
  const records = await Promise.all(KINDS.map(async (kind) => [kind, await plugin.records(kind)] as const));
  const kept = records.flatMap(([kind, found]) => found.map((record) => `${kind}: ${JSON.stringify(record)}`));
  return [...strange.map((name) => `link ${name}`), ...kept];
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
