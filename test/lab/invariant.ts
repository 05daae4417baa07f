/**
 * What must be true of hosts on a LAN whenever no call is under way. Four tellings of the same thing are compared:
 *
 *     engine (network inspect) ── records (state file) ── links (every namespace of the host) ── answers (the wire)
 *
 * A `surplus` is something of ours that nobody asked for: a leak. `missing` and `doubled` break what was promised.
 */
import assert from 'node:assert/strict';
import { DatabaseSync } from 'node:sqlite';
import type { Lease, Network, Pool, Tenancy } from '../../src/model.ts';
import type { WrittenEndpoint } from '../../src/store/codec.ts';
import type { Engine } from './engine.ts';
import type { Host } from './host.ts';
import type { Lan } from './namespace.ts';
import { lookUntil } from './patience.ts';
import type { Machine } from './site.ts';
import { askWire } from './survey.ts';

export interface Violation {
  readonly kind: 'surplus' | 'missing' | 'doubled';
  /** By the name that `tsmacvlan gc` would give it, where it may be a leak: `7edcda37f0f2`, `192.0.2.7`. */
  readonly name: string;
  readonly text: string;
}

type MaybeWithoutEngine = Omit<Machine, 'engine'> & Partial<Machine>;

interface Records {
  readonly networks: Network[];
  readonly endpoints: WrittenEndpoint[];
  readonly pools: Pool[];
  readonly leases: Lease[];
  readonly tenancies: Tenancy[];
}

interface Link {
  readonly ifname: string;
  readonly ifalias?: string;
  readonly address: string;
  readonly flags: string[];
  readonly linkinfo?: { readonly info_kind?: string };
  readonly addr_info: readonly { readonly local: string; readonly scope: string }[];
}

/** A link and the namespace it is in. */
interface Found extends Link {
  readonly namespace: string;
  readonly isInHost: boolean;
}

interface EngineEndpoint {
  readonly id: string;
  readonly networkId: string;
  readonly container: string;
  readonly macAddress: string;
  /** Without prefix length. */
  readonly addresses: string[];
}

interface EngineView {
  readonly networkIds: string[];
  readonly endpoints: EngineEndpoint[];
}

interface Views {
  readonly name: string;
  readonly records: Records;
  readonly links: Found[];
  readonly engine: EngineView;
}

const ENDPOINT_ALIAS = 'tsmacvlan endpoint ';
/** The link from which the LAN was asked about an address watches over it for 10 s, then lingers for 2 s. */
const PROBE_ALIAS = 'tsmacvlan probe';
const PROBE_TIMEOUT_MS = 60_000;
/** Deletions of links are acknowledged first and done a little later. Leaks are collected after two minutes. */
const SETTLE_TIMEOUT_MS = 30_000;
/** A daemon that starts, or ends, has its state to itself for a moment. */
const BUSY_TIMEOUT_MS = 5_000;

// --- what tests ask for -------------------------------------------------------------------------------------------

/** Engines, records, links and the wire tell the same. */
export async function assertConsistent(machines: readonly Machine[], lan: Lan): Promise<void> {
  assert.deepEqual(await lastOf(() => violations(machines, lan), SETTLE_TIMEOUT_MS), []);
}

/** A machine whose networks are all removed holds nothing of them. */
export async function assertNothingLeft(machine: MaybeWithoutEngine): Promise<void> {
  assert.deepEqual(await lastOf(() => leftovers(machine), SETTLE_TIMEOUT_MS), []);
}

/** Also the link from which the LAN was asked is gone; takes some seconds after the last container. */
export async function assertNoLinkLeft(machine: Machine): Promise<void> {
  assert.deepEqual(await lastOf(() => strangeLinks(machine), PROBE_TIMEOUT_MS), []);
}

/** Asks until the answer is empty or the time is over. */
export async function lastOf<T>(ask: () => Promise<T[]>, timeoutMs: number, pollMs?: number): Promise<T[]> {
  let answer: T[] = [];
  const isEmpty = async () => {
    answer = await ask();
    return answer.length === 0;
  };
  await lookUntil(isEmpty, timeoutMs, pollMs);
  return answer;
}

