/**
 * Every single step of every call: the daemon is killed right after it, and what is left, and what repairs it, is looked
 * up in the store and in the kernel. The steps are counted, not listed, so a new one is tried without anybody thinking
 * of it. What is found is the table in docs/reliability.md, which `make crashes` writes. In the usual run the engine lives
 * on after each kill, and the steps of the start and of the collector are left out. What needs a VLAN runs at level `vlan`,
 * where the table cannot be written. The file's own network namespace is the host:
 *
 *     lan0 ── veth ── lan1 in neighbour, another host with a DHCP server        box: a container's namespace
 */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { bundle } from '../lab/bundle.ts';
import { output, outputSync } from '../lab/command.ts';
import { type DhcpPlace, type DhcpPlan, DhcpServer } from '../lab/dhcpserver.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { EtcdCluster } from '../lab/etcd.ts';
import { readRecords } from '../lab/invariant.ts';
import { localAddressesOf } from '../lab/localroutes.ts';
import { withoutDhcp } from '../lab/packages.ts';
import { until } from '../lab/patience.ts';
import { isInVlanKernel } from '../lab/uml.ts';
import type { Order, Report } from '../lab/mortal.ts';
import { BUNDLE, type Reply, Serving } from '../lab/serving.ts';
import { inNamespace } from '../lab/thread.ts';

const ROOT = join(import.meta.dirname, '../..');
const MORTAL = join(ROOT, 'test/lab/mortal.ts');
const PAGE = join(ROOT, 'docs/reliability.md');
const MARKS = ['<!-- table of kills -->\n', '<!-- end of the table of kills -->\n'] as const;

/** `make crashes` */
const IS_LONG = process.env.CRASHES !== undefined;
const IS_WRITING = IS_LONG && !isInVlanKernel();

const NETWORK = 'a'.repeat(64);
const ENDPOINT = '1'.repeat(64);
const LINK = 'tsm111111111111';
const SPACE = 'TsmacvlanLocal';
const FAMILIES = [
  { key: 'IPv4Data', subnet: '10.9.0.0/24', gateway: '10.9.0.254', field: 'Address' },
  { key: 'IPv6Data', subnet: 'fd09::/64', gateway: 'fd09::fe', field: 'AddressIPv6' },
] as const;
/** All that makes steps. */
const FURNISHED = { parent: 'lan0', host_access: 'true', promisc: 'true' };
const TAGGED = { parent: 'lan0', vlan: '50' };
/** The LAN is asked about each address. */
const PROBED = { parent: 'lan0', probe: 'fast' };
/** Its addresses are those of the neighbour's DHCP server. */
const LEASED = { parent: 'lan0', source: 'dhcp' };
const LEASED_HOST = { ...LEASED, host_access: 'true' };
const DHCP_PLAN: DhcpPlan = { address: '10.8.0.1/24', range: ['10.8.0.100', '10.8.0.150'], leaseSeconds: 3600 };
/** Another IPAM's. */
const FOREIGN_SPACE = 'LocalDefault';
/** Where etcd has what the hosts have. */
const CLAIMS = '/tsmacvlan/default/leases/';
/** What the IPAM would give out first. */
const LOWEST = '10.9.0.1/24';
/** What a start finishes without being asked takes no longer, even on a machine with other work. */
const SETTLE_TIMEOUT_MS = 20_000;
/** The collector's longest wait is minutes; who waits longer waits for ever. */
const FOR_EVER_MS = 20 * 60_000;

const NEIGHBOUR: DhcpPlace = { enter: (argv) => ['nsenter', '--net=/run/netns/neighbour', ...argv] };

const ip = (words: string) => outputSync(['ip', ...words.split(' ')]);
const batch = (lines: string[], ...flags: string[]) => outputSync(['ip', ...flags, '-batch', '-'], lines.join('\n'));

// --- the engine -----------------------------------------------------------------------------------------------------

/** What there is, in words; the same twice when there are two. */
type Sight = readonly string[];

class Host {
  readonly #program: string;
  readonly #directory: string;
  readonly #etcd: EtcdCluster | undefined;
  readonly #entrySettings: Record<string, string>;
  #serving: Serving | undefined;
  /** Links for probing that a killed daemon left. One that runs has such links too. */
  #leftProbes: readonly string[] = [];
  #poolIds: string[] = FAMILIES.map(({ subnet }) => `${SPACE}/${subnet}`);
  #addresses: string[] = [];
  #refusals: string[] = [];

