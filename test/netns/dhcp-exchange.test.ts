/**
 * The DHCP client on real links, with servers as people have them and one that lies. The file's own network namespace is the host, and
 * what a client gets is judged by the server's lease file and by the frames on the wire:
 *
 *     par ── veth ── br0 (ns "lan") ── dnsmasq, isc-dhcpd, kea, udhcpd or a rogue server
 */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { formatAddress, parseAddress } from '../../src/address.ts';
import { systemClock } from '../../src/clock.ts';
import { Links } from '../../src/kernel/link.ts';
import { type Acquired, type AcquisitionSpec, acquire } from '../../src/lan/dhcp/acquisition.ts';
import { keepLease } from '../../src/lan/dhcp/renewal.ts';
import { DhcpWires } from '../../src/lan/dhcp/wire.ts';
import { Prober } from '../../src/lan/prober.ts';
import { Capture } from '../lab/capture.ts';
import { output } from '../lab/command.ts';
import { DHCP_SERVERS, type DhcpKind, type DhcpPlan, DhcpServer } from '../lab/dhcpserver.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { Lan, Namespace } from '../lab/namespace.ts';
import { withoutDhcp } from '../lab/packages.ts';
import { until } from '../lab/patience.ts';
import { type Behaviour, LIES, RogueServer, flooding, honest, late, refusing, unicast } from '../lab/rogueserver.ts';

const PLAN: DhcpPlan = { address: '10.77.0.1/24', range: ['10.77.0.100', '10.77.0.150'], leaseSeconds: 120 };
const MAC = '02:42:5e:10:00:11';

const ip = (words: string) => output(['ip', ...words.split(' ')]);

describe('the DHCP client on real links', { skip: outsideLab() || withoutDhcp(), timeout: 300_000 }, () => {
  let lan: Lan;
  let links: Links;
  let prober: Prober;
  let wires: DhcpWires;
  let server: DhcpServer | undefined;
  let served = 0;
  const segment = { parentName: 'par', mode: 'bridge' } as const;

  before(async () => {
    lan = await Lan.create();
    await ip('link add par type veth peer name port netns lan');
    await lan.namespace.ip('link set port master br0 up');
    await ip('link set par up');
    links = Links.open();
    prober = new Prober({ links, mostFrames: 0, onLateConflict: () => {} });
    wires = new DhcpWires({ links, sendOn: (where, frame) => prober.sendOn(where, frame), clock: systemClock });
  });

  afterEach(() => server?.unplug());

  after(async () => {
    wires.close();
    await prober.close();
    links.close();
  });

  async function serve(kind: DhcpKind, change: Partial<DhcpPlan> = {}): Promise<DhcpServer> {
    server = await DhcpServer.plug(lan, `server${++served}`, kind, { ...PLAN, ...change });
    return server;
  }

  const context = () => ({ wire: wires.on(segment), clock: systemClock, random: Math.random, check: null });

  function ask(change: Partial<AcquisitionSpec> = {}): Promise<Acquired> {
    const untilMs = systemClock.nowMs() + 25_000;
    const spec = { macAddress: MAC, hostname: 'web', wish: null, isStrict: false, untilMs };
    return acquire({ ...spec, ...change }, context());
  }

  const addressIn = (acquired: Acquired) =>
    acquired.kind === 'lease' ? formatAddress(acquired.lease.address) : acquired.kind;

  for (const kind of DHCP_SERVERS) {
    test(`${kind} gives what its lease file tells, and again what is wished for`, async () => {
      const given = await serve(kind);
      const capture = await Capture.start(lan.namespace, 'port', 'udp dst port 67');
      const address = addressIn(await ask());
      assert.equal((await given.leaseOf(MAC))?.address, address, given.log());
      assert.equal((await given.leaseOf(MAC))?.hostname, 'web');
      await given.loseLeases();
      const wish = parseAddress(address) ?? null;
      assert.equal(addressIn(await ask({ wish, isStrict: true })), address);
      assert.equal((await given.leaseOf(MAC))?.address, address);
      const frames = await capture.stop();
      assert.deepEqual([...new Set(frames.map(({ sourceMac }) => sourceMac))], [MAC]);
    });

    test(`${kind} renews the lease of a container that has the address, as often as it wants`, {
      skip: kind === 'dnsmasq' && 'its shortest lease has two minutes',
    }, async () => {
      const given = await serve(kind, { leaseSeconds: 6 });
      const acquired = await ask();
      assert.ok(acquired.kind === 'lease');
      const address = formatAddress(acquired.lease.address);
      const container = await Namespace.create(`c-${kind}`);
      await ip(`link add mv0 link par address ${MAC} type macvlan mode bridge`);
      await ip(`link set mv0 netns ${container.name}`);
      await container.ip(`address add ${address}/24 dev mv0`);
      await container.ip('link set mv0 up');
      let kept = 0;
      const losses: string[] = [];
      const stop = new AbortController();
      const keeping = keepLease(
        { macAddress: MAC, hostname: 'web' },
        { lease: acquired.lease, obtainedMs: Date.now() },
        {
          ...context(),
          wallMs: Date.now,
          signal: stop.signal,
          onKept: () => kept++,
          onLost: (loss) => losses.push(loss),
        },
      );
      await until(() => kept >= 3, { timeoutMs: 30_000, detail: () => given.log() });
      assert.equal((await given.leaseOf(MAC))?.address, address);
      await given.loseLeases();
      await until(async () => (await given.leaseOf(MAC))?.address === address, {
        timeoutMs: 30_000,
        detail: () => given.log(),
      });
      stop.abort();
      await assert.rejects(keeping);
      assert.deepEqual(losses, []);
      await container.delete();
    });
  }

  describe('a rogue server', () => {
    let rogue: RogueServer;

    before(async () => {
      rogue = await RogueServer.plug(lan, 'rogue', '02:00:5e:10:00:66', '10.77.0.6');
      rogue.gives = '10.77.0.60';
    });

    after(() => rogue.close());

    async function told(behave: Behaviour, patienceMs = 25_000): Promise<Acquired> {
      rogue.reset();
      rogue.behave = behave;
      return ask({ untilMs: systemClock.nowMs() + patienceMs });
    }

    for (const [lie, behaviour] of Object.entries({
      ...LIES,
      'an answer to the MAC address of the frame alone': unicast,
      'an offer after 4 s': late(4000),
    }))
      test(`${lie}: what is honest is taken`, async () => {
        assert.equal(addressIn(await told(behaviour)), '10.77.0.60');
      });

    test('of ten thousand offers one is taken, and when nothing follows from it the time is over all the same', async () => {
      assert.equal((await told(flooding(10_000), 5000)).kind, 'silent');
      const requests = Map.groupBy(
        rogue.heard.filter(({ type }) => type === 'REQUEST'),
        ({ xid }) => xid,
      );
      // An exchange that comes to nothing takes 3 s, and then one more begins.
      assert.ok(requests.size >= 1 && requests.size <= 2, `${requests.size} exchanges`);
      for (const said of requests.values()) {
        assert.ok(said.length <= 2, `asked ${said.length} times`);
        assert.equal(new Set(said.map(({ wish, server: named }) => `${wish} of ${named}`)).size, 1);
      }
      assert.equal(addressIn(await told(honest)), '10.77.0.60');
    });

    test('a refusal is told with the reason that came with it', async () => {
      const outcome = await told(refusing);
      assert.ok(outcome.kind === 'refused');
      assert.equal(outcome.message, 'no lease for you');
    });
  });
});
