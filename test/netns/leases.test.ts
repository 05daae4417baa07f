/**
 * Leases whose containers are not what the records say: of one that died while the daemon was away, and of one that does not
 * have an address which its engine gives back while it runs. The kernel is the witness; the daemon is a real one.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, afterEach, before, describe, test } from 'node:test';
import { outsideLab } from '../lab/enclosure.ts';
import { Host } from '../lab/host.ts';
import { Lan, Namespace } from '../lab/namespace.ts';
import { Plugin } from '../lab/plugin.ts';
import { type FakeNetwork, Understudy } from '../lab/understudy.ts';

interface LeaseRecord {
  readonly address: string;
  readonly endpointId: string | null;
}

describe('leases of containers', { skip: outsideLab(), timeout: 300_000 }, () => {
  let one: Understudy;

  before(async () => {
    const lan = await Lan.create();
    one = new Understudy(await Plugin.start(await Host.boot('one', lan)));
  });

  afterEach(() => one.clear());

  after(() => one.plugin.stop());

  async function leases(): Promise<LeaseRecord[]> {
    return JSON.parse(await one.plugin.command('leases', '--json')) as LeaseRecord[];
  }

  test('a container that died while the daemon was away starts again with its --ip at once', async () => {
    const network = await one.createNetwork({ subnet: '10.70.0.0/24' });
    const container = await one.run(network, { address: '10.70.0.40' });
    await one.plugin.stop();
    // The engine tried its calls in vain, and forgot the endpoint.
    await container.namespace.delete();
    one.containers.delete(container);
    await one.plugin.start();
    const beganMs = performance.now();
    const again = await one.run(network, { address: '10.70.0.40' });
    assert.equal(again.address, '10.70.0.40/24');
    assert.ok(performance.now() - beganMs < 5000);
    assert.deepEqual(
      (await leases()).map(({ address, endpointId }) => [address, endpointId]),
      [['10.70.0.40', again.endpointId]],
    );
  });

  test('the --ip of a container that runs is refused, and stays its own', async () => {
    const network = await one.createNetwork({ subnet: '10.71.0.0/24' });
    const container = await one.run(network, { address: '10.71.0.40' });
    await assert.rejects(one.run(network, { address: '10.71.0.40' }), /is used by endpoint/);
    const [lease] = await leases();
    assert.equal(lease?.endpointId, container.endpointId);
  });

  /** As engine 29 does it where a sysctl of the endpoint switches IPv6 off: the link comes up without the address. */
  async function startWithout(network: FakeNetwork, address: string): Promise<void> {
    const endpointId = randomBytes(32).toString('hex');
    const namespace = await Namespace.create('without');
    const ids = { NetworkID: network.id, EndpointID: endpointId };
    await one.call('NetworkDriver.CreateEndpoint', { ...ids, Interface: { AddressIPv6: address } });
    const { InterfaceName } = (await one.call('NetworkDriver.Join', ids)) as { InterfaceName: { SrcName: string } };
    one.containers.add({ namespace, network, endpointId, address });
    await namespace.run(['sysctl', '-qw', 'net.ipv6.conf.default.disable_ipv6=1']);
    await one.plugin.host.namespace.ip(`link set ${InterfaceName.SrcName} netns ${namespace.name} name eth0`);
    await namespace.ip('link set eth0 up');
  }

  test('a release between Join and Leave counts where the container does not have the address', async () => {
    const network = await one.createNetwork({ subnet: 'fd00:72::/64' });
    const address = await one.requestAddress(network);
    await startWithout(network, address);
    const [text = ''] = address.split('/');
    await one.call('IpamDriver.ReleaseAddress', { PoolID: network.poolId, Address: text });
    assert.deepEqual(await leases(), []);
    const next = await one.run(network, { address: text });
    assert.equal(next.address, address);
    const endpoints = JSON.parse(await one.plugin.command('endpoints', '--json')) as {
      id: string;
      addresses: string[];
    }[];
    assert.deepEqual(
      endpoints.filter(({ addresses }) => addresses.includes(address)).map(({ id }) => id),
      [next.endpointId],
    );
  });

  test('a release that comes late frees nothing that is in use', async () => {
    const network = await one.createNetwork({ subnet: 'fd00:73::/64' });
    const container = await one.run(network);
    const [text = ''] = container.address.split('/');
    await one.call('IpamDriver.ReleaseAddress', { PoolID: network.poolId, Address: text });
    const [lease] = await leases();
    assert.equal(lease?.endpointId, container.endpointId);
  });
});
