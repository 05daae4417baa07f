/**
 * One owner for each address, whatever becomes of the hosts that share a subnet: they stand still, die half-way, are renamed and
 * copied. Daemons and members of etcd are real ones, and whether an address is had twice is read from the containers' kernels.
 * Whatever rests on etcd is played with PROBE=off, where it alone keeps an address from being given out again, and with PROBE=fast, on
 * two LANs at the same time.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { outsideLab } from '../lab/enclosure.ts';
import { Owners, PROBES, Sites } from '../lab/owners.ts';
import { until, untilSaid } from '../lab/patience.ts';
import { type Container, Refusal, Understudy } from '../lab/understudy.ts';

const GATEWAY = { RequestAddressType: 'com.docker.network.gateway' };
/** A renamed host starts containers so soon after its daemon does. */
const SOON_MS = 5000;
/** Of each other, after which both hosts report a double; and what it takes to look, on a busy machine. */
const HEARD_MS = 10_000;
const COMMANDS_MS = 5000;
/** Between two tries for an address that is refused at once as long as its host counts as alive. */
const REFUSED_MS = 200;

describe('hosts that stand still and die', { skip: outsideLab(), timeout: 400_000, concurrency: true }, () => {
  const options = { timeout: 200_000 };
  let sites: Sites;
  before(async () => {
    sites = await Sites.open({ names: ['one', 'two', 'three', 'four'] });
  });
  after(() => sites.close());

  for (const probe of PROBES)
    describe(`PROBE=${probe}`, { concurrency: false }, () => {
      let owners: Owners;
      before(() => (owners = sites[probe]));

      test('what a host lost while it stood still in the middle of a start is not started there', options, async () => {
        const [one, two, four] = [owners.of('one'), owners.of('two'), owners.of('four')];
        // A container that goes on, and a gateway and an auxiliary address that nobody else names.
        await four.engine.run(four.network, { address: '10.9.0.60' });
        const small = { AddressSpace: 'TsmacvlanLocal', Pool: '10.8.0.0/29', SubPool: '', V6: false };
        const { PoolID } = await four.engine.call('IpamDriver.RequestPool', small);
        await four.engine.call('IpamDriver.RequestAddress', { PoolID, Address: '10.8.0.1', Options: GATEWAY });
        await four.engine.call('IpamDriver.RequestAddress', { PoolID, Address: '10.8.0.2' });
        await four.plugin.stop('SIGKILL');

        const endpointId = randomBytes(32).toString('hex');
        const other = { network: one.network, endpointId: randomBytes(32).toString('hex'), address: '10.9.0.51/24' };
        await one.engine.requestAddress(one.network, { address: '10.9.0.50' });
        await one.engine.requestAddress(one.network, { address: '10.9.0.51' });
        const created = {
          NetworkID: one.network.id,
          EndpointID: other.endpointId,
          Interface: { Address: other.address },
        };
        await one.engine.call('NetworkDriver.CreateEndpoint', created);
        await one.plugin.freeze();
        await until(async () => !(await owners.isHeardOf('one')));
        for (const address of ['10.9.0.50', '10.9.0.51'])
          await until(() =>
            two.engine.run(two.network, { address }).then(
              () => true,
              (error: unknown) => {
                assert.match(String(error), /is used on host one-/);
                return false;
              },
            ),
          );
        const created50 = { NetworkID: one.network.id, EndpointID: endpointId, Interface: { Address: '10.9.0.50/24' } };
        // Both wait in the socket while the daemon stands still.
        const refused = Promise.all([
          assert.rejects(
            one.engine.call('NetworkDriver.CreateEndpoint', created50),
            /^Error: address 10\.9\.0\.50 went to host two-\w+ of the shared store while this host was not heard of; start /,
          ),
          assert.rejects(
            one.engine.call('NetworkDriver.Join', { NetworkID: one.network.id, EndpointID: other.endpointId }),
            // Whichever of the two is asked first.
            /^Error: address 10\.9\.0\.51 (went to host two-|was free when it was chosen, but is now used on the LAN by )/,
          ),
        ]);
        await sleep(100);
        await one.plugin.thaw();
        await refused;
        await one.engine.forget(other);
        await one.engine.run(one.network);
        assert.deepEqual(owners.doubled(), []);
        await until(async () => !(await one.plugin.command('leases')).includes('10.9.0.50'));
      });

      test('a taker that dies half-way leaves the address to whom it was', options, async () => {
        const [two, three] = [owners.of('two'), owners.of('three')];
        await until(async () => !(await owners.isHeardOf('four')));
        // Until it counts as lost it is only refused.
        for (let isTorn = false; !isTorn; ) {
          const call = two.engine
            .requestAddress(two.network, { address: '10.9.0.60' })
            .catch((error: unknown) => error);
          let isAnswered = false;
          void call.then(() => (isAnswered = true));
          while (!isAnswered && !isTorn) isTorn = (await owners.claim('10.9.0.60'))?.heir !== undefined;
          if (isTorn) await two.plugin.stop('SIGKILL');
          await call;
          if (!isTorn) await sleep(REFUSED_MS);
        }
        assert.match(String((await owners.claim('10.9.0.60'))?.heir?.nodes), /^four-/);
        assert.match(await owners.refusal('three', '10.9.0.60'), /is used on host (two|four)-|already used on the LAN/);
        await two.plugin.start();
        await until(async () => (await owners.claimant('10.9.0.60')) === 'four');
        await until(async () => (await owners.refusal('three', '10.9.0.60')).includes('already used on the LAN by'));
        assert.equal(await owners.claimant('10.9.0.60'), 'four');
        assert.ok(three.plugin.log().length > 0);
        assert.deepEqual(owners.doubled(), []);
      });

      test('the gateway and the auxiliary addresses of a lost host are given to no container', options, async () => {
        const three = owners.of('three');
        const small = await three.engine.createNetwork({ subnet: '10.8.0.0/29' });
        const given: string[] = [];
        // Two of the eight are the subnet's own.
        for (let i = 0; i < 4; i++) given.push((await three.engine.run(small)).address);
        assert.deepEqual(given.sort(), ['10.8.0.3/29', '10.8.0.4/29', '10.8.0.5/29', '10.8.0.6/29']);
        await assert.rejects(three.engine.run(small), (error: unknown) => {
          assert.ok(error instanceof Refusal);
          assert.match(error.message, /no free address in 10\.8\.0\.0\/29: 4 leased, 1 gateway, 1 auxiliary; /);
          return true;
        });
      });

      test('a scrapped host is forgotten by name, but for what answers on the LAN', options, async () => {
        const three = owners.of('three');
        const nodes = await three.plugin.commandInside('store', 'nodes');
        const [, four = ''] = /^(four-\w+) +- +not heard of +3$/m.exec(nodes.stdout) ?? [];
        assert.match(nodes.stdout, /^three-\w+ +three +alive, this host /m);
        const dry = await three.plugin.commandInside('store', 'forget', four, '--dry-run');
        assert.match(dry.stdout, /^10\.9\.0\.60 .* used by 02:42:0a:09:00:3c /m);
        assert.match(dry.stdout, /^10\.8\.0\.1 .* would be freed /m);
        assert.equal(dry.code, 3, dry.stderr);
        const alive = await three.plugin.commandInside('store', 'forget', /^(one-\w+)/m.exec(nodes.stdout)?.[0] ?? '');
        assert.match(alive.stderr, /is alive; stop tsmacvlan there/);
        const misplaced = await three.plugin.commandInside('store', 'forget', four, '--from', 'local');
        assert.match(misplaced.stderr, /option --from has no effect on tsmacvlan store forget/);
        assert.equal((await three.plugin.commandInside('store', 'forget', four)).code, 3);
        assert.equal(await owners.claimant('10.9.0.60'), 'four');
        await until(
          async () => (await three.plugin.commandInside('leases', '--cluster')).stdout.match(/four-/g)?.length === 1,
        );
      });
    });
});

