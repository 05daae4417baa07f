/** Hosts that share addresses, without a daemon around them. */
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { IpamDriver, type Probe } from '../../src/ipam/driver.ts';
import type { Lease } from '../../src/model.ts';
import type { EtcdAccess, Login, TlsFiles } from '../../src/store/etcd/client.ts';
import { KnownCluster, readSelf, type Self } from '../../src/store/etcd/identity.ts';
import { ClusterStore } from '../../src/store/etcd/store.ts';
import { openLocalStore } from '../../src/store/local.ts';
import { accessTo } from './access.ts';
import { interfaceAddress } from './addresses.ts';
import { endpointRecord, networkRecord } from '../unit/store/records.ts';
import { KEEPS_NOTHING, NOBODY_ANSWERS } from './quiet.ts';
import { callLimit } from './patience.ts';

interface Choices {
  readonly fallsBack?: boolean;
  readonly self?: Partial<Self>;
  readonly tls?: TlsFiles | null;
  readonly user?: Login | null;
  /** In place of `tls` and `user`. */
  readonly access?: EtcdAccess;
}

export interface Place extends Choices {
  readonly directory: string;
  readonly endpoints: readonly string[];
  readonly cluster: string;
  /** Without it nobody on the LAN has an address. */
  readonly probe?: Probe;
}

const SUBNET = '192.168.1.0/24';

/** `diary`: what it logged. */
export function openShared(
  directory: string,
  endpoints: readonly string[],
  cluster: string,
  { fallsBack = false, self, tls = null, user = null, access = accessTo(endpoints, tls, user) }: Choices = {},
): ClusterStore & { diary: string[] } {
  const diary: string[] = [];
  const note = (message: string) => void diary.push(message);
  const log = { debug: note, info: note, warn: note, error: note };
  const local = openLocalStore(directory);
  const known = new KnownCluster(directory);
  const parts = { local, access, cluster, self: { ...readSelf(directory), ...self }, known, fallsBack, log };
  return Object.assign(new ClusterStore(parts), { diary });
}

/** The IPAM of one host, without network room. */
export class SharedHost {
  readonly store: ClusterStore & { diary: string[] };
  readonly ipam: IpamDriver;
  readonly place: Place;
  timeMs = Date.parse('2026-11-20T10:00:00.000Z');
  #pool: Promise<string> | undefined;

  /** Closed after the test. */
  constructor(t: TestContext, place: Place) {
    const { directory, endpoints, cluster, probe = NOBODY_ANSWERS } = place;
    this.place = place;
    this.store = openShared(directory, endpoints, cluster, place);
    this.ipam = new IpamDriver({
      store: this.store,
      now: () => new Date(this.timeMs),
      hostId: directory,
      probe,
      keeper: KEEPS_NOTHING,
    });
    t.after(() => this.store.close());
  }

  /** Of a network, as CreateNetwork leaves it. */
  pool(subnet = SUBNET): Promise<string> {
    this.#pool ??= this.#create(subnet);
    return this.#pool;
  }

  async #create(subnet: string): Promise<string> {
    const { poolId } = await this.ipam.requestPool({
      addressSpace: 'TsmacvlanLocal',
      pool: subnet,
      subPool: null,
      options: {},
      v6: false,
    });
    const pool = await this.store.pools.get(poolId);
    assert.ok(pool);
    await this.store.networks.insert(networkRecord('n1'));
    await this.store.pools.replace(pool, { ...pool, networkId: 'n1' });
    return poolId;
  }

  /** `ms`: how long it is searched for. */
  async address(address: string | null = null, ms?: number): Promise<string> {
    return this.#request(address, false, ms);
  }

  async gateway(address: string | null): Promise<string> {
    return this.#request(address, true);
  }

  /** Its container stops. */
  async release(address: string): Promise<void> {
    const endpoint = await this.store.endpoints.get(`e-${address}`);
    if (endpoint !== undefined) await this.store.endpoints.remove(endpoint);
    await this.ipam.releaseAddress({ poolId: await this.pool(), address });
  }

  async #request(address: string | null, isGateway: boolean, ms?: number): Promise<string> {
    const given = await this.ipam.requestAddress({
      poolId: await this.pool(),
      address,
      isGateway,
      serial: false,
      name: null,
      limit: callLimit(ms),
    });
    const text = given.split('/')[0] ?? '';
    if (!isGateway) await this.#start(text);
    return text;
  }

  /** A container starts with it. */
  async #start(address: string): Promise<void> {
    const lease = (await this.store.leases.get(`TsmacvlanLocal/${address}`)) as Lease;
    const endpoint = { ...endpointRecord(`e-${address}`), addresses: [interfaceAddress(`${address}/24`)] };
    await this.store.endpoints.insert(endpoint);
    await this.store.leases.replace(lease, { ...lease, endpointId: endpoint.id });
  }
}
