/** Addresses that a DHCP server gives and our IPAM has for something else. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatAddress } from '../../../src/address.ts';
import { type AddressServer, IpamDriver } from '../../../src/ipam/driver.ts';
import { ip } from '../lan/frames/dhcpanswers.ts';
import { KEEPS_NOTHING, NOBODY_ANSWERS } from '../../lab/quiet.ts';
import { Fixture, sentence } from './fixture.ts';
import { MemoryStore } from './memory.ts';

test('what the network has for something else is told with what to do at the server, and nobody waits for its endpoint', async () => {
  const returned: string[] = [];
  let given = '192.168.1.1';
  const server: AddressServer = {
    patienceMs: 5000,
    learn: () => assert.fail('the subnet is known'),
    lease: async () => ip(given),
    returned: (networkId, address) => void returned.push(`${networkId} ${formatAddress(address)}`),
  };
  const f = new Fixture(new MemoryStore());
  f.ipam = new IpamDriver({ store: f.store, probe: NOBODY_ANSWERS, keeper: KEEPS_NOTHING, server });
  const pool = await f.pool('192.168.1.0/24', { options: { parent: 'eth0', source: 'dhcp' } });
  await f.gateway(pool, '192.168.1.1');
  await f.tie(pool, 'n1');
  assert.match(
    await sentence(f.address(pool)),
    /^address 192\.168\.1\.1 is the gateway of network n1; choose another address for the container on the DHCP server$/,
  );
  assert.deepEqual(returned, ['n1 192.168.1.1']);
  given = '192.168.1.7';
  assert.equal(await f.address(pool), '192.168.1.7/24');
});