/** Links that are neither the loopback nor one with a cable, and records of any kind; empty when all is clean. */
export async function leftovers(machine: MaybeWithoutEngine): Promise<string[]> {
  const links = (await strangeLinks(machine)).filter(({ ifalias }) => ifalias !== PROBE_ALIAS);
  const records = Object.entries(readRecords(machine.plugin.stateFile));
  return [
    ...links.map(({ ifname }) => `link ${ifname}`),
    ...records.flatMap(([kind, rows]) => (rows as object[]).map((row) => `${kind}: ${JSON.stringify(row)}`)),
  ];
}

async function strangeLinks({ host }: Pick<Machine, 'host'>): Promise<{ ifname: string; ifalias?: string }[]> {
  const links = await host.namespace.show<{ ifname: string; ifalias?: string }>('link');
  return links.filter(({ ifname }) => ifname !== 'lo' && !(ifname in host.ports));
}

/** All that is wrong at this moment; what is being changed meanwhile may seem so. */
export async function violations(machines: readonly Machine[], lan: Lan): Promise<Violation[]> {
  const views = await Promise.all(machines.map(look));
  return [...views.flatMap(judgeHost), ...judgeSegment(views), ...(await judgeWire(views, machines, lan))];
}

// --- the tellings -------------------------------------------------------------------------------------------------

async function look({ host, engine, plugin }: Machine): Promise<Views> {
  const [links, told] = await Promise.all([readLinks(host), readEngine(engine)]);
  return { name: host.name, records: readRecords(plugin.stateFile), links, engine: told };
}

export function readRecords(stateFile: string): Records {
  const database = new DatabaseSync(stateFile, { readOnly: true, timeout: BUSY_TIMEOUT_MS });
  try {
    const all = <T>(kind: string) =>
      database
        .prepare(`SELECT record FROM ${kind}_records`)
        .all()
        .map(({ record }) => JSON.parse(String(record)) as T);
    return {
      networks: all<Network>('network'),
      endpoints: all<WrittenEndpoint>('endpoint'),
      pools: all<Pool>('pool'),
      leases: all<Lease>('lease'),
      tenancies: all<Tenancy>('tenancy'),
    };
  } finally {
    database.close();
  }
}

// Namespaces by process, and those that the engine holds for containers whose process is gone.
const SHOW_NAMESPACES = `stat -Lc '%i %n' /proc/[0-9]*/ns/net /run/docker/netns/* 2>/dev/null | while read -r inode ns; do
  case " $seen " in *" $inode "*) continue;; esac
  seen="$seen $inode"
  links=$(nsenter --net=$ns ip -j -d address 2>/dev/null) && echo "$inode $links"
done`;

/** Process 1 of the host is in the host's own namespace, and the first that is shown. */
async function readLinks(host: Host): Promise<Found[]> {
  const { stdout } = await host.run(['sh', '-c', `seen=; ${SHOW_NAMESPACES}`]);
  const lines = stdout.split('\n').filter((line) => line.includes(' '));
  return lines.flatMap((line, position) => {
    const [namespace = ''] = line.split(' ');
    const links = JSON.parse(line.slice(namespace.length)) as Link[];
    return links.filter(({ ifname }) => ifname).map((link) => ({ ...link, namespace, isInHost: position === 0 }));
  });
}

interface Inspected {
  readonly Id: string;
  readonly Containers: Record<
    string,
    Record<'Name' | 'EndpointID' | 'MacAddress' | 'IPv4Address' | 'IPv6Address', string>
  >;
}

async function readEngine(engine: Engine): Promise<EngineView> {
  const filters = encodeURIComponent(JSON.stringify({ driver: ['tsmacvlan'] }));
  const listed = await engine.api<{ Id: string }[]>('GET', `/networks?filters=${filters}`);
  const inspected = await Promise.all(listed.map(({ Id }) => engine.api<Inspected>('GET', `/networks/${Id}`)));
  const endpoints = inspected.flatMap(({ Id, Containers }) =>
    Object.values(Containers).map((container) => ({
      id: container.EndpointID,
      networkId: Id,
      container: container.Name,
      macAddress: container.MacAddress,
      addresses: [container.IPv4Address, container.IPv6Address].filter(Boolean).map(bare),
    })),
  );
  return { networkIds: listed.map(({ Id }) => Id), endpoints };
}

// --- one host -----------------------------------------------------------------------------------------------------

function judgeHost(views: Views): Violation[] {
  return [
    ...compareNetworks(views),
    ...compareEndpoints(views),
    ...comparePools(views),
    ...compareLeases(views),
    ...compareLinks(views),
  ].map((violation) => ({ ...violation, text: `${views.name}: ${violation.text}` }));
}

