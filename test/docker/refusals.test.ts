/** What a person reads after a mistake: one sentence that says what is wrong and what to do, and nothing is left behind. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import type { Result } from '../lab/command.ts';
import { runIdle } from '../lab/container.ts';
import { outsideLab } from '../lab/enclosure.ts';
import type { Engine, Version } from '../lab/engine.ts';
import { assertNothingLeft } from '../lab/invariant.ts';
import { type Machine, Site } from '../lab/site.ts';

const VERSIONS: Version[] = ['20.10.24', '28.5.2'];

/** `docker network create -d tsmacvlan --ipam-driver tsmacvlan --subnet 192.0.2.0/24 WORDS lan` → the sentence. */
const NETWORKS: Record<string, string> = {
  '-o parent=eth9':
    'parent interface "eth9" does not exist on this host (there are lan0, switch0); give one of these with -o parent=, or NAME.ID for a VLAN',
  '-o parent=lo':
    'parent "lo" is the loopback interface, which reaches no LAN; give an Ethernet interface with -o parent=',
  '-o parent=child0': 'parent "child0" is itself a macvlan sub-interface; give "lan0" with -o parent=',
  '-o parent=lan1':
    'parent "lan1" belongs to the bridge "switch0", which takes all of its frames; give "switch0" with -o parent=, or an interface that is in no bridge',
  '-o parent=lan0 -o macvlan_mode=brige':
    'unknown macvlan_mode "brige" (did you mean bridge?); use one of bridge, private, vepa, passthru',
  '-o parent=lan0 -o macvlan_mode=veth':
    'unknown macvlan_mode "veth" (did you mean vepa?); use one of bridge, private, vepa, passthru',
  '-o parent=lan0 -o mtu=9000': 'mtu 9000 is above the 1500 of parent "lan0"; give at most 1500',
  '-o parent=lan0 --ipam-opt exlude=192.0.2.1':
    'unknown option --ipam-opt "exlude" (did you mean exclude?); the options are exclude, order, parent, probe, source',
};

/** `docker run --net lan WORDS busybox`, beside a container with 192.0.2.9, a gateway .254 and a printer at .1. */
const CONTAINERS: Record<string, string> = {
  '--ip 192.0.2.9':
    'address 192.0.2.9 is used by endpoint ID of network ID; choose another --ip or remove that container (tsmacvlan who 192.0.2.9 names it)',
  '--ip 192.0.2.254': 'address 192.0.2.254 is the gateway of network ID; choose another --ip',
  '--ip 192.0.2.1': 'address 192.0.2.1 is an auxiliary address of network ID; choose another --ip',
  '--ip 192.0.2.255': 'address 192.0.2.255 is the broadcast address of 192.0.2.0/24; choose another --ip',
  '--mac-address 01:00:5e:00:00:01':
    'MAC address "01:00:5e:00:00:01" is a multicast address, which no interface can have; make the second digit even, as in 02:42:c0:a8:01:02',
  '--mac-address 02:42:c0:00:02:09':
    'MAC address 02:42:c0:00:02:09 is already used on parent "lan0" by endpoint ID; choose another --mac-address',
};

for (const version of VERSIONS) {
  describe(`refusals, engine ${version}`, { skip: outsideLab(), timeout: 400_000 }, () => {
    let site: Site;
    let machine: Machine;
    let engine: Engine;

    before(async () => {
      site = await Site.open({ version, hosts: ['host'], links: ['lan0', 'lan1'] });
      machine = site.machines[0] as Machine;
      engine = machine.engine;
    });
    after(() => site.close());

    describe('of networks', () => {
      before(async () => {
        const { namespace } = machine.host;
        await namespace.ip('link add link lan0 name child0 type macvlan mode bridge');
        await namespace.ip('link add switch0 type bridge');
        await namespace.ip('link set lan1 master switch0');
      });
      after(async () => {
        for (const name of ['child0', 'switch0']) await machine.host.namespace.ip(`link delete ${name}`);
        await assertNothingLeft(machine);
      });

      for (const [words, sentence] of Object.entries(NETWORKS)) {
        test(`network create ${words}`, async () => {
          const { code, stderr } = await createNetwork(engine, words, 'lan');
          assert.deepEqual([code, sentenceIn(stderr)], [1, sentence]);
          assert.doesNotMatch(await engine.must('network', 'ls'), /tsmacvlan/);
        });
      }

      test('network create -o parnt=lan0 names the nearest option and then all of them', async () => {
        const { stderr } = await createNetwork(engine, '-o parnt=lan0', 'lan');
        assert.match(
          sentenceIn(stderr),
          /^unknown option -o "parnt" \(did you mean parent\?\); the options are parent, /,
        );
      });
    });

    describe('of containers', () => {
      before(async () => {
        const words = '-o parent=lan0 --gateway 192.0.2.254 --aux-address printer=192.0.2.1';
        assert.equal((await createNetwork(engine, words, 'lan')).code, 0);
        await runIdle(engine, 'web', '--net lan --ip 192.0.2.9');
      });
      after(async () => {
        await engine.must('rm', '-f', 'web');
        await engine.must('network', 'rm', 'lan');
        await assertNothingLeft(machine);
      });
      afterEach(() => engine.docker('rm', '-f', 'second'));

      for (const [words, sentence] of Object.entries(CONTAINERS)) {
        test(`run ${words}`, async () => {
          const { code, stderr } = await engine.docker(
            'run',
            '--name',
            'second',
            '--net',
            'lan',
            ...words.split(' '),
            'busybox',
            'true',
          );
          assert.deepEqual([code, sentenceIn(stderr)], [125, sentence]);
        });
      }
    });

    test('an exhausted range says how much of it is used by whom', async () => {
      await createNetwork(engine, '-o parent=lan0 --ip-range 192.0.2.0/30 --aux-address nas=192.0.2.2', 'lan');
      await runIdle(engine, 'web', '--net lan');
      const { stderr } = await engine.docker('run', '--rm', '--net', 'lan', 'busybox', 'true');
      const sentence =
        'no free address in 192.0.2.0/30: 1 leased, 1 gateway, 1 auxiliary; widen --ip-range or remove unused containers';
      assert.equal(sentenceIn(stderr), sentence);
      await engine.must('rm', '-f', 'web');
      await engine.must('network', 'rm', 'lan');
      await assertNothingLeft(machine);
    });
  });
}

function createNetwork(engine: Engine, words: string, name: string): Promise<Result> {
  const common = '-d tsmacvlan --ipam-driver tsmacvlan --subnet 192.0.2.0/24'.split(' ');
  return engine.docker('network', 'create', ...common, ...words.split(' '), name);
}

/** Our sentence without what engine and docker command put around it; ids, which differ from run to run, are `ID`. */
function sentenceIn(stderr: string): string {
  const [, sentence = stderr] = /(?:NetworkDriver|IpamDriver)\.\w+: (.*)/.exec(stderr) ?? [];
  return sentence.replaceAll(/\b[0-9a-f]{12}\b/g, 'ID').replace(/\.$/, '');
}
