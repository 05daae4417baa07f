/** The line that the doctor suggests; whether it works is shown by the test of the documents, on a real engine. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Address, parseAddress } from '../../../src/address.ts';
import { suggestNetwork } from '../../../src/commands/firstnetwork.ts';
import type { Links } from '../../../src/kernel/link.ts';

interface Host {
  /** Of this host, on its LAN. */
  own?: string;
  gateway?: string | null;
  /** Who answered this host lately. */
  neighbours?: string[];
  type?: number;
  isWireless?: boolean;
}

/** What the doctor says on such a host; empty for nothing. */
async function said(host: Host = {}): Promise<string> {
  const { own = '192.168.1.10/24', gateway = '192.168.1.1', neighbours = [], type = 1, isWireless = false } = host;
  const [ownAddress, prefixLength] = own.split('/');
  const heard = [...neighbours.map((one) => [one, '3c:22:fb:10:aa:01'] as const), ['192.168.1.250', null] as const];
  const links = {
    defaultRoutes: async () =>
      gateway === null ? [] : [{ destination: 'default', linkIndex: 2, gateway, family: 'IPv4', table: 254 }],
    byIndex: async () => ({ index: 2, name: 'eth0', type }),
    isWireless: () => isWireless,
    addresses: async () => [{ linkIndex: 2, address: ownAddress, prefixLength: Number(prefixLength), family: 'IPv4' }],
    neighbours: async () =>
      heard.map(([text, macAddress]) => ({ linkIndex: 2, address: parseAddress(text) as Address, macAddress })),
  };
  const [found] = await suggestNetwork(links as unknown as Links);
  return found?.says ?? '';
}

test('the whole line is that of the LAN of the default route', async () => {
  assert.match(
    await said(),
    /: docker network create -d tsmacvlan --ipam-driver tsmacvlan --subnet 192\.168\.1\.0\/24 --gateway 192\.168\.1\.1 --ip-range 192\.168\.1\.64\/27 -o parent=eth0 -o host_access=true lan$/,
  );
});

test('the range has nobody who is known; a small subnet, and one that is full, has none', async () => {
  const range = async (host: Host) => /--ip-range (\d\S+)/.exec(await said(host))?.[1];
  assert.equal(await range({ neighbours: ['192.168.1.70'] }), '192.168.1.224/27');
  assert.equal(await range({ neighbours: ['192.168.1.70', '192.168.1.225'] }), '192.168.1.192/27');
  assert.equal(await range({ own: '192.168.7.10/16' }), '192.168.7.64/27');
  assert.equal(await range({ own: '192.168.1.10/25' }), '192.168.1.64/27');
  assert.equal(await range({ own: '192.168.1.10/26' }), '192.168.1.32/27');
  assert.equal(await range({ own: '192.168.1.10/26', neighbours: ['192.168.1.33'] }), undefined);
  assert.equal(await range({ own: '192.168.1.10/27' }), undefined);
});

test('nothing is suggested without a default route, on Wi-Fi, and by a link that is not Ethernet', async () => {
  for (const host of [{ gateway: null }, { gateway: '10.0.0.1' }, { isWireless: true }, { type: 65534 }])
    assert.equal(await said(host), '');
});
