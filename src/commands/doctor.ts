/** `tsmacvlan doctor`: looks at what networks and containers need, and says of each whether it is well and what to do. */
import { setTimeout as sleep } from 'node:timers/promises';
import { accessSync, constants, existsSync, statfsSync } from 'node:fs';
import { parseAddress } from '../address.ts';
import type { EngineInventory } from '../engine/inventory.ts';
import * as errors from '../errors.ts';
import { Links } from '../kernel/link.ts';
import { endpointOfAlias, hostLinkName } from '../linknames.ts';
import { type Endpoint, FAMILIES, type Network, type Records } from '../model.ts';
import type { Naming } from '../naming.ts';
import { print, printJson } from '../tables.ts';
import {
  type Check,
  CONTAINER_CHECKS,
  daemonIsThere,
  type Diagnosis,
  engineIsSilent,
  type Examined,
  type ExaminedContainer,
  type ExaminedLink,
  type ExaminedState,
  LINK_CHECKS,
  NETWORK_CHECKS,
  stateHasRoom,
  unknownNetworks,
} from './checks.ts';
import type { Options } from './command.ts';
import { findDaemon } from './daemon.ts';
import { suggestNetwork } from './firstnetwork.ts';
import { EMPTY, namingOf, readInventory } from './docker.ts';
import { stateToRead } from './places.ts';
import { readRecords } from './records.ts';

/** What was found is told by it, as `probe` tells of somebody. */
const FOUND = 3;

/** Between two looks that have to agree on what is wrong: what an engine does at this moment is no trouble. */
const AGREE_MS = 500;

/** `doctor`: of all, or of one network or container. Resolves with 3 where anything is not as it should be. */
export async function doctor(options: Options, typed: string): Promise<number> {
  const docker = await askDocker();
  const first = await look(options, typed, docker);
  const found = first.some(isTrouble) ? await lookAgain(options, typed, docker, first) : first;
  if (options.json) printJson(found);
  else print(found.map(line).join(''));
  return found.some(isTrouble) ? FOUND : 0;
}

function isTrouble({ level }: Diagnosis): boolean {
  return level !== 'ok';
}

/** What Docker has, or why it cannot be asked. */
interface Docker {
  readonly inventory: EngineInventory | null;
  readonly silent: readonly Diagnosis[];
}

async function askDocker(): Promise<Docker> {
  const silent: Diagnosis[] = [];
  const inventory = await readInventory((sentence) => silent.push(engineIsSilent(sentence)));
  return { inventory: silent.length > 0 ? null : inventory, silent };
}

/** A Docker that hangs is waited for once. */
async function lookAgain(
  options: Options,
  typed: string,
  docker: Docker,
  first: readonly Diagnosis[],
): Promise<Diagnosis[]> {
  const known = new Set(first.map(line));
  await sleep(AGREE_MS);
  const again = await look(options, typed, docker.inventory === null ? docker : await askDocker());
  return again.filter((one) => !isTrouble(one) || known.has(line(one)));
}

async function look(options: Options, typed: string, { inventory, silent }: Docker): Promise<Diagnosis[]> {
  const links = Links.open();
  try {
    const socket = await findDaemon();
    const seen = await examine(links, options['no-trunc'] === true, inventory);
    const { networks, endpoints } = chosen(seen, typed);
    const host =
      typed === '' ? [daemonIsThere(socket), ...(await state()).map(stateHasRoom), ...unknownNetworks(seen)] : [];
    const suggested = typed === '' && networks.length === 0 ? await suggestNetwork(links) : [];
    return [...host, ...silent, ...(await diagnose(networks, endpoints, seen)), ...suggested];
  } finally {
    links.close();
  }
}

async function diagnose(
  networks: readonly Network[],
  endpoints: readonly Endpoint[],
  seen: Examined,
): Promise<Diagnosis[]> {
  const of = networks.map((network) => checked(network, NETWORK_CHECKS, seen));
  const containers = endpoints.map((endpoint) => checked(endpoint, CONTAINER_CHECKS, seen));
  return (await Promise.all([...of, ...containers])).flat();
}

async function checked<T>(subject: T, checks: readonly Check<T>[], seen: Examined): Promise<Diagnosis[]> {
  const all = await Promise.all(checks.map(async (check) => check(subject, seen)));
  return all.filter((one) => one !== null);
}

/** By the id of a network or a container's endpoint, for who shows conflicts anyway: what two looks agree on, as `doctor` does. */
export async function findTroubles(): Promise<Map<string, Diagnosis[]>> {
  const first = await troublesNow();
  if (first.size === 0) return first;
  await sleep(AGREE_MS);
  const again = [...(await troublesNow())].map(([id, found]) => {
    const known = new Set(first.get(id)?.map(line));
    return [id, found.filter((one) => known.has(line(one)))] as const;
  });
  return new Map(again.filter(([, found]) => found.length > 0));
}

async function troublesNow(): Promise<Map<string, Diagnosis[]>> {
  const { inventory } = await askDocker();
  const links = Links.open();
  try {
    const seen = await examine(links, false, inventory);
    const { networks, endpoints } = chosen(seen, '');
    const all = await Promise.all([
      ...networks.map(async (one) => [one.id, await checked(one, NETWORK_CHECKS, seen)] as const),
      ...endpoints.map(async (one) => [one.id, await checked(one, LINK_CHECKS, seen)] as const),
    ]);
    const troubles = all.map(([id, found]) => [id, found.filter(isTrouble)] as const);
    return new Map(troubles.filter(([, found]) => found.length > 0));
  } finally {
    links.close();
  }
}

