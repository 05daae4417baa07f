/** What is recorded of leases where two things happen to one at the same moment. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { parseAddress } from '../../../src/address.ts';
import type { DatedLease, RenewalContext } from '../../../src/lan/dhcp/renewal.ts';
import type { Tenancy } from '../../../src/model.ts';
import { readNetworkOptions } from '../../../src/network/options.ts';
import { Tenancies, type TenanciesParts } from '../../../src/network/tenancies.ts';
import { openLocalStore } from '../../../src/store/local.ts';
import { tenancyKey } from '../../../src/store/store.ts';
import { endpointRecord, networkRecord } from '../store/records.ts';

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));
const endpoint = { ...endpointRecord('e1'), parent: 'eth0' };
const network = { ...networkRecord('n1'), options: readNetworkOptions({ parent: 'eth0', source: 'dhcp' }) };
const tenancy: Tenancy = {
  parent: endpoint.parent,
  macAddress: endpoint.macAddress,
  networkId: network.id,
  owner: null,
  endpointId: endpoint.id,
  hostname: null,
  address: '192.168.1.2/24',
  server: '192.168.1.1',
  serverMac: '02:00:00:00:00:01',
  leaseSeconds: 3600,
  t1Seconds: null,
  t2Seconds: null,
  obtainedAt: '2026-11-30T10:00:00.000Z',
  routers: [],
  routes: null,
  dnsServers: [],
  domain: null,
  mtu: null,
  state: 'bound',
  changedAt: '2026-11-30T10:00:00.000Z',
};

test('a container that stops while its lease is renewed leaves a tenancy that is put aside, with the new lease', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'tsm-tenancies-'));
  const store = openLocalStore(directory);
  t.after(async () => {
    await store.close();
    rmSync(directory, { recursive: true });
  });
  const key = tenancyKey(tenancy);
  assert.equal(await store.tenancies.insert(tenancy), true);
  let renewed: RenewalContext['onKept'] | undefined;
  const tenancies = new Tenancies({
    store,
    dhcp: {
      keep: (...[, , , , told]) => (renewed = told.onKept),
      endKeeping: () => undefined,
    } as Partial<TenanciesParts['dhcp']>,
    log: { error: (message: string) => assert.fail(message), info: () => undefined },
    now: () => new Date('2026-11-30T10:30:00.000Z'),
  } as unknown as TenanciesParts);
  await tenancies.keep(endpoint, network);
  const kept: DatedLease = {
    lease: {
      address: parseAddress('192.168.1.2')!,
      prefixLength: 24,
      server: { address: parseAddress('192.168.1.1')!, macAddress: tenancy.serverMac },
      leaseSeconds: 7200,
      t1Seconds: null,
      t2Seconds: null,
      routers: [],
      routes: null,
      dnsServers: [],
      domain: null,
      mtu: null,
    },
    obtainedMs: Date.parse('2026-11-30T10:30:00.000Z'),
  };
  renewed?.(kept);
  tenancies.leave(endpoint);
  await turn();
  const { state, endpointId, leaseSeconds } = (await store.tenancies.get(key))!;
  assert.deepEqual({ state, endpointId, leaseSeconds }, { state: 'aside', endpointId: null, leaseSeconds: 7200 });
});
