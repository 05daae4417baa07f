/** What the IPAM tests are built from: a driver on a real store, a clock, and the records that the network room writes. */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { PluginError } from '../../../src/errors.ts';
import { type EndpointWitness, IpamDriver, type Probe } from '../../../src/ipam/driver.ts';
import type { Clock } from '../../../src/clock.ts';
import type { CallLimit, PoolRequest } from '../../../src/requests.ts';
import { interfaceAddress } from '../../lab/addresses.ts';
import type { EndpointState, Lease, Pool } from '../../../src/model.ts';
import { openLocalStore } from '../../../src/store/local.ts';
import type { Store } from '../../../src/store/store.ts';
import { endpointRecord, networkRecord } from '../store/records.ts';
import { MemoryStore } from './memory.ts';
import { KEEPS_NOTHING, NOBODY_ANSWERS } from '../../lab/quiet.ts';

export const LOCAL = 'TsmacvlanLocal';
export const GLOBAL = 'TsmacvlanGlobal';

/** Ids as an engine makes them, and as a swarm does. */
export const NETWORK = '3f2a9c1d04be'.padEnd(64, '0');
export const OTHER_NETWORK = '77aa00bb11cc'.padEnd(64, '0');
export const SWARM_NETWORK = 'k3f9z1q8w2e7r6t5y4u3i2o1p';

/** Kill -9 spares what a disk has not written yet either, so nothing is proved by waiting for one. */
const PLACE = existsSync('/dev/shm') ? '/dev/shm' : tmpdir();

export const STORES: Readonly<Record<string, (t: TestContext) => Store>> = {
  'in memory': () => new MemoryStore(),
  embedded: (t) => {
    const directory = mkdtempSync(join(PLACE, 'tsmacvlan-ipam-'));
    const store = openLocalStore(directory);
    t.after(async () => {
      await store.close();
      rmSync(directory, { recursive: true });
    });
    return store;
  },
};

/** Without the length of its subnet. */
export function bare(address: string): string {
  return address.replace(/\/.*/, '');
}

