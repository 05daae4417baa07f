/**
 * What the kernel's events leave of links and addresses is, after each change, what a reading at that moment finds: in this
 * namespace and in those that have a number here. The changes are made by `ip`, so each is done when the look begins.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Links, type Link, type LinkAddress } from '../../src/kernel/link.ts';
import { type NamespaceContents, Namespaces } from '../../src/kernel/namespaces.ts';
import { outputSync } from '../lab/command.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { LinkFlood } from '../lab/linkflood.ts';
import { until } from '../lab/patience.ts';

const timeout = 120_000;
const ROUNDS = 1000;
const NAMESPACES = ['ns0', 'ns1', 'ns2', 'ns3'];

const run = (words: string) => outputSync(['ip', ...words.split(' ')]);

describe('the table of links', { skip: outsideLab(), timeout: 500_000 }, () => {
  let links: Links;
  let fresh: Namespaces;
  /** What was asked of the kernel since it was emptied last; its events left out. */
  const asked: string[] = [];

  before(async () => {
    links = Links.open((line) => {
      if (!line.startsWith('event')) asked.push(line);
    });
    fresh = new Namespaces(null);
    run('link add wire0 type veth peer name far0');
    for (const name of ['wire0', 'far0']) run(`link set ${name} up`);
    await links.table.update();
  });

  after(() => {
    links.close();
    fresh.close();
  });

  test('is what a reading finds, after each of many changes at random', { timeout }, async (t) => {
    const changes = new Changes(Number(process.env['SEED'] ?? Date.now() % 1_000_000));
    t.diagnostic(`seed ${changes.seed}`);
    for (let round = 0; round < ROUNDS; round++) {
      const done = changes.next();
      await links.table.update();
      await checkAgainstReading(links, fresh, `round ${round}: ${done.join('; ')}`);
    }
    changes.clear();
    await until(async () => {
      await links.table.update();
      return (await links.table.linksElsewhere(() => true))?.length === 0;
    });
  });

  test('asks the kernel for nothing but what is new to it', { timeout }, async () => {
    run('netns add quiet');
    run('link add mv0 link wire0 type macvlan mode bridge');
    run('link set mv0 netns quiet');
    await links.table.update();
    asked.length = 0;
    run('-n quiet link set mv0 up');
    run('-n quiet address add 10.4.0.1/24 dev mv0');
    run('address add 10.4.0.2/24 dev wire0');
    await links.table.update();
    const places = ['10.4.0.1', '10.4.0.2'].map((address) => links.table.placesOf(address));
    // A namespace of the test before this one may lose its number late.
    const isOfEnded = (line: string) => line.includes('EINVAL');
    assert.deepEqual(
      asked.filter((line) => !isOfEnded(line)),
      [],
    );
    assert.deepEqual(
      places.map((found) => found.map(({ namespaceId }) => namespaceId === null)),
      [[false], [true]],
    );
    run('netns delete quiet');
    run('address delete 10.4.0.2/24 dev wire0');
  });

  test('finds an IPv6 address on a sub-interface that was set without detection of duplicates', {
    timeout,
  }, async () => {
    run('netns add six');
    run('link add mv0 link wire0 type macvlan mode private');
    run('link set mv0 netns six');
    run('-n six link set mv0 up');
    const parent = await links.byName('wire0');
    // The kernel tells of the address some time after it is there.
    for (let count = 1; count <= 100; count++) {
      const address = `fd00:6::${count.toString(16)}`;
      run(`-n six address add ${address}/64 dev mv0 nodad`);
      const found = await links.table.subInterfacesElsewhere(parent?.index ?? 0, address);
      assert.deepEqual(
        found.map(({ name }) => name),
        ['mv0'],
        address,
      );
    }
    run('netns delete six');
  });

  test('is complete for all who ask while it is read for the first time', { timeout }, async () => {
    run('netns add early');
    run('link add mv0 link wire0 type macvlan mode bridge');
    run('link set mv0 netns early');
    run('-n early address add 10.6.0.1/24 dev mv0');
    const other = Links.open();
    const look = async () => {
      await other.table.update();
      return other.table.placesOf('10.6.0.1').length;
    };
    const first = look();
    const later = Array.from({ length: 20 }, async (_, turns) => {
      for (let turn = 0; turn < turns; turn++) await other.byIndex(1);
      return look();
    });
    assert.deepEqual([...new Set(await Promise.all([first, ...later]))], [1]);
    other.close();
    run('netns delete early');
  });

  test('has an address with two peers until both are gone', { timeout }, async () => {
    for (const peer of ['10.8.0.2', '10.8.0.3']) run(`address add 10.8.0.1 peer ${peer}/32 dev wire0`);
    for (const [peer, left] of [
      ['10.8.0.2', 1],
      ['10.8.0.3', 0],
    ] as const) {
      await links.table.update();
      run(`address delete 10.8.0.1 peer ${peer}/32 dev wire0`);
      await links.table.update();
      assert.equal(links.table.placesOf('10.8.0.1').length, left);
    }
  });

  test('is right also where nothing is told of other namespaces, without CAP_NET_BROADCAST', { timeout }, async () => {
    run('netns add weak');
    run('link add mv0 link wire0 type macvlan mode bridge');
    run('link set mv0 netns weak');
    const code = `
      import { execFileSync } from 'node:child_process';
      import { Links } from ${JSON.stringify(import.meta.resolve('../../src/kernel/link.ts'))};
      const { table } = Links.open();
      await table.update();
      execFileSync('ip', '-n weak address add 10.7.0.1/24 dev mv0'.split(' '));
      execFileSync('ip', 'address add 10.7.0.2/24 dev wire0'.split(' '));
      await table.update();
      console.log(table.placesOf('10.7.0.1').length, table.placesOf('10.7.0.2').length);`;
    const without = ['--bounding-set', '-net_broadcast', '--inh-caps', '-net_broadcast'];
    const program = [...without, process.execPath, '--input-type=module', '-e', code];
    assert.equal(execFileSync('setpriv', program, { encoding: 'utf8' }), '1 1\n');
    run('address delete 10.7.0.2/24 dev wire0');
    run('netns delete weak');
  });

  test('has the alternative names that a link gets and loses, also while it is down', { timeout }, async () => {
    const steps = [
      'link add alt0 type bridge',
      'link add alt1 type bridge',
      'link property add dev alt0 altname uplink',
      'link set alt0 up',
      'link property add dev alt0 altname the-uplink-of-this-machine',
      'link property del dev alt0 altname the-uplink-of-this-machine',
      'link set alt0 down',
      'link property del dev alt0 altname uplink',
      'link property add dev alt1 altname uplink',
      'link set alt1 up',
      'link set alt1 down',
      'link property del dev alt1 altname uplink',
      'link set alt1 up',
      'link delete alt0',
      'link delete alt1',
    ];
    for (const step of steps) {
      run(step);
      for (const name of ['uplink', 'the-uplink-of-this-machine']) {
        const [known, asked] = [await links.known(name), await links.byName(name)];
        assert.equal(known?.name, asked?.name, `${name} after ${step}`);
        if (asked?.isUp) assert.equal(links.table.byName(name)?.name, asked.name, `${name} in the table after ${step}`);
      }
    }
  });

  test('a container that changes its links without end is read seldom, and keeps nobody waiting', {
    timeout,
  }, async (t) => {
    for (const name of ['flood', 'calm']) {
      run(`netns add ${name}`);
      run('link add mv0 link wire0 type macvlan mode bridge');
      run(`link set mv0 netns ${name}`);
      run(`-n ${name} link set mv0 up`);
    }
    await links.table.update();
    const [{ ifindex = 0 } = {}] = JSON.parse(run('-n flood -j link show dev mv0')) as { ifindex?: number }[];
    const flood = new LinkFlood('flood', ifindex);
    t.after(() => flood.end());
    await sleep(500);

    // Nobody wants to know anything.
    asked.length = 0;
    const began = performance.eventLoopUtilization();
    await sleep(2000);
    const { utilization } = performance.eventLoopUtilization(began);
    const readings = asked.filter((line) => line.startsWith('getlink') && line.includes('dump')).length;
    t.diagnostic(`${readings} readings of a namespace, event loop ${Math.round(100 * utilization)} % busy`);
    // Of each namespace one when the flood begins and one after each rest.
    assert.ok(readings <= 10, `${readings} readings`);
    assert.ok(utilization < 0.5, `the event loop was busy for ${utilization} of the time`);

    let [longestMs, longestUpdateMs] = [0, 0];
    for (let count = 1; count <= 20; count++) {
      run(`-n calm address add 10.11.0.${count}/24 dev mv0`);
      const beganMs = performance.now();
      await links.byIndex(1);
      const answeredMs = performance.now();
      await links.table.update();
      const updatedMs = performance.now();
      assert.equal(links.table.placesOf(`10.11.0.${count}`).length, 1);
      longestMs = Math.max(longestMs, answeredMs - beganMs);
      longestUpdateMs = Math.max(longestUpdateMs, updatedMs - answeredMs);
    }
    t.diagnostic(
      `an answer of the kernel within ${Math.round(longestMs)} ms, the table within ${Math.round(longestUpdateMs)} ms`,
    );
    assert.ok(longestMs < 1000 && longestUpdateMs < 3000, `${longestMs} and ${longestUpdateMs} ms`);
    assert.ok(await flood.end(), 'the flood went on until here');

    // When it is over, all is heard again.
    await until(() => links.table.isCurrent());
    await checkAgainstReading(links, fresh, 'after the flood');
    for (const name of ['flood', 'calm']) run(`netns delete ${name}`);
  });

  test('is read anew when events were lost', { timeout }, async () => {
    run('netns add storm');
    run('link add mv0 link wire0 type macvlan mode bridge');
    run('link set mv0 netns storm');
    await links.table.update();
    // Each change of an alias tells all about the link: more than the socket holds, while nobody reads.
    const batch = Array.from({ length: 30_000 }, (_, count) => `link set mv0 alias a${count}`);
    const input = [...batch, 'address add 10.5.0.1/24 dev mv0'].join('\n');
    execFileSync('ip', ['-n', 'storm', '-batch', '-'], { input });
    await links.table.update();
    await checkAgainstReading(links, fresh, 'after the storm');
    assert.equal(links.table.placesOf('10.5.0.1').length, 1);
    run('netns delete storm');
  });
});