function compareNetworks({ records, engine }: Views): Violation[] {
  return [
    ...absent(engine.networkIds, idsOf(records.networks)).map((id) => missing(short(id), 'the network has no record')),
    ...absent(idsOf(records.networks), engine.networkIds).map((id) => surplus(short(id), 'no such network')),
  ];
}

function compareEndpoints({ records, engine }: Views): Violation[] {
  const recorded = new Map(records.endpoints.map((endpoint) => [endpoint.id, endpoint]));
  const living = engine.endpoints.flatMap((told): Violation[] => {
    const endpoint = recorded.get(told.id);
    const addresses = (endpoint?.addresses ?? []).map(bare);
    const isSame =
      endpoint?.state === 'joined' &&
      endpoint.networkId === told.networkId &&
      endpoint.macAddress === told.macAddress &&
      isSameSet(addresses, told.addresses);
    return isSame ? [] : [missing(short(told.id), `${inWords(told)} is recorded as ${JSON.stringify(endpoint)}`)];
  });
  const told = engine.endpoints.map(({ id }) => id);
  return [
    ...living,
    ...absent(idsOf(records.endpoints), told).map((id) => surplus(short(id), 'an endpoint without a container')),
  ];
}

function comparePools({ records }: Views): Violation[] {
  const networkIds = idsOf(records.networks);
  const orphans = records.pools.filter(({ networkId }) => networkId === null || !networkIds.includes(networkId));
  const tied = (id: string) => records.pools.some(({ networkId }) => networkId === id);
  const withoutPool = records.networks.filter(
    ({ id, subnets }) => subnets.some(({ realm }) => realm !== null) && !tied(id),
  );
  return [
    ...orphans.map(({ range, subnet }) => surplus(range ?? subnet, 'a pool without a network')),
    ...withoutPool.map(({ id }) => missing(short(id), 'its pool is gone')),
  ];
}

function compareLeases({ records }: Views): Violation[] {
  const poolIds = idsOf(records.pools);
  const leased = new Map(records.leases.map((lease) => [lease.address, lease]));
  const unused = records.leases.filter(({ kind, endpointId, poolIds: pools }) =>
    kind === 'container'
      ? endpointId === null || !idsOf(records.endpoints).includes(endpointId)
      : absent(pools, poolIds).length > 0,
  );
  return [
    ...unused.map(({ address, kind }) => surplus(address, `a lease (${kind}) that nobody has`)),
    ...addressesNeeded(records)
      .filter(({ address, endpointId }) => leased.get(address)?.endpointId !== endpointId)
      .map(({ address }) => missing(address, 'in use without a lease')),
  ];
}

/** What the IPAM must have leased: containers' addresses of its own networks, and their gateways. */
function addressesNeeded({ networks, endpoints }: Records): { address: string; endpointId: string | null }[] {
  const ours = networks.filter(({ subnets }) => subnets.every(({ realm }) => realm !== null));
  const gateways = ours.flatMap(({ subnets }) => subnets.flatMap(({ gateway }) => gateway ?? []));
  const ids = idsOf(ours);
  const living = endpoints.filter(({ networkId, state }) => state === 'joined' && ids.includes(networkId));
  return [
    ...gateways.map((address) => ({ address: bare(address), endpointId: null })),
    ...living.flatMap(({ id, addresses }) => addresses.map((text) => ({ address: bare(text), endpointId: id }))),
  ];
}

function compareLinks({ records, links, engine }: Views): Violation[] {
  const ours = links.filter(({ ifalias }) => ifalias?.startsWith(ENDPOINT_ALIAS));
  const living = engine.endpoints.flatMap((told): Violation[] => {
    const [link, ...more] = ours.filter(({ ifalias }) => ifalias === ENDPOINT_ALIAS + told.id);
    if (link === undefined) return [missing(short(told.id), `${inWords(told)} has no link`)];
    if (more.length > 0) return [doubled(short(told.id), `${inWords(told)} has ${more.length + 1} links`)];
    return isAsTold(link, told)
      ? []
      : [missing(short(told.id), `${inWords(told)} has the link ${JSON.stringify(link)}`)];
  });
  const known = records.endpoints.map(({ id }) => ENDPOINT_ALIAS + id);
  const strangers = ours.filter(({ ifalias = '' }) => !known.includes(ifalias));
  const parents = records.networks.map(({ parent }) => parent.name);
  const idle = links.filter(({ ifname, ifalias }) => ifalias === 'tsmacvlan parent' && !parents.includes(ifname));
  return [
    ...living,
    ...[...strangers, ...idle].map(({ ifname }) => surplus(ifname, 'a link of ours that no record has')),
  ];
}