/** Throws DOCTOR_UNKNOWN. */
function chosen({ records, naming }: Examined, typed: string): { networks: Network[]; endpoints: Endpoint[] } {
  const living = records.endpoints.filter(({ state }) => state !== 'deleting');
  if (typed === '') return { networks: [...records.networks], endpoints: living };
  const networks = records.networks.filter(({ id }) => isMeant(id, naming.nameOf(id), typed));
  const named = new Set(records.leases.filter(({ name }) => name === typed).map(({ endpointId }) => endpointId));
  const endpoints = living.filter(
    ({ id, networkId }) =>
      networks.some((network) => network.id === networkId) ||
      named.has(id) ||
      isMeant(id, naming.known.containers.get(id) ?? null, typed),
  );
  const around = records.networks.filter(({ id }) => endpoints.some(({ networkId }) => networkId === id));
  if (networks.length === 0 && endpoints.length === 0) throw errors.doctorUnknown(typed);
  return { networks: networks.length > 0 ? networks : around, endpoints };
}

function isMeant(id: string, name: string | null, typed: string): boolean {
  return name === typed || (/^[0-9a-f]{4,64}$/.test(typed) && id.startsWith(typed));
}

const MARKS = { ok: 'ok', warning: 'warning', failure: 'FAILURE' } as const;

function line({ level, subject, says, todo }: Diagnosis): string {
  const words = [MARKS[level].padEnd(7), `${subject}: ${says}${todo === '' ? '' : `; ${todo}`}`];
  return `${errors.escapeControls(words.join('  '))}\n`;
}

/** None where it is out of sight, or where there are several: the daemon that runs has one. */
async function state(): Promise<ExaminedState[]> {
  const directory = await stateToRead().catch(() => '');
  if (!existsSync(directory)) return [];
  const { bavail, bsize } = statfsSync(directory);
  return [{ directory, freeBytes: bavail * bsize, isWritable: isWritable(directory) }];
}

function isWritable(directory: string): boolean {
  try {
    accessSync(directory, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

// --- what is looked at -------------------------------------------------------------------------------------------

async function examine(links: Links, isWhole: boolean, inventory: EngineInventory | null): Promise<Examined> {
  const tables = ['networks', 'endpoints', 'pools', 'leases', 'names', 'conflicts'] as const;
  const { filteredParents, ...records } = await readRecords(...tables);
  const naming: Naming = namingOf(inventory ?? EMPTY, isWhole);
  return {
    records,
    inventory,
    naming,
    filteredParents,
    links: await examineLinks(links, records),
    routes: await links.routes(),
    containerLinks: await examineContainers(links),
    ask: askOnce(records.networks),
  };
}

async function examineLinks(links: Links, { networks }: Records): Promise<Map<string, ExaminedLink>> {
  const names = new Set(networks.flatMap(({ parent }) => [parent.name, hostLinkName(parent.name)]));
  const found = new Map<string, ExaminedLink>();
  for (const name of names) {
    const link = await links.byName(name);
    if (link === undefined) continue;
    const addresses = await links.addresses(link.index);
    const neighbours = (await Promise.all(FAMILIES.map((family) => links.neighbours(link.index, family)))).flat();
    found.set(name, { link, isWireless: links.isWireless(name), addresses, neighbours });
  }
  return found;
}

async function examineContainers(links: Links): Promise<Map<string, ExaminedContainer> | null> {
  const { table } = links;
  const elsewhere = await table.linksElsewhere(({ alias }) => endpointOfAlias(alias) !== null);
  if (elsewhere === null) return null;
  const found = new Map<string, ExaminedContainer>();
  for (const link of await links.list(({ alias }) => endpointOfAlias(alias) !== null))
    found.set(endpointOfAlias(link.alias) ?? '', { link, isElsewhere: false, addresses: [] });
  for (const link of elsewhere) {
    const contents = table.contentsOf(link.namespaceId)?.addresses ?? [];
    const addresses = contents.filter(({ linkIndex }) => linkIndex === link.index).map(({ address }) => address);
    found.set(endpointOfAlias(link.alias) ?? '', { link, isElsewhere: true, addresses });
  }
  return found;
}

/** Networks that share a gateway ask for it once. What is in mode passthru is alone on its parent, and is to stay so. */
function askOnce(networks: readonly Network[]): Examined['ask'] {
  const asked = new Map<string, ReturnType<Examined['ask']>>();
  const ask: Examined['ask'] = async (parent, text) => {
    const address = parseAddress(text);
    if (address === undefined) return `${text} is no address`;
    if (networks.some((one) => one.parent.name === parent && one.options.mode === 'passthru'))
      return `${parent} is in mode passthru`;
    const { askLan } = await import('../main.ts');
    return askLan(parent, address, 'fast').catch((error: unknown) => String(error));
  };
  return (parent, text) => {
    const key = `${parent} ${text}`;
    const asking = asked.get(key) ?? ask(parent, text);
    asked.set(key, asking);
    return asking;
  };
}
