/**
 * README and the pages for users: every command in a fenced block is run as it stands, on a LAN that is the one of the pages. What
 * cannot run here is named with its reason. Images are stand-ins that wait; files (yaml with their name in the first line) are written.
 *
 *     server: eth0 192.168.1.10 ──── switch 192.168.1.1, the router ──── dnsmasq 192.168.1.2: .100 to .199
 */
import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { clearEngine } from '../lab/container.ts';
import { DhcpServer } from '../lab/dhcpserver.ts';
import { type Block, blocksOf, commandsOf, DOCS, isSeen } from '../lab/document.ts';
import { outsideLab } from '../lab/enclosure.ts';
import type { Engine } from '../lab/engine.ts';
import { BUSYBOX_ARCHIVE, programOf, withoutDhcp } from '../lab/packages.ts';
import { type Machine, Site } from '../lab/site.ts';

/** README, and each page of docs/ that has something to type. */
const PAGES = [
  'README.md',
  ...readdirSync(DOCS)
    .filter((name) => name.endsWith('.md') && blocksOf(name).some(({ kind }) => kind === 'sh'))
    .sort(),
];

/** Whose reader has the network of getting-started.md and its container. */
const AFTER_THE_FIRST_STEPS = new Set(['monitoring.md', 'names.md', 'page.md']);

