/**
 * README and the pages for users: every command in a fenced block is run as it stands, on a LAN that is the one of the pages. What
 * cannot run here is named with its reason. Images are stand-ins that wait; files (yaml with their name in the first line) are written.
 *
 *     server: eth0 192.168.1.10 ──── switch 192.168.1.1, the router
 */
import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { clearEngine } from '../lab/container.ts';
import { type Block, blocksOf, commandsOf, DOCS, isSeen } from '../lab/document.ts';
import { outsideLab } from '../lab/enclosure.ts';
import type { Engine } from '../lab/engine.ts';
import { BUSYBOX_ARCHIVE, programOf } from '../lab/packages.ts';
import { type Machine, Site } from '../lab/site.ts';

const PAGES = [
  'README.md',
  'getting-started.md',
  'recipes.md',
  'troubleshooting.md',
  'operating.md',
  'install.md',
  'migration.md',
  'conflicts.md',
  'swarm.md',
  'etcd.md',
];

/** By the beginning of a block: why it is not run here. */
const NOT_HERE: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  'getting-started.md': {
    'sudo make install': 'installs on a machine with systemd: test/docker/service.test.ts',
    'sudo make uninstall': 'the same',
  },
  'recipes.md': {
    'docker network create -d tsmacvlan --ipam-driver tsmacvlan \\\n  --subnet 10.20.0.0/24':
      'needs 802.1Q, which this kernel may not have: test/vlan/parents.test.ts',
    'docker network create --config-only': 'needs the managed plugin: test/docker/plugin.test.ts',
    'docker network create -d tsmacvlan:lan': 'needs a swarm of managed plugins: test/swarm/local.test.ts',
    'ansible-playbook': 'Ansible is not there',
    'terraform apply': 'Terraform is not there',
  },
  'troubleshooting.md': { 'systemctl status': 'needs systemd: test/docker/service.test.ts' },
  'install.md': {
    'docker plugin install': 'run in test/docker/plugin.test.ts',
    'tar -xf tsmacvlan-VERSION-plugin': 'the same',
    'docker plugin disable -f tsmacvlan:lan\ndocker plugin set': 'the same',
    'docker plugin disable -f tsmacvlan:lan\ndocker plugin upgrade': 'the same',
    'docker plugin disable -f tsmacvlan:lan\ntsmacvlan backup': 'the same',
    'docker plugin disable -f tsmacvlan:lan\ndocker plugin rm': 'the same',
    'ln -sf': 'the same',
    'docker network create --config-only': 'the same',
    'sudo apt install': 'run in test/install/bare.test.ts',
    'sudo tar -xf': 'the same',
    'sudo systemctl disable': 'the same',
    'minisign -V': 'needs a release: test/package/release.test.ts',
  },
  'migration.md': {
    'docker network inspect': 'run in order, on two engines, in test/docker/documents.test.ts',
    'docker network disconnect': 'the same',
    'docker network create': 'the same',
    'docker network connect': 'the same',
  },
  'conflicts.md': { '#!/bin/sh': 'run in test/docker/conflicts.test.ts' },
  'swarm.md': {
    'docker network create --config-only': 'needs a swarm: test/swarm/local.test.ts',
    'docker network create -d tsmacvlan:lan': 'needs a swarm: test/swarm/local.test.ts, global.test.ts',
    'docker plugin set': 'needs a swarm: test/swarm/global.test.ts',
  },
  'etcd.md': {
    'STORE=etcd://': 'needs an etcd at these addresses: test/netns/etcd.test.ts',
    etcdctl: 'the same',
    sudo: 'the same',
    'tsmacvlan store': 'the same',
  },
};

const IMAGES = [
  'nginx',
  'pihole/pihole',
  'adguard/adguardhome',
  'homeassistant/home-assistant:stable',
  'mongo:7.0',
  'linuxserver/unifi-network-application',
  'osixia/keepalived',
];
const DIRECTORY = '/run/disk/reader';
const PROGRAMS = join(DOCS, '../bin');

describe('README and the pages for users, engine 28.5.2', { skip: outsideLab(), timeout: 400_000 }, () => {
  let site: Site;
  let machine: Machine;
  let engine: Engine;
  const total = { ran: 0, left: 0 };

  before(async () => {
    site = await Site.open({ version: '28.5.2', hosts: ['server'], links: ['eth0'], addresses: ['192.168.1.1/24'] });
    machine = site.machines[0] as Machine;
    engine = machine.engine;
    await machine.host.namespace.ip('address add 192.168.1.10/24 dev eth0');
    await machine.host.namespace.ip('route add default via 192.168.1.1');
    // It ends with its container's stop at once, as a server does.
    const waits = 'CMD ["sh", "-c", "trap exit TERM; sleep 3600 & wait"]';
    await engine.must('import', '--change', waits, BUSYBOX_ARCHIVE, 'stand-in');
    for (const image of IMAGES) await engine.must('tag', 'stand-in', image);
    mkdirSync(machine.host.file(DIRECTORY), { recursive: true });
    mkdirSync(machine.host.file('/run/disk/docker-config/cli-plugins'), { recursive: true });
    await typed(`ln -sf ${programOf('compose')} /run/disk/docker-config/cli-plugins/docker-compose
mount -t tmpfs none /var/backups`);
  });
  after(async () => {
    console.log(`all pages: ${total.ran} commands run, ${total.left} not here`);
    await site.close();
  });

  for (const page of PAGES) {
    test(`${page}: its commands run, and print what it shows`, async () => {
      const reasons = new Map(Object.entries(NOT_HERE[page] ?? {}));
      const unused = new Set(reasons.keys());
      let ran = 0;
      let left = 0;
      let printed = '';
      let brings = false;
      await clearEngine(engine);
      for (const block of blocksOf(page)) {
        if (block.kind === 'yaml') brings = write(block) || brings;
        if (block.kind === 'text' && printed !== '') assert.ok(isSeen(block, printed), `${block.text}\n${printed}`);
        if (block.kind !== 'sh') continue;
        const reason = [...reasons.keys()].find((beginning) => block.text.startsWith(beginning));
        if (reason !== undefined) {
          unused.delete(reason);
          left += commandsOf(block).length;
          continue;
        }
        // Who reads a recipe has not followed the one before.
        if (brings || /^docker network create/m.test(block.text)) await clearEngine(engine);
        brings = false;
        printed = await typed(block.text);
        ran += commandsOf(block).length;
      }
      assert.deepEqual([...unused], [], 'reasons for what is not on the page');
      const why = [...new Set(reasons.values())].filter((reason) => reason !== 'the same').join('; ');
      console.log(`${page}: ${ran} commands run, ${left} not here${left === 0 ? '' : ` (${why})`}`);
      total.ran += ran;
      total.left += left;
    });
  }

  /** True for one that creates its network itself. */
  function write({ text }: Block): boolean {
    const [, name] = /^# (\S+\.yaml)\n/.exec(text) ?? [];
    assert.ok(name, `a file without its name in the first line:\n${text}`);
    writeFileSync(join(machine.host.file(DIRECTORY), name), text);
    return /driver: tsmacvlan/.test(text);
  }

  async function typed(script: string): Promise<string> {
    const env = { DOCKER_CONFIG: '/run/disk/docker-config' };
    const { code, stdout, stderr } = await engine.shellOnHost(script, DIRECTORY, PROGRAMS, env);
    assert.equal(code, 0, `${script}\n${stdout}${stderr}`);
    return stdout;
  }
});
