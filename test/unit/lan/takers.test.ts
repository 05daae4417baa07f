import assert from 'node:assert/strict';
import { beforeEach, describe, test } from 'node:test';
import { type Address, formatAddress, parseInterfaceAddress } from '../../../src/address.ts';
import { DuplicateMacs } from '../../../src/lan/duplicatemac.ts';
import type { Owner, OwnerQuestion } from '../../../src/lan/ownhost.ts';
import { conflictReports } from '../../../src/lan/report.ts';
import type { Fields } from '../../../src/log.ts';
import { type AddressUse, type ConflictSeen, type MonitoredEndpoint, Takers } from '../../../src/lan/takers.ts';
import type { InterfaceAddress } from '../../../src/model.ts';

const CONTAINER = '02:42:0a:09:00:05';
const SQUATTER = '3c:22:fb:10:aa:01';
const [IPV4, IPV6] = ['10.9.0.5/24', 'fd00::5/64'].map((text) => parseInterfaceAddress(text)) as [
  InterfaceAddress,
  InterfaceAddress,
];

/** The n-th MAC address of a flood. */
const mac = (number: number) =>
  `3c:22:fb:11:${(number >> 8).toString(16).padStart(2, '0')}:${(number & 255).toString(16).padStart(2, '0')}`;

/** What the log says of it. */
function lineOf(conflict: ConflictSeen): [string, Fields | undefined] | null {
  const lines: [string, Fields | undefined][] = [];
  const say = (message: string, fields?: Fields) => void lines.push([message, fields]);
  const nothing = async () => undefined;
  const log = { debug: say, info: say, warn: say, error: say };
  conflictReports({ log, record: nothing, ended: nothing }).onConflict(conflict);
  return lines[0] ?? null;
}

