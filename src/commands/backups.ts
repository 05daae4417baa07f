/** `backup` and `restore`: what is recorded as one file, and back. */
import { setTimeout as sleep } from 'node:timers/promises';
import * as errors from '../errors.ts';
import { type Network, TABLES } from '../model.ts';
import type { Backup } from '../store/backup.ts';
import { print, printJson, table } from '../tables.ts';
import type { Options } from './command.ts';
import { stateToRestore } from './places.ts';
import { daemonToAsk, readTold, type ToldState } from './records.ts';

/** CreateNetwork is answered by then. */
const MOST_WAIT_MS = 10_000;
const LOOK_MS = 250;

/** Consistent while the daemon runs: it answers with the records of one moment. */
export async function backup({ json }: Options, file: string): Promise<void> {
  const { writeBackup } = await import('../store/backup.ts');
  const { Schema: schema, Version: version, Node: node, Tables: tables } = await readSettled();
  writeBackup(file, { schema, version, node, tables });
  if (json) printJson({ file, ...countsOf(tables) });
  else print(`${file} has ${inWords(countsOf(tables))}\n`);
}

/**
 * A network that is being made is waited for: a start takes away what has not come to its end, and this one's engine may be told
 * of it a moment after the backup. What is not over by then was left so by a daemon that was killed.
 */
async function readSettled(): Promise<ToldState> {
  const untilMs = performance.now() + MOST_WAIT_MS;
  for (;;) {
    const told = await readTold(TABLES);
    const networks = (told.Tables.networks ?? []) as readonly Pick<Network, 'isPending'>[];
    if (!networks.some(({ isPending }) => isPending) || performance.now() > untilMs) return told;
    await sleep(LOOK_MS);
  }
}

/** Only while no daemon runs: one that does would go on with what it has in memory. */
export async function restore({ json, 'dry-run': isDryRun = false }: Options, file: string): Promise<void> {
  const { readBackup, restoreBackup } = await import('../store/backup.ts');
  const found = readBackup(file);
  const running = await daemonToAsk();
  if (running !== null && !isDryRun) throw errors.restoreWhileRunning(running);
  const directory = running === null ? await stateToRestore() : null;
  const kept = isDryRun || directory === null ? null : await restoreBackup(directory, file, found);
  const { madeAt, host, version } = found;
  if (json) return printJson({ file, madeAt, host, version, directory, kept, isDryRun, ...countsOf(found.tables) });
  if (isDryRun) await printPlan(found, directory);
  else print(afterwards(found, directory ?? '', kept));
}

function afterwards({ madeAt, tables }: Backup, directory: string, kept: string | null): string {
  return [
    `${directory} has what was recorded at ${madeAt}: ${inWords(countsOf(tables))}`,
    ...(kept === null ? [] : [`what was there before is kept as ${kept}, until the next restore`]),
    'start tsmacvlan now: it finds containers that were started since then by their interfaces',
    '',
  ].join('\n');
}

/** What is there now stands beside what would be. */
async function printPlan(found: Backup, directory: string | null): Promise<void> {
  const now = await readTold(TABLES).catch(() => null);
  const [then, present] = [countsOf(found.tables), countsOf(now?.Tables ?? {})];
  const rows = TABLES.map((name) => ({
    RECORDS: name === 'tenancies' ? 'DHCP leases' : name,
    NOW: now === null ? '-' : String(present[name]),
    'IN THE BACKUP': String(then[name]),
  }));
  const where = directory === null ? 'once the daemon is stopped' : `in ${directory}`;
  print(table(rows));
  print(`made at ${found.madeAt} on ${found.host} by tsmacvlan ${found.version}; would be restored ${where}\n`);
}

type Counts = Readonly<Record<(typeof TABLES)[number], number>>;

function countsOf(tables: Backup['tables']): Counts {
  return Object.fromEntries(TABLES.map((name) => [name, tables[name]?.length ?? 0])) as Counts;
}

function inWords({ networks, endpoints, leases, tenancies, names }: Counts): string {
  const counted = (count: number, one: string, many = `${one}s`) => `${count} ${count === 1 ? one : many}`;
  const words = [counted(networks, 'network'), counted(endpoints, 'endpoint'), counted(leases, 'address', 'addresses')];
  const ofServers = tenancies === 0 ? [] : [counted(tenancies, 'DHCP lease')];
  return [...words, ...ofServers, counted(names, 'name')].join(', ');
}