describe('who a host is', { skip: outsideLab(), timeout: 400_000, concurrency: true }, () => {
  const options = { timeout: 200_000 };
  let sites: Sites;
  before(async () => {
    sites = await Sites.open({ names: ['one', 'two'], members: 1 });
  });
  after(() => sites.close());

  for (const probe of PROBES)
    describe(`PROBE=${probe}`, { concurrency: false }, () => {
      let owners: Owners;
      before(() => (owners = sites[probe]));

      for (const signal of ['SIGTERM', 'SIGKILL'] as const)
        test(
          signal === 'SIGTERM'
            ? 'a host that is renamed and boots is itself, and starts containers'
            : 'a host renamed while its daemon was killed is itself, and starts containers',
          options,
          async () => {
            const { engine, plugin, host, network } = owners.of('one');
            const { address } = await engine.run(network);
            await plugin.stop(signal);
            if (signal === 'SIGTERM') owners.boot('one');
            await host.run(['hostname', `renamed-${signal.toLowerCase()}`]);
            await plugin.start();
            const startedAtMs = performance.now();
            await engine.run(network);
            assert.ok(performance.now() - startedAtMs < SOON_MS);
            assert.equal(await owners.claimant(address.split('/')[0] ?? ''), 'one');
          },
        );

      test('a copy of a machine is refused, and takes nothing from the one it is a copy of', options, async () => {
        const two = owners.of('two');
        const { address } = await two.engine.run(two.network);
        const plugin = await owners.copyOf('two');
        const engine = new Understudy(plugin);
        const network = { ...two.network };
        await assert.rejects(
          engine.run(network),
          /host "two" is in the shared store as node two-\w+, as which this one starts: .* if this machine is a copy of that one, stop tsmacvlan here and remove the directory /,
        );
        await untilSaid(/as which this one starts/, () => plugin.log());
        // What the copy believes to have, its collector takes for leaks.
        await plugin.commandInside('gc');
        assert.equal(await owners.claimant(address.split('/')[0] ?? ''), 'two');
        // An upgrade: the copy, which asks every second, does not come in its place meanwhile.
        await two.plugin.stop();
        await sleep(3000);
        await two.plugin.start();
        await two.engine.run(two.network);
        await plugin.stop('SIGKILL');
        assert.match(await owners.refusal('one', address.split('/')[0]), / is used on host two-/);
        assert.deepEqual(owners.doubled(), []);
      });

      test(
        'an address that is named while its container is being removed stays with who named it',
        options,
        async () => {
          const { engine, network } = owners.of('one');
          const address = '10.9.0.44';
          const [chosen, released] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
          let next: Promise<Container> | undefined;
          const before = await engine.run(network, { address });
          await engine.remove(before, 0, async () => {
            const hold = () => {
              chosen.resolve();
              return released.promise;
            };
            next = engine.run(network, { address }, { chosen: hold });
            await Promise.race([chosen.promise, next]);
          });
          assert.match(await owners.refusal('two', address), /10\.9\.0\.44 is used on host one-/);
          released.resolve();
          await next;
          assert.equal(await owners.claimant(address), 'one');
          assert.deepEqual(owners.doubled(), []);
        },
      );

      test(
        'containers with one address are rows on all their hosts, with which of them is newer',
        options,
        async () => {
          const names = ['one', 'two', 'three'];
          await owners.add('three');
          const startAll = async (STORE: string) => {
            for (const { plugin } of names.map((name) => owners.of(name))) {
              await plugin.stop();
              plugin.set({ STORE });
              await plugin.start();
            }
          };
          await startAll('local');
          // Where the LAN is asked they must not hear each other meanwhile.
          await setApart(names, true);
          const [, second, third] = [await runOn('one'), await runOn('two'), await runOn('three')];
          await setApart(names, false);
          await startAll(owners.etcd.url);
          const row = async (name: string) => {
            const rows = await owners.of(name).plugin.conflicts();
            const found = rows.find(({ address }) => address === '10.9.0.90');
            const others = (found?.node ?? '').split(' ').map((node) => node.replace(/-.*/, ''));
            return found && { others: others.sort().join(' '), newer: found.newer, isOver: found.endedAt !== null };
          };
          const shows = async (name: string, others: string, newer: string) => {
            let seen: unknown;
            const isSo = async () => {
              seen = await row(name);
              return JSON.stringify(seen) === JSON.stringify({ others, newer, isOver: false });
            };
            await until(isSo, { detail: () => `${name}: ${JSON.stringify(seen)}` });
          };
          await shows('one', 'three two', 'there');
          await shows('two', 'one three', 'there');
          await shows('three', 'one two', 'here');
          await owners.of('three').engine.remove(third);
          await shows('one', 'two', 'there');
          await shows('two', 'one', 'here');
          await owners.of('two').engine.remove(second);
          for (const name of names) await until(async () => (await row(name))?.isOver === true);
        },
      );

      async function setApart(names: readonly string[], isOn: boolean): Promise<void> {
        for (const name of names) await owners.lan.setApart(owners.of(name).host.ports['lan0'] ?? '', isOn);
      }

      async function runOn(name: string): Promise<Container> {
        const { engine, network } = owners.of(name);
        return engine.run(network, { address: '10.9.0.90' });
      }
    });
});