describe('who takes an address of a container', { timeout: 20_000 }, () => {
  let nowMs: number;
  let seen: ConflictSeen[];
  let defended: string[];
  let told: string[];
  let asked: OwnerQuestion[];
  let judged: string[];
  /** By MAC address; a stranger who is no router when it is left out. */
  let owners: Map<string, Owner>;
  let routers: Set<string>;
  let readingMs: number;
  let watched: Set<MonitoredEndpoint>;
  let takers: Takers;
  let excused: string[];
  let web: MonitoredEndpoint;

  beforeEach(() => {
    nowMs = 0;
    [seen, defended, told, asked, judged, excused] = [[], [], [], [], [], []];
    [owners, routers, readingMs] = [new Map<string, Owner>(), new Set<string>(), 0];
    web = {
      parentName: 'par',
      macAddress: CONTAINER,
      addresses: [IPV4, IPV6],
      defend: (address: Address) => void defended.push(formatAddress(address)),
      tellTwin: (address: Address) => void told.push(formatAddress(address)),
      answersForAll: async (_address, macAddress) => {
        judged.push(macAddress);
        return routers.has(macAddress);
      },
      ask: async () => true,
    };
    watched = new Set([web]);
    takers = new Takers({
      owners: async (questions) => {
        asked.push(...questions);
        nowMs += readingMs;
        return questions.map(({ macAddress }) => owners.get(macAddress) ?? { kind: 'stranger' });
      },
      isWatched: (endpoint) => watched.has(endpoint),
      isEndpoint: (macAddress) => macAddress === '02:42:0a:09:00:06',
      hasLeft: (macAddress) => macAddress === '02:42:0a:09:00:07',
      onConflict: (conflict) => seen.push(conflict),
      onExcused: ({ address }) => excused.push(formatAddress(address)),
      clock: { nowMs: () => nowMs },
    });
  });

  async function hear(macAddress: string, use: Partial<AddressUse> = {}): Promise<void> {
    takers.note({ endpoint: web, parentIndex: 2, address: IPV4, macAddress, isAnswer: false, origin: 'wire', ...use });
    await takers.settle();
  }

  const reports = () => seen.splice(0).map(({ macAddress, count, news }) => [macAddress, count, news]);

  test('it is told at once, then every ten seconds with what was counted, and is news again after ten minutes', async () => {
    await hear(SQUATTER);
    assert.deepEqual(seen, [
      {
        kind: 'address',
        parentName: 'par',
        address: IPV4,
        macAddress: SQUATTER,
        ourMacAddress: CONTAINER,
        hostLinkName: null,
        count: 1,
        news: 'new',
      },
    ]);
    seen.length = 0;
    for (nowMs = 1000; nowMs < 10_000; nowMs += 1000) await hear(SQUATTER);
    assert.deepEqual(seen, []);
    nowMs = 10_000;
    await hear(SQUATTER);
    assert.deepEqual(reports(), [[SQUATTER, 10, null]]);
    nowMs += 600_001;
    takers.expire();
    assert.ok(!takers.isContested('par', IPV4));
    await hear(SQUATTER);
    assert.deepEqual(reports(), [[SQUATTER, 1, 'new']]);
    assert.ok(takers.isContested('par', IPV4));
    assert.ok(!takers.isContested('par', IPV6));
  });

  test('256 MAC addresses come first, then one that stays: it is told, and every frame is counted', async () => {
    for (let number = 0; number < 256; number++) await hear(mac(number));
    assert.deepEqual(reports().length, 8);
    await hear(SQUATTER);
    assert.deepEqual(seen, []);
    nowMs = 10_000;
    await takers.settle();
    const later = reports();
    assert.ok(later.some(([macAddress]) => macAddress === SQUATTER));
    assert.equal(
      later.reduce((sum, [, count]) => sum + Number(count), 0),
      257 - 8,
    );
  });

  test('a flood at one address keeps nothing back at another', async () => {
    for (let number = 0; number < 1000; number++) await hear(mac(number));
    seen.length = 0;
    await hear(SQUATTER, { address: IPV6 });
    assert.deepEqual(reports(), [[SQUATTER, 1, 'new']]);
  });

  test('an hour of a flood makes few reports and fewer lines in the log', async () => {
    for (let number = 0; nowMs < 3_600_000; nowMs += 250) {
      takers.expire();
      for (let count = 0; count < 5; count++) await hear(mac(number++ % 65_536));
    }
    assert.ok(seen.length <= 8 * 361, `${seen.length} reports`);
    const lines = seen.filter((conflict) => lineOf(conflict) !== null);
    assert.ok(lines.length <= 7 * 9, `${lines.length} lines`);
    assert.match(String(lineOf({ ...(seen[0] as ConflictSeen), news: 'many' })?.[0]), /too many MAC addresses/);
  });

  test('four hundred MAC addresses in two seconds are answered by one defence (RFC 5227 2.4)', async () => {
    for (let number = 0; number < 400; number++) {
      nowMs += 5;
      await hear(mac(number));
    }
    assert.deepEqual(defended, ['10.9.0.5']);
    nowMs = 10_010;
    await hear(SQUATTER);
    await hear(SQUATTER, { address: IPV6 });
    assert.deepEqual(defended, ['10.9.0.5', '10.9.0.5', 'fd00::5']);
  });

  test("the container's own MAC address from another host is told, and not defended", async () => {
    await hear(CONTAINER);
    assert.deepEqual(reports(), [[CONTAINER, 1, 'new']]);
    assert.deepEqual(defended, []);
  });

  for (const macAddress of [SQUATTER, CONTAINER])
    test(`for a container that is gone without a word nobody speaks up, and nothing is told of ${macAddress}`, async () => {
      owners.set(macAddress, { kind: 'vacant' });
      await hear(macAddress);
      assert.deepEqual([reports(), defended, told], [[], [], []]);
      // It was in between two namespaces, say.
      owners.delete(macAddress);
      await hear(macAddress);
      assert.deepEqual(reports(), [[macAddress, 1, 'new']]);
    });

  test('who is heard just before a container gets its interface is told then, and no sooner', async () => {
    owners.set(SQUATTER, { kind: 'apart' });
    await hear(SQUATTER);
    await takers.settle();
    assert.deepEqual([reports(), defended, told], [[], [], []]);
    owners.delete(SQUATTER);
    nowMs = 2900;
    await takers.settle();
    assert.deepEqual(reports(), [[SQUATTER, 1, 'new']]);
  });

  test('who was heard long before that may have left by then', async () => {
    owners.set(SQUATTER, { kind: 'apart' });
    await hear(SQUATTER);
    nowMs = 3000;
    await takers.settle();
    owners.delete(SQUATTER);
    await takers.settle();
    assert.deepEqual([reports(), takers.isContested('par', IPV4)], [[], false]);
  });

  test('the other host with that MAC address is told once in ten seconds', async () => {
    // That somebody else is defended against has no part in it.
    await hear(SQUATTER);
    for (const atMs of [0, 2000, 11_000]) {
      nowMs = atMs;
      await hear(CONTAINER);
    }
    assert.deepEqual(told, ['10.9.0.5', '10.9.0.5']);
  });

  for (const [what, owner, use, isConflict] of [
    ['another interface of the same container', { kind: 'container' }, {}, false],
    ['the daemon, which defends the address', { kind: 'daemon' }, { origin: 'here' }, false],
    ['the daemon, which answers a sibling', { kind: 'daemon' }, { origin: 'segment' }, false],
    ["somebody who forges the daemon's MAC address", { kind: 'daemon' }, { origin: 'wire' }, true],
    ['the host, which has the address too', { kind: 'host', linkName: 'eth0' }, { origin: 'here' }, true],
    [
      'the daemon, whose link is gone',
      { kind: 'stranger' },
      { origin: 'here', macAddress: '02:74:73:00:00:01' },
      false,
    ],
    ['the daemon of another host', { kind: 'stranger' }, { origin: 'segment', macAddress: '02:74:73:00:00:01' }, true],
    ['one with the MAC address of standby notices', { kind: 'stranger' }, { macAddress: '02:74:6b:00:00:01' }, true],
    ['a sibling', { kind: 'stranger' }, { origin: 'here', macAddress: '02:42:0a:09:00:06' }, true],
    [
      'an interface of the container that has just gone',
      { kind: 'stranger' },
      { macAddress: '02:42:0a:09:00:07' },
      false,
    ],
    ['a sibling, while the kernel cannot be asked', { kind: 'unknown' }, { macAddress: '02:42:0a:09:00:06' }, false],
    ['a stranger, while the kernel cannot be asked', { kind: 'unknown' }, {}, true],
  ] satisfies [string, Owner, Partial<AddressUse>, boolean][]) {
    test(`${what} is ${isConflict ? 'a' : 'no'} conflict`, async () => {
      const { macAddress = SQUATTER } = use as Partial<AddressUse>;
      owners.set(macAddress, owner);
      await hear(macAddress, use);
      assert.deepEqual(
        seen.map((conflict) => [conflict.macAddress, conflict.hostLinkName]),
        isConflict ? [[macAddress, owner.kind === 'host' ? owner.linkName : null]] : [],
      );
      assert.equal(takers.isContested('par', IPV4), isConflict);
    });
  }

  test('what was reported and is excused later may be over: a link of this host that lost the address', async () => {
    owners.set(SQUATTER, { kind: 'host', linkName: 'eth0' });
    await hear(SQUATTER, { origin: 'here' });
    await hear(SQUATTER, { origin: 'here' });
    owners.set(SQUATTER, { kind: 'daemon' });
    assert.deepEqual(excused, []);
    nowMs = 10_000;
    await takers.settle();
    assert.deepEqual([excused, takers.lasting()], [['10.9.0.5'], []]);
    nowMs = 30_000;
    await hear(SQUATTER, { origin: 'here' });
    assert.deepEqual(excused, ['10.9.0.5'], 'who was not reported ends nothing');
  });

  test('the kernel is asked about each MAC address at most once in ten seconds', async () => {
    owners.set(SQUATTER, { kind: 'container' });
    for (nowMs = 0; nowMs < 10_000; nowMs += 250) for (const address of [IPV4, IPV6]) await hear(SQUATTER, { address });
    assert.equal(asked.length, 2);
    owners.clear();
    await hear(SQUATTER);
    assert.deepEqual(reports(), [[SQUATTER, 1, 'new']]);
  });

  test('readings of the kernel take at most a twentieth of the time, and nothing is forgotten meanwhile', async () => {
    readingMs = 50;
    for (let number = 0; nowMs < 60_000; nowMs += 250) await hear(mac(number++), { origin: 'segment' });
    const readings = asked.length;
    assert.ok(readings < (60_000 / (50 * 20)) * 8 + 8, `${readings} questions`);
    nowMs += 10_000;
    await takers.settle();
    await hear(SQUATTER);
    nowMs += 10_000;
    await takers.settle();
    assert.ok(seen.some(({ macAddress }) => macAddress === SQUATTER));
  });

  test('an answer of a router that answers for all is none, what it says unasked is', async () => {
    routers.add(SQUATTER);
    for (let count = 0; count < 20; count++) await hear(SQUATTER, { isAnswer: true });
    assert.deepEqual([seen, judged], [[], [SQUATTER]]);
    assert.ok(!takers.isContested('par', IPV4));
    await hear(SQUATTER);
    assert.deepEqual(reports(), [[SQUATTER, 1, 'new']]);
  });

  test('an answer that cannot be judged counts', async () => {
    web = { ...web, answersForAll: () => Promise.reject(new Error('the parent is down')) };
    watched.add(web);
    await hear(SQUATTER, { isAnswer: true });
    assert.deepEqual(reports(), [[SQUATTER, 1, 'new']]);
  });

  test('a router is judged anew, so that a forged answer blinds the watch for seconds at most', async () => {
    routers.add(SQUATTER);
    await hear(SQUATTER, { isAnswer: true });
    routers.clear();
    nowMs = 10_000;
    await hear(SQUATTER, { isAnswer: true });
    assert.deepEqual(reports(), [[SQUATTER, 1, 'new']]);
  });

  test('of an endpoint that is gone nothing is told, although it was just being found out', async () => {
    const settling = hear(SQUATTER);
    watched.clear();
    await settling;
    assert.deepEqual(seen, []);
  });

  test('what is forgotten while it is found out who speaks is told no more', async () => {
    const settling = hear(SQUATTER);
    takers.forget('par', IPV4);
    await settling;
    assert.deepEqual(seen, []);
    await hear(SQUATTER);
    assert.deepEqual(reports(), [[SQUATTER, 1, 'new']]);
  });

  test('what was forgotten is news again', async () => {
    await hear(SQUATTER);
    await hear(SQUATTER, { address: IPV6 });
    takers.forget('par', IPV4);
    assert.deepEqual([takers.isContested('par', IPV4), takers.isContested('par', IPV6)], [false, true]);
    await hear(SQUATTER);
    assert.deepEqual(
      seen.map(({ news }) => news),
      ['new', 'new', 'new'],
    );
  });

  test('another host with the MAC address of a container is told at once, then every ten seconds', () => {
    const duplicates = new DuplicateMacs({ nowMs: () => nowMs, after: () => () => undefined }, (one) => seen.push(one));
    for (; nowMs <= 20_000; nowMs += 500) duplicates.note(web, IPV6);
    assert.deepEqual(
      seen.map(({ kind, count, news }) => [kind, count, news]),
      [
        ['mac', 1, 'new'],
        ['mac', 20, null],
        ['mac', 20, null],
      ],
    );
    const line = lineOf(seen[0] as ConflictSeen);
    assert.deepEqual(line, [
      'another host uses the MAC address of a running container',
      { container: CONTAINER, parent: 'par', with: 'fd00::5' },
    ]);
    nowMs += 600_001;
    duplicates.note(web, IPV4);
    assert.equal(seen.at(-1)?.news, 'new');
  });
});
