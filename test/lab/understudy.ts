/**
 * Plays the part of an engine, cheaply enough for hundreds of containers: the calls of `docker network create`,
 * `docker run` and `docker rm`, with a network namespace in place of each container.
 */
import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { output, run } from './command.ts';
import { exchange } from './exchange.ts';
import { Namespace } from './namespace.ts';
import type { Plugin } from './plugin.ts';
import { inNamespace } from './thread.ts';

export interface NetworkPlan {
  /** `10.9.0.0/24`, `fd00:9::/64`; empty where the IPAM chooses one. */
  subnet: string;
  /** Default `lan0`; null for none. */
  parent?: string | null;
  /** `-o` */
  options?: Record<string, string>;
  /** `--ipam-opt`; null leaves the addresses to Docker's own IPAM, which this class does not have. */
  ipamOptions?: Record<string, string> | null;
}

export interface FakeNetwork {
  id: string;
  isIPv6: boolean;
  poolId: string | null;
}

export interface Container {
  namespace: Namespace;
  network: FakeNetwork;
  endpointId: string;
  /** As it was given, with prefix length. */
  address: string;
}

/**
 * `address`: with prefix length where Docker's IPAM chose it, else as after `--ip`. `options`: of the endpoint, as
 * `--network name=lan,driver-opt=hostname=web`.
 */
export interface Wish {
  /** Of the container, as engines from 29 on say it. */
  name?: string | undefined;
  address?: string | undefined;
  macAddress?: string | undefined;
  options?: Readonly<Record<string, string>> | undefined;
}

/** What else happens while a container starts. Each is told the address, with prefix length. */
export interface Moments {
  /** Between RequestAddress and CreateEndpoint. */
  chosen?: (address: string) => Promise<unknown>;
  /** Between CreateEndpoint and Join. */
  created?: (address: string) => Promise<unknown>;
  /** Its kernel has the address. */
  up?: (address: string) => void;
}

export class Refusal extends Error {}

/** What a start has until it has a namespace. */
type Beginning = Omit<Container, 'namespace'>;

const SPACE = 'TsmacvlanLocal';
const ATTEMPTS = 5;
const RETRY_MS = 100;
/** The container's own kernel is to say on the LAN which address it has. */
const SPEAKS = ['ipv4/conf/all/arp_notify', 'ipv6/conf/all/ndisc_notify'].map((name) => `/proc/sys/net/${name}`);
let containers = 0;

export class Understudy {
  readonly plugin: Plugin;
  /** Those that run, and the networks that stand. */
  readonly containers = new Set<Container>();
  readonly networks = new Set<FakeNetwork>();

  constructor(plugin: Plugin) {
    this.plugin = plugin;
  }

  async createNetwork(plan: NetworkPlan): Promise<FakeNetwork> {
    const { subnet, parent = 'lan0', options = {}, ipamOptions = {} } = plan;
    const isIPv6 = subnet.includes(':');
    const pool = { AddressSpace: SPACE, Pool: subnet, SubPool: '', V6: isIPv6, Options: ipamOptions };
    const answer = ipamOptions && (await this.call('IpamDriver.RequestPool', pool));
    const poolId = answer && String(answer['PoolID']);
    const gateway = (answer?.['Data'] as Record<string, string> | undefined)?.['com.docker.network.gateway'];
    const id = randomBytes(32).toString('hex');
    const data = [
      {
        AddressSpace: ipamOptions === null ? 'LocalDefault' : SPACE,
        Pool: answer ? String(answer['Pool']) : subnet,
        ...(gateway !== undefined && { Gateway: gateway }),
      },
    ];
    const request = {
      NetworkID: id,
      Options: {
        'com.docker.network.generic': { ...(parent !== null && { parent }), ...options },
        'com.docker.network.enable_ipv4': !isIPv6,
        'com.docker.network.enable_ipv6': isIPv6,
      },
      IPv4Data: isIPv6 ? [] : data,
      IPv6Data: isIPv6 ? data : [],
    };
    await this.call('NetworkDriver.CreateNetwork', request).catch(async (error: unknown) => {
      // An engine gives back what it asked for.
      if (error instanceof Refusal && poolId !== null) await this.call('IpamDriver.ReleasePool', { PoolID: poolId });
      throw error;
    });
    const network = { id, isIPv6, poolId };
    this.networks.add(network);
    return network;
  }

  /** With `--ipam-driver null`: addresses are the driver's own to give, and no pool is asked for. */
  async createNullNetwork(options: Record<string, string>): Promise<FakeNetwork> {
    const id = randomBytes(32).toString('hex');
    await this.call('NetworkDriver.CreateNetwork', {
      NetworkID: id,
      Options: {
        'com.docker.network.generic': options,
        'com.docker.network.enable_ipv4': true,
        'com.docker.network.enable_ipv6': false,
      },
      IPv4Data: [{ AddressSpace: 'null', Pool: '0.0.0.0/0' }],
      IPv6Data: [],
    });
    const network = { id, isIPv6: false, poolId: null };
    this.networks.add(network);
    return network;
  }

  async deleteNetwork(network: FakeNetwork): Promise<void> {
    this.networks.delete(network);
    await this.call('NetworkDriver.DeleteNetwork', { NetworkID: network.id });
    if (network.poolId !== null) await this.call('IpamDriver.ReleasePool', { PoolID: network.poolId });
  }

  /** Removes all. */
  async clear(): Promise<void> {
    for (const container of this.containers) await this.remove(container);
    for (const network of this.networks) await this.deleteNetwork(network);
  }