/** Changes of links, addresses and namespaces, in an order that a seed makes. */
class Changes {
  readonly seed: number;
  #state: number;
  readonly #places: (string | null)[] = [null];
  readonly #links = new Map<string, string | null>();
  #count = 0;

  constructor(seed: number) {
    this.seed = seed;
    this.#state = seed;
  }

  /** Makes one; what was done, in ip's words. */
  next(): string[] {
    const kinds = [
      'add',
      'add',
      'move',
      'move',
      'address',
      'address',
      'up',
      'alias',
      'mac',
      'rename',
      'delete',
      'space',
    ];
    const done: string[] = [];
    while (done.length === 0) this.#make(this.#pick(kinds), done);
    return done;
  }

  clear(): void {
    for (const [name, place] of this.#links) if (place === null) run(`link delete ${name}`);
    for (const place of this.#places) if (place !== null) run(`netns delete ${place}`);
  }

  #make(kind: string, done: string[]): void {
    const act = (words: string) => {
      run(words);
      done.push(words);
    };
    if (kind === 'space') return this.#changeSpaces(act);
    if (kind === 'add') return this.#add(act);
    const [name, place] = this.#pick([...this.#links]) ?? [];
    if (name === undefined || place === undefined) return;
    const there = place === null ? '' : `-n ${place} `;
    switch (kind) {
      case 'move': {
        const to = this.#pick(this.#places);
        if (to === place) return;
        act(`${there}link set ${name} netns ${to ?? 1}`);
        return void this.#links.set(name, to);
      }
      case 'address': {
        const address = `10.${this.#random(3)}.${this.#random(3)}.1/${this.#random(2) === 0 ? 24 : 16}`;
        return this.#either(act, [`${there}address add`, `${there}address delete`], `${address} dev ${name}`);
      }
      case 'up':
        return act(`${there}link set ${name} ${this.#random(2) === 0 ? 'up' : 'down'}`);
      case 'alias':
        return act(`${there}link set ${name} alias word${this.#random(9)}`);
      case 'mac':
        return act(`${there}link set ${name} address 02:00:00:00:0${this.#random(9)}:${10 + (this.#count++ % 80)}`);
      case 'rename': {
        const next = `n${this.#count++}`;
        this.#either(act, [`${there}link set ${name} name ${next}`], '');
        if (done.length === 0) return;
        this.#links.delete(name);
        return void this.#links.set(next, place);
      }
      case 'delete':
        act(`${there}link delete ${name}`);
        this.#links.delete(name);
    }
  }

  /** The first that is not refused. */
  #either(act: (words: string) => void, verbs: readonly string[], words: string): void {
    for (const verb of verbs)
      try {
        return act(`${verb} ${words}`.trim());
      } catch {
        // A link that is up keeps its name, and an address is there once.
      }
  }

