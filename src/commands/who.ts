/** `tsmacvlan who`: what is known of an address, a MAC address or a name, and whether it answers on the LAN at this moment. */
import { networkInterfaces } from 'node:os';
import { type Address, parseAddress } from '../address.ts';
import { describeConflict, holderOf } from '../contested.ts';
import type { EngineInventory } from '../engine/inventory.ts';
import * as errors from '../errors.ts';
import { isProbeMac, isStandbyMac } from '../lan/frames/mac.ts';
import { Survey } from '../lan/survey.ts';
import { Links } from '../kernel/link.ts';
import type { Conflict, Network, Records } from '../model.ts';
import type { Naming } from '../naming.ts';
import { print, printJson, times } from '../tables.ts';
import type { Options } from './command.ts';
import { namingOf, withInventory } from './docker.ts';
import {
  findAddress,
  type WhoAnswer,
  findMac,
  findName,
  findNetwork,
  type HostAddress,
  type NamedContainer,
  readWhom,
} from './findings.ts';
import { duration, remaining } from './leasewords.ts';
import { type PoolUses, readPoolUses } from './pooluses.ts';
import { readRecords } from './records.ts';
import { vendorOf } from './vendor.ts';

/** `silent`: nobody within the time. `unasked`: why. */
type Heard =
  | { readonly answer: 'heard'; readonly macAddress: string }
  | { readonly answer: 'silent' | 'unasked'; readonly reason: string };

/** An answer takes milliseconds and silence 0.7 s: longer only where the host itself has no time. */
const ANSWER_MS = 3000;
/** So many addresses are asked for, all at once. */
const MOST_ASKED = 8;
/** Of an id, to mean it by its beginning. */
const LEAST_ID = 4;

/** `who` */
export async function who(options: Options, typed: string): Promise<void> {
  if (typed.trim() === '') throw errors.whoUsage();
  const tables = ['networks', 'endpoints', 'pools', 'leases', 'names', 'conflicts', 'tenancies'] as const;
  const [records, inventory] = await withInventory(readRecords(...tables));
  const naming = namingOf(inventory, options['no-trunc'] === true);
  const found = find(records, typed, inventory);
  if (found.length === 0) throw errors.whoUnknown(typed);
  const uses = found.some(({ kind }) => kind === 'free') ? await readPoolUses(records) : new Map();
  const answers = found.map((finding, position) => ({
    finding,
    heard: position < MOST_ASKED ? ask(finding) : Promise.resolve(TOO_MANY),
  }));
  if (options.json)
    return printJson(
      await Promise.all(answers.map(async ({ finding, heard }) => written(finding, await heard, naming, uses))),
    );
  for (const [position, { finding, heard }] of answers.entries()) {
    print(`${position === 0 ? '' : '\n'}${described(finding, naming, uses)}`);
    // Silence takes a while to be told from an answer.
    if (isAsked(finding)) print(lines([lanRow(finding, await heard)]));
  }
}

const TOO_MANY: Heard = { answer: 'unasked', reason: 'too many addresses' };

function find(records: Records, typed: string, inventory: EngineInventory): WhoAnswer[] {
  const { address, macAddress } = readWhom(typed);
  const hosts = hostAddresses();
  const containers = containersMeant(typed, inventory);
  // A container may be called like an address; one that is nobody's here is no better answer.
  if (address !== undefined) {
    const found = findAddress(records, address, hosts);
    return found.some(({ kind }) => kind !== 'outside') || containers.length === 0
      ? found
      : findName(records, typed, containers);
  }
  if (macAddress !== undefined) return findMac(records, macAddress, hosts);
  const named = findName(records, typed, containers);
  return named.length > 0 ? named : findNetwork(records, typed, inventory);
}

function containersMeant(typed: string, { containers }: EngineInventory): NamedContainer[] {
  const isId = typed.length >= LEAST_ID && /^[0-9a-f]+$/.test(typed);
  const meant = containers.filter(({ id, name }) => name === typed || (isId && id.startsWith(typed)));
  return meant.map(({ name, attachments }) => ({
    name,
    endpointIds: attachments.map(({ endpointId }) => endpointId).filter((id) => id !== ''),
    stoppedIn: attachments.filter(({ endpointId }) => endpointId === '').map(({ networkId }) => networkId),
  }));
}

function hostAddresses(): HostAddress[] {
  return Object.entries(networkInterfaces()).flatMap(([linkName, addresses = []]) =>
    addresses.map(({ address, mac }) => ({ linkName, macAddress: mac, address })),
  );
}