/** With PROBE=off the LAN is neither asked nor watched: then only the shared store tells of it, as above. */
describe('two hosts that do not hear each other give out one address', { skip: outsideLab(), timeout: 400_000 }, () => {
  const options = { timeout: 200_000 };
  let owners: Owners;
  before(async () => {
    owners = await Owners.open({ names: ['one', 'two'], members: 1, settings: { STORE: 'local', PROBE: 'fast' } });
  });
  after(() => owners.close());

  const isTold = async (name: string, address: string) => {
    const { plugin } = owners.of(name);
    if (!(await plugin.conflicts()).some((one) => one.address === address)) return false;
    return (await plugin.commandInside('conflicts', address)).stdout.includes(address);
  };
  const bothTold = async (address: string) => (await isTold('one', address)) && (await isTold('two', address));

  test('a port that comes back: both report it within 10 s', options, async () => {
    const port = owners.of('one').host.ports['lan0'] ?? '';
    await owners.lan.setCarrier(port, false);
    for (const name of ['one', 'two']) {
      const { engine, network } = owners.of(name);
      await engine.run(network, { address: '10.9.0.90' });
    }
    await owners.lan.setCarrier(port, true);
    await until(() => bothTold('10.9.0.90'), { timeoutMs: HEARD_MS + COMMANDS_MS });
  });

  test('nobody loses a carrier: both report it a minute later', options, async () => {
    const ports = ['one', 'two'].map((name) => owners.of(name).host.ports['lan0'] ?? '');
    for (const port of ports) await owners.lan.setApart(port, true);
    for (const name of ['one', 'two']) {
      const { engine, network } = owners.of(name);
      await engine.run(network, { address: '10.9.0.91' });
    }
    for (const port of ports) await owners.lan.setApart(port, false);
    await until(() => bothTold('10.9.0.91'));
  });
});