/** By the beginning of a block: why it is not run here. */
const NOT_HERE: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  'getting-started.md': {
    'sudo apt install git': 'needs a network and systemd: test/docker/service.test.ts',
    'sudo make uninstall': 'the same',
  },
  'recipes.md': {
    'docker network create -d tsmacvlan --ipam-driver tsmacvlan \\\n  --subnet 10.20.0.0/24':
      'needs 802.1Q, which this kernel may not have: test/vlan/reboot.test.ts',
    'docker network create --config-only': 'needs the managed plugin: test/docker/plugin.test.ts',
    'docker network create -d tsmacvlan:lan': 'needs a swarm of managed plugins: test/swarm/local.test.ts',
    'ansible-playbook': 'Ansible is not there',
    'terraform apply': 'Terraform is not there',
  },
  'troubleshooting.md': { 'systemctl status': 'needs systemd: test/docker/service.test.ts' },
  'install.md': {
    'docker plugin install': 'run in test/docker/plugin.test.ts',
    'docker plugin disable -f tsmacvlan:lan\ndocker plugin set': 'the same',
    'docker plugin disable -f tsmacvlan:lan\ndocker plugin upgrade': 'the same',
    'docker plugin disable -f tsmacvlan:lan\ntsmacvlan backup': 'the same',
    'docker plugin disable -f tsmacvlan:lan\ndocker plugin rm': 'the same',
    'ln -sf': 'the same',
    'docker network create --config-only': 'the same',
    'tar -xf tsmacvlan-VERSION-plugin': 'run in test/install/bare.test.ts',
    'sudo tar -xf': 'the same',
    'sudo systemctl disable': 'the same',
    'sudo apt install': 'needs the package: test/install/bare.test.ts, with apt-get',
    'sudo make install': 'needs systemd: test/docker/service.test.ts',
    'npm install': 'needs the package: test/install/bare.test.ts, with another prefix',
    'systemctl stop tsmacvlan':
      'needs systemd: test/docker/service.test.ts; restore is tried in test/netns/backup.test.ts',
    'minisign -V': 'needs a release: test/package/release.test.ts',
  },
  'migration.md': {
    'docker network inspect': 'run in order, on two engines, in test/docker/documents.test.ts',
    'docker network disconnect': 'the same',
    'docker network create': 'the same',
    'docker network connect': 'the same',
  },
  'monitoring.md': { 'tsmacvlan watch': 'goes on until Ctrl-C: test/netns/looking.test.ts' },
  'page.md': {
    'tsmacvlan map --serve': 'goes on until Ctrl-C: test/docker/page.test.ts',
    ssh: 'needs another machine with ssh',
  },
  'releasing.md': {
    'sudo apt install minisign': 'needs the key of who releases: test/package/release.test.ts has one of its own',
    'VERSION=': 'builds a release, twice: test/package/release.test.ts',
    'git tag': 'publishes',
    'REGISTRY=': 'publishes: test/docker/plugin.test.ts pushes to a registry of its own',
    'npm login': 'publishes',
  },
  'reliability.md': {
    '# What lost its interface': 'needs jq, and a parent that went: test/netns/lost-parents.test.ts',
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

/** With this a reason begins where another test follows the page. */
const ELSEWHERE = 'run in ';

function reasonsOf(page: string): ReadonlyMap<string, string> {
  let last = '';
  const rows = Object.entries(NOT_HERE[page] ?? {});
  return new Map(rows.map(([beginning, reason]) => [beginning, (last = reason === 'the same' ? last : reason)]));
}

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

describe('README and the pages for users, engine 28.5.2', {
  skip: outsideLab() || withoutDhcp(),
  timeout: 400_000,
}, () => {
  let site: Site;
  let machine: Machine;
  let engine: Engine;
  const total = { ran: 0, elsewhere: 0, left: 0 };

  before(async () => {
    site = await Site.open({ version: '28.5.2', hosts: ['server'], links: ['eth0'], addresses: ['192.168.1.1/24'] });
    machine = site.machines[0] as Machine;
    engine = machine.engine;
    await machine.host.namespace.ip('address add 192.168.1.10/24 dev eth0');
    await machine.host.namespace.ip('route add default via 192.168.1.1');
    await DhcpServer.plug(site.lan, 'router', 'dnsmasq', {
      address: '192.168.1.2/24',
      router: '192.168.1.1',
      range: ['192.168.1.100', '192.168.1.199'],
      leaseSeconds: 3600,
    });
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
    console.log(
      `note: all pages: ${total.ran} commands run here, ${total.elsewhere} by other tests, ${total.left} not`,
    );
    await site.close();
  });

  for (const page of PAGES) {
    test(`${page}: its commands run, and print what it shows`, async () => {
      const reasons = reasonsOf(page);
      const unused = new Set(reasons.keys());
      const count = { ran: 0, elsewhere: 0, left: 0 };
      let printed = '';
      let brings = false;
      await clearEngine(engine);
      if (AFTER_THE_FIRST_STEPS.has(page)) await takeFirstSteps();
      for (const block of blocksOf(page)) {
        if (block.kind === 'yaml') brings = write(block) || brings;
        if (block.kind === 'text' && printed !== '') assert.ok(isSeen(block, printed), `${block.text}\n${printed}`);
        if (block.kind !== 'sh') continue;
        const [beginning, reason = ''] = [...reasons].find(([words]) => block.text.startsWith(words)) ?? [];
        if (beginning !== undefined) {
          printed = '';
          unused.delete(beginning);
          count[reason.startsWith(ELSEWHERE) ? 'elsewhere' : 'left'] += commandsOf(block).length;
          continue;
        }
        // Who reads a recipe has not followed the one before.
        if (brings || /^docker network create/m.test(block.text)) await clearEngine(engine);
        brings = false;
        printed = await typed(block.text);
        count.ran += commandsOf(block).length;
      }
      assert.deepEqual([...unused], [], 'reasons for what is not on the page');
      const why = [...new Set(reasons.values())].map((reason) => `; ${reason}`).join('');
      console.log(`note: ${page}: ${count.ran} run here, ${count.elsewhere} by other tests, ${count.left} not${why}`);
      for (const kind of ['ran', 'elsewhere', 'left'] as const) total[kind] += count[kind];
    });
  }

  async function takeFirstSteps(): Promise<void> {
    const steps = blocksOf('getting-started.md').filter(({ text }) => /^docker (network create|run) /.test(text));
    for (const { text } of steps) await typed(text);
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
