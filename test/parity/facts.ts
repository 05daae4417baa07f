/**
 * What a user can see, as a flat list of facts that two drivers can be compared by: `web › eth0 › mtu` → `1500`. What
 * differs between any two runs (ids, indices, MAC addresses by chance) is left out or replaced by what it means.
 */
import { readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Engine } from '../lab/engine.ts';
import type { Machine } from '../lab/site.ts';

export type Facts = Map<string, string>;

/** Fields of docker inspect and of ip that no two runs have in common, or that stand elsewhere. */
const VOLATILE = new Set([
  ...['Id', 'Created', 'EndpointID', 'NetworkID', 'SandboxID', 'SandboxKey'],
  ...['ifindex', 'link_index', 'link_netnsid', 'link', 'valid_life_time', 'preferred_life_time', 'tentative'],
  // The kernel's count of who wants it; that an administrator does is in the flags.
  'promiscuity',
  ...['gc_timer', 'bridge_id', 'root_id', 'designated_port'],
]);

const ENGINES_OWN_NETWORKS = ['bridge', 'host', 'none'];

/** What a container sees of its network. */
const INSIDE = [
  'ip -d -j address',
  'ip route',
  'ip -6 route',
  'grep -s . /proc/sys/net/ipv4/conf/*/* /proc/sys/net/ipv6/conf/*/*',
].join('; echo ===; ');

/** A container's link goes some milliseconds after docker has said that it is done. */
const DEPARTURE_TIMEOUT_MS = 30_000;

interface Network {
  readonly Name: string;
  readonly Id: string;
  readonly Driver: string;
  readonly IPAM: { readonly Driver: string; readonly Config: readonly { readonly Subnet: string }[] };
  readonly Containers: Readonly<Record<string, { readonly Name: string }>>;
}

interface Container {
  readonly Name: string;
  readonly Id: string;
  readonly State: { readonly Pid: number; readonly Status: string };
  readonly NetworkSettings: { readonly Networks: Readonly<Record<string, Attachment>> };
}

interface Attachment {
  readonly EndpointID: string;
  readonly MacAddress: string;
  readonly IPAddress: string;
}

interface Link {
  readonly ifname: string;
  readonly ifalias?: string;
  readonly address: string;
  readonly flags: readonly string[];
  readonly addr_info: readonly { readonly flags?: readonly string[] }[];
}

/** Texts that mean something, with what they mean. */
export type Meanings = readonly (readonly [text: string, meaning: string])[];

export interface Known {
  readonly meanings: Meanings;
  /** What was typed so far: addresses in there are nobody's choice. */
  readonly typed: string;
}

/** Everything that is there now: networks, containers from outside and from inside, the host's links. */
export async function look({ engine, host }: Machine, known: Known): Promise<Facts> {
  const { containers, networks } = await inspectAll(engine);
  const facts: Facts = new Map();
  for (const network of networks) noteNetwork(facts, network);
  for (const { Name, NetworkSettings, State } of containers)
    note(facts, Name.slice(1), { ...NetworkSettings, Status: State.Status });
  await Promise.all(containers.filter(({ State }) => State.Pid > 0).map((one) => noteInside(facts, host, one)));
  for (const link of await linksAtRest(host)) noteLink(facts, 'host', link);
  return translate(facts, [...meaningsOf(networks, containers, known), ...known.meanings]);
}

/** What docker inspect prints, without the command, which costs more than the answer. */
async function inspectAll(engine: Engine): Promise<{ containers: Container[]; networks: Network[] }> {
  const containers = await containersOf(engine);
  const networks = await networksOf(engine);
  return {
    containers: await Promise.all(containers.map(({ Id }) => engine.inspect<Container>(`/containers/${Id}/json`))),
    networks: await Promise.all(networks.map(({ Id }) => engine.inspect<Network>(`/networks/${Id}`))),
  };
}

export function containersOf(engine: Engine): Promise<{ Id: string }[]> {
  return engine.api('GET', '/containers/json?all=1');
}

export async function networksOf(engine: Engine): Promise<{ Id: string }[]> {
  const all = await engine.api<{ Id: string; Name: string }[]>('GET', '/networks');
  return all.filter(({ Name }) => !ENGINES_OWN_NETWORKS.includes(Name));
}

/** The host's links, without those that a driver is about to remove, or has for some seconds while it asks the LAN. */
async function linksAtRest(host: Machine['host']): Promise<Link[]> {
  const deadlineMs = Date.now() + DEPARTURE_TIMEOUT_MS;
  for (;;) {
    const links = (await host.namespace.show<Link>('-d address')).filter((link) => !isPassing(link));
    if (!links.some(({ ifname }) => /^(tsm|veth)[0-9a-f]+$/.test(ifname)) || Date.now() > deadlineMs) return links;
    await sleep(10);
  }
}

export function isPassing({ ifalias }: { ifalias?: string }): boolean {
  return ifalias === 'tsmacvlan probe';
}

// --- noting -----------------------------------------------------------------------------------------------------

/** The docker command of old engines sends the subnets in no order. */
function noteNetwork(facts: Facts, network: Network): void {
  const byName = Object.values(network.Containers ?? {}).map((container) => [container.Name, container] as const);
  const config = (network.IPAM.Config ?? []).toSorted((a, b) => a.Subnet.localeCompare(b.Subnet));
  const Containers = Object.fromEntries(byName);
  const IPAM = { ...network.IPAM, Driver: driverOf(network.IPAM), Config: config };
  note(facts, `network ${network.Name}`, { ...network, Driver: driverOf(network), IPAM, Containers });
}