describe('etcd is restored while a host is cut off from it', { skip: outsideLab(), timeout: 300_000 }, () => {
  let sites: Sites;
  before(async () => {
    sites = await Sites.open({ names: ['one', 'two'], members: 1 });
  });
  after(() => sites.close());

  test('its addresses are given to nobody, also by a host that knew nothing of it', { timeout: 200_000 }, async () => {
    const { etcd } = sites;
    await etcd.must('snapshot', 'save', '/run/snapshot');
    await sites.each(async (owners) => {
      const { engine, network } = owners.of('one');
      await engine.run(network, { address: '10.9.0.2' });
      await owners.cutFromEtcd('one', true);
    });
    await etcd.stopMember(0);
    await etcd.restore('/run/snapshot');
    etcd.startMember(0);
    await etcd.ready();
    await sites.each(giveToNobody);
  });

  async function giveToNobody(owners: Owners): Promise<void> {
    const two = owners.of('two');
    await untilSaid(/the shared store was restored or replaced/, () => two.plugin.log());
    const three = await owners.add('three');
    const started: string[] = [];
    for (const { engine, network } of [two, three])
      for (let i = 0; i < 2; i++)
        await until(() =>
          engine.run(network).then(
            (container) => started.push(container.address) > 0,
            (error: unknown) => {
              assert.match(String(error), /restored or replaced a moment ago/);
              return false;
            },
          ),
        );
    assert.ok(!started.includes('10.9.0.2/24'), started.join());
    assert.match(await owners.refusal('three', '10.9.0.2'), /10\.9\.0\.2 is already used on the LAN by /);
    const nodes = await three.plugin.commandInside('store', 'nodes');
    assert.match(nodes.stdout, /^one-\w+ .*not heard of, awaited since etcd was restored/m);
    await owners.cutFromEtcd('one', false);
    await until(async () => (await owners.claimant('10.9.0.2')) === 'one');
    await until(async () => !(await three.plugin.commandInside('store', 'nodes')).stdout.includes('awaited'));
    assert.deepEqual(owners.doubled(), []);
  }
});
