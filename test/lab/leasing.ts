/** The calls of an engine on a daemon's own socket for networks whose addresses are the LAN's (`-o source=dhcp`). */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import type { Tenancy } from '../../src/model.ts';
import { readLocalStore } from '../../src/store/local.ts';
import type { Namespace } from './namespace.ts';
import type { Serving } from './serving.ts';

type Body = Readonly<Record<string, unknown>>;

/** Of `docker run`: `--mac-address`, and the options of its endpoint. */
export interface LeaseWish {
  readonly macAddress?: string;
  readonly options?: Readonly<Record<string, string>>;
}

/** A container that runs, by what an engine knows of it. */
export interface Leased {
  readonly networkId: string;
  readonly endpointId: string;
  readonly namespace: Namespace;
  readonly macAddress: string;
}

export class LeasingEngine {
  /** The networks that stand. */
  readonly networks = new Set<string>();
  readonly #daemon: () => Serving;

  /** `daemon` answers the one that runs now. */
  constructor(daemon: () => Serving) {
    this.#daemon = daemon;
  }

  readonly call = async (name: string, body: object): Promise<Body> => {
    const reply = await this.#daemon().call(name, body);
    assert.equal(reply.status, 200, `${name}: ${reply.sentence}`);
    return reply.body;
  };

  /** The sentence that a person sees. */
  readonly refusal = async (body: object, name = 'NetworkDriver.CreateEndpoint'): Promise<string> => {
    const reply = await this.#daemon().call(name, body);
    assert.equal(reply.status, 400, JSON.stringify(reply.body));
    return reply.sentence;
  };

  /** The body of CreateNetwork: `options` are those of `-o`, `flags` the engine's own beside them, `data` what its IPAM answered. */
  readonly creation = (
    options: Record<string, string>,
    { flags = {}, data = {} }: { flags?: object; data?: object } = {},
  ) => ({
    NetworkID: randomBytes(32).toString('hex'),
    Options: {
      'com.docker.network.generic': { parent: 'eth0', source: 'dhcp', ...options },
      'com.docker.network.enable_ipv4': true,
      'com.docker.network.enable_ipv6': false,
      ...flags,
    },
    IPv4Data: [{ AddressSpace: 'null', Pool: '0.0.0.0/0' }],
    IPv6Data: [],
    ...data,
  });

  readonly create = async (options: Record<string, string> = {}): Promise<string> => {
    const body = this.creation(options);
    await this.call('NetworkDriver.CreateNetwork', body);
    this.networks.add(body.NetworkID);
    return body.NetworkID;
  };

  readonly remove = async (networkId: string): Promise<void> => {
    this.networks.delete(networkId);
    await this.call('NetworkDriver.DeleteNetwork', { NetworkID: networkId });
  };

  /** The body of CreateEndpoint, and what names the endpoint in every other call. */
  readonly endpoint = (networkId: string, { macAddress = '', options = {} }: LeaseWish = {}) => {
    const ids = { NetworkID: networkId, EndpointID: randomBytes(32).toString('hex') };
    const Interface = { Address: '', AddressIPv6: '', MacAddress: macAddress };
    return { ids, body: { ...ids, Interface, Options: options } };
  };

  /** What `docker rm -f` makes an engine do. */
  readonly stop = async ({ networkId, endpointId, namespace }: Leased): Promise<void> => {
    const ids = { NetworkID: networkId, EndpointID: endpointId };
    await this.call('NetworkDriver.Leave', ids);
    await namespace.ip('link set eth0 down');
    await namespace.delete();
    await this.call('NetworkDriver.DeleteEndpoint', ids);
  };

  /** As the daemon has them on disk. */
  readonly tenancies = async (): Promise<Tenancy[]> => {
    const store = readLocalStore(this.#daemon().state);
    return store.tenancies.list().finally(() => store.close());
  };
}
