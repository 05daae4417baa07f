/** Leases that were got with RequestAddress, and whose endpoints have not come yet. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseInterfaceAddress } from '../../../src/address.ts';
import type { Link } from '../../../src/kernel/link.ts';
import type { Network, Tenancy } from '../../../src/model.ts';
import { type MacClaim, MacClaims, type MacClaimsParts } from '../../../src/network/macclaims.ts';
import { readNetworkOptions } from '../../../src/network/options.ts';
import { bare } from '../../../src/network/tenancyrecord.ts';
import { callLimit } from '../../lab/patience.ts';
import { networkRecord, tenancyRecord } from '../store/records.ts';

const address = parseInterfaceAddress('192.168.1.2/24')!;

/** A network of a parent, whose DHCP server gave the address; other LANs have the same. */
function served(id: string, parent: string, macAddress: string): { network: Network; tenancy: Tenancy } {
  const network = { ...networkRecord(id), options: readNetworkOptions({ parent, source: 'dhcp' }) };
  const tenancy: Tenancy = {
    ...tenancyRecord(''),
    parent,
    macAddress,
    networkId: id,
    endpointId: null,
    address: '192.168.1.2/24',
  };
  return {
    network: { ...network, parent: { ...network.parent, name: parent } },
    tenancy: { ...tenancy, state: 'aside' },
  };
}

test('an address that is given back is that of its network: another LAN has the same one, and its container goes on', async () => {
  const [one, two] = [served('n1', 'eth0', '02:42:00:00:00:01'), served('n2', 'eth1', '02:42:00:00:00:02')];
  const all = [one.tenancy, two.tenancy];
  const claims = new MacClaims({
    store: { tenancies: { list: async (prefix: string) => all.filter(({ parent }) => prefix === `${parent} `) } },
    endpoints: { withMac: () => [] },
  } as unknown as MacClaimsParts);
  for (const { tenancy, network } of [one, two])
    claims.await({ ...tenancy, wish: null, limit: callLimit() } as MacClaim, network.id, bare(address));
  claims.returned('n1', bare(address));
  const isFresh = async ({ network }: typeof one) => {
    const request = { macAddress: null, hostname: null, wishedAddress: null, addresses: [address], limit: callLimit() };
    const claim = await claims.claim({ ...request, endpointId: `e of ${network.id}` }, network, {
      name: network.parent.name,
      macAddress: '02:00:00:00:00:99',
    } as Link);
    return claim.isFresh === true;
  };
  assert.deepEqual([await isFresh(one), await isFresh(two)], [false, true]);
});