  constructor(program: string, directory: string, etcd?: EtcdCluster) {
    this.#program = program;
    this.#directory = directory;
    this.#etcd = etcd;
    this.#entrySettings = {
      ...(etcd && { STORE: etcd.url }),
      STEPS_FILE: join(directory, 'steps'),
      LOG_LEVEL: 'warn',
    };
  }

  get serving(): Serving {
    assert.ok(this.#serving);
    return this.#serving;
  }

  /** Answers when recovery is over, or when it died of it. */
  async start(stepsToLive?: number): Promise<void> {
    this.#refusals = [];
    rmSync(this.#stepsFile, { force: true });
    const settings = { ...this.#entrySettings, ...(stepsToLive && { STEPS_TO_LIVE: String(stepsToLive) }) };
    this.#serving = await Serving.start(this.#directory, settings, this.#program);
    await this.#serving.call('NetworkDriver.EndpointOperInfo', ids).catch(() => undefined);
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    await this.#serving?.stop(signal);
  }

  /** Without anything: by the engine's calls, else by force. */
  async clear(): Promise<void> {
    // Who has an address is remembered.
    const isRemembered = localAddressesOf('neighbour').includes(LOWEST.split('/')[0] ?? '');
    if (isRemembered) ip(`-n neighbour address delete ${LOWEST} dev lan1`);
    if (this.#serving?.isRunning() && !isRemembered) {
      await this.deleteEndpoint();
      await this.releaseAddresses();
      await this.releasePools();
      await this.deleteNetwork();
      if ((await this.settled()).length === 0) return;
    }
    await this.stop('SIGKILL');
    rmSync(join(this.#directory, 'state'), { recursive: true, force: true });
    await this.#etcd?.must('del', '--prefix', CLAIMS);
    for (const [, name = ''] of ip('-o link').matchAll(/^\d+: (tsm\w+|lan0\.50)/gm)) ip(`link delete ${name}`);
    ip('link set lan0 promisc off');
    await this.start();
  }

  async letLive(stepsToLive: number): Promise<void> {
    rmSync(this.#stepsFile, { force: true });
    await this.serving.tell<Report>({ stepsToLive } satisfies Order);
  }

  /** The collector's next round. Answers the time until then; 0 when the daemon died in it. */
  async round(): Promise<number> {
    return (await this.serving.tell<Report>({ pass: true } satisfies Order))?.passedMs ?? 0;
  }

  steps(): string[] {
    return existsSync(this.#stepsFile) ? readFileSync(this.#stepsFile, 'utf8').trim().split('\n') : [];
  }

  get #stepsFile(): string {
    return join(this.#directory, 'steps');
  }

  /** A call whose answer does not matter, as an engine's that only logs it. */
  async anyway(name: string, body: object): Promise<void> {
    const sentence = await this.serving.call(name, body).then(
      (reply) => reply.sentence,
      (error: unknown) => String(error),
    );
    if (sentence !== '') this.#refusals.push(`${name}: ${sentence}`);
  }

  /** Since the start. */
  said(): string {
    return [...this.#refusals, this.serving.log.trimEnd()].join('\n');
  }

  async #ask(name: string, body: object): Promise<Reply> {
    const reply = await this.serving.call(name, body);
    assert.equal(reply.status, 200, `${name}: ${reply.sentence}`);
    return reply;
  }

  async requestPool(family = 0): Promise<void> {
    const { subnet } = FAMILIES[family] ?? FAMILIES[0];
    const request = { AddressSpace: SPACE, Pool: subnet, V6: family === 1 };
    this.#poolIds[family] = String((await this.#ask('IpamDriver.RequestPool', request)).body['PoolID']);
  }

  async requestGateway(family = 0, Address: string | undefined = FAMILIES[family]?.gateway): Promise<void> {
    await this.#ask('IpamDriver.RequestAddress', {
      PoolID: this.#poolIds[family],
      Address,
      Options: { RequestAddressType: 'com.docker.network.gateway' },
    });
  }

  /** With `--ipam-driver null`. */
  async createNullNetwork(options: Record<string, string>): Promise<void> {
    await this.#ask('NetworkDriver.CreateNetwork', {
      NetworkID: NETWORK,
      Options: { 'com.docker.network.generic': options },
      IPv4Data: [{ AddressSpace: 'null', Pool: '0.0.0.0/0' }],
    });
  }

  async createNetwork(options: Record<string, string>, space = SPACE): Promise<void> {
    const data = FAMILIES.map(({ key, subnet, gateway }) => [
      key,
      [{ AddressSpace: space, Pool: subnet, Gateway: `${gateway}/${subnet.split('/')[1]}` }],
    ]);
    await this.#ask('NetworkDriver.CreateNetwork', {
      NetworkID: NETWORK,
      Options: {
        'com.docker.network.generic': options,
        'com.docker.network.enable_ipv4': true,
        'com.docker.network.enable_ipv6': true,
      },
      ...(Object.fromEntries(data) as object),
    });
  }

  /** Nobody named its gateway: the LAN is asked whether somebody is at the lowest address. */
  async createUnrouted(): Promise<void> {
    const [{ subnet }] = FAMILIES;
    await this.#ask('NetworkDriver.CreateNetwork', {
      NetworkID: NETWORK,
      Options: { 'com.docker.network.generic': PROBED },
      IPv4Data: [{ AddressSpace: SPACE, Pool: subnet, Gateway: LOWEST }],
    });
  }

  async plan(): Promise<void> {
    for (const family of FAMILIES.keys()) {
      await this.requestPool(family);
      await this.requestGateway(family);
    }
  }

  async requestAddress(family = 0): Promise<void> {
    const reply = await this.#ask('IpamDriver.RequestAddress', { PoolID: this.#poolIds[family], Address: '' });
    this.#addresses[family] = String(reply.body['Address']);
  }

  async createEndpoint([Address, AddressIPv6] = this.#addresses): Promise<void> {
    await this.#ask('NetworkDriver.CreateEndpoint', { ...ids, Interface: { Address, AddressIPv6 } });
  }

  async join(): Promise<void> {
    await this.#ask('NetworkDriver.Join', ids);
  }

  enter(): void {
    batch([`link set ${LINK} netns box name eth0`]);
    batch(['link set eth0 up'], '-n', 'box');
  }

  comeBack(): void {
    batch(['link set eth0 down', `link set eth0 netns 1 name ${LINK}`], '-n', 'box');
  }

  leave = () => this.anyway('NetworkDriver.Leave', ids);
  deleteEndpoint = () => this.anyway('NetworkDriver.DeleteEndpoint', ids);
  deleteNetwork = () => this.anyway('NetworkDriver.DeleteNetwork', { NetworkID: NETWORK });
  releasePool = (family: number) => this.anyway('IpamDriver.ReleasePool', { PoolID: this.#poolIds[family] });
  releaseGateway = (family: number) => this.#release(family, FAMILIES[family]?.gateway ?? '');
  releaseLowest = () => this.#release(0, LOWEST.split('/')[0] ?? '');
  releaseAddress = (family: number) => this.#release(family, (this.#addresses[family] ?? '').split('/')[0] ?? '');
  #release = (family: number, Address: string) =>
    this.anyway('IpamDriver.ReleaseAddress', { PoolID: this.#poolIds[family], Address });

  async releaseAddresses(): Promise<void> {
    for (const family of FAMILIES.keys()) await this.releaseAddress(family);
  }

  /** The same `docker network create` again, which then fails for another reason. */
  async claimPools(): Promise<void> {
    for (const family of FAMILIES.keys()) await this.requestPool(family);
    for (const family of FAMILIES.keys()) await this.releasePool(family);
  }

  async forget(): Promise<void> {
    const { socket: SOCKET, state: STATE_DIR } = this.serving;
    const env = { ...process.env, ...this.#entrySettings, SOCKET, STATE_DIR };
    await output([process.execPath, BUNDLE, 'forget', NETWORK], { env });
  }

  async releasePools(): Promise<void> {
    for (const family of FAMILIES.keys()) {
      await this.releaseGateway(family);
      await this.releasePool(family);
    }
  }

  // --- what there is ------------------------------------------------------------------------------------------------

  async look(): Promise<Sight> {
    const claims = (await this.#etcd?.read(CLAIMS)) ?? [];
    const links = readLinks();
    const probes = links.flatMap(({ ifname, ifalias }) => (ifalias === 'tsmacvlan probe' ? [ifname] : []));
    if (!this.serving.isRunning()) this.#leftProbes = probes;
    const { networks, endpoints, pools, leases, tenancies } = readRecords(join(this.#directory, 'state/tsmacvlan.db'));
    const tied = (isTied: boolean) => (isTied ? '' : ' tied to nothing');
    const words = [
      ...networks.map(() => 'network'),
      ...pools.map(({ networkId }) => `pool${tied(networkId !== null)}`),
      ...endpoints.map(({ state }) => `endpoint \`${state}\``),
      ...leases.map(({ kind, endpointId }) =>
        kind === 'container' ? `lease${tied(endpointId !== null)}` : `lease of the ${kind}`,
      ),
      // What is aside is kept for the next start of the container, until the network goes.
      ...tenancies.flatMap(({ state }) => (state === 'aside' ? [] : [`tenancy \`${state}\``])),
      ...claims.map(({ value }) => {
        const { kind } = JSON.parse(value) as { kind: string };
        return kind === 'container' ? 'claim' : `claim of the ${kind}`;
      }),
      ...seeKernel(links),
      ...probes.flatMap((name) => (this.#leftProbes.includes(name) ? ['link of a probe'] : [])),
    ];
    return words.sort();
  }

  /** What a start does by itself is done. */
  async settled(): Promise<Sight> {
    let sight: Sight = [];
    const isAtRest = async () => {
      sight = await this.look();
      const count = (noun: string) => sight.filter((word) => word.startsWith(noun)).length;
      const isOrphan = sight.includes('link of a container') && !sight.some((word) => word.startsWith('endpoint'));
      const isUnused = sight.some((word) => word.endsWith('parent')) && !sight.includes('network');
      const isBusy = sight.includes('endpoint `deleting`') || sight.includes('link of a probe');
      const isInLine = this.#etcd === undefined || count('claim') === count('lease');
      return !isOrphan && !isUnused && !isBusy && isInLine;
    };
    const detail = () => `after the start there is still ${sight.join(', ')}`;
    await until(isAtRest, { timeoutMs: SETTLE_TIMEOUT_MS, pollMs: 20, detail });
    return sight;
  }
}

const ids = { NetworkID: NETWORK, EndpointID: ENDPOINT };

interface KernelLink {
  readonly ifname: string;
  readonly ifalias?: string;
  readonly flags: readonly string[];
  readonly linkinfo?: { readonly info_kind?: string };
}

const ALIASES: Readonly<Record<string, string>> = {
  'tsmacvlan host': 'link of the host',
  [`tsmacvlan endpoint ${ENDPOINT}`]: 'link of a container',
};

function readLinks(): KernelLink[] {
  const places = isBoxEmpty() ? [''] : ['', '-n box '];
  return places.flatMap((where) => JSON.parse(ip(`${where}-j -d link`)) as KernelLink[]);
}

/** Without a program: no link is there but the loopback. */
function isBoxEmpty(): boolean {
  const table = inNamespace('box', () => readFileSync('/proc/thread-self/net/dev', 'utf8'));
  return table.match(/^ *\S+:/gm)?.length === 1;
}

function seeKernel(links: readonly KernelLink[]): string[] {
  const hasHost = links.some(({ ifname }) => ifname.startsWith('tsmh'));
  const table = hasHost ? `${ip('route')}\n${ip('-6 route')}` : '';
  const routes = [...table.matchAll(/^(?:10\.9|fd09)\S* dev tsmh.* src /gm)];
  return [
    ...links.flatMap(({ ifalias = '' }) => ALIASES[ifalias] ?? []),
    ...links.flatMap(({ ifalias, linkinfo }) =>
      ifalias === 'tsmacvlan parent' ? `${linkinfo?.info_kind === 'vlan' ? 'VLAN' : 'isolated'} parent` : [],
    ),
    ...links.flatMap(({ ifname, flags }) => (ifname === 'lan0' && flags.includes('PROMISC') ? 'promiscuity' : [])),
    ...routes.map(() => 'route to a container'),
  ];
}

// --- the calls ------------------------------------------------------------------------------------------------------

interface Plan {
  readonly options: Record<string, string>;
  /** Another IPAM gives the addresses. */
  readonly isForeign?: true;
  /** A DHCP server gives them. */
  readonly isLeased?: true;
}

interface Scenario {
  readonly call: string;
  readonly isLong?: true;
  readonly needsVlan?: true;
  /** Addresses are shared through etcd. */
  readonly isShared?: true;
  /** How the world is when all is over: with this network without containers, or without anything. */
  readonly network?: Plan;
  /** The engine's calls before. */
  prepare(host: Host): Promise<void>;
  act(host: Host, stepsToLive: number): Promise<void>;
  /** What the engine does when the call failed. */
  readonly reaction: string;
  react(host: Host): Promise<void>;
}

type Act = (host: Host) => Promise<void>;

const armed = (act: Act) => async (host: Host, stepsToLive: number) => {
  await host.letLive(stepsToLive);
  await act(host);
};

async function attach(host: Host): Promise<void> {
  for (const family of FAMILIES.keys()) await host.requestAddress(family);
  await host.createEndpoint();
  await host.join();
  host.enter();
}

async function detach(host: Host): Promise<void> {
  host.comeBack();
  await host.leave();
}

async function build(host: Host, { options, isForeign, isLeased }: Plan): Promise<void> {
  if (isLeased) return host.createNullNetwork(options);
  if (isForeign) return host.createNetwork(options, FOREIGN_SPACE);
  await host.plan();
  await host.createNetwork(options);
}

async function demolish(host: Host): Promise<void> {
  await host.releasePools();
  await host.deleteNetwork();
}

const nothing = async () => undefined;
const both = (name: string, act: (host: Host, family: number) => Promise<void>) => ({
  reaction: name,
  async react(host: Host) {
    for (const family of FAMILIES.keys()) await act(host, family);
  },
});

const detachment = {
  reaction: 'DeleteEndpoint and ReleaseAddress',
  async react(host: Host) {
    await host.deleteEndpoint();
    await host.releaseAddresses();
  },
};

const CALLS: readonly Scenario[] = [
  {
    call: 'RequestPool',
    prepare: nothing,
    act: armed((host) => host.requestPool()),
    reaction: '',
    react: nothing,
  },
  {
    call: 'RequestAddress (gateway)',
    prepare: (host) => host.requestPool(),
    act: armed((host) => host.requestGateway()),
    ...both('ReleasePool', (host, family) => host.releasePool(family)),
  },
  {
    call: 'CreateNetwork',
    prepare: (host) => host.plan(),
    act: armed((host) => host.createNetwork(FURNISHED)),
    reaction: 'ReleaseAddress and ReleasePool',
    react: (host) => host.releasePools(),
  },
  {
    call: 'CreateNetwork (the LAN is asked for a gateway)',
    async prepare(host) {
      await host.requestPool();
      await host.requestGateway(0, '');
    },
    act: armed((host) => host.createUnrouted()),
    reaction: 'ReleaseAddress and ReleasePool',
    react: async (host) => {
      await host.releaseLowest();
      await host.releasePool(0);
    },
  },
  {
    call: 'CreateNetwork (isolated)',
    prepare: (host) => host.plan(),
    act: armed((host) => host.createNetwork({})),
    reaction: 'ReleaseAddress and ReleasePool',
    react: (host) => host.releasePools(),
  },
  {
    call: 'CreateNetwork (VLAN)',
    needsVlan: true,
    prepare: (host) => host.plan(),
    act: armed((host) => host.createNetwork(TAGGED)),
    reaction: 'ReleaseAddress and ReleasePool',
    react: (host) => host.releasePools(),
  },
  {
    call: 'RequestAddress',
    network: { options: FURNISHED },
    prepare: nothing,
    act: armed((host) => host.requestAddress()),
    reaction: '',
    react: nothing,
  },
  {
    call: 'RequestAddress (the LAN is asked)',
    network: { options: PROBED },
    prepare: nothing,
    act: armed((host) => host.requestAddress()),
    reaction: '',
    react: nothing,
  },
  {
    call: 'RequestAddress (another host has the first)',
    network: { options: PROBED },
    async prepare() {
      ip(`-n neighbour address add ${LOWEST} dev lan1`);
    },
    act: armed((host) => host.requestAddress()),
    reaction: '',
    react: nothing,
  },
  {
    call: 'CreateEndpoint',
    network: { options: FURNISHED },
    async prepare(host) {
      for (const family of FAMILIES.keys()) await host.requestAddress(family);
    },
    act: armed((host) => host.createEndpoint()),
    ...both('ReleaseAddress', (host, family) => host.releaseAddress(family)),
  },
  {
    call: 'CreateEndpoint (addresses of another IPAM, the LAN is asked)',
    network: { options: PROBED, isForeign: true },
    prepare: nothing,
    act: armed((host) => host.createEndpoint([LOWEST, 'fd09::1/64'])),
    reaction: '',
    react: nothing,
  },
  {
    call: 'CreateEndpoint (address of a DHCP server)',
    network: { options: LEASED, isLeased: true },
    prepare: nothing,
    act: armed((host) => host.createEndpoint([])),
    reaction: '',
    react: nothing,
  },
  {
    call: 'Join',
    network: { options: FURNISHED },
    async prepare(host) {
      for (const family of FAMILIES.keys()) await host.requestAddress(family);
      await host.createEndpoint();
    },
    act: armed((host) => host.join()),
    ...detachment,
  },
  {
    call: 'Leave',
    network: { options: FURNISHED },
    async prepare(host) {
      await attach(host);
      host.comeBack();
    },
    act: armed((host) => host.leave()),
    ...detachment,
  },
  ...(['DeleteEndpoint', 'DeleteEndpoint (its link in a namespace)'] as const).map(
    (call): Scenario => ({
      call,
      network: { options: FURNISHED },
      async prepare(host) {
        await attach(host);
        if (call === 'DeleteEndpoint') await detach(host);
      },
      act: armed((host) => host.deleteEndpoint()),
      ...both('ReleaseAddress', (host, family) => host.releaseAddress(family)),
    }),
  ),
  {
    call: 'DeleteEndpoint (address of a DHCP server)',
    network: { options: LEASED, isLeased: true },
    async prepare(host) {
      await host.createEndpoint([]);
      await host.join();
      host.enter();
      await detach(host);
    },
    act: armed((host) => host.deleteEndpoint()),
    reaction: '',
    react: nothing,
  },
  {
    call: 'ReleaseAddress',
    network: { options: FURNISHED },
    prepare: (host) => host.requestAddress(),
    act: armed((host) => host.releaseAddress(0)),
    reaction: '',
    react: nothing,
  },
  {
    call: 'ReleaseAddress (gateway)',
    prepare: (host) => build(host, { options: FURNISHED }),
    act: armed((host) => host.releaseGateway(0)),
    reaction: 'ReleasePool and DeleteNetwork',
    react: demolish,
  },
  {
    call: 'ReleasePool',
    prepare: (host) => build(host, { options: FURNISHED }),
    act: armed((host) => host.releasePool(0)),
    reaction: 'ReleasePool and DeleteNetwork',
    async react(host) {
      await host.releasePool(1);
      await host.deleteNetwork();
    },
  },
  ...[
    { call: 'DeleteNetwork', options: FURNISHED },
    { call: 'DeleteNetwork (isolated)', options: {} },
    { call: 'DeleteNetwork (VLAN)', options: TAGGED, needsVlan: true as const },
  ].map(
    ({ options, ...named }): Scenario => ({
      ...named,
      async prepare(host) {
        await build(host, { options });
        await host.releasePools();
      },
      act: armed((host) => host.deleteNetwork()),
      reaction: '',
      react: nothing,
    }),
  ),
  {
    call: "CreateNetwork (host's end with an address of a DHCP server)",
    prepare: nothing,
    act: armed((host) => build(host, { options: LEASED_HOST, isLeased: true })),
    reaction: '',
    react: nothing,
  },
  {
    call: "DeleteNetwork (host's end with an address of a DHCP server)",
    prepare: (host) => build(host, { options: LEASED_HOST, isLeased: true }),
    act: armed((host) => host.deleteNetwork()),
    reaction: '',
    react: nothing,
  },
  {
    call: 'DeleteNetwork (addresses of a DHCP server)',
    async prepare(host) {
      await build(host, { options: LEASED, isLeased: true });
      await host.createEndpoint([]);
      await host.deleteEndpoint();
      await host.settled();
    },
    act: armed((host) => host.deleteNetwork()),
    reaction: '',
    react: nothing,
  },
  {
    call: 'the start itself',
    isLong: true,
    network: { options: FURNISHED },
    async prepare(host) {
      await attach(host);
      await detach(host);
      await host.letLive(1);
      await host.deleteEndpoint();
      const [host0 = ''] = /tsmh\w+/.exec(ip('-o link')) ?? [];
      ip(`link delete ${host0}`);
      ip('link set lan0 promisc off');
    },
    act: (host, stepsToLive) => host.start(stepsToLive),
    ...both('ReleaseAddress', (host, family) => host.releaseAddress(family)),
  },
  {
    call: 'the collector',
    isLong: true,
    network: { options: FURNISHED },
    async prepare(host) {
      await attach(host);
      // Its readings come as from every start. The next one suspects the endpoint.
      await host.stop('SIGKILL');
      await host.start();
      await host.round();
      batch(['link delete eth0'], '-n', 'box');
    },
    act: armed(async (host) => {
      for (let round = 0; round < 40 && host.serving.isRunning(); round++) await host.round();
    }),
    reaction: '',
    react: nothing,
  },
];

/** These make claims or give them back. */
const CLAIMING = ['RequestAddress (gateway)', 'CreateNetwork', 'RequestAddress', 'ReleaseAddress', 'ReleasePool'];

const SCENARIOS: readonly Scenario[] = [
  ...CALLS,
  ...CALLS.filter(({ call }) => CLAIMING.includes(call)).map(
    (scenario): Scenario => ({ ...scenario, call: `${scenario.call} (STORE=etcd)`, isShared: true }),
  ),
];

function canHaveVlans(): boolean {
  try {
    batch(['link add link lan0 name lan0.9 type vlan id 9', 'link delete lan0.9']);
    return true;
  } catch {
    return false;
  }
}

// --- the table ------------------------------------------------------------------------------------------------------

interface Point {
  /** Its steps, the last of which it did not outlive. */
  readonly done: readonly string[];
  readonly left: string;
  readonly repairedBy: string;
  readonly orphaned: string;
  /** Which of the engine's calls were refused, and what the daemon that repaired it warned of. */
  readonly said: string;
}

interface Repair {
  readonly repairedBy: string;
  readonly orphaned: string;
}

class Trial {
  readonly #host: Host;
  readonly #scenario: Scenario;
  /** By what the next start found: the daemon knows nothing else. */
  readonly #repairs = new Map<string, Repair>();
  #base: Sight = [];

  constructor(host: Host, scenario: Scenario) {
    this.#host = host;
    this.#scenario = scenario;
  }

  async run(): Promise<Point[]> {
    const points: Point[] = [];
    for (let steps = 1; ; steps++) {
      const left = await this.#killAfter(steps);
      if (left === undefined) return points;
      const done = this.#host.steps().map(inWords);
      const found = await this.#restart();
      const surplus = this.#surplus(left);
      const repair = await this.#repair(steps, left, found);
      points.push({ done, left: listed(surplus), ...repair, said: this.#host.said() });
    }
  }

  /** What is left; undefined when the call has no so many steps. */
  async #killAfter(steps: number): Promise<Sight | undefined> {
    await this.#host.clear();
    if (this.#scenario.network !== undefined) await build(this.#host, this.#scenario.network);
    this.#base = await this.#host.look();
    await this.#scenario.prepare(this.#host);
    await this.#scenario.act(this.#host, steps).catch(() => undefined);
    // What goes on after the reply has its steps too.
    await this.#host.stop();
    const found = this.#host.steps();
    assert.ok(found.length <= steps);
    return found.length < steps ? undefined : await this.#host.look();
  }

  async #restart(): Promise<Sight> {
    await this.#host.start();
    const { status } = await this.#host.serving.call('NetworkDriver.CreateEndpoint');
    assert.notEqual(status, 200, 'the engine tries again, without the body');
    return this.#host.settled();
  }

  async #repair(steps: number, left: Sight, found: Sight): Promise<Repair> {
    if (isSame(found, this.#base)) {
      const repairedBy = isSame(left, found) ? 'nothing to repair' : 'the next start';
      return { repairedBy, orphaned: repairedBy };
    }
    const known = this.#repairs.get(String(found));
    if (known !== undefined) return known;
    await this.#scenario.react(this.#host);
    const byEngine = await this.#wait();
    const { reaction } = this.#scenario;
    const engine = reaction === '' ? [] : [`the engine's ${reaction}`];
    const repairedBy = (byEngine === '' ? engine : [...engine, byEngine]).join(', then ');
    const orphaned = reaction === '' || !IS_LONG ? repairedBy : await this.#orphan(steps, found);
    this.#repairs.set(String(found), { repairedBy, orphaned });
    return { repairedBy, orphaned };
  }

  /** The same again, and the engine is killed too. */
  async #orphan(steps: number, found: Sight): Promise<string> {
    await this.#killAfter(steps);
    assert.deepEqual(await this.#restart(), found);
    return this.#wait();
  }

  /** What takes the rest away when the engine has said all; empty when there is none. */
  async #wait(): Promise<string> {
    let waitedMs = 0;
    while (!isSame(await this.#host.settled(), this.#base)) {
      if (waitedMs > FOR_EVER_MS) return this.#byHand();
      waitedMs += await this.#host.round();
    }
    if (waitedMs === 0) return '';
    // By whether it was patient: when it looks exactly depends on what woke it before.
    return `the collector within ${waitedMs < 60_000 ? 'a minute' : `${5 * Math.ceil(waitedMs / 300_000)} min`}`;
  }

  /** What a person does about it. */
  async #byHand(): Promise<string> {
    const hands: string[] = [];
    if (this.#surplus(await this.#host.look()).includes('network')) {
      hands.push('`tsmacvlan forget`');
      await this.#host.forget();
    }
    if (this.#surplus(await this.#host.settled()).some((word) => word.startsWith('pool'))) {
      hands.push('the next RequestPool');
      await this.#host.claimPools();
    }
    assert.deepEqual(await this.#host.settled(), this.#base, 'nobody repairs it');
    return hands.join(', then ');
  }

  #surplus(sight: Sight): string[] {
    const rest = [...this.#base];
    return sight.filter((word) => {
      const at = rest.indexOf(word);
      if (at >= 0) rest.splice(at, 1);
      return at < 0;
    });
  }
}

const isSame = (some: Sight, others: Sight) => String(some) === String(others);

/** `network; 2 pools` */
function listed(words: readonly string[]): string {
  const counts = Map.groupBy(words, (word) => word);
  const all = [...counts].map(([word, { length }]) => (length === 1 ? word : `${length} ${plural(word)}`));
  return all.join('; ') || 'nothing';
}

function plural(word: string): string {
  return word.replace(/^\w+/, (noun) => `${noun}s`);
}

/** A statement of SQL or an operation of rtnetlink. */
function inWords(step: string): string {
  const [, verb = '', table = ''] = /^(INSERT|UPDATE|DELETE)\b.*?(\w+)_records/.exec(step) ?? [];
  if (table !== '') return `${table} ${{ INSERT: 'recorded', UPDATE: 'changed', DELETE: 'removed' }[verb]}`;
  // Not every kernel has the same kinds.
  const named = step.replace(/^add (dummy|ifb|bridge)/, 'add isolated link');
  return named.replace(/ tsm\w+| (10\.[89]|fd09)\S+| \d+\b/g, '');
}

// --- the page -------------------------------------------------------------------------------------------------------

const HEAD = `| call | killed right after | there is then | repaired by | if the engine dies too |
| --- | --- | --- | --- | --- |
`;

/** Steps after which the same is left and the same repairs it stand in one row. */
function rowsOf(call: string, points: readonly Point[]): string {
  const rows: { steps: string[]; rest: string }[] = [];
  for (const { done, left, repairedBy, orphaned } of points) {
    const step = done.at(-1) ?? '';
    const inTheEnd = IS_LONG ? ` ${orphaned === repairedBy ? 'the same' : orphaned} ` : '';
    const rest = `${left} | ${repairedBy} |${inTheEnd}`;
    if (rows.at(-1)?.rest !== rest) rows.push({ steps: [], rest });
    const { steps } = rows.at(-1) as (typeof rows)[number];
    if (!steps.includes(step)) steps.push(step);
  }
  if (rows.length === 0) rows.push({ steps: ['nothing: it has no step'], rest: `nothing | |${IS_LONG ? ' ' : ''}` });
  return rows.map(({ steps, rest }, at) => `| ${at === 0 ? call : ''} | ${steps.join('; ')} | ${rest}|\n`).join('');
}

/** Something else that counted itself shows here, and a call or a collection that failed. */
function storyOf(points: readonly Point[]): string {
  return points.map(({ done, said }) => `${done.join('; ')}\n${said.replaceAll(/^/gm, '  ')}`).join('\n');
}

/** The rows of each call on the page. */
function readTable(): Map<string, string> {
  const table = readFileSync(PAGE, 'utf8').split(MARKS[0])[1]?.split(MARKS[1])[0] ?? '';
  const blocks = table.slice(HEAD.length).split(/^(?=\| \S)/m);
  return new Map(blocks.map((rows) => [/^\| (.*?) \|/.exec(rows)?.[1] ?? '', rows]));
}

function writeTable(rowsByCall: ReadonlyMap<string, string>): void {
  const page = readFileSync(PAGE, 'utf8');
  const [start, end] = [page.indexOf(MARKS[0]) + MARKS[0].length, page.indexOf(MARKS[1])];
  const table = SCENARIOS.map(({ call }) => rowsByCall.get(call) ?? '').join('');
  writeFileSync(PAGE, page.slice(0, start) + HEAD + table + page.slice(end));
}

/** As far as this run knows it: the usual one does not try what happens if the engine dies too. */
function asKnown(rows = ''): string {
  return IS_LONG ? rows : rows.replace(/[^|\n]*\|$/gm, '|');
}

describe('kill -9 after every single step', { skip: outsideLab(), timeout: 900_000 }, () => {
  const directories: string[] = [];
  const scratch = () => {
    const directory = mkdtempSync(join(tmpdir(), 'tsm-crash-'));
    directories.push(directory);
    return directory;
  };
  const written = readTable();
  let etcd: EtcdCluster | undefined;
  let dhcp: DhcpServer | undefined;
  let program: string;
  let host: Host;

  before(async () => {
    program = await bundle(MORTAL, scratch());
    host = new Host(program, scratch());
    ip('link add lan0 type veth peer name lan1');
    for (const name of ['box', 'neighbour']) ip(`netns add ${name}`);
    ip('link set lan0 up');
    ip('link set lan1 netns neighbour');
    ip('-n neighbour link set lan1 up');
    if (withoutDhcp()) return;
    ip(`-n neighbour address add ${DHCP_PLAN.address} dev lan1`);
    dhcp = await DhcpServer.start(NEIGHBOUR, 'udhcpd', DHCP_PLAN, 'lan1');
  });

  after(async () => {
    await host.stop('SIGKILL');
    await etcd?.stop();
    await dhcp?.stop();
    for (const directory of directories) rmSync(directory, { recursive: true });
    if (IS_WRITING) writeTable(written);
  });

  for (const scenario of SCENARIOS.filter(({ isLong }) => IS_LONG || isLong === undefined)) {
    test(scenario.call, async (t) => {
      if (scenario.needsVlan && !canHaveVlans()) return t.skip('this kernel has no VLANs');
      if (scenario.call.includes('DHCP') && dhcp === undefined) return t.skip(String(withoutDhcp()));
      if (scenario.isShared && etcd === undefined) {
        await host.stop('SIGKILL');
        etcd = await EtcdCluster.start({ directory: scratch() });
        host = new Host(program, scratch(), etcd);
      }
      const points = await new Trial(host, scenario).run();
      console.log(`${scenario.call}: ${points.length} steps`);
      const rows = rowsOf(scenario.call, points);
      if (IS_WRITING) written.set(scenario.call, rows);
      else
        assert.equal(
          rows,
          asKnown(written.get(scenario.call)),
          `docs/reliability.md has other rows; the steps were\n${storyOf(points)}`,
        );
    });
  }

  test('docs/reliability.md has no other rows', () => {
    assert.deepEqual(
      [...written.keys()],
      SCENARIOS.map(({ call }) => call),
    );
  });
});
