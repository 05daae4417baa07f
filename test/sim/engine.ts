/**
 * A Docker engine as it shows itself to a plugin: it calls in its order, holds the lock of a network through RequestAddress and
 * CreateEndpoint, tries again what got no answer (with an empty body, moby#35459), and forgets what was under way when it is
 * killed. Between its calls it does to the kernel what libnetwork does.
 */
import type { Reply } from './call.ts';
import {
  type Answered,
  type CallSeen,
  type Container,
  type Network,
  type NetworkSpec,
  type Start,
  type SubnetSpec,
  bare,
  isIPv6,
} from './container.ts';
import type { Host } from './host.ts';
import { parseAddress } from './kernel/address.ts';
import { type Computer, type Program } from './kernel/kernel.ts';
import type { Namespace } from './kernel/link.ts';
import type { Random } from './random.ts';
import { Process, pause, scheduler } from './time.ts';

/** What the engine does when nobody answers: five attempts. */
const PAUSES_MS = [1000, 2000, 4000, 8000];
/** As the engine does: one now and two more, a second apart. */
const ANNOUNCEMENTS = 3;

/** A refusal of Docker's IPAM, in which the plugin had no part. */
export const NONE_LEFT = 'no address is left in Docker’s IPAM';

/** Of the containers that are on two networks. */
const TWO_LINKS = 0.1;

interface EngineParts {
  readonly host: Host;
  readonly random: Random;
  readonly onStart: (start: Start) => void;
  readonly onCall: (call: CallSeen) => void;
}

/** One engine on one host. */
export class Engine {
  readonly host: Host;
  readonly #parts: EngineParts;
  readonly #random: Random;
  readonly networks = new Map<string, Network>();
  readonly containers = new Map<string, Container>();
  /** The last of each container. */
  readonly starts = new Map<string, Start>();
  /** What it has on disk of containers that run: known after it was killed. */
  readonly #stale: Container[] = [];
  readonly #leaving = new Set<string>();
  /** A name is one container's. */
  readonly #starting = new Set<string>();
  #process: Program;
  #count = 0;
  #tasks = 0;

