/** `tsmacvlan doctor`: looks at what networks and containers need, and says of each whether it is well and what to do. */
import { setTimeout as sleep } from 'node:timers/promises';
import { accessSync, constants, existsSync, readdirSync, statfsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { parseAddress, parsePrefix } from '../address.ts';
import type { EngineInventory } from '../engine/inventory.ts';
import * as errors from '../errors.ts';
import { Links } from '../kernel/link.ts';
import type { DhcpOffer } from '../lan/dhcpoffers.ts';
import { Survey } from '../lan/survey.ts';
import { endpointOfAlias, hostLinkName } from '../linknames.ts';
import { type Endpoint, FAMILIES, type Network, type Records } from '../model.ts';
import { readRemarks } from '../network/hostview.ts';
import { print, printJson } from '../tables.ts';
import {
  CONTAINER_CHECKS,
  daemonIsThere,
  engineIsSilent,
  isThisVersion,
  LINK_CHECKS,
  misspeltSettings,
  NETWORK_CHECKS,
  RANGE_CHECKS,
  stateHasRoom,
  stateIsUnreadable,
  unknownNetworks,
} from './checks.ts';
import type { Options } from './command.ts';
import { findDaemon, settingsOfService } from './daemon.ts';
import {
  type Check,
  type Diagnosis,
  type Examined,
  type ExaminedContainer,
  type ExaminedLink,
  type ExaminedState,
  hasGateway,
  type LanAnswers,
  type OfferPatience,
} from './diagnosis.ts';
import { suggestNetwork } from './firstnetwork.ts';
import { EMPTY, namingOf, readInventory } from './docker.ts';
import { stateToRead } from './places.ts';
import { readRecords } from './records.ts';

/** What was found is told by it, as `probe` tells of somebody. */
const FOUND = 3;

/** Between two looks that have to agree on what is wrong: what an engine does at this moment is no trouble. */
const AGREE_MS = 500;
/** DHCP servers answer within the first, unless they ping the address: those of a network that lives by them are waited for. */
const OFFERS_MS = { hasty: 1000, patient: 4000 };
/** Gateways that are asked before it is known which are meant. */
const MOST_AHEAD = 8;

/** `doctor`: of all, or of one network or container. Resolves with 3 where anything is not as it should be. */
export async function doctor(options: Options, typed: string): Promise<number> {
  return onThisHost(async (host) => {
    const docker = askDocker();
    const first = await look(host, options, typed, docker);
    const found = first.some(isTrouble) ? await lookAgain(host, options, typed, docker, first) : first;
    if (options.json) printJson(found);
    else print(found.map(line).join(''));
    return found.some(isTrouble) ? FOUND : 0;
  });
}

/** What is looked at, twice where there is any trouble. */
interface ThisHost {
  readonly links: Links;
  readonly survey: Survey;
  /** One question to DHCP servers for both looks: they offer another address to each. */
  readonly offers: (parent: string, patience: OfferPatience) => Promise<readonly DhcpOffer[]>;
}

async function onThisHost<T>(act: (host: ThisHost) => Promise<T>): Promise<T> {
  const links = Links.open();
  const survey = new Survey(links);
  try {
    return await act({
      links,
      survey,
      offers: once((parent, patience: OfferPatience) => survey.offers(parent, OFFERS_MS[patience]).catch(() => [])),
    });
  } finally {
    await survey.close();
    links.close();
  }
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
  host: ThisHost,
  options: Options,
  typed: string,
  docker: Promise<Docker>,
  first: readonly Diagnosis[],
): Promise<Diagnosis[]> {
  const known = new Set(first.map(line));
  await sleep(AGREE_MS);
  const again = await look(host, options, typed, (await docker).inventory === null ? docker : askDocker());
  return again.filter((one) => !isTrouble(one) || known.has(line(one)));
}

async function look(host: ThisHost, options: Options, typed: string, docker: Promise<Docker>): Promise<Diagnosis[]> {
  const socket = await findDaemon();
  const looked = examined(host, options['no-trunc'] === true, docker, async (seen, silent) => {
    const { networks, endpoints, isOfContainer } = chosen(seen, typed);
    const ofHost = typed === '' ? await hostLines(socket, seen) : [];
    const suggested = typed === '' && networks.length === 0 ? await suggestNetwork(host.links) : [];
    const checks = isOfContainer ? NETWORK_CHECKS : [...NETWORK_CHECKS, ...RANGE_CHECKS];
    const found = await Promise.all([
      ...networks.map((network) => checked(network, checks, seen)),
      ...endpoints.map((endpoint) => checked(endpoint, CONTAINER_CHECKS, seen)),
    ]);
    return [...ofHost, ...silent, ...found.flat(), ...suggested];
  });
  return looked.catch((error: unknown) => [daemonIsThere(socket), stateIsUnreadable(error)]);
}

async function hostLines(socket: string | null, seen: Examined): Promise<Diagnosis[]> {
  const states = (await state()).map((state) => stateHasRoom(state, seen.schema));
  const misspelt = misspeltSettings(Object.keys(settingsOfService()));
  return [daemonIsThere(socket), ...isThisVersion(seen), ...states, ...misspelt, ...unknownNetworks(seen)];
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
  const all = await onThisHost((host) =>
    examined(host, false, askDocker(), (seen) => {
      const { networks, endpoints } = chosen(seen, '');
      return Promise.all([
        ...networks.map(async (one) => [one.id, await checked(one, NETWORK_CHECKS, seen)] as const),
        ...endpoints.map(async (one) => [one.id, await checked(one, LINK_CHECKS, seen)] as const),
      ]);
    }),
  );
  const troubles = all.map(([id, found]) => [id, found.filter(isTrouble)] as const);
  return new Map(troubles.filter(([, found]) => found.length > 0));
}

/** What is examined. */
interface Chosen {
  readonly networks: Network[];
  readonly endpoints: Endpoint[];
  /** A container is meant, and its network for its sake. */
  readonly isOfContainer: boolean;
}

/** Throws DOCTOR_UNKNOWN. */
function chosen({ records, naming }: Examined, typed: string): Chosen {
  const living = records.endpoints.filter(({ state }) => state !== 'deleting');
  if (typed === '') return { networks: [...records.networks], endpoints: living, isOfContainer: false };
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
  const isOfContainer = networks.length === 0;
  return { networks: isOfContainer ? around : networks, endpoints, isOfContainer };
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
  const isAllowed = isWritable(directory);
  const bytes = isAllowed ? bytesIn(directory) : 0;
  return [{ directory, freeBytes: bavail * bsize, bytes, isWritable: isAllowed }];
}

/** A file may go at any moment. */
function bytesIn(directory: string): number {
  const files = readdirSync(directory).map((name) => statSync(join(directory, name), { throwIfNoEntry: false }));
  return files.reduce((sum, file) => sum + (file?.size ?? 0), 0);
}

function isWritable(directory: string): boolean {
  try {
    accessSync(directory, constants.R_OK | constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

// --- what is looked at -------------------------------------------------------------------------------------------

/** `act` is told what was examined, and may ask the LAN as long as it runs. */
async function examined<T>(
  host: ThisHost,
  isWhole: boolean,
  docker: Promise<Docker>,
  act: (seen: Examined, silent: readonly Diagnosis[]) => Promise<T>,
): Promise<T> {
  const { links } = host;
  const tables = ['networks', 'endpoints', 'pools', 'leases', 'names', 'conflicts', 'tenancies'] as const;
  const recorded = readRecords(...tables).then((seen) => {
    const lan = askOnce(host, seen.networks);
    askAhead(lan, seen.networks);
    return { ...seen, lan };
  });
  const [
    { lan, filteredParents, version, schema, ...records },
    examinedLinks,
    routes,
    remarksOf,
    containerLinks,
    asked,
  ] = await Promise.all([
    recorded,
    recorded.then((records) => examineLinks(links, records)),
    links.routes(),
    readRemarks(links),
    examineContainers(links),
    docker,
  ]);
  const { inventory, silent } = asked;
  const seen: Examined = {
    records,
    inventory,
    naming: namingOf(inventory ?? EMPTY, isWhole),
    filteredParents,
    version,
    schema,
    links: examinedLinks,
    routes,
    remarksOf,
    containerLinks,
    lan,
  };
  return act(seen, silent);
}

/** Most wait for gateways: they answer while the rest is read. */
function askAhead(lan: LanAnswers, networks: readonly Network[]): void {
  const asked = networks
    .filter(hasGateway)
    .flatMap(({ parent, subnets }) =>
      subnets.flatMap(({ gateway }) => (gateway === null ? [] : { parent: parent.name, gateway })),
    );
  for (const { parent, gateway } of asked.slice(0, MOST_AHEAD)) void lan.who(parent, gateway);
}

async function examineLinks(links: Links, { networks }: Records): Promise<Map<string, ExaminedLink>> {
  const names = new Set(networks.flatMap(({ parent }) => [parent.name, hostLinkName(parent.name)]));
  const found = await Promise.all([...names].map(async (name) => [name, await examineLink(links, name)] as const));
  return new Map(found.flatMap(([name, one]) => (one === undefined ? [] : [[name, one]])));
}

async function examineLink(links: Links, name: string): Promise<ExaminedLink | undefined> {
  const link = await links.byName(name);
  if (link === undefined) return undefined;
  const [addresses, filteredMacs, ...neighbours] = await Promise.all([
    links.addresses(link.index),
    links.filteredMacs(link.index),
    ...FAMILIES.map((family) => links.neighbours(link.index, family)),
  ]);
  return {
    link,
    isWireless: links.isWireless(name),
    isVirtualFunction: links.isVirtualFunction(name),
    addresses,
    neighbours: neighbours.flat(),
    filteredMacs,
  };
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
function askOnce({ survey, offers }: ThisHost, networks: readonly Network[]): LanAnswers {
  const isAlone = (parent: string) =>
    networks.some(({ parent: { name }, options }) => name === parent && options.mode === 'passthru');
  return {
    who: once(async (parent, text) => {
      const address = parseAddress(text);
      if (address === undefined) return `${text} is no address`;
      if (isAlone(parent)) return `${parent} is in mode passthru`;
      return survey.answers(parent, address).catch(String);
    }),
    proxy: once(async (parent, text) => {
      const subnet = parsePrefix(text);
      return subnet === undefined || isAlone(parent) ? null : survey.proxy(parent, subnet).catch(() => null);
    }),
    offers: async (parent, patience = 'hasty') => (isAlone(parent) ? [] : offers(parent, patience)),
  };
}

/** What was asked before is not asked again. */
function once<T, Words extends string[]>(ask: (...words: Words) => Promise<T>): (...words: Words) => Promise<T> {
  const asked = new Map<string, Promise<T>>();
  return (...words) => {
    const key = words.join(' ');
    const asking = asked.get(key) ?? ask(...words);
    asked.set(key, asking);
    return asking;
  };
}