export class Fixture {
  readonly store: Store;
  ipam: IpamDriver;
  /** Lines of the log. */
  readonly said: string[] = [];
  #timeMs = Date.parse('2026-11-20T10:00:00.000Z');
  /** Time that passes: monotonic, while the wall's may be set. Whoever waits makes it pass. */
  #passedMs = 0;
  readonly #clock: Clock = {
    nowMs: () => this.#passedMs,
    after: (delayMs, run) => {
      const timer = setImmediate(() => {
        this.#passedMs += delayMs;
        run();
      });
      return () => clearImmediate(timer);
    },
  };
  readonly #probe: Probe;
  readonly #endpoints: EndpointWitness | undefined;

  /** `endpoints`: what the kernel says of them; left out, what their records say. */
  constructor(store: Store, probe: Probe = NOBODY_ANSWERS, endpoints?: EndpointWitness) {
    this.store = store;
    this.#probe = probe;
    this.#endpoints = endpoints;
    this.ipam = this.#start();
  }

  readonly #say = (message: string, fields?: object) => void this.said.push(`${message} ${JSON.stringify(fields)}`);

  #start(rememberDays = 30): IpamDriver {
    return new IpamDriver({
      store: this.store,
      now: () => new Date(this.#timeMs),
      clock: this.#clock,
      hostId: 'host-a',
      probe: this.#probe,
      keeper: KEEPS_NOTHING,
      rememberDays,
      log: { info: this.#say, warn: this.#say },
      ...(this.#endpoints && { endpoints: this.#endpoints }),
    });
  }

  /** All that was in memory is gone, as after kill -9. */
  restart(rememberDays = 30): void {
    this.ipam = this.#start(rememberDays);
  }

  pass(seconds: number): void {
    this.#timeMs += seconds * 1000;
    this.#passedMs += seconds * 1000;
  }

  /** The wall clock is set, as NTP does; no time passes. */
  setClock(hours: number): void {
    this.#timeMs += hours * 3_600_000;
  }

  /** As a server's that answers within nine seconds. */
  get #limit(): CallLimit {
    return { signal: new AbortController().signal, atMs: this.#passedMs + 9000, ifLate: () => undefined };
  }

  /** RequestPool; answers the pool's id. */
  async pool(subnet: string | null, more: Partial<PoolRequest> = {}): Promise<string> {
    const request = { addressSpace: LOCAL, pool: subnet, subPool: null, options: {}, v6: false };
    return (await this.ipam.requestPool({ ...request, ...more })).poolId;
  }

  /** A network of ours on one subnet: RequestPool, and what CreateNetwork does to the pool. */
  async network(subnet: string, more: Partial<PoolRequest> = {}, networkId = NETWORK): Promise<string> {
    const poolId = await this.pool(subnet, more);
    await this.tie(poolId, networkId);
    return poolId;
  }

  async tie(poolId: string, networkId: string): Promise<void> {
    const pool = await this.record(poolId);
    const changedAt = new Date(this.#timeMs).toISOString();
    assert.ok(await this.store.pools.replace(pool, { ...pool, networkId, changedAt }));
    await this.store.networks.insert(networkRecord(networkId));
  }

  /** What DeleteNetwork does. */
  async deleteNetwork(networkId: string): Promise<void> {
    const network = await this.store.networks.get(networkId);
    assert.ok(network);
    await this.store.networks.remove(network);
  }

  async record(poolId: string): Promise<Pool> {
    const pool = await this.store.pools.get(poolId);
    assert.ok(pool, poolId);
    return pool;
  }

  gateway(poolId: string, address: string | null = null): Promise<string> {
    return this.ipam.requestAddress({
      poolId,
      address,
      isGateway: true,
      serial: false,
      name: null,
      limit: this.#limit,
    });
  }

  async address(poolId: string, address: string | null = null, serial = false): Promise<string> {
    const given = await this.unanswered(poolId, address, serial);
    await this.ipam.answerAddress({ poolId, address: bare(given) });
    return given;
  }

  /** The reply has not gone out. */
  unanswered(poolId: string, address: string | null = null, serial = false): Promise<string> {
    return this.ipam.requestAddress({ poolId, address, isGateway: false, serial, name: null, limit: this.#limit });
  }

  /** As engines from 29 on ask. */
  addressFor(name: string, poolId: string, address: string | null = null): Promise<string> {
    return this.ipam.requestAddress({ poolId, address, isGateway: false, serial: false, name, limit: this.#limit });
  }

  addresses(poolId: string, count: number): Promise<string[]> {
    return Promise.all(Array.from({ length: count }, () => this.address(poolId)));
  }

  reserve(name: string, address: string, networkId: string | null = null): Promise<unknown> {
    return this.ipam.reserveName({ name, address, networkId, limit: this.#limit });
  }

  async release(poolId: string, address: string): Promise<void> {
    await this.ipam.releaseAddress({ poolId, address });
  }

  lease(address: string, realm = LOCAL): Promise<Lease | undefined> {
    return this.store.leases.get(`${realm}/${address}`);
  }

  /** What CreateEndpoint does: the endpoint's record, and its lease tied to it. */
  async endpoint(
    id: string,
    address: string,
    state: EndpointState = 'joined',
    networkId = endpointRecord(id).networkId,
  ): Promise<void> {
    await this.store.endpoints.insert({
      ...endpointRecord(id),
      networkId,
      state,
      addresses: [interfaceAddress(`${address}/24`)],
    });
    await this.tieLease(address, id);
  }

  /** What DeleteEndpoint does. */
  async deleteEndpoint(id: string, address: string): Promise<void> {
    const endpoint = await this.store.endpoints.get(id);
    assert.ok(endpoint);
    await this.store.endpoints.remove(endpoint);
    await this.tieLease(address, null);
  }

  async tieLease(address: string, endpointId: string | null): Promise<void> {
    const lease = await this.lease(address);
    assert.ok(lease, address);
    await this.store.leases.replace(lease, { ...lease, endpointId, changedAt: new Date(this.#timeMs).toISOString() });
  }
}

/** What a user would see; fails when the action succeeds, or with anything but a mistake of the user. */
export async function sentence(action: Promise<unknown>): Promise<string> {
  try {
    const answer = await action;
    assert.fail(`nothing was refused: ${JSON.stringify(answer)}`);
  } catch (error) {
    if (!(error instanceof PluginError)) throw error;
    assert.equal(error.kind, 'mistake', String(error.stack));
    return error.message;
  }
}