// --- the LAN -----------------------------------------------------------------------------------------------------

function isAsked({ address, parent, kind }: WhoAnswer): boolean {
  return address !== null && parent !== null && kind !== 'host' && kind !== 'unusable';
}

/** Never throws: what cannot be asked is an answer as well. */
async function ask(finding: WhoAnswer): Promise<Heard> {
  const { address: text, network, parent, kind } = finding;
  const address = text === null ? undefined : parseAddress(text);
  if (address === undefined || parent === null || !isAsked(finding))
    return { answer: 'unasked', reason: 'there is nothing to ask' };
  const mode = network?.options.mode ?? 'bridge';
  // What is in mode passthru is alone on its parent, and is to stay so.
  if (mode === 'passthru')
    return { answer: 'unasked', reason: 'the network has its parent for itself (mode passthru)' };
  if (mode !== 'bridge' && kind === 'container')
    return { answer: 'unasked', reason: `in mode ${mode} a container does not hear its own host` };
  if (kind === 'container') return askContainer(parent, address);
  const { askLan } = await import('../main.ts');
  const signal = AbortSignal.timeout(ANSWER_MS);
  try {
    const verdict = await askLan(parent, address, 'fast', signal);
    return verdict.held && !isDaemon(verdict.macAddress)
      ? { answer: 'heard', macAddress: verdict.macAddress }
      : { answer: 'silent', reason: 'nobody answers' };
  } catch (error) {
    if (signal.aborted) return { answer: 'silent', reason: `no answer within ${ANSWER_MS / 1000} seconds` };
    return { answer: 'unasked', reason: error instanceof Error ? error.message : String(error) };
  }
}

/** It answers at once; the link that asks is taken away when that is told. Never throws. */
async function askContainer(parent: string, address: Address): Promise<Heard> {
  const links = Links.open();
  const survey = new Survey(links);
  try {
    const { toSubInterface } = await survey.answers(parent, address);
    return toSubInterface === null
      ? { answer: 'silent', reason: 'nobody answers' }
      : { answer: 'heard', macAddress: toSubInterface };
  } catch (error) {
    return { answer: 'unasked', reason: error instanceof Error ? error.message : String(error) };
  } finally {
    void survey
      .close()
      .catch(() => undefined)
      .then(() => links.close());
  }
}

/** A daemon of this kind keeps the address ready, and lets others of its kind know. */
function isDaemon(macAddress: string): boolean {
  return isProbeMac(macAddress) || isStandbyMac(macAddress);
}

// --- in words ----------------------------------------------------------------------------------------------------

function described(finding: WhoAnswer, naming: Naming, uses: PoolUses): string {
  const rows = [...placeRows(finding, naming), ...timeRows(finding), ...nextRow(finding, uses)];
  return `${errors.escapeControls(title(finding, naming))}\n${lines(rows)}`;
}

/** As wide as the longest of the headings. */
function lines(rows: readonly (readonly [string, string])[]): string {
  return rows.map(([key, value]) => `  ${key.padEnd(LAN.length)}  ${errors.escapeControls(value)}\n`).join('');
}

const LAN = 'LAN, just now';

function title(finding: WhoAnswer, naming: Naming): string {
  const { kind, address, remark, network } = finding;
  const name = nameIn(finding, naming);
  const sentences: Readonly<Record<WhoAnswer['kind'], string>> = {
    container: `is container ${name ?? '(Docker says no name)'}${remark === null ? '' : `; ${remark}`}`,
    leased: `is given out${name === null ? '' : ` to ${name}`}: ${remark ?? 'its container is starting, or has just ended'}`,
    gateway: 'is the gateway',
    auxiliary: 'is an auxiliary address: it was named when the network was made',
    host: `is this host${remark === null ? '' : ` ${remark}`}`,
    stranger: 'is used by somebody else on the LAN',
    left: 'was used by somebody else on the LAN, who does not use it any more',
    reserved: `is reserved for ${name}, which does not run`,
    remembered: `is remembered for ${name}, which does not run`,
    aside: `is kept for ${name ?? 'a container'}, which does not run: its DHCP server gave it to its MAC address`,
    unusable: `is the ${remark}`,
    excluded: `is excluded by --ipam-opt exclude=${remark}`,
    free: `is free${remark === null ? '' : ` (${remark})`}`,
    outside: 'is in no network of tsmacvlan on this host',
    network: `is a network with ${remark}; tsmacvlan map shows it`,
    stopped: `${name} does not run, and no address is kept for it`,
  };
  if (kind === 'network') return `${network === null ? '' : naming.network(network.id)} ${sentences[kind]}`;
  return kind === 'stopped' ? sentences[kind] : `${address ?? 'a container without an address'} ${sentences[kind]}`;
}