  #changeSpaces(act: (words: string) => void): void {
    const free = NAMESPACES.filter((name) => !this.#places.includes(name));
    const name = this.#pick(NAMESPACES);
    if (free.includes(name)) {
      act(`netns add ${name}`);
      this.#places.push(name);
    } else if (this.#random(3) === 0) {
      act(`netns delete ${name}`);
      this.#places.splice(this.#places.indexOf(name), 1);
      for (const [link, place] of this.#links) if (place === name) this.#links.delete(link);
    }
  }

  #add(act: (words: string) => void): void {
    if (this.#links.size >= 12) return;
    const name = `n${this.#count++}`;
    act(`link add ${name} link wire0 type macvlan mode ${this.#pick(['bridge', 'private'])}`);
    this.#links.set(name, null);
  }

  #pick<T>(values: readonly T[]): T {
    return values[this.#random(values.length)] as T;
  }

  /** 0 to `limit` - 1 (mulberry32). */
  #random(limit: number): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % limit;
  }
}

async function checkAgainstReading({ table }: Links, fresh: Namespaces, when: string): Promise<void> {
  const ownId = await fresh.ownId();
  for (const id of await fresh.ids()) {
    const contents = await fresh.contents(id);
    // One that ends has its number still.
    if (contents === null) continue;
    const known = table.contentsOf(id === ownId ? null : id);
    assert.deepEqual(known && shown(known), shown(contents), `${when}, namespace ${id === ownId ? 'here' : id}`);
  }
}

/** What events tell at once: of a link that is down no new alias. */
function shown({ links, addresses }: Pick<NamespaceContents, 'links' | 'addresses'>): string[] {
  const words = (link: Link) =>
    [link.index, link.name, link.macAddress, link.isUp ? link.alias : '', link.kind, link.parentIndex, link.isUp].join(
      ' ',
    );
  const isTold = ({ address }: LinkAddress) => !address.startsWith('fe80:');
  const places = addresses.filter(isTold).map((one) => `${one.linkIndex} ${one.address}/${one.prefixLength}`);
  return [...links.map(words), ...places].sort();
}
