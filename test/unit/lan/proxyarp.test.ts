import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Address, contains, formatAddress, parseAddress, parsePrefix, type Prefix } from '../../../src/address.ts';
import { type ArpPacket, arpAnnouncement, arpProbe, arpReply } from '../../../src/lan/frames/arp.ts';
import { BROADCAST_MAC } from '../../../src/lan/frames/ethernet.ts';
import { type NeighborSolicitation, ndDefence } from '../../../src/lan/frames/nd.ts';
import { type Packet, decodePacket, readSighting } from '../../../src/lan/frames/sighting.ts';
import { ProxyJudge } from '../../../src/lan/proxyarp.ts';
import { World } from './imagined.ts';

const options = { timeout: 60_000 };

const OUR_MAC = '02:74:73:00:00:80';
const ROUTER = '3c:22:fb:10:aa:01';
const IPV4 = ip('10.66.0.5');
const IPV6 = ip('fd00::5');

function ip(text: string): Address {
  const parsed = parseAddress(text);
  assert.ok(parsed);
  return parsed;
}

function prefix(text: string): Prefix {
  const parsed = parsePrefix(text);
  assert.ok(parsed);
  return parsed;
}

/** A judge on an imagined LAN, on which whoever is asked answers as the test says. */
class Trial {
  readonly world = new World();
  readonly judge: ProxyJudge;
  readonly asked: Packet[] = [];
  readonly listening: string[] = [];
  readonly proxies: string[] = [];
  /** What is heard when a question goes out, and how many milliseconds later. */
  react: (question: Packet) => Packet[] = () => [];
  afterMs = 1;
  turn: (frames: number) => number = () => 0;
  givenBack = 0;
  #seed: number;

  constructor(seed = 1) {
    this.#seed = seed;
    this.judge = new ProxyJudge({
      macAddress: OUR_MAC,
      clock: { nowMs: () => this.world.nowMs, after: (delayMs, run) => this.world.at(this.world.nowMs + delayMs, run) },
      random: () => this.#random(),
      send: (frame) => this.#send(frame),
      turn: (frames) => this.turn(frames),
      giveBack: (frames) => {
        this.givenBack += frames;
      },
      listen: (addresses) => this.listening.push(...addresses.map(formatAddress)),
      ignore: (addresses) =>
        addresses.forEach((one) => this.listening.splice(this.listening.indexOf(formatAddress(one)), 1)),
      onProxy: (mac) => this.proxies.push(mac),
    });
  }

  hear(packet: Packet): void {
    const sighting = readSighting(packet);
    assert.ok(sighting);
    this.judge.hear(sighting);
  }

  /** The judgement and how long it took. */
  async verdict(address = IPV4, subnet = prefix('10.66.0.0/24'), macAddress = ROUTER): Promise<[boolean, number]> {
    const beginMs = this.world.nowMs;
    let endMs = beginMs;
    const asked = this.judge.answersForAll({ macAddress, address, subnet }).then((isProxy) => {
      endMs = this.world.nowMs;
      return isProxy;
    });
    for (let step = 0; step < 200; step++) {
      this.world.run(this.world.nowMs + 1);
      await Promise.resolve();
    }
    return [await asked, endMs - beginMs];
  }

  #send(frame: Buffer): void {
    const question = decodePacket(frame);
    assert.ok(question);
    this.asked.push(question);
    for (const packet of this.react(question)) this.world.at(this.world.nowMs + this.afterMs, () => this.hear(packet));
  }

  /** Mulberry32, whose low bits are as good as its high ones. */
  #random(): number {
    this.#seed = (this.#seed + 0x6d2b79f5) | 0;
    let bits = Math.imul(this.#seed ^ (this.#seed >>> 15), this.#seed | 1);
    bits ^= bits + Math.imul(bits ^ (bits >>> 7), bits | 61);
    return ((bits ^ (bits >>> 14)) >>> 0) / 2 ** 32;
  }
}

const targetOf = (question: Packet) => (question.protocol === 'ARP' ? question.targetAddress : question.target);
const answerTo = (question: Packet, mac = ROUTER) =>
  question.protocol === 'ARP' ? arpReply(question, mac) : ndDefence(targetOf(question), mac);

/** One that answers for these addresses. */
const host =
  (isIts: (address: Address) => boolean, mac = ROUTER) =>
  (question: Packet) =>
    question.destinationMac === mac && isIts(targetOf(question)) ? [answerTo(question, mac)] : [];