function nameIn({ name, endpointId }: WhoAnswer, naming: Naming): string | null {
  return naming.container(endpointId) ?? (name === null ? null : naming.text(name));
}

function placeRows(finding: WhoAnswer, naming: Naming): [string, string][] {
  const { kind, network, parent, macAddress, endpointId, tenancy } = finding;
  const rows: [string, string | null][] = [
    ['network', network && networkInWords(network, naming)],
    ['parent', network === null ? parent : parentInWords(network)],
    ['MAC address', macAddress && (kind === 'container' ? macAddress : macInWords(macAddress))],
    ['endpoint', endpointId && naming.id(endpointId)],
    ['DHCP server', tenancy && tenancy.server],
    ['lease', tenancy && remaining(tenancy, Date.now())],
  ];
  return rows.filter((row): row is [string, string] => row[1] !== null);
}

function networkInWords({ id, options, subnets }: Network, naming: Naming): string {
  const name = naming.network(id);
  const ids = naming.known.networks.has(id) ? [naming.id(id)] : [];
  return [name, ...ids, options.mode, ...subnets.map(({ subnet }) => subnet)].join('  ');
}

function parentInWords({ parent: { name, recipe } }: Network): string {
  if (recipe === 'isolated') return 'none: the network is isolated';
  return recipe === null ? name : `${name}, VLAN ${recipe.vlan.join('.')} on ${recipe.base}`;
}

function macInWords(macAddress: string): string {
  const vendor = vendorOf(macAddress);
  return vendor === null ? macAddress : `${macAddress} (${vendor})`;
}

function timeRows({ since, kind, conflicts }: WhoAnswer): [string, string][] {
  const heading = ['reserved', 'remembered', 'aside'].includes(kind) ? 'last used' : 'since';
  const rows: [string, string][] = since === null ? [] : [[heading, `${since} (${ago(since)} ago)`]];
  return [...rows, ...conflicts.map((one): [string, string] => ['conflict', conflictInWords(one)])];
}

function conflictInWords(conflict: Conflict): string {
  const { count, seenAt, endedAt, ourMacAddress, kind } = conflict;
  const words =
    ourMacAddress === null && kind === 'address' ? `used by ${holderOf(conflict)}` : describeConflict(conflict);
  const state = endedAt === null ? 'it lasts' : `it ended ${ago(endedAt)} ago`;
  return `${words}; seen ${times(count)}, last ${ago(seenAt)} ago; ${state}`;
}

function lanRow({ kind, macAddress }: WhoAnswer, heard: Heard): [string, string] {
  if (heard.answer === 'unasked') return [LAN, `not asked: ${heard.reason}`];
  if (heard.answer !== 'heard') return [LAN, heard.reason];
  const words = macAddress === heard.macAddress ? 'it answers' : `answered by ${macInWords(heard.macAddress)}`;
  return [LAN, kind === 'free' ? `${words}: somebody has the address already` : words];
}

function nextRow({ kind, pool }: WhoAnswer, uses: PoolUses): [string, string][] {
  const use = kind === 'free' && pool !== null ? uses.get(pool.id) : undefined;
  if (use === undefined) return [];
  return [['next', use.next === null ? 'none: nothing is left in the range' : `${use.next} is given to who asks next`]];
}

/** `3 minutes`; a clock that was set back makes it 0 seconds. */
function ago(iso: string): string {
  return duration(Date.now() - Date.parse(iso));
}

// --- as data -----------------------------------------------------------------------------------------------------

function written(finding: WhoAnswer, heard: Heard, naming: Naming, uses: PoolUses) {
  const { network, pool, endpointId, name, macAddress } = finding;
  return {
    ...finding,
    name: naming.known.containers.get(endpointId ?? '') ?? name,
    network: network && { id: network.id, name: naming.known.networks.get(network.id) ?? null },
    vlan:
      network === null || network.parent.recipe === null || network.parent.recipe === 'isolated'
        ? []
        : network.parent.recipe.vlan,
    pool: pool && pool.id,
    vendor: macAddress === null || finding.kind === 'container' ? null : vendorOf(macAddress),
    lan: heard,
    next: (pool && uses.get(pool.id)?.next) ?? null,
  };
}
