/** People see names: `who`, `pools`, `map` and the tables beside a real engine, and beside Docker sockets that are of no use. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdirSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { dirname } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { runIdle } from '../lab/container.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { exchange } from '../lab/exchange.ts';
import { untilSaid } from '../lab/patience.ts';
import { type Machine, Site } from '../lab/site.ts';

const CREATE = [
  ...'network create -d tsmacvlan --ipam-driver tsmacvlan -o parent=lan0 --subnet 192.0.2.0/24'.split(' '),
  ...'--gateway 192.0.2.254 --ip-range 192.0.2.64/28 --ipam-opt exclude=192.0.2.66'.split(' '),
];
const IDLE = [
  ...'network create -d tsmacvlan --ipam-driver tsmacvlan -o parent=lan0'.split(' '),
  ...'--subnet 203.0.113.0/24 --gateway 203.0.113.1 idle'.split(' '),
];

interface Answer {
  readonly kind: string;
  readonly name: string | null;
  readonly network: { readonly id: string; readonly name: string } | null;
  readonly next: string | null;
}

describe('who is where, engine 28.5.2', { skip: outsideLab(), timeout: 400_000 }, () => {
  let site: Site;
  let machine: Machine;
  let networkId: string;
  let stranger: string;

  before(async () => {
    site = await Site.open({ version: '28.5.2', hosts: ['host'], addresses: ['192.0.2.254/24'] });
    machine = site.machines[0] as Machine;
    const { engine } = machine;
    // The switch has the second address of the range, which the daemon does not know until it asks.
    await site.lan.namespace.ip('address add 192.0.2.65/32 dev br0');
    stranger = (await site.lan.namespace.show<{ address: string }>('link show br0'))[0]?.address ?? '';
    networkId = await engine.must(...CREATE, 'lan');
    await runIdle(engine, 'web', '--net lan');
    await runIdle(engine, 'db', '--net lan --ip 192.0.2.80');
    await engine.must('create', '--name', 'later', '--net', 'lan', 'busybox');
    assert.match((await engine.docker('run', '--net', 'lan', '--ip', '192.0.2.65', 'busybox')).stderr, /already used/);
  });
  after(() => site.close());

  const say = async (...words: string[]) => {
    const { stdout, stderr, code } = await machine.plugin.commandInside(...words);
    assert.equal(stderr, '');
    assert.equal(code, 0);
    return stdout;
  };
  const ask = async (whom: string) => JSON.parse(await say('who', whom, '--json')) as Answer[];

  test('an address of a container, its MAC address, its name and the beginning of its endpoint lead to the same', async () => {
    const words = await say('who', '192.0.2.64');
    assert.match(words, /^192\.0\.2\.64 is container web\n/);
    assert.match(words, new RegExp(`\\n {2}network +lan  ${networkId.slice(0, 12)}  bridge  192\\.0\\.2\\.0/24\\n`));
    assert.match(words, /\n {2}LAN, just now +it answers\n/);
    const [byAddress] = await ask('192.0.2.64');
    assert.equal(byAddress?.network?.name, 'lan');
    for (const whom of ['02:42:c0:00:02:40', '02-42-C0-00-02-40', 'web', '192.0.2.64/24']) {
      const [found] = await ask(whom);
      assert.deepEqual([found?.kind, found?.name, found?.network], ['container', 'web', byAddress?.network], whom);
    }
  });

  test('a stranger, the gateway, what is excluded, what is free and what is next', async () => {
    const other = await say('who', '192.0.2.65');
    assert.match(other, /^192\.0\.2\.65 is used by somebody else on the LAN\n/);
    assert.match(other, new RegExp(`MAC address +${stranger} \\(no vendor`));
    assert.match(await say('who', stranger), /^192\.0\.2\.65 is used by somebody else/);
    assert.match(await say('who', '192.0.2.254'), /^192\.0\.2\.254 is the gateway\n/);
    assert.match(await say('who', '192.0.2.66'), /^192\.0\.2\.66 is excluded by --ipam-opt exclude=192\.0\.2\.66\n/);
    assert.match(await say('who', '192.0.2.255'), /^192\.0\.2\.255 is the broadcast address\n/);
    const free = await say('who', '192.0.2.70');
    assert.match(free, /^192\.0\.2\.70 is free\n/);
    assert.match(free, /next +192\.0\.2\.67 is given to who asks next\n/);
    assert.match(await say('who', '198.51.100.1'), /^198\.51\.100\.1 is in no network of tsmacvlan on this host\n/);
    assert.match(await say('who', 'later'), /^later does not run, and no address is kept for it\n/);
    // Docker takes such a name.
    await machine.engine.must('create', '--name', '198.51.100.2', '--net', 'lan', 'busybox');
    assert.match(await say('who', '198.51.100.2'), /^198\.51\.100\.2 does not run, and no address is kept for it\n/);
    await machine.engine.must('rm', '198.51.100.2');
    assert.match(await say('who', 'lan'), /^lan is a network with 2 containers; /);
    const unknown = await machine.plugin.commandInside('who', 'nobody');
    assert.deepEqual([unknown.code, unknown.stdout], [1, '']);
    assert.match(unknown.stderr, /"nobody" is not an address, and no container/);
  });

  test('pools count what is used, free, held and excluded, and name the address that the next container gets', async () => {
    const [pool] = JSON.parse(await say('pools', '--json')) as [{ networkName: string; use: Record<string, unknown> }];
    assert.equal(pool.networkName, 'lan');
    const { poolId: _, ...use } = pool.use;
    assert.deepEqual(use, { used: 1, held: 1, remembered: 0, excluded: 1, free: 13, next: '192.0.2.67' });
    await runIdle(machine.engine, 'third', '--net lan');
    assert.match(await say('leases'), /^192\.0\.2\.67 +container +third +lan +[0-9a-f]{12} /m);
    assert.match(await say('pools'), /^192\.0\.2\.0\/24 +192\.0\.2\.64\/28 +lan +2 +12 +1 +1 +0 +192\.0\.2\.68 /m);
  });

  test('an address is reserved on the network that Docker calls so', async () => {
    assert.match(
      await say('reserve', 'later', '192.0.2.75', '--network', 'lan'),
      /^192\.0\.2\.75 is reserved for later/,
    );
    assert.match(await say('who', 'later'), /^192\.0\.2\.75 is reserved for later, which does not run\n/);
    assert.match(await say('map'), /192\.0\.2\.75 {2}later {2}\(stopped\)\n/);
    assert.match(await say('unreserve', 'later', '--network', 'lan'), /it had 192\.0\.2\.75\n/);
  });

  test('a network that Docker has is not forgotten, also while no container runs on it', async () => {
    const id = await machine.engine.must(...IDLE);
    const { code, stderr } = await machine.plugin.commandInside('forget', id);
    assert.equal(code, 1);
    assert.match(
      stderr,
      /^tsmacvlan: network [0-9a-f]{12} is there in Docker, as "idle", and its containers would not start/,
    );
    await machine.engine.must('network', 'rm', 'idle');
  });

  test('the picture and the tables have names, and whole ids with --no-trunc', async () => {
    const picture = await say('map');
    assert.match(picture, /network lan {2}bridge/);
    assert.match(picture, /192\.0\.2\.64\/24 {2}02:42:c0:00:02:40 {2}web\n/);
    assert.match(picture, /no address {2}later {2}\(stopped\)\n/);
    assert.match(await say('endpoints'), /^[0-9a-f]{12} +db +lan +lan0 /m);
    assert.match(await say('networks'), /^lan +lan0 +bridge /m);
    const whole = await say('networks', '--no-trunc');
    assert.match(whole, new RegExp(`^lan +${networkId} +lan0 `, 'm'));
    assert.match(await say('endpoints', '--no-trunc'), new RegExp(`^[0-9a-f]{64} +db +lan +${networkId} `, 'm'));
  });

  test('without Docker there are ids and one sentence; a socket that hangs costs two seconds', async () => {
    const { host, plugin } = machine;
    const env = (place: string) => ({
      ...process.env,
      SOCKET: '/run/docker/plugins/tsmacvlan.sock',
      DOCKER_HOST: place,
    });
    const run = (place: string) => host.run([...plugin.commandLine('endpoints')], { env: env(place) });
    const nowhere = await run('unix:///run/nowhere.sock');
    assert.match(nowhere.stdout, new RegExp(`^[0-9a-f]{12} +- +${networkId.slice(0, 12)} `, 'm'));
    assert.match(nowhere.stderr, /^tsmacvlan: names of containers are not shown: .*\(no such file or directory\).*\n$/);
    const { stdout, stderr, code } = await host.run(plugin.commandLine('doctor'), {
      env: env('unix:///run/nowhere.sock'),
    });
    assert.deepEqual([code, stderr], [3, '']);
    assert.match(stdout, /^warning {2}host: names of containers are not shown: .*; start it, /m);
    assert.match((await run('ssh://server')).stderr, /is of the kind "ssh", which tsmacvlan cannot use/);

    const path = host.file('/run/deaf.sock');
    mkdirSync(dirname(path), { recursive: true });
    const deaf = createServer().listen(path);
    const beganAtMs = performance.now();
    const late = await run('unix:///run/deaf.sock');
    const tookMs = performance.now() - beganAtMs;
    deaf.close();
    assert.match(late.stderr, /did not answer within 2 seconds/);
    assert.equal(late.stdout, nowhere.stdout);
    assert.ok(tookMs > 1900 && tookMs < 10_000, String(tookMs));
  });

  test('watch names containers as they start and end, and waits no longer for a Docker that hangs', async () => {
    const { host, plugin, engine } = machine;
    const watch = (place: Record<string, string>) => {
      const [program = '', ...words] = host.enter(plugin.commandLine('watch'));
      const env = { PATH: process.env.PATH, SOCKET: '/run/docker/plugins/tsmacvlan.sock', ...place };
      const child = spawn(program, words, { env, stdio: ['ignore', 'pipe', 'ignore'], detached: true });
      let said = '';
      child.stdout.setEncoding('utf8').on('data', (some: string) => (said += some));
      const end = () => process.kill(-(child.pid ?? 0), 'SIGINT');
      return { said: () => said, end };
    };
    rmSync(host.file('/run/deaf.sock'), { force: true });
    const deaf = createServer().listen(host.file('/run/deaf.sock'));
    const [named, mute] = [watch({}), watch({ DOCKER_HOST: 'unix:///run/deaf.sock' })];
    await untilSaid(/watch .*\n/, named.said);
    await untilSaid(/watch .*\n/, mute.said);
    const where = '192\\.0\\.2\\.90/24 {2}02:42:c0:00:02:5a';
    const isTold = async (state: string) => {
      await untilSaid(new RegExp(`  ${state}   seen  ${where}  lan on lan0\\n`), named.said);
      await untilSaid(new RegExp(`  ${state}   endpoint [0-9a-f]{12}  ${where}  [0-9a-f]{12} on lan0\\n`), mute.said);
    };
    await runIdle(engine, 'seen', '--net lan --ip 192.0.2.90');
    await isTold('started');
    await engine.must('rm', '-f', 'seen');
    await isTold('ended  ');
    named.end();
    mute.end();
    deaf.close();
  });

  describe('the doctor', () => {
    const examine = async (...words: string[]) => {
      const { stdout, stderr, code } = await machine.plugin.commandInside('doctor', ...words);
      assert.equal(stderr, '');
      const lines = stdout.split('\n').filter((line) => line !== '');
      return { code, found: lines.filter((line) => !line.startsWith('ok ')), lines };
    };
    const call = (name: string, body: object) => {
      const question = { path: `/${name}`, body: JSON.stringify(body), signal: AbortSignal.timeout(10_000) };
      return exchange(machine.host.file('/run/docker/plugins/tsmacvlan.sock'), question);
    };
    /** In the network namespace of a container. */
    const inside = async (container: string, words: string) => {
      const pid = await machine.engine.must('inspect', '--format', '{{.State.Pid}}', container);
      const { code, stderr } = await machine.host.run(['nsenter', '-t', pid, '-n', 'ip', ...words.split(' ')]);
      assert.equal(code, 0, stderr);
    };
    let hostLink: string;

    before(async () => {
      const { engine, host } = machine;
      const words = '-o parent=lan0 -o host_access=true -o mtu=1450 --subnet 198.18.0.0/24 -o gateway=none';
      await engine.must(
        ...'network create -d tsmacvlan --ipam-driver tsmacvlan'.split(' '),
        ...words.split(' '),
        'near',
      );
      await runIdle(engine, 'app', '--net near');
      const links = await host.namespace.show<{ ifname: string }>('link');
      hostLink = links.map(({ ifname }) => ifname).find((name) => name.startsWith('tsmh')) ?? '';
    });

    test('has nothing to say of a host that is sound, twenty times', async () => {
      const looks: Awaited<ReturnType<typeof examine>>[] = [];
      // Several at once do not disturb each other.
      for (let round = 0; round < 5; round++)
        looks.push(...(await Promise.all(Array.from({ length: 4 }, () => examine()))));
      for (const { code, found } of looks) assert.deepEqual([code, found], [0, []]);
      const { lines } = looks[0] ?? assert.fail();
      assert.ok(lines.includes('ok       lan: gateway 192.0.2.254 answers'), lines.join('\n'));
      assert.ok(lines.includes('ok       web: its interface is up with 192.0.2.64'), lines.join('\n'));
      assert.ok(lines.includes(`ok       near: host access by ${hostLink}`), lines.join('\n'));
    });

    test('finds what is wrong with networks and containers, and nothing once it is mended', async () => {
      const { engine, host } = machine;
      const { namespace } = host;
      await runIdle(engine, 'ports', '--net near -p 8080:80');
      await site.lan.namespace.ip('address del 192.0.2.254/24 dev br0');
      await namespace.ip('address add 203.0.113.9/24 dev lan0');
      await namespace.ip(`neigh add 192.0.2.65 lladdr ${stranger} dev lan0 nud stale`);
      await namespace.ip('link set lan0 mtu 1400');
      await namespace.ip(`link set ${hostLink} down`);
      await inside('web', 'link set eth0 down');
      await inside('third', 'address del 192.0.2.67/24 dev eth0');
      await inside('db', 'link set eth0 address 02:42:c0:00:02:99');
      await engine.must(
        ...'network create -d tsmacvlan --ipam-driver tsmacvlan --subnet 198.18.1.0/24'.split(' '),
        'alone',
      );
      await engine.must(
        ...'network create -d tsmacvlan --ipam-driver tsmacvlan -o parent=lan0 --subnet 203.0.113.0/24'.split(' '),
        'nowhere',
      );
      await engine.must(
        ...'network create -d tsmacvlan -o parent=lan0 --internal --subnet 198.18.4.0/24 --ipam-opt exclude=198.18.4.9'.split(
          ' ',
        ),
        'typed',
      );
      const orphan = 'f'.repeat(64);
      const IPv4Data = [{ AddressSpace: 'other', Pool: '198.18.2.0/24', Gateway: '198.18.2.1/24' }];
      const Options = { 'com.docker.network.generic': { parent: 'lan0', gateway: 'none' } };
      assert.equal((await call('NetworkDriver.CreateNetwork', { NetworkID: orphan, Options, IPv4Data })).status, 200);
      const lost = await engine.must(
        ...'network create -d tsmacvlan --subnet 198.18.3.0/24 --internal'.split(' '),
        'lost',
      );
      assert.equal((await call('NetworkDriver.DeleteNetwork', { NetworkID: lost })).status, 200);

      const { code, found } = await examine();
      const text = found.join('\n');
      assert.equal(code, 3);
      const expected = [
        /^FAILURE {2}lan: nobody on lan0 answers for gateway 192\.0\.2\.254; /m,
        /^warning {2}lan: subnet 192\.0\.2\.0\/24 is not that of lan0, on which this host has 203\.0\.113\.9\/24; /m,
        new RegExp(
          `^warning {2}lan: others on the LAN have addresses of the range: 192.0.2.65 \\(${stranger}\\); `,
          'm',
        ),
        /^FAILURE {2}near: containers have MTU 1450, and parent lan0 has 1400; /m,
        new RegExp(`^FAILURE {2}near: ${hostLink}, for host access, is down; ip link set ${hostLink} up$`, 'm'),
        /^FAILURE {2}web: its interface is down inside the container; docker restart web$/m,
        /^FAILURE {2}third: address 192\.0\.2\.67 is not on its interface; /m,
        /^FAILURE {2}db: it has MAC address 02:42:c0:00:02:99, and was given 02:42:c0:00:02:50; /m,
        /^warning {2}alone: it has no parent, /m,
        /^warning {2}nowhere: no gateway: containers get no IPv4 default route; create it again with --gateway, /m,
        /^warning {2}typed: Docker's own IPAM driver does nothing with --ipam-opt exclude=; create it again with --ipam-driver tsmacvlan as well$/m,
        /^warning {2}ports: -p does nothing \(8080->80\/tcp\); leave it out: the container is reached at 198\.18\.0\.\d+$/m,
        /^warning {2}f{12}: Docker has no such network; tsmacvlan forget f{12}$/m,
        /^FAILURE {2}lost: Docker has this network, and tsmacvlan does not know it; /m,
      ];
      for (const line of expected) assert.match(text, line);
      const others = found.filter((line) => !expected.some((one) => one.test(line)));
      assert.deepEqual(others, []);
      assert.deepEqual(
        (await examine('web')).found.filter((line) => line.includes('third')),
        [],
      );

      await call('NetworkDriver.DeleteNetwork', { NetworkID: orphan });
      await engine.must('rm', '-f', 'ports');
      await engine.must('network', 'rm', 'lost', 'alone', 'nowhere', 'typed');
      await inside('db', 'link set eth0 address 02:42:c0:00:02:50');
      await inside('third', 'address add 192.0.2.67/24 dev eth0');
      await inside('web', 'link set eth0 up');
      await namespace.ip('link set lan0 mtu 1500');
      await namespace.ip(`link set ${hostLink} up`);
      await namespace.ip('neigh del 192.0.2.65 dev lan0');
      await namespace.ip('address del 203.0.113.9/24 dev lan0');
      await site.lan.namespace.ip('address add 192.0.2.254/24 dev br0');
      // The link that was down has lost its routes.
      assert.match(
        (await examine()).found.join('\n'),
        /^FAILURE {2}near: this host has no route to 198\.18\.0\.\d+ by tsmh/,
      );
      await engine.must('restart', 'app');
      const mended = await examine();
      assert.deepEqual([mended.code, mended.found], [0, []]);
    });

    test('finds a parent without carrier, one that is down, and a daemon that is not there', async () => {
      const { host, plugin } = machine;
      await site.lan.setCarrier(host.ports['lan0'] ?? '', false);
      assert.match((await examine('lan')).found[0] ?? '', /^FAILURE {2}lan: parent lan0 has no carrier; /);
      await site.lan.setCarrier(host.ports['lan0'] ?? '', true);
      await host.namespace.ip('link set lan0 down');
      assert.match((await examine('lan')).found[0] ?? '', /^FAILURE {2}lan: parent lan0 is down; ip link set lan0 up$/);
      await host.namespace.ip('link set lan0 up');
      await plugin.stop();
      assert.match((await examine()).found[0] ?? '', /^FAILURE {2}host: no tsmacvlan runs; /);
      await plugin.start();
      const unknown = await plugin.commandInside('doctor', 'nobody');
      assert.deepEqual([unknown.code, unknown.stdout], [1, '']);
      assert.match(unknown.stderr, /no network or running container here is called "nobody"/);
    });
  });
});
