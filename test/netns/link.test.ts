/**
 * Every verb of the kernel room on real links, judged by what `ip -j -d` shows. The file's own network namespace is
 * the host:
 *
 *     wire0 ── veth ── far0 (namespace "far")        iso0 (isolated)        children on wire0 and iso0
 */
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, readdirSync } from 'node:fs';
import { after, afterEach, before, describe, test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { formatAddress, parseAddress } from '../../src/address.ts';
import { isKernelError } from '../../src/kernel/errno.ts';
import { type Link, type LinkEvent, Links, type MacvlanSpec } from '../../src/kernel/link.ts';
import { EventSocket, type KernelEvent } from '../../src/kernel/watch.ts';
import { MODES } from '../../src/model.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { until } from '../lab/patience.ts';

interface Shown {
  ifindex: number;
  ifname: string;
  altnames?: string[];
  ifalias?: string;
  address: string;
  flags: string[];
  mtu: number;
  min_mtu: number;
  max_mtu: number;
  promiscuity: number;
  group: string;
  link?: string;
  link_index?: number;
  link_netnsid?: number;
  master?: string;
  inet6_addr_gen_mode?: string;
  linkinfo?: {
    info_kind?: string;
    info_slave_kind?: string;
    info_data?: { mode?: string; bcqueuelen?: number; id?: number; protocol?: string };
  };
}

const timeout = 90_000;
const ALIAS = 'tsmacvlan endpoint 0123456789abcdef';
const NOBODY = 65534;
/** Of what a process that is kept from its processor does not show each time. */
const ROUNDS = 10;

const ip = (words: string) =>
  execFileSync('ip', words.split(' '), { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
const show = (words = '-d link') => JSON.parse(ip(`-j ${words}`)) as Shown[];
const shown = (name: string) => show().find(({ ifname }) => ifname === name);
const openFiles = () => readdirSync('/proc/self/fd').length;

describe('links', { skip: outsideLab(), timeout: 500_000 }, () => {
  let links: Links;
  let wire: Link;

  const child = (name: string, more: Partial<MacvlanSpec> = {}): MacvlanSpec => {
    return {
      name,
      alias: ALIAS,
      parentIndex: wire.index,
      mode: 'bridge',
      macAddress: null,
      mtu: null,
      broadcastQueueLength: null,
      ...more,
    };
  };

  before(async () => {
    links = Links.open();
    ip('netns add far');
    ip('link add wire0 type veth peer name far0 netns far');
    ip('link set wire0 up');
    ip('-n far link set far0 up');
    wire = (await links.byName('wire0')) as Link;
  });

  /** What a test made goes with it. */
  afterEach(async () => {
    const made = show().filter(({ ifname }) => !['lo', 'wire0'].includes(ifname));
    await Promise.all(made.map(({ ifindex }) => links.deleteLink(ifindex)));
  });

  after(() => links.close());

  describe('reading', () => {
    test('gives every link as ip shows it', { timeout }, async () => {
      ip('link add br0 type bridge');
      ip('link add mv0 link wire0 address 02:42:0a:00:00:01 type macvlan mode vepa');
      ip('link set mv0 master br0');
      ip('link set mv0 alias somebody');
      const list = await links.list();
      assert.deepEqual(list.map(asShown), show().map(asCompared));
      for (const { name, index } of list) {
        assert.deepEqual(
          await links.byName(name),
          list.find((link) => link.name === name),
        );
        assert.deepEqual(
          await links.byIndex(index),
          list.find((link) => link.index === index),
        );
      }
    });

    test('finds a link by any of its names, also by one longer than 15 bytes', { timeout }, async () => {
      ip('link property add dev wire0 altname uplink altname the-uplink-of-this-machine');
      for (const name of ['wire0', 'uplink', 'the-uplink-of-this-machine']) {
        assert.equal((await links.byName(name))?.index, wire.index);
      }
      assert.deepEqual((await links.byName('uplink'))?.alternativeNames, ['uplink', 'the-uplink-of-this-machine']);
      ip('link property del dev wire0 altname uplink altname the-uplink-of-this-machine');
    });

    test('answers undefined for a name or index that no link has or can have', { timeout }, async () => {
      for (const name of ['absent0', '', 'sixteen-bytes-xx', 'x'.repeat(200), 'wire0\0', 'ä'.repeat(8), '..', '%d']) {
        assert.equal(await links.byName(name), undefined, name);
      }
      for (const index of [0, -1, 123_456_789]) assert.equal(await links.byIndex(index), undefined);
    });

    test('tells a peer in another namespace from one here, and a loopback', { timeout }, async () => {
      assert.equal(wire.parentNamespaceId, shown('wire0')?.link_netnsid);
      assert.notEqual(wire.parentNamespaceId, null);
      assert.equal((await links.byName('lo'))?.isLoopback, true);
      assert.deepEqual([wire.kind, wire.type, wire.isUp, wire.hasCarrier], ['veth', 1, true, true]);
    });

    test('knows a bridge by its port', { timeout }, async () => {
      ip('link add br0 type bridge');
      const bridge = await links.byName('br0');
      await links.addMacvlan(child('port0', { mode: 'private' }));
      ip('link set port0 master br0');
      const member = await links.byName('port0');
      assert.deepEqual([member?.masterIndex, member?.masterKind], [bridge?.index, 'bridge']);
      assert.equal(shown('port0')?.master, 'br0');
      ip('link set port0 nomaster');
      assert.equal((await links.byName('port0'))?.masterIndex, null);
    });

    test('sees a wireless link by its entry in sysfs', { timeout }, () => {
      execFileSync('mount', ['-t', 'tmpfs', 'tmpfs', '/sys/class/net']);
      try {
        for (const entry of ['wlan0/phy80211', 'wlan1/wireless', 'eth0'])
          mkdirSync(`/sys/class/net/${entry}`, { recursive: true });
        assert.deepEqual(
          ['wlan0', 'wlan1', 'eth0', 'absent0', '', '..', '../net/wlan0'].map((name) => links.isWireless(name)),
          [true, true, false, false, false, false, false],
        );
      } finally {
        execFileSync('umount', ['/sys/class/net']);
      }
    });

    test('lists links correctly while they come and go', { timeout }, async () => {
      const churn = Links.open();
      let isDone = false;
      const churning = (async () => {
        while (!isDone) {
          const deletions: Promise<boolean>[] = [];
          for (let count = 0; count < 40; count++) {
            const { index } = await churn.addMacvlan(child(`churn${count}`));
            deletions.push(churn.deleteLink(index));
          }
          await Promise.all(deletions);
        }
      })();
      for (let round = 0; round < 100; round++) {
        const names = (await links.list()).map(({ name }) => name);
        assert.equal(new Set(names).size, names.length);
        assert.ok(names.includes('lo') && names.includes('wire0'));
      }
      isDone = true;
      await churning;
      churn.close();
    });
  });

  describe('a macvlan', () => {
    test('is made in every mode with name, alias, MAC, MTU and queue length', { timeout }, async () => {
      for (const mode of MODES) {
        const made = await links.addMacvlan(
          child('tsm0', { mode, macAddress: '02:42:0A:00:00:07', mtu: 1400, broadcastQueueLength: 2000 }),
        );
        const seen = shown('tsm0');
        // A passthru child is its parent to the LAN: the kernel gives it that MAC, whatever is asked for.
        const address = mode === 'passthru' ? wire.macAddress : '02:42:0a:00:00:07';
        assert.deepEqual([seen?.ifalias, seen?.address, seen?.mtu, seen?.link], [ALIAS, address, 1400, 'wire0']);
        assert.deepEqual([seen?.linkinfo?.info_kind, seen?.linkinfo?.info_data?.mode], ['macvlan', mode]);
        assert.equal(seen?.linkinfo?.info_data?.bcqueuelen, 2000);
        assert.deepEqual(made, await links.byName('tsm0'));
        assert.deepEqual(
          [made.kind, made.macvlanMode, made.parentIndex, made.isUp],
          ['macvlan', mode, wire.index, false],
        );
        assert.ok(await links.deleteLink(made.index));
      }
    });

    test('takes MTU and a MAC of its own from the kernel when none is given', { timeout }, async () => {
      const made = await links.addMacvlan(child('tsm0'));
      assert.deepEqual([made.mtu, shown('tsm0')?.mtu], [1500, 1500]);
      assert.equal(made.macAddress, shown('tsm0')?.address);
      assert.notEqual(made.macAddress, wire.macAddress);
    });

    test('stays in the default group, by which scripts address links', { timeout }, async () => {
      await links.addMacvlan(child('tsm0'));
      assert.equal(shown('tsm0')?.group, 'default');
    });

    test('under a name that a stranger has is refused, and the stranger keeps alias and group', {
      timeout,
    }, async () => {
      ip('link add taken0 type bridge');
      ip('link set taken0 alias stranger group 7');
      await assert.rejects(links.addMacvlan(child('taken0')), { code: 'EEXIST', operation: 'add macvlan taken0' });
      assert.deepEqual([shown('taken0')?.ifalias, shown('taken0')?.group], ['stranger', '7']);
    });

    test('whose alias the kernel refuses is taken back', { timeout }, async () => {
      await assert.rejects(links.addMacvlan(child('tsm0', { alias: 'x'.repeat(256) })), { name: 'KernelError' });
      assert.equal(shown('tsm0'), undefined);
    });

    test('is never without its alias, whenever this program is killed', { timeout: 120_000 }, async () => {
      for (let round = 0; round < 15; round++) {
        await killWhileAdding(20 + 7 * round);
        const unmarked = show().filter(({ ifname, ifalias }) => ifname.startsWith('kill') && ifalias !== ALIAS);
        assert.deepEqual(unmarked, []);
        await deleteAll('kill');
      }
    });

    test('is refused with the code, and the words, of the kernel', { timeout }, async () => {
      const refused = async (more: Partial<MacvlanSpec>, code: string, detail: RegExp | null) => {
        const error: unknown = await links.addMacvlan(child('tsm0', more)).catch((reason: unknown) => reason);
        assert.ok(isKernelError(error, code), String(error));
        assert.match(String((error as { detail: string | null }).detail), detail ?? /null/);
        assert.equal(shown('tsm0'), undefined);
      };
      await refused({ mtu: 9000 }, 'EINVAL', null);
      await refused({ mtu: 10 }, 'EINVAL', /mtu less than device minimum/);
      await refused({ macAddress: '01:00:5e:00:00:01' }, 'EADDRNOTAVAIL', null);
      await refused({ macAddress: '02:42' }, 'EINVAL', /not a valid MAC address/);
      await refused({ parentIndex: 123_456 }, 'ENODEV', null);
      await refused({ name: 'sixteen-bytes-xx' }, 'ERANGE', /validation/);
      await refused({ name: 'a/b' }, 'EINVAL', null);
      await links.addMacvlan(child('other0'));
      await refused({ mode: 'passthru' }, 'EINVAL', null);
    });

    test('is refused with EBUSY on a parent that a bridge owns, with its own MAC twice at up with EADDRINUSE', {
      timeout,
    }, async () => {
      ip('link add br0 type bridge');
      ip('link add p0 type veth peer name p1');
      ip('link set p0 master br0');
      const port = (await links.byName('p0')) as Link;
      await assert.rejects(links.addMacvlan(child('tsm0', { parentIndex: port.index })), { code: 'EBUSY' });
      const mac = { macAddress: '02:42:0a:00:00:08' };
      const first = await links.addMacvlan(child('tsm1', mac));
      const second = await links.addMacvlan(child('tsm2', mac));
      await links.setUp(first.index);
      await assert.rejects(links.setUp(second.index), { code: 'EADDRINUSE', operation: `set link ${second.index} up` });
    });

    test('is refused with EPERM without CAP_NET_ADMIN, while reading goes on', { timeout }, async () => {
      process.seteuid?.(NOBODY);
      try {
        await assert.rejects(links.addMacvlan(child('tsm0')), { code: 'EPERM' });
        await assert.rejects(links.deleteLink(wire.index), { code: 'EPERM' });
        assert.equal((await links.byName('wire0'))?.index, wire.index);
      } finally {
        process.seteuid?.(0);
      }
      assert.ok(shown('wire0'));
    });
  });

  describe('other kinds', () => {
    test('a VLAN is made with its tag, and the host takes no IPv6 address on it', { timeout }, async (t) => {
      for (const protocol of ['802.1Q', '802.1ad'] as const) {
        const spec = { name: 'wire0.42', alias: ALIAS, parentIndex: wire.index, id: 42, protocol };
        const made = await unlessUnsupported(t, links.addVlan(spec));
        if (made === undefined) return;
        const seen = shown('wire0.42');
        assert.deepEqual([seen?.ifalias, seen?.link, seen?.linkinfo?.info_kind], [ALIAS, 'wire0', 'vlan']);
        assert.deepEqual(seen?.linkinfo?.info_data, { ...seen?.linkinfo?.info_data, protocol, id: 42 });
        assert.deepEqual(
          [made.vlan, made.parentIndex, seen?.inet6_addr_gen_mode],
          [{ id: 42, protocol }, wire.index, 'none'],
        );
        await links.setUp(made.index);
        await sleep(100);
        assert.deepEqual(await links.addresses(made.index), []);
        assert.equal(readFileSync('/proc/sys/net/ipv6/conf/wire0.42/disable_ipv6', 'utf8').trim(), '1');
        assert.ok(await links.deleteLink(made.index));
      }
    });

    test('a VLAN carries a macvlan, and two VLANs with one tag are refused', { timeout }, async (t) => {
      const spec = { alias: ALIAS, parentIndex: wire.index, id: 42, protocol: '802.1Q' } as const;
      const vlan = await unlessUnsupported(t, links.addVlan({ ...spec, name: 'wire0.42' }));
      if (vlan === undefined) return;
      await assert.rejects(links.addVlan({ ...spec, name: 'again0' }), {
        code: 'EEXIST',
        detail: /VLAN device already exists/,
      });
      await assert.rejects(links.addVlan({ ...spec, name: 'again0', id: 4095 }), { code: 'ERANGE' });
      const sub = await links.addMacvlan(child('tsm0', { parentIndex: vlan.index }));
      assert.equal(sub.parentIndex, vlan.index);
    });

    test('a kind the kernel lacks is refused in its words', { timeout }, async (t) => {
      const spec = { name: 'wire0.42', alias: ALIAS, parentIndex: wire.index, id: 42, protocol: '802.1Q' } as const;
      const error: unknown = await links.addVlan(spec).catch((reason: unknown) => reason);
      if (!(error instanceof Error)) return t.skip('this kernel has VLANs');
      assert.ok(isKernelError(error, 'EOPNOTSUPP'));
      assert.equal((error as { detail?: string }).detail, 'Unknown device type');
    });

    test('a veth pair knows its other end, and deleting one end deletes both', { timeout }, async () => {
      ip('link add left0 type veth peer name right0');
      const [left, right] = (await Promise.all([links.byName('left0'), links.byName('right0')])) as [Link, Link];
      assert.equal(left.parentIndex, right.index);
      assert.deepEqual(await Promise.all([links.deleteLink(left.index), links.deleteLink(right.index)]), [true, false]);
    });

    test('an isolated link has carrier, takes no host address, and its children are up', { timeout }, async () => {
      const isolated = await links.addIsolated({ name: 'iso0', alias: ALIAS });
      await links.setUp(isolated.index);
      const sub = await links.addMacvlan(child('tsm0', { parentIndex: isolated.index }));
      await links.setUp(sub.index);
      await sleep(100);
      assert.deepEqual([shown('iso0')?.ifalias, shown('iso0')?.inet6_addr_gen_mode], [ALIAS, 'none']);
      await until(() => ['iso0', 'tsm0'].every((name) => shown(name)?.flags.includes('LOWER_UP')));
      assert.deepEqual(await links.addresses(isolated.index), []);
      assert.equal(readFileSync('/proc/sys/net/ipv6/conf/iso0/disable_ipv6', 'utf8').trim(), '1');
    });
  });

  describe('changing', () => {
    test('sets a link up, down and promiscuous', { timeout }, async () => {
      const { index } = await links.addMacvlan(child('tsm0'));
      const flags = () => shown('tsm0')?.flags ?? [];
      await links.setUp(index);
      assert.ok(flags().includes('UP') && (await links.byIndex(index))?.isUp);
      await links.setPromiscuous(index, true);
      assert.ok(flags().includes('PROMISC') && (await links.byIndex(index))?.isPromiscuous);
      await links.setPromiscuous(index, false);
      assert.ok(!flags().includes('PROMISC') && flags().includes('UP'));
      await links.setDown(index);
      assert.ok(!flags().includes('UP'));
    });

    test('switches ARP off and keeps the ARP of two links apart, without /proc/sys', { timeout }, async () => {
      const { index } = await links.addMacvlan(child('tsm0'));
      await links.setArp(index, false);
      assert.ok(shown('tsm0')?.flags.includes('NOARP'));
      await links.setArp(index, true);
      assert.ok(!shown('tsm0')?.flags.includes('NOARP'));
      await links.keepArpApart(index);
      const value = (key: string) => readFileSync(`/proc/sys/net/ipv4/conf/tsm0/${key}`, 'utf8').trim();
      assert.deepEqual([value('arp_filter'), value('arp_announce')], ['1', '2']);
    });

    test('keeps the host’s IPv6 on a link to the addresses it is given', { timeout }, async () => {
      const made = await links.addMacvlan(child('tsm0'));
      await links.keepIPv6Static(made);
      await links.setUp(made.index);
      await sleep(50);
      assert.deepEqual(await links.addresses(made.index), []);
      assert.equal(shown('tsm0')?.inet6_addr_gen_mode, 'none');
      assert.equal(readFileSync('/proc/sys/net/ipv6/conf/tsm0/accept_ra', 'utf8').trim(), '0');
      await links.addAddress(made.index, 'fd00:9::2/64', { noDad: true });
      assert.deepEqual(
        (await links.addresses(made.index)).map(({ address }) => address),
        ['fd00:9::2'],
      );
    });

    test('of a link that is gone fails with ENODEV', { timeout }, async () => {
      await assert.rejects(links.setUp(123_456), { code: 'ENODEV', operation: 'set link 123456 up' });
      await assert.rejects(links.setArp(123_456, false), { code: 'ENODEV' });
      await assert.rejects(links.addAddress(123_456, '10.0.0.1/24'), { code: 'ENODEV' });
    });
  });

  describe('deleting', () => {
    test('answers false for a link that is gone already', { timeout }, async () => {
      const { index } = await links.addMacvlan(child('tsm0'));
      assert.equal(await links.deleteLink(index), true);
      assert.equal(shown('tsm0'), undefined);
      assert.equal(await links.deleteLink(index), false);
    });

    test('many at once takes those and no other, and answers for each', { timeout }, async () => {
      ip('link add bystander0 type bridge');
      const made = [];
      for (let count = 0; count < 150; count++) made.push(await links.addMacvlan(child(`tsm${count}`)));
      ip('link delete tsm77');
      const answers = await Promise.all(made.map(({ index }) => links.deleteLink(index)));
      assert.deepEqual(
        answers.flatMap((existed, position) => (existed ? [] : [position])),
        [77],
      );
      assert.deepEqual(
        show()
          .map(({ ifname }) => ifname)
          .sort(),
        ['bystander0', 'lo', 'wire0'],
      );
    });

    test('many at once of which one cannot be deleted takes the others', { timeout }, async () => {
      const loopback = (await links.byName('lo')) as Link;
      const made = [];
      for (let count = 0; count < 5; count++) made.push((await links.addMacvlan(child(`tsm${count}`))).index);
      const [first = 0, ...others] = made;
      const answers = await Promise.allSettled(
        [first, ...others, loopback.index].map((index) => links.deleteLink(index)),
      );
      assert.deepEqual(
        answers.map(({ status }) => status),
        [...made.map(() => 'fulfilled'), 'rejected'],
      );
      assert.deepEqual(
        show().map(({ ifname, group }) => [ifname, group]),
        [
          ['lo', 'default'],
          ['wire0', 'default'],
        ],
      );
    });

    test('leaves the event loop running', { timeout }, async () => {
      const turnsWhileDeleting = async () => {
        let turns = 0;
        let isDone = false;
        const turn = () => void (turns++, isDone || setImmediate(turn));
        const { index } = await links.addMacvlan(child('tsm0'));
        turn();
        await links.deleteLink(index);
        isDone = true;
        return turns;
      };
      const turns = [];
      for (let round = 0; round < ROUNDS; round++) turns.push(await turnsWhileDeleting());
      // While send() blocks the loop it turns at most twice, whatever else the machine does.
      assert.ok(Math.max(...turns) > 20, `${turns.join(', ')} turns`);
    });

    test('does not keep other requests waiting', { timeout }, async () => {
      const orderOf = async () => {
        const made = [];
        for (let count = 0; count < 3; count++) made.push((await links.addMacvlan(child(`tsm${count}`))).index);
        const order: string[] = [];
        const deletions = Promise.all(made.map((index) => links.deleteLink(index))).then(() => order.push('deleted'));
        await links.byName('lo').then(() => order.push('read'));
        await deletions;
        return order.join();
      };
      const orders = [];
      for (let round = 0; round < ROUNDS; round++) orders.push(await orderOf());
      // A process that was away meanwhile finds both done.
      assert.ok(orders.includes('read,deleted'), orders.join('; '));
    });
  });

  describe('addresses and routes', () => {
    test('are added, listed as ip shows them, and deleted', { timeout }, async () => {
      const { index } = await links.addMacvlan(child('tsm0'));
      await links.setUp(index);
      await links.addAddress(index, '10.9.0.2/24');
      await links.addAddress(index, 'fd00:9::2/64', { noDad: true });
      const expected = [
        { linkIndex: index, address: '10.9.0.2', prefixLength: 24, family: 'IPv4' },
        { linkIndex: index, address: 'fd00:9::2', prefixLength: 64, family: 'IPv6' },
      ];
      const global = (await links.addresses(index)).filter(({ address }) => !address.startsWith('fe80'));
      assert.deepEqual(global, expected);
      assert.ok((await links.addresses()).length >= global.length);
      const seen = ip('-o address show dev tsm0 scope global');
      assert.match(seen, / 10\.9\.0\.2\/24 /);
      assert.match(seen, / fd00:9::2\/64 scope global nodad /);
      await assert.rejects(links.addAddress(index, '10.9.0.2/24'), { code: 'EEXIST' });
      assert.deepEqual(
        [await links.deleteAddress(index, '10.9.0.2/24'), await links.deleteAddress(index, '10.9.0.2/24')],
        [true, false],
      );
      assert.equal(await links.deleteAddress(123_456, '10.9.0.2/24'), false);
    });

    test('routes are added, listed, and deleted', { timeout }, async () => {
      const { index } = await links.addMacvlan(child('tsm0'));
      await links.setUp(index);
      await links.addAddress(index, '10.9.0.2/24');
      const route = { destination: '10.9.7.0/24', linkIndex: index, source: '10.9.0.2' };
      await links.addRoute(route);
      await links.addRoute({ destination: '10.8.0.0/16', linkIndex: index, gateway: '10.9.0.1' });
      ip('route add default via 10.9.0.254 dev tsm0 table 77');
      const mine = (await links.routes()).filter(({ linkIndex, family }) => linkIndex === index && family === 'IPv4');
      const summary = mine.map(({ destination, gateway, table }) => [destination, gateway, table]);
      assert.deepEqual(summary.sort(), [
        ['10.8.0.0/16', '10.9.0.1', 254],
        ['10.9.0.0/24', null, 254],
        ['10.9.7.0/24', null, 254],
        ['default', '10.9.0.254', 77],
      ]);
      assert.match(ip('route show 10.9.7.0/24'), /dev tsm0 .*scope link src 10\.9\.0\.2/);
      await assert.rejects(links.addRoute(route), { code: 'EEXIST' });
      assert.deepEqual([await links.deleteRoute(route), await links.deleteRoute(route)], [true, false]);
    });

    test('what the neighbour table has for an address is as ip shows it', { timeout }, async () => {
      const { index } = await links.addMacvlan(child('tsm0', { macAddress: '02:42:0a:00:00:0a' }));
      await links.setUp(index);
      const entries = [
        ['10.9.0.7', '02:42:0a:00:00:07', 'stale'],
        ['10.9.0.8', '02:42:0a:00:00:08', 'permanent'],
        ['fd00::7', '02:42:0a:00:00:09', 'reachable'],
      ] as const;
      for (const [text, mac, state] of entries) ip(`neighbour replace ${text} lladdr ${mac} dev tsm0 nud ${state}`);
      const address = (text: string) => parseAddress(text) ?? assert.fail(text);
      for (const [text, macAddress, state] of entries)
        assert.deepEqual(await links.neighbour(index, address(text)), {
          linkIndex: index,
          address: address(text),
          macAddress,
          state,
        });
      const shown = JSON.parse(ip('-4 -j neighbour show dev tsm0')) as { dst: string; state: string[] }[];
      assert.deepEqual(
        (await links.neighbours(index, 'IPv4'))
          .map((one) => [formatAddress(one.address), [one.state.toUpperCase()]])
          .sort(),
        shown.map(({ dst, state }) => [dst, state]).sort(),
      );
      assert.equal(await links.neighbour(index, address('10.9.0.9')), undefined);
      assert.equal(await links.neighbour(wire.index, address('10.9.0.7')), undefined);
      await links.deleteLink(index);
      assert.equal(await links.neighbour(index, address('10.9.0.7')), undefined);
    });
  });

  describe('events', () => {
    test('tell of a link that comes, changes and goes', { timeout }, async () => {
      const events: LinkEvent[] = [];
      const stop = links.onChange((event) => void events.push(event));
      const made = await links.addMacvlan(child('tsm0', { macAddress: '02:42:0a:00:00:0a' }));
      await links.setUp(made.index);
      await links.deleteLink(made.index);
      const own = () => events.filter((event) => event.type !== 'overflow' && event.link.index === made.index);
      await until(() => own().at(-1)?.type === 'deleted');
      stop();
      const mine = own();
      assert.equal(mine[0]?.type, 'new');
      assert.equal(mine.at(-1)?.type, 'deleted');
      assert.ok(mine.some((event) => event.type === 'new' && event.link.isUp));
      ip('link add after0 type bridge');
      await sleep(150);
      assert.ok(!events.some((event) => event.type !== 'overflow' && event.link.name === 'after0'));
    });

    test('do not call a port deleted that left its bridge', { timeout }, async () => {
      ip('link add br0 type bridge');
      ip('link add p0 type veth peer name p1');
      ip('link set p0 master br0');
      const events: LinkEvent[] = [];
      const stop = links.onChange((event) => void events.push(event));
      ip('link set p0 nomaster');
      await until(() =>
        events.some((event) => event.type === 'new' && event.link.name === 'p0' && event.link.masterIndex === null),
      );
      await sleep(150);
      stop();
      assert.ok(!events.some((event) => event.type === 'deleted'));
    });

    test('are told at once when they are asked for, in order, also by a listener', { timeout }, () => {
      const told: string[] = [];
      const stop = links.onChange((event) => {
        if (event.type !== 'overflow') told.push(event.link.name);
        links.readChanges();
      });
      for (const name of ['read0', 'read1']) ip(`link add ${name} type bridge`);
      links.readChanges();
      stop();
      assert.deepEqual([...new Set(told)], ['read0', 'read1']);
    });

    test('wait while the event loop is away', { timeout }, async () => {
      const changes = new Set<string>();
      let overflows = 0;
      const stop = links.onChange(
        (event) => void (event.type === 'overflow' ? overflows++ : changes.add(event.link.name)),
      );
      blockLoopWithLinks('wait', 300);
      await until(() => changes.size >= 300);
      stop();
      assert.equal(overflows, 0);
    });

    test('say when they were lost, and go on after that', { timeout }, () => {
      const events: KernelEvent[] = [];
      const socket = new EventSocket({ tell: (event) => void events.push(event), receiveBufferBytes: 4096 });
      for (let count = 0; count < 50; count++) ip(`link add lost${count} type bridge`);
      socket.read();
      assert.ok(events.some(({ about }) => about === 'lost'));
      events.length = 0;
      ip('link add after0 type bridge');
      socket.read();
      socket.close();
      assert.ok(events.some((event) => event.about === 'link' && event.link.name === 'after0'));
    });

    test('are thrown away when more come than are read, and heard again after a rest', { timeout }, async () => {
      ip('link add much0 type bridge');
      ip('link set much0 up');
      const events: KernelEvent[] = [];
      const socket = new EventSocket({ tell: (event) => void events.push(event) });
      const flood = Array.from(
        { length: 6000 },
        (_, count) => `address add 10.${20 + (count >> 8)}.${count & 255}.1/32 dev much0`,
      );
      execFileSync('ip', ['-batch', '-'], { input: flood.join('\n') });
      socket.read();
      assert.ok(socket.isResting);
      assert.ok(events.length < 5000, `${events.length} were read`);
      assert.deepEqual(events.at(-1), { about: 'lost' });
      events.length = 0;
      socket.read();
      assert.deepEqual([...events], []);
      await until(() => {
        socket.read();
        return !socket.isResting;
      });
      assert.deepEqual([...events], [{ about: 'lost' }]);
      ip('link add little0 type bridge');
      socket.read();
      socket.close();
      assert.ok(events.some((event) => event.about === 'link' && event.link.name === 'little0'));
      for (const name of ['much0', 'little0']) ip(`link delete ${name}`);
    });

    test('reach every listener, also when one before it throws', { timeout }, () => {
      const faults: unknown[] = [];
      const own = Links.open(null, (error) => void faults.push(error));
      const names: string[] = [];
      own.onChange(() => {
        throw new Error('a fault of a listener');
      });
      own.onChange((event) => void (event.type === 'new' && names.push(event.link.name)));
      for (const name of ['heard0', 'heard1']) ip(`link add ${name} type bridge`);
      own.readChanges();
      own.close();
      assert.deepEqual([...new Set(names)], ['heard0', 'heard1']);
      assert.deepEqual(faults.map(String), ['Error: a fault of a listener'], 'told once in a minute');
    });

    test('do not keep the process alive', { timeout }, async () => {
      const code = `import { Links } from ${JSON.stringify(import.meta.resolve('../../src/kernel/link.ts'))}; Links.open().onChange(() => {});`;
      const program = spawn(process.execPath, ['--input-type=module', '-e', code], {
        stdio: 'inherit',
        timeout: 60_000,
      });
      assert.deepEqual(await once(program, 'exit'), [0, null]);
    });
  });

  test('every exchange is one line, for whoever reads along', { timeout }, async (t) => {
    const lines: string[] = [];
    const told = Links.open((line) => void lines.push(line));
    t.after(() => told.close());
    const events: LinkEvent[] = [];
    told.onChange((event) => void events.push(event));
    assert.equal((await told.byName('wire0'))?.index, wire.index);
    const { index } = await told.addMacvlan(child('tsmtold', { macAddress: '02:42:0a:09:00:02', mtu: 1400 }));
    await assert.rejects(told.addMacvlan(child('tsmtold')));
    await told.setUp(index);
    await told.list();
    await told.addresses();
    await until(() => events.some((event) => event.type === 'new' && event.link.name === 'tsmtold' && event.link.isUp));
    await told.deleteLink(index);
    await until(() => events.some((event) => event.type === 'deleted' && event.link.index === index));
    const parent = `${wire.index}(wire0)`;
    const link = `${index}(tsmtold)`;
    const expected = [
      new RegExp(`^getlink mask 8 name wire0 → newlink ${escape(parent)} up name wire0 .*kind veth`),
      new RegExp(
        `^newlink .create .excl name tsmtold group \\d+ on ${escape(parent)} kind macvlan mode bridge mac 02:42:0a:09:00:02 mtu 1400 → ok$`,
      ),
      /^newlink group \d+ alias "tsmacvlan endpoint 0123456789abcdef" → ok$/,
      new RegExp(`^setlink ${escape(link)} group 0 → ok$`),
      new RegExp(`^newlink .create .excl name tsmtold group \\d+ on ${escape(parent)} .* → EEXIST`),
      new RegExp(`^setlink ${escape(link)} .up → ok$`),
      /^getlink mask 8 dump → \d+ messages$/,
      /^getaddr dump → \d+ messages$/,
      new RegExp(`^event newlink ${escape(link)} up .*alias "tsmacvlan endpoint`),
      new RegExp(`^dellink ${escape(link)} → ok$`),
      new RegExp(`^event dellink ${escape(link)} `),
    ];
    for (const line of expected)
      assert.ok(
        lines.some((one) => line.test(one)),
        `${line} in\n${lines.join('\n')}`,
      );
    assert.ok(lines.every((line) => !line.includes('\n')));
  });

  describe('endurance', () => {
    test('200 requests at once all get their own answers', { timeout }, async () => {
      const made: Link[] = [];
      for (let count = 0; count < 20; count++) made.push(await links.addMacvlan(child(`tsm${count}`)));
      const requests = Array.from({ length: 200 }, async (_, count) => {
        const link = made[count % made.length] as Link;
        if (count % 4 === 0)
          return assert.equal((await links.list()).find(({ index }) => index === link.index)?.name, link.name);
        if (count % 4 === 1) return assert.equal(await links.byName(`absent${count}`), undefined);
        if (count % 4 === 2) return links.setArp(link.index, count % 8 === 2);
        return assert.equal((await links.byIndex(link.index))?.name, link.name);
      });
      await Promise.all(requests);
    });

    test('5,000 links made and deleted leave no descriptor and no link behind', { timeout: 300_000 }, async () => {
      const before = openFiles();
      const deletions: Promise<boolean>[] = [];
      for (let count = 0; count < 5000; count++) {
        const { index } = await links.addMacvlan(child(`tsm${count % 1000}`));
        deletions.push(links.deleteLink(index));
        if (deletions.length === 500) assert.ok((await Promise.all(deletions.splice(0))).every(Boolean));
      }
      assert.ok((await Promise.all(deletions)).every(Boolean));
      await until(() => openFiles() <= before);
      assert.equal(show().filter(({ ifname }) => ifname.startsWith('tsm')).length, 0);
    });

    test('100 times opened, watched and closed leaves no descriptor', { timeout }, async () => {
      const before = openFiles();
      for (let count = 0; count < 100; count++) {
        const each = Links.open();
        each.onChange(() => undefined);
        const pending = each.byName('wire0');
        each.close();
        assert.equal((await pending)?.index, wire.index);
        await assert.rejects(each.byName('wire0'), { code: 'EBADF' });
      }
      await until(() => openFiles() <= before);
    });
  });

  /** Adds links in another process until it is killed. */
  async function killWhileAdding(afterMs: number): Promise<void> {
    const program = spawn(process.execPath, ['--input-type=module', '-e', ADDER, String(wire.index), ALIAS], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await once(program.stdout, 'data');
    await sleep(afterMs);
    program.kill('SIGKILL');
    await once(program, 'exit');
  }

  async function deleteAll(prefix: string): Promise<void> {
    const all = show().filter(({ ifname }) => ifname.startsWith(prefix));
    await Promise.all(all.map(({ ifindex }) => links.deleteLink(ifindex)));
  }
});

const ADDER = `
  import { Links } from ${JSON.stringify(import.meta.resolve('../../src/kernel/link.ts'))};
  const [parentIndex, alias] = process.argv.slice(1);
  const links = Links.open();
  console.log('adding');
  for (let count = 0; ; count++) {
    const name = 'kill' + count;
    await links.addMacvlan({ name, alias, parentIndex: Number(parentIndex), mode: 'bridge', macAddress: null, mtu: null, broadcastQueueLength: null });
  }
`;

/** Makes that many links without a turn of the event loop. */
function blockLoopWithLinks(prefix: string, count: number): void {
  const batch = Array.from(
    { length: count },
    (_, position) => `link add ${prefix}${position} link wire0 type macvlan mode bridge\n`,
  );
  execFileSync('ip', ['-batch', '-'], { input: batch.join('') });
}

/** Undefined, and the test skipped, when the kernel has no such kind of link. */
async function unlessUnsupported(t: TestContext, making: Promise<Link>): Promise<Link | undefined> {
  try {
    return await making;
  } catch (error) {
    if (!isKernelError(error, 'EOPNOTSUPP')) throw error;
    t.skip(`this kernel cannot: ${(error as Error).message}`);
    return undefined;
  }
}

/** The facts that `ip` shows too, of our reading. */
function asShown(link: Link) {
  return {
    ifindex: link.index,
    ifname: link.name,
    ifalias: link.alias ?? undefined,
    address: link.macAddress,
    mtu: link.mtu,
    promiscuity: link.promiscuity,
    min_mtu: link.minMtu,
    max_mtu: link.maxMtu,
    kind: link.kind ?? undefined,
    slaveKind: link.masterKind ?? undefined,
    isUp: link.isUp,
    hasCarrier: link.hasCarrier,
    isLoopback: link.isLoopback,
    hasMaster: link.masterIndex !== null,
    netnsid: link.parentNamespaceId ?? undefined,
    macvlanMode: link.macvlanMode ?? undefined,
  };
}

/** As the text itself in a regular expression. */
function escape(text: string): string {
  return text.replaceAll(/[()]/g, '\\$&');
}

/** The same facts, of ip's. */
function asCompared(link: Shown): ReturnType<typeof asShown> {
  const info = link.linkinfo;
  return {
    ifindex: link.ifindex,
    ifname: link.ifname,
    ifalias: link.ifalias,
    address: link.address,
    mtu: link.mtu,
    promiscuity: link.promiscuity,
    min_mtu: link.min_mtu,
    max_mtu: link.max_mtu,
    kind: info?.info_kind,
    slaveKind: info?.info_slave_kind,
    isUp: link.flags.includes('UP'),
    hasCarrier: link.flags.includes('LOWER_UP'),
    isLoopback: link.flags.includes('LOOPBACK'),
    hasMaster: link.master !== undefined,
    netnsid: link.link_netnsid,
    macvlanMode: info?.info_kind === 'macvlan' ? (info.info_data?.mode as Link['macvlanMode'] & string) : undefined,
  };
}