/** The drivers that are compared are told from others only. */
function driverOf({ Driver }: { Driver: string }): string {
  return ['macvlan', 'tsmacvlan', 'default'].includes(Driver) ? 'AS ASKED FOR' : Driver;
}

async function noteInside(facts: Facts, host: Machine['host'], { Name, State }: Container): Promise<void> {
  const name = Name.slice(1);
  const { stdout } = await host.run(['nsenter', '-t', String(State.Pid), '-n', 'sh', '-c', INSIDE]);
  const [links = '[]', routes = '', routesIPv6 = '', switches = ''] = stdout.split('===\n');
  const [resolver, hosts] = await Promise.all(
    ['resolv.conf', 'hosts'].map((file) => readFile(host.fileOf(State.Pid, `root/etc/${file}`), 'utf8')),
  );
  for (const link of JSON.parse(links) as Link[]) noteLink(facts, name, link);
  note(facts, `${name} › routes`, lines(routes));
  note(facts, `${name} › routes of IPv6`, lines(routesIPv6).sort());
  note(facts, `${name} › resolv.conf`, lines(resolver ?? ''));
  // Old engines write the addresses in no order.
  note(facts, `${name} › hosts`, lines(hosts ?? '').sort());
  for (const line of lines(switches)) {
    const [path = '', value = ''] = line.slice('/proc/sys/'.length).split(/:(.*)/s);
    note(facts, `${name} › ${path}`, value);
  }
}

function noteLink(facts: Facts, where: string, link: Link): void {
  note(facts, `${where} › ${link.ifname}`, { ...link, flags: link.flags.toSorted() });
}

function note(facts: Facts, path: string, value: unknown): void {
  if (Array.isArray(value) && value.every((item) => typeof item !== 'object')) {
    facts.set(path, value.join('; '));
  } else if (typeof value === 'object' && value !== null) {
    for (const [key, inner] of Object.entries(value)) if (!VOLATILE.has(key)) note(facts, `${path} › ${key}`, inner);
  } else {
    facts.set(path, String(value));
  }
}

function lines(text: string): string[] {
  return text.split('\n').flatMap((line) => line.trim() || []);
}

// --- what differs between any two runs --------------------------------------------------------------------------

function meaningsOf(networks: readonly Network[], containers: readonly Container[], known: Known): Meanings {
  const attachments = containers.flatMap(({ NetworkSettings }) => Object.values(NetworkSettings.Networks));
  return [
    ...attachments.filter(({ EndpointID }) => EndpointID).map(({ EndpointID }) => [EndpointID, 'ENDPOINT'] as const),
    ...[...networks, ...containers].flatMap(idMeanings),
    ...attachments.flatMap((attachment) => macMeanings(attachment, known)),
    ...networks.flatMap((network) => subnetMeanings(network, known)),
  ];
}

function idMeanings({ Id, Name }: { Id: string; Name: string }): Meanings {
  const meaning = `ID OF ${Name.replace('/', '')}`;
  return [
    [Id, meaning],
    [Id.slice(0, 12), meaning],
  ];
}

function macMeanings({ MacAddress, IPAddress }: Attachment, { meanings, typed }: Known): Meanings {
  if (MacAddress === '' || typed.includes(MacAddress) || meanings.some(([text]) => text === MacAddress)) return [];
  const bytes = IPAddress.split('.').map((byte) => Number(byte).toString(16).padStart(2, '0'));
  const isDerived = MacAddress === ['02', '42', ...bytes].join(':');
  return meaningsOfMac(MacAddress, isDerived ? 'MAC FROM ADDRESS' : 'MAC BY CHANCE');
}

/** Of a subnet that nobody typed; those of Docker's usual pools are of 16 bits. */
function subnetMeanings({ Name, IPAM }: Network, { typed }: Known): Meanings {
  const chosen = (IPAM.Config ?? []).filter(({ Subnet }) => !typed.includes(Subnet) && Subnet.endsWith('.0.0/16'));
  return chosen.map(({ Subnet }) => [Subnet.replace('.0.0/16', '.'), `USUAL SUBNET OF ${Name}.`]);
}

/** A MAC address also is in the link-local address made from it (RFC 4291, appendix A). */
export function meaningsOfMac(mac: string, meaning: string): Meanings {
  const [a = 0, b = 0, c = 0, d = 0, e = 0, f = 0] = mac.split(':').map((byte) => Number.parseInt(byte, 16));
  const words = [((a ^ 2) << 8) | b, (c << 8) | 0xff, 0xfe00 | d, (e << 8) | f];
  const linkLocal = `fe80::${words.map((word) => word.toString(16)).join(':')}`;
  return [
    [mac, meaning],
    [linkLocal, `LINK-LOCAL OF ${meaning}`],
  ];
}

function translate(facts: Facts, meanings: Meanings): Facts {
  // Most are switches of the kernel, which mean nothing else: one look for all words is a twentieth of a look for each.
  const some = new RegExp(meanings.map(([word]) => word.replaceAll('.', '\\.')).join('|') || '(?!)');
  const all = (text: string) =>
    some.test(text) ? meanings.reduce((result, [word, meaning]) => result.replaceAll(word, meaning), text) : text;
  return new Map([...facts].map(([path, value]) => [all(path), all(value)]));
}
