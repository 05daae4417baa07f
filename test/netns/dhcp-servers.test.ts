/**
 * The lab's DHCP servers serve a plain client, and what is read of their leases is what its kernel has: what other tests judge by.
 *
 *     client (busybox udhcpc) ── br0 (ns "lan") ── dnsmasq, isc-dhcpd, kea or udhcpd
 */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { DHCP_SERVERS, DhcpServer } from '../lab/dhcpserver.ts';
import { PlainClient } from '../lab/dhcpclient.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { Lan } from '../lab/namespace.ts';
import { withoutDhcp } from '../lab/packages.ts';
import { RogueServer } from '../lab/rogueserver.ts';

const PLAIN = '02:00:5e:10:00:11';
const RESERVED = '02:00:5e:10:00:aa';
const PLAN = {
  address: '10.77.0.1/24',
  range: ['10.77.0.100', '10.77.0.150'],
  leaseSeconds: 120,
  reservations: { [RESERVED]: '10.77.0.50' },
  routes: { '10.9.0.0/16': '10.77.0.254', '0.0.0.0/0': '10.77.0.1' },
  domain: 'lan.test',
} as const;

describe('DHCP servers of the lab', { skip: outsideLab() || withoutDhcp(), timeout: 300_000 }, () => {
  let lan: Lan;
  let client: PlainClient;
  let server: DhcpServer | undefined;

  before(async () => {
    lan = await Lan.create();
    client = await PlainClient.plug(lan, 'client');
  });

  afterEach(() => server?.unplug());

  after(() => lan.namespace.delete());

  for (const kind of DHCP_SERVERS) {
    test(`${kind} gives a client an address, its router and its routes, and its lease file tells who has it`, async () => {
      server = await DhcpServer.plug(lan, kind, kind, PLAN);
      const given = await client.acquire(PLAIN, { hostname: 'web' });
      assert.match(given.address, /^10\.77\.0\.1[0-4]\d$|^10\.77\.0\.150$/);
      assert.deepEqual(given, { ...given, router: '10.77.0.1', domain: 'lan.test', leaseSeconds: 120 });
      assert.match(given.routes, /10\.9\.0\.0\/16 10\.77\.0\.254/);
      const { endsAtMs = 0, ...lease } = (await server.leaseOf(PLAIN)) ?? {};
      assert.deepEqual(lease, { macAddress: PLAIN, address: given.address, hostname: 'web' });
      assert.ok(endsAtMs > Date.now() && endsAtMs < Date.now() + 125_000);

      assert.equal((await client.acquire(RESERVED)).address, '10.77.0.50');
      assert.equal((await server.leaseOf(RESERVED))?.address, '10.77.0.50');
      await server.restart();
      assert.equal((await server.leaseOf(PLAIN))?.address, given.address);
      await server.loseLeases();
      assert.deepEqual(await server.leases(), []);
      assert.equal((await client.acquire(PLAIN, { address: given.address })).address, given.address);
    });
  }

  test('a rogue server that is left alone gives a client its address, and hears what it is asked', async () => {
    const rogue = await RogueServer.plug(lan, 'rogue', '02:00:5e:10:00:66', '10.77.0.6');
    rogue.gives = '10.77.0.66';
    const given = await client.acquire(PLAIN, { hostname: 'web' });
    assert.deepEqual(given, { ...given, address: '10.77.0.66', router: '10.77.0.6', leaseSeconds: 120 });
    const told = rogue.heard.map(({ type, sourceMac, hostname, wish }) => ({ type, sourceMac, hostname, wish }));
    assert.deepEqual(told, [
      { type: 'DISCOVER', sourceMac: PLAIN, hostname: 'web', wish: null },
      { type: 'REQUEST', sourceMac: PLAIN, hostname: 'web', wish: '10.77.0.66' },
    ]);
    rogue.close();
  });
});