  constructor(parts: EngineParts) {
    this.#parts = parts;
    [this.host, this.#random] = [parts.host, parts.random];
    this.#process = new Process<Computer>(this.host, `${this.host.name} engine`);
  }

  get isRunning(): boolean {
    return this.#process.isAlive;
  }

  get process(): Program {
    return this.#process;
  }

  /** Of containers that run, as far as the product's IPAM gave them. */
  get ownAddresses(): string[] {
    const own = [...this.containers.values()].filter(
      ({ network, namespace, isLeaving }) => !network.spec.isDockersIpam && namespace !== null && !isLeaving,
    );
    return own.flatMap(({ addresses }) => addresses.map(bare));
  }

  /** The container is on its way. */
  isStarting(name: string): boolean {
    return this.#starting.has(name);
  }

  get isStartingAny(): boolean {
    return this.#starting.size > 0;
  }

  /** Nothing is under way that it was told to do. */
  get isIdle(): boolean {
    return this.#tasks === 0;
  }

  /** Does something as this engine; what it throws is a fault of the simulation. */
  do(task: () => Promise<unknown>): void {
    const process = this.#process;
    this.#tasks++;
    const end = () => {
      if (process === this.#process) this.#tasks--;
    };
    process.enter(() => scheduler.after(0, () => void task().then(end, (error: unknown) => this.#fail(error))));
  }

  #fail(error: unknown): void {
    scheduler.world(0, () => {
      throw error;
    });
  }

  // --- networks ----------------------------------------------------------------------------------------------------

  async createNetwork(spec: NetworkSpec): Promise<boolean> {
    const network: Network = {
      spec,
      poolIds: [],
      addressSpace: 'LocalDefault',
      used: new Set(),
      turn: Promise.resolve(),
    };
    const { isDockersIpam, subnets } = spec;
    const hasIPv6 = subnets.some(({ subnet }) => isIPv6(subnet));
    const hasIPv4 = subnets.some(({ subnet }) => !isIPv6(subnet));
    const options = { 'com.docker.network.generic': spec.options, 'com.docker.network.enable_ipv4': hasIPv4 };
    if (!isDockersIpam && !(await this.#requestPools(network))) return false;
    const data = subnets.map(({ subnet: Pool, gateway, prefixLength }) => ({
      AddressSpace: network.addressSpace,
      Pool,
      ...(gateway && { Gateway: `${gateway}/${prefixLength}` }),
    }));
    const body = {
      NetworkID: spec.id,
      Options: { ...options, 'com.docker.network.enable_ipv6': hasIPv6 },
      IPv4Data: data.filter(({ Pool }) => !isIPv6(Pool)),
      IPv6Data: data.filter(({ Pool }) => isIPv6(Pool)),
    };
    const created = await this.call('NetworkDriver.CreateNetwork', body);
    if (created.ok) this.networks.set(spec.id, network);
    else await this.#releasePools(network);
    return created.ok;
  }

  /** All of them, or none. */
  async #requestPools(network: Network): Promise<boolean> {
    const spaces = await this.call('IpamDriver.GetDefaultAddressSpaces', null);
    if (!spaces.ok) return false;
    network.addressSpace = String(spaces.body['LocalDefaultAddressSpace']);
    for (const subnet of network.spec.subnets) {
      if (await this.#requestPool(network, subnet)) continue;
      await this.#releasePools(network);
      return false;
    }
    return true;
  }

  async #requestPool(network: Network, { subnet, range, gateway }: SubnetSpec): Promise<boolean> {
    const pool = await this.call('IpamDriver.RequestPool', {
      AddressSpace: network.addressSpace,
      Pool: subnet,
      SubPool: range ?? '',
      Options: {},
      V6: isIPv6(subnet),
    });
    if (!pool.ok) return false;
    const PoolID = String(pool.body['PoolID']);
    if (gateway !== null) {
      const Options = { RequestAddressType: 'com.docker.network.gateway' };
      const given = await this.call('IpamDriver.RequestAddress', { PoolID, Address: gateway, Options });
      if (!given.ok) {
        await this.call('IpamDriver.ReleasePool', { PoolID });
        return false;
      }
    }
    network.poolIds.push(PoolID);
    return true;
  }

  /** With their gateways. */
  async #releasePools({ spec, poolIds }: Network): Promise<void> {
    for (const [index, PoolID] of poolIds.entries()) {
      const gateway = spec.subnets[index]?.gateway ?? null;
      if (gateway !== null) await this.call('IpamDriver.ReleaseAddress', { PoolID, Address: gateway });
      await this.call('IpamDriver.ReleasePool', { PoolID });
    }
  }

  /** Its containers are gone before. */
  async removeNetwork(id: string): Promise<void> {
    const network = this.networks.get(id);
    if (network === undefined) return;
    this.networks.delete(id);
    await this.#releasePools(network);
    await this.call('NetworkDriver.DeleteNetwork', { NetworkID: id });
  }

  // --- containers --------------------------------------------------------------------------------------------------

  /** As `docker run`, with `--ip` where an address is wanted. */
  async start(name: string, networkId: string, wanted: string | null): Promise<Start | null> {
    const network = this.networks.get(networkId);
    if (network === undefined || this.containers.has(name) || this.#starting.has(name)) return null;
    this.#starting.add(name);
    const start: Start = {
      host: this.host,
      container: name,
      wanted,
      beganAtMs: scheduler.nowMs,
      grants: new Map(),
      joinedAtMs: null,
      joiningAtMs: null,
      upAtMs: null,
      refusal: null,
    };
    this.starts.set(name, start);
    const container = await this.#inTurn(network, () => this.#createEndpoint(name, network, start));
    if (container !== null) await this.#join(container, start);
    this.#starting.delete(name);
    this.#parts.onStart(start);
    return start;
  }

  #inTurn<T>(network: Network, task: () => Promise<T>): Promise<T> {
    const result = network.turn.then(task);
    network.turn = result.catch(() => undefined);
    return result;
  }

  async #createEndpoint(name: string, network: Network, start: Start): Promise<Container | null> {
    const given = await this.#requestAddresses(network, start);
    if (given === null) return null;
    const endpointId = this.#newId();
    await pause(this.#random.delay(3, 40));
    const [Address = ''] = given.filter((address) => !isIPv6(address));
    const [AddressIPv6 = ''] = given.filter(isIPv6);
    const Interface = { Address, AddressIPv6, MacAddress: '' };
    const body = { NetworkID: network.spec.id, EndpointID: endpointId, Interface, Options: {} };
    const made = await this.call('NetworkDriver.CreateEndpoint', body);
    const macAddress = made.ok ? macOf(made.body) : null;
    if (macAddress === null) {
      start.refusal = made.ok ? 'no MAC address' : made.error;
      await this.#releaseAddresses(network, given);
      return null;
    }
    const container = {
      name,
      network,
      endpointId,
      addresses: given,
      linkName: '',
      macAddress,
      namespace: null,
      isLeaving: false,
    };
    this.containers.set(name, container);
    return container;
  }

  /** One of each subnet, with prefix length. When one is refused, those before it are given back. */
  async #requestAddresses(network: Network, start: Start): Promise<string[] | null> {
    const given: string[] = [];
    for (const [index, subnet] of network.spec.subnets.entries()) {
      const address = await this.#requestAddress(network, index, subnet, start);
      if (address === null) {
        await this.#releaseAddresses(network, given);
        return null;
      }
      given.push(address);
      start.grants.set(bare(address), scheduler.nowMs);
    }
    return given;
  }

  async #requestAddress(
    network: Network,
    index: number,
    { subnet, addresses, prefixLength }: SubnetSpec,
    start: Start,
  ): Promise<string | null> {
    const wanted = start.wanted !== null && isIPv6(start.wanted) === isIPv6(subnet) ? start.wanted : null;
    if (network.spec.isDockersIpam) {
      const free = wanted ?? addresses.find((address) => !network.used.has(address)) ?? null;
      if (free === null || network.used.has(free)) {
        start.refusal = NONE_LEFT;
        return null;
      }
      network.used.add(free);
      return `${free}/${prefixLength}`;
    }
    const body = { PoolID: network.poolIds[index], Address: wanted ?? '', Options: {} };
    const given = await this.call('IpamDriver.RequestAddress', body);
    if (given.ok) return String(given.body['Address']);
    start.refusal = given.error;
    return null;
  }

  async #releaseAddresses({ spec, poolIds, used }: Network, addresses: readonly string[]): Promise<void> {
    for (const address of addresses.map(bare)) {
      const index = spec.subnets.findIndex(({ subnet }) => isIPv6(subnet) === isIPv6(address));
      if (spec.isDockersIpam) used.delete(address);
      else await this.call('IpamDriver.ReleaseAddress', { PoolID: poolIds[index], Address: address });
    }
  }

  async #join(container: Container, start: Start): Promise<void> {
    const { endpointId, network } = container;
    await pause(this.#random.delay(2, 30));
    start.joiningAtMs = scheduler.nowMs;
    const sandbox = {
      NetworkID: network.spec.id,
      EndpointID: endpointId,
      SandboxKey: '/var/run/docker/netns/1',
      Options: {},
    };
    const joined = await this.call('NetworkDriver.Join', sandbox);
    if (!joined.ok) {
      start.refusal = joined.error;
      return this.#giveBack(container, false);
    }
    start.joinedAtMs = scheduler.nowMs;
    container.linkName = String((joined.body['InterfaceName'] as Record<string, unknown>)['SrcName']);
    if (await this.#plumb(container)) start.upAtMs = scheduler.nowMs;
    else {
      start.refusal = 'the engine found no link';
      return this.#giveBack(container, true);
    }
    await this.call('NetworkDriver.EndpointOperInfo', { NetworkID: network.spec.id, EndpointID: endpointId });
  }

  /** The link goes into the container, gets its name and address, and comes up. */
  async #plumb(container: Container): Promise<boolean> {
    const { kernel } = this.host;
    await pause(this.#random.delay(2, 40));
    const link = kernel.host.byName(container.linkName);
    if (link === undefined) return false;
    const namespace = kernel.addNamespace(`${this.host.name}/${container.name}`);
    container.namespace = namespace;
    kernel.moveLink(link, namespace, 'eth0');
    await pause(this.#random.delay(1, 20));
    if (!namespace.links.has(link.index)) return false;
    const addresses = container.addresses.flatMap((text) => parseAddress(bare(text)) ?? []);
    for (const [position, address] of addresses.entries())
      kernel.addAddress(link, address, Number(container.addresses[position]?.split('/')[1]));
    kernel.setUp(link, true);
    if (this.#random.chance(TWO_LINKS)) this.#addOtherLink(namespace);
    for (let count = 0; count < ANNOUNCEMENTS; count++) {
      const announce = () => {
        if (!namespace.links.has(link.index)) return;
        for (const address of addresses) kernel.neighbours.announce(link, address);
      };
      scheduler.after(5 + count * 1000, announce);
    }
    return true;
  }

  /** An interface of another driver's network, on the same LAN: Linux answers for all addresses there too. */
  #addOtherLink(namespace: Namespace): void {
    const { kernel, nic } = this.host;
    const count = ++this.#count;
    const bytes = [count >> 8, count].map((byte) => (byte & 0xff).toString(16).padStart(2, '0')).join(':');
    const link = kernel.addMacvlan(`veth${count}`, nic, `02:11:22:${this.host.nic.macAddress.slice(-2)}:${bytes}`);
    kernel.moveLink(link, namespace, 'eth1');
    const other = parseAddress(`192.168.78.${(count % 250) + 1}`);
    if (other !== undefined) kernel.addAddress(link, other, 24);
    kernel.setUp(link, true);
  }

  /** As `docker stop` and `docker rm`. Answers the addresses that are free then. */
  async stop(name: string): Promise<string[]> {
    const container = this.containers.get(name);
    if (container === undefined || container.namespace === null || container.isLeaving) return [];
    container.isLeaving = true;
    const addresses = container.addresses.map(bare);
    for (const address of addresses) this.#leaving.add(address);
    await this.#giveBack(container, true);
    for (const address of addresses) this.#leaving.delete(address);
    return addresses;
  }

  /** A container has the address, is to have it, or gives it back just now. */
  isUsing(address: string): boolean {
    if (this.#leaving.has(address)) return true;
    const isHis = ({ addresses }: Container) => addresses.some((one) => bare(one) === address);
    if ([...this.containers.values(), ...this.#stale].some(isHis)) return true;
    const isUnderWay = ({ upAtMs, refusal }: Start) => upAtMs === null && refusal === null;
    return [...this.starts.values()].some(
      (start) => isUnderWay(start) && [...start.grants.keys(), start.wanted].includes(address),
    );
  }

  async #giveBack(container: Container, isJoined: boolean): Promise<void> {
    const { network, endpointId, namespace, addresses } = container;
    const body = { NetworkID: network.spec.id, EndpointID: endpointId };
    container.isLeaving = true;
    if (isJoined) await this.call('NetworkDriver.Leave', body);
    if (namespace !== null) await this.#takeApart(container, namespace);
    await this.call('NetworkDriver.DeleteEndpoint', body);
    this.containers.delete(container.name);
    await this.#releaseAddresses(network, addresses);
  }

  async #takeApart(container: Container, namespace: Namespace): Promise<void> {
    const { kernel } = this.host;
    await pause(this.#random.delay(2, 20));
    const link = namespace.byName('eth0');
    if (link !== undefined && kernel.namespaces.has(namespace)) kernel.moveLink(link, kernel.host, container.linkName);
    kernel.removeNamespace(namespace);
    container.namespace = null;
  }

  // --- its own life ------------------------------------------------------------------------------------------------

  /** kill -9: containers go on running, and nobody knows what was under way. */
  kill(): void {
    if (!this.#process.isAlive) return;
    this.#stale.push(...this.containers.values());
    this.containers.clear();
    this.#starting.clear();
    this.#leaving.clear();
    this.#tasks = 0;
    this.#process.kill();
  }

  /** Those that ran when the machine went off. */
  #lost: readonly string[] = [];

  /** Containers that it finds running are ended, their addresses released, and `restart` of them started again. */
  restart(again: (names: readonly string[]) => Promise<void>): void {
    if (this.#process.isAlive) return;
    this.#process = new Process<Computer>(this.host, `${this.host.name} engine`);
    for (const [id, network] of this.networks) {
      if (network.spec.isOfSwarm) this.networks.delete(id);
      network.turn = Promise.resolve();
    }
    const stale = [...this.#stale];
    const running = stale.filter(({ namespace }) => namespace !== null).map(({ name }) => name);
    const names = [...this.#lost, ...running];
    this.#lost = [];
    this.do(async () => {
      await this.call('NetworkDriver.GetCapabilities', null);
      await this.call('IpamDriver.GetCapabilities', null);
      for (const container of stale) {
        await this.#endStale(container);
        this.#stale.splice(this.#stale.indexOf(container), 1);
      }
      await again(names);
    });
  }

  /** The driver is not registered yet at that moment: Leave and DeleteEndpoint are not sent. */
  async #endStale({ namespace, network, addresses }: Container): Promise<void> {
    if (namespace !== null) this.host.kernel.removeNamespace(namespace);
    if (!network.spec.isOfSwarm) await this.#releaseAddresses(network, addresses);
  }

  /** The machine went off: nothing runs any more. */
  loseAll(): void {
    const before = [...this.#stale];
    this.kill();
    const running = this.#stale.filter((one) => !before.includes(one) && one.namespace !== null);
    this.#lost = running.map(({ name }) => name);
    for (const namespace of [...this.host.kernel.namespaces])
      if (namespace !== this.host.kernel.host) this.host.kernel.removeNamespace(namespace);
    for (const container of this.#stale) container.namespace = null;
  }

  // --- calls -------------------------------------------------------------------------------------------------------

  /** An answer of the plugin, or that there was none. */
  async call(name: string, body: object | null): Promise<Answered> {
    for (let attempt = 0; ; attempt++) {
      const beganMonotonicMs = this.host.monotonicMs();
      const reply = await this.#try(name, attempt === 0 ? body : null);
      if (reply !== null) {
        const refusal = reply.body['Err'] ?? reply.body['Error'];
        const isRefused = reply.status !== 200 || Boolean(refusal);
        const error = isRefused ? String(refusal) : null;
        const isRepeated = attempt > 0;
        const endedMonotonicMs = this.host.monotonicMs();
        this.#parts.onCall({ host: this.host, name, beganMonotonicMs, endedMonotonicMs, error, isRepeated });
        return error === null ? { ok: true, body: reply.body, isRepeated } : { ok: false, error, isHeard: true };
      }
      const pauseMs = PAUSES_MS[attempt];
      if (pauseMs === undefined) return { ok: false, error: `${name}: nobody answers`, isHeard: false };
      await pause(pauseMs);
    }
  }

  /** Null when there was no connection, or it broke. */
  async #try(name: string, body: object | null): Promise<Reply | null> {
    const { host } = this;
    const engine = this.#process;
    const { promise, resolve } = Promise.withResolvers<Reply | null>();
    const settle = (reply: Reply | null) => engine.enter(() => scheduler.after(0, () => resolve(reply)));
    const { daemon } = host;
    const onBroken = () => settle(null);
    if (daemon === null || !host.call(name, body, settle)) return null;
    daemon.onKilled.add(onBroken);
    return promise.finally(() => daemon.onKilled.delete(onBroken));
  }

  #newId(): string {
    const host = this.host.name.replaceAll(/\D/g, '');
    return `${(++this.#count).toString(16).padStart(8, '0')}${host}`.padEnd(64, '0');
  }
}

function macOf(body: Record<string, unknown>): string | null {
  const { MacAddress } = (body['Interface'] ?? {}) as { MacAddress?: string };
  return MacAddress ?? null;
}