  /** Throws a Refusal with the sentence that the user would see; nothing is left then. */
  async run(network: FakeNetwork, wish: Wish = {}, moments: Moments = {}): Promise<Container> {
    const address = await this.requestAddress(network, wish);
    let beginning: Beginning = { network, endpointId: randomBytes(32).toString('hex'), address };
    let linkName: string;
    try {
      await moments.chosen?.(address);
      const given = await this.createEndpoint(beginning, wish);
      beginning = { ...beginning, address: given ?? address };
      await moments.created?.(beginning.address);
      linkName = await this.join(beginning);
    } catch (error) {
      await this.forget(beginning).catch(() => undefined);
      throw error;
    }
    const container = { ...beginning, namespace: await Namespace.create(`c${++containers}`) };
    this.containers.add(container);
    await this.bringUp(container, linkName);
    moments.up?.(container.address);
    return container;
  }

  /**
   * `patienceMs`: so long each call is tried again while the daemon is away, as an engine does, which then goes on all the same.
   * `down`: when its kernel has the address no more, and before the engine says so.
   */
  async remove(container: Container, patienceMs = 0, down: () => unknown = () => {}): Promise<void> {
    this.containers.delete(container);
    const { namespace, network, endpointId } = container;
    const ids = { NetworkID: network.id, EndpointID: endpointId };
    await this.persist(patienceMs, () => this.call('NetworkDriver.Leave', ids));
    const back = ['netns', this.plugin.host.namespace.name, 'name', `tsm${endpointId.slice(0, 12)}`];
    await run(['ip', '-n', namespace.name, 'link', 'set', 'eth0', 'down', ...back]);
    await namespace.delete();
    await down();
    await this.persist(patienceMs, () => this.call('NetworkDriver.DeleteEndpoint', ids));
    await this.persist(patienceMs, () => this.releaseAddress(network, container.address));
  }

  private async persist(patienceMs: number, act: () => Promise<unknown>): Promise<void> {
    const untilMs = performance.now() + patienceMs;
    for (;;) {
      try {
        await act();
        return;
      } catch (error) {
        if (patienceMs === 0) throw error;
        if (error instanceof Refusal || performance.now() > untilMs) return;
        await sleep(RETRY_MS);
      }
    }
  }

  async requestAddress({ poolId }: FakeNetwork, { address = '', name }: Wish = {}): Promise<string> {
    if (poolId === null) return address;
    const wish = { Address: address, Options: name === undefined ? {} : { 'com.docker.network.endpoint.name': name } };
    for (let attempt = 1; ; attempt++) {
      try {
        return String((await this.call('IpamDriver.RequestAddress', { PoolID: poolId, ...wish }))['Address']);
      } catch (error) {
        // A machine that is too busy; a person would try again.
        if (attempt === ATTEMPTS || !(error instanceof Refusal && error.message.includes('was not done within')))
          throw error;
      }
    }
  }

  /** `address`: as it was given. */
  async releaseAddress({ poolId }: FakeNetwork, address: string): Promise<void> {
    if (poolId === null) return;
    await this.call('IpamDriver.ReleaseAddress', { PoolID: poolId, Address: address.split('/')[0] });
  }

  async call(name: string, body: object): Promise<Record<string, unknown>> {
    const socketPath = this.plugin.host.file('/run/docker/plugins/tsmacvlan.sock');
    const { status, text } = await exchange(socketPath, { path: `/${name}`, body: JSON.stringify(body) });
    const answer = JSON.parse(text) as Record<string, unknown>;
    if (status !== 200) throw new Refusal(String(answer['Err']));
    return answer;
  }

  /** Answers the address, with prefix length, where the driver gives one. */
  private async createEndpoint(
    { network, endpointId, address }: Beginning,
    { macAddress = '', options }: Wish,
  ): Promise<string | undefined> {
    const field = network.isIPv6 ? 'AddressIPv6' : 'Address';
    const answer = await this.call('NetworkDriver.CreateEndpoint', {
      NetworkID: network.id,
      EndpointID: endpointId,
      Interface: { [field]: address, MacAddress: macAddress },
      ...(options && { Options: options }),
    });
    const given = (answer as { Interface?: { Address?: string } | null }).Interface?.Address;
    return given === '' ? undefined : given;
  }

  /** Answers the name of the link that is to be moved into the container. */
  private async join({ network, endpointId }: Beginning): Promise<string> {
    const answer = await this.call('NetworkDriver.Join', { NetworkID: network.id, EndpointID: endpointId });
    return (answer as { InterfaceName: { SrcName: string } }).InterfaceName.SrcName;
  }

  private async bringUp({ namespace, network, address }: Container, linkName: string): Promise<void> {
    await this.plugin.host.namespace.ip(`link set ${linkName} netns ${namespace.name} name eth0`);
    inNamespace(namespace.name, () => {
      for (const setting of SPEAKS) writeFileSync(setting, '1');
    });
    // Engines forgo the kernel's own detection (IFA_F_NODAD).
    const bring = [`address add ${address} dev eth0${network.isIPv6 ? ' nodad' : ''}`, 'link set eth0 up'];
    await output(['ip', '-n', namespace.name, '-batch', '-'], { input: bring.join('\n') });
  }

  /** What an engine does after a container's end, and after a start that failed. */
  async forget({ network, endpointId, address }: Beginning): Promise<void> {
    await this.call('NetworkDriver.DeleteEndpoint', { NetworkID: network.id, EndpointID: endpointId });
    await this.releaseAddress(network, address);
  }
}