function isAsTold({ isInHost, flags, address, addr_info }: Found, told: EngineEndpoint): boolean {
  const addresses = addr_info.filter(({ scope }) => scope === 'global').map(({ local }) => local);
  const isUp = flags.includes('UP');
  return !isInHost && isUp && address === told.macAddress && isSameSet(addresses, told.addresses);
}

// --- all hosts ----------------------------------------------------------------------------------------------------

/** Whatever the records say: no two links of one LAN share an address of either kind. */
function judgeSegment(views: readonly Views[]): Violation[] {
  const endpoints = views.flatMap(({ engine }) => engine.endpoints);
  const links = views.flatMap((view) => view.links).filter(({ linkinfo }) => linkinfo?.info_kind === 'macvlan');
  const macs = links.filter(({ ifalias }) => ifalias?.startsWith(ENDPOINT_ALIAS)).map(({ address }) => address);
  return [
    ...repeatedOf(endpoints.flatMap(({ addresses }) => addresses)).map((address) => doubled(address, 'two containers')),
    ...repeatedOf(macs).map((mac) => doubled(mac, 'two links')),
  ];
}

/** Each address of a running container is answered for at its MAC address, and by no other container. */
async function judgeWire(views: readonly Views[], machines: readonly Machine[], lan: Lan): Promise<Violation[]> {
  const onWire = views.flatMap((view, position) =>
    endpointsOnWire(view, Object.keys(machines[position]?.host.ports ?? {})),
  );
  const answers = await askWire(
    lan,
    onWire.flatMap(({ addresses }) => addresses),
  );
  return onWire.flatMap(({ addresses, macAddress, container }) => {
    // A container with two interfaces on one LAN answers with both (arp_ignore 0).
    const own = onWire.filter((other) => other.container === container).map((other) => other.macAddress);
    return addresses.flatMap((address) => {
      const macs = answers.get(address) ?? [];
      const strangers = absent(macs, own);
      if (strangers.length > 0) return [doubled(address, `answered for by ${macs.join(' and ')}`)];
      return macs.includes(macAddress) ? [] : [missing(address, `nobody answers for it at ${macAddress}`)];
    });
  });
}

function endpointsOnWire({ name, records, engine }: Views, cabled: readonly string[]): EngineEndpoint[] {
  const networks = records.networks.filter(({ parent }) => cabled.includes(parent.name)).map(({ id }) => id);
  const endpoints = engine.endpoints.filter(({ networkId }) => networks.includes(networkId));
  return endpoints.map((endpoint) => ({ ...endpoint, container: `${endpoint.container} on ${name}` }));
}

// --- words --------------------------------------------------------------------------------------------------------

const surplus = (name: string, text: string): Violation => ({ kind: 'surplus', name, text: `${name}: ${text}` });
const missing = (name: string, text: string): Violation => ({ kind: 'missing', name, text: `${name}: ${text}` });
const doubled = (name: string, text: string): Violation => ({ kind: 'doubled', name, text: `${name}: ${text}` });

function inWords({ id, container, macAddress, addresses }: EngineEndpoint): string {
  return `endpoint ${short(id)} of ${container} (${[macAddress, ...addresses].join(' ')})`;
}

function idsOf(records: readonly { readonly id: string }[]): string[] {
  return records.map(({ id }) => id);
}

/** Those of the first that are not among the second. */
function absent(some: readonly string[], others: readonly string[]): string[] {
  return some.filter((one) => !others.includes(one));
}

function isSameSet(some: readonly string[], others: readonly string[]): boolean {
  return absent(some, others).length === 0 && absent(others, some).length === 0;
}

function repeatedOf(some: readonly string[]): string[] {
  return [...new Set(some.filter((one, position) => some.indexOf(one) !== position))];
}

function bare(address: string): string {
  return address.split('/')[0] ?? '';
}

function short(id: string): string {
  return id.slice(0, 12);
}