for (const [family, address, subnet] of [
  ['IPv4', IPV4, prefix('10.66.0.0/24')],
  ['IPv4 of four', ip('10.66.0.1'), prefix('10.66.0.0/30')],
  ['IPv6', IPV6, prefix('fd00::/64')],
] as const) {
  test(`a device that answers for every address does so for those nobody can have (${family})`, options, async () => {
    const trial = new Trial();
    trial.react = host(() => true);
    const [isProxy, tookMs] = await trial.verdict(address, subnet);
    assert.ok(isProxy && tookMs < 5, `${tookMs} ms`);
    assert.deepEqual(trial.proxies, [ROUTER]);
    assert.deepEqual(trial.listening, []);
    assert.ok(trial.asked.every(({ destinationMac, sourceMac }) => destinationMac === ROUTER && sourceMac === OUR_MAC));
  });

  test(`one that answers for its own address only is soon known as a holder (${family})`, options, async () => {
    const trial = new Trial();
    trial.react = host((one) => one.value === address.value);
    const [isProxy, tookMs] = await trial.verdict(address, subnet);
    assert.ok(!isProxy && tookMs < 15, `${tookMs} ms`);
  });

  test(`one that says nothing more is a holder after 60 ms (${family})`, options, async () => {
    const trial = new Trial();
    const [isProxy, tookMs] = await trial.verdict(address, subnet);
    assert.deepEqual([isProxy, tookMs], [false, 60]);
  });
}

test(
  'a host that has most addresses of the subnet, and a router for what lies beyond, are no such devices',
  options,
  async () => {
    const many = new Trial();
    many.react = host(
      ({ value }) => contains(prefix('10.66.0.0/24'), { family: 'IPv4', value }) && (value & 0xffn) > 0n,
    );
    assert.equal((await many.verdict())[0], false);
    const router = new Trial();
    router.react = host(
      ({ value }) => value === IPV4.value || !contains(prefix('10.66.0.0/24'), { family: 'IPv4', value }),
    );
    assert.equal((await router.verdict())[0], false);
  },
);

test('a proxy for one subnet only is known by its other addresses', options, async () => {
  const trial = new Trial();
  trial.react = host((one) => contains(prefix('10.66.0.0/24'), one));
  assert.equal((await trial.verdict())[0], true);
});

test(
  "answers of others, to others, unasked ones and somebody else's word about a holder count nothing",
  options,
  async () => {
    const forged: ((question: ArpPacket) => Packet)[] = [
      (question) => answerTo(question, '3c:22:fb:10:aa:02'),
      (question) => ({ ...arpReply(question, ROUTER), destinationMac: BROADCAST_MAC }),
      (question) => arpReply(arpProbe(question.targetAddress, '3c:22:fb:10:aa:03'), ROUTER),
      (question) => arpAnnouncement(question.targetAddress, ROUTER),
    ];
    for (const forge of forged) {
      const trial = new Trial();
      trial.react = (question) => (question.protocol === 'ARP' ? [forge(question)] : []);
      assert.equal((await trial.verdict())[0], false);
    }
  },
);

test(
  'what is forged before the question, or for addresses that were not asked for, changes nothing',
  options,
  async () => {
    const trial = new Trial();
    const claims = (value: bigint) => arpReply(arpProbe({ family: 'IPv4', value }, OUR_MAC), ROUTER);
    for (let value = 0xc000_0200n; value < 0xc000_0300n; value++) trial.hear(claims(value));
    trial.hear(claims(ip('10.66.0.0').value));
    trial.afterMs = 0;
    // The network's address and all that may be asked for: as many frames as no honest device sends.
    trial.react = () =>
      ['10.66.0.0', '192.0.2.0', '198.51.100.0', '203.0.113.0'].flatMap((first) =>
        Array.from({ length: first === '10.66.0.0' ? 1 : 256 }, (_, host) => claims(ip(first).value + BigInt(host))),
      );
    assert.equal((await trial.verdict())[0], false);
  },
);

test('one that was just judged is not asked again for a while, one that answers for all soon', options, async () => {
  for (const [isProxy, memoryMs] of [
    [false, 5000],
    [true, 2000],
  ] as const) {
    const trial = new Trial();
    trial.react = isProxy ? host(() => true) : () => [];
    assert.equal((await trial.verdict())[0], isProxy);
    const questions = trial.asked.length;
    for (let held = 6n; held < 231n; held++)
      await trial.judge.answersForAll({
        macAddress: ROUTER,
        address: { family: 'IPv4', value: IPV4.value + held },
        subnet: prefix('10.66.0.0/24'),
      });
    assert.equal(trial.asked.length, questions);
    trial.world.run(trial.world.nowMs + memoryMs + 100);
    trial.react = () => [];
    assert.equal((await trial.verdict())[0], false);
    assert.equal(trial.asked.length, 2 * questions);
  }
});

test('many who ask about one at the same time ask once', options, async () => {
  const trial = new Trial();
  trial.react = host(() => true);
  const answer = { macAddress: ROUTER, address: IPV4, subnet: prefix('10.66.0.0/24') };
  const all = Promise.all(Array.from({ length: 100 }, () => trial.judge.answersForAll(answer)));
  assert.equal(trial.asked.length, 5);
  trial.world.run(100);
  assert.ok((await all).every(Boolean));
});

test('of 10,000 MAC addresses that answer a few are asked, and the rest are holders', options, async () => {
  const trial = new Trial();
  for (let count = 0; count < 10_000; count++) {
    const macAddress = `3c:22:fb:10:${(count >> 8).toString(16).padStart(2, '0')}:${(count & 255).toString(16).padStart(2, '0')}`;
    void trial.judge.answersForAll({ macAddress, address: IPV4, subnet: prefix('10.66.0.0/24') });
  }
  assert.equal(trial.asked.length, 40);
  trial.world.run(100);
  assert.ok(!trial.judge.isAsking);
  assert.deepEqual(trial.listening, []);
});

test('where frames are rationed the questions wait for their turn, and leave the others theirs', options, async () => {
  const trial = new Trial();
  trial.turn = () => 100;
  trial.react = host(() => true);
  const [isProxy, tookMs] = await trial.verdict();
  assert.ok(isProxy && tookMs >= 100 && tookMs < 110, `${tookMs} ms`);
  const asked = trial.asked.length;
  assert.equal((await trial.verdict(IPV4, prefix('10.66.0.0/24'), '3c:22:fb:10:aa:02'))[0], false);
  assert.equal(trial.asked.length, asked);

  const slow = new Trial();
  slow.turn = () => 1000;
  assert.equal((await slow.verdict())[0], false);
  assert.deepEqual(slow.asked, []);
  assert.equal(slow.givenBack, 5);
});

test('when it ends, what is being judged is no proxy', options, async () => {
  const trial = new Trial();
  const asked = trial.judge.answersForAll({ macAddress: ROUTER, address: IPV4, subnet: prefix('10.66.0.0/24') });
  trial.judge.close();
  assert.equal(await asked, false);
  assert.deepEqual(trial.listening, []);
});

test(
  'a subnet without an address that nobody can have has none, and whoever answers there is a holder',
  options,
  async () => {
    for (const [subnet, address] of [
      ['10.66.0.4/31', '10.66.0.5'],
      ['10.66.0.5/32', '10.66.0.5'],
      ['fd00::/97', 'fd00::5'],
    ] as const) {
      const trial = new Trial();
      trial.react = host(() => true);
      assert.equal((await trial.verdict(ip(address), prefix(subnet)))[0], false);
      assert.deepEqual(trial.asked, []);
    }
  },
);

test('asked for are the network address, up to three others and last the one in question; none twice', options, () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 2 ** 32 - 1 }),
      fc.integer({ min: 0, max: 30 }),
      fc.integer({ min: 1, max: 2 ** 31 - 1 }),
      (bits, length, seed) => {
        const address: Address = { family: 'IPv4', value: BigInt(bits) };
        const subnet = prefix(`${formatAddress(address)}/${length}`);
        if (address.value === subnet.first) return;
        const trial = new Trial(seed);
        void trial.judge.answersForAll({ macAddress: ROUTER, address, subnet });
        const targets = trial.asked.map(targetOf).map(formatAddress);
        assert.equal(new Set(targets).size, targets.length);
        assert.equal(targets[0], formatAddress({ family: 'IPv4', value: subnet.first }));
        assert.equal(targets.at(-1), formatAddress(address));
        assert.ok(targets.length >= 4 && targets.length <= 5, targets.join(' '));
        assert.deepEqual(
          targets.filter((one) => !trial.listening.includes(one)),
          [],
        );
      },
    ),
    { numRuns: 500 },
  );
});

test('an IPv6 question goes to one MAC address and to the group of the address asked for', options, async () => {
  const trial = new Trial();
  await trial.verdict(IPV6, prefix('fd00::/64'));
  const targets = new Set(trial.asked.map(targetOf).map(formatAddress));
  assert.equal(targets.size, 4);
  for (const question of trial.asked as NeighborSolicitation[]) {
    assert.equal(question.destinationMac, ROUTER);
    assert.equal(question.source.value, 0n);
    assert.ok(contains(prefix('fd00::/64'), question.target));
    assert.equal(question.destination.value & 0xff_ffffn, question.target.value & 0xff_ffffn);
  }
});
