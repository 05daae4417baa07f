import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Address, formatMac, parseAddress } from '../../../src/address.ts';
import { arpAnnouncement, arpProbe, arpReply, encodeArp } from '../../../src/lan/frames/arp.ts';
import { Detection } from '../../../src/lan/detection.ts';
import { standbyMac } from '../../../src/lan/frames/mac.ts';
import type { Verdict } from '../../../src/lan/verdict.ts';
import { ndDefence, ndProbe } from '../../../src/lan/frames/nd.ts';
import { type Packet, readSighting } from '../../../src/lan/frames/sighting.ts';
import type { Profile } from '../../../src/lan/timing.ts';
import { Host, World } from './imagined.ts';

const options = { timeout: 60_000 };

const OUR_MAC = '02:74:73:00:00:80';
const LOWER = '02:74:73:00:00:01';
const HIGHER = '02:74:73:00:00:ff';
const STRANGER = '3c:22:fb:10:aa:01';
const CONTAINER = '02:42:c0:a8:01:05';

const IPV4 = ip('192.168.1.5');
const IPV6 = ip('fd00::5');

function ip(text: string): Address {
  const parsed = parseAddress(text);
  assert.ok(parsed);
  return parsed;
}

interface Trial {
  readonly world: World;
  readonly host: Host;
  readonly detection: Detection;
  readonly late: string[];
  verdict: Verdict | undefined;
  hear(packet: Packet): void;
}

interface Circumstances {
  readonly profile?: Profile;
  readonly guardMs?: number;
  /** None means that proxies are not looked for. */
  readonly answersForAll?: (macAddress: string) => Promise<boolean>;
  readonly random?: () => number;
  readonly isOwn?: (macAddress: string, isGiven: boolean) => boolean;
  readonly mostFrames?: number;
}

function ask(
  address = IPV4,
  {
    profile = 'fast',
    guardMs = 10_000,
    answersForAll,
    random = () => 0.5,
    isOwn = (mac) => mac === CONTAINER,
    mostFrames = 0,
  }: Circumstances = {},
): Trial {
  const world = new World();
  const stall = { fromMs: 0, forMs: 0 };
  const host = new Host(world, { macAddress: OUR_MAC, latencyMs: 1, stall, mostFrames }, []);
  const late: string[] = [];
  const detection = new Detection(
    {
      address,
      parentName: 'lan0',
      profile,
      guardMs,
      isOwn,
      onLateConflict: (mac) => late.push(mac),
      onOver: () => undefined,
    },
    { wire: host, clock: host.clock, random, answersForAll },
  );
  const hear = (packet: Packet) => {
    const sighting = readSighting(packet);
    assert.ok(sighting);
    detection.hear(sighting);
  };
  const trial: Trial = { world, host, detection, late, verdict: undefined, hear };
  void detection.verdict.then((verdict) => {
    trial.verdict = verdict;
  });
  detection.start();
  return trial;
}

/** Lets the verdict's promise tell its readers. */
async function settle(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
}

for (const [profile, least, most] of [
  ['fast', 590, 700],
  ['rfc', 4000, 7000],
] as const) {
  test(`profile ${profile} sends three probes and takes ${least} to ${most} ms`, options, async () => {
    for (const [random, tookMs] of [
      [() => 0, least],
      [() => 0.999999, most],
    ] as const) {
      const trial = ask(IPV4, { profile, random });
      trial.world.run(tookMs - 1);
      await settle();
      assert.equal(trial.verdict, undefined);
      trial.world.run(tookMs + 1);
      await settle();
      assert.deepEqual(trial.verdict, { held: false });
      assert.equal(trial.host.sent.length, 3);
    }
  });
}

test('profile rfc asks for an IPv6 address three times in 3 to 4 s', options, async () => {
  const trial = ask(IPV6, { profile: 'rfc' });
  trial.world.run(3499);
  await settle();
  assert.equal(trial.verdict, undefined);
  trial.world.run(3501);
  await settle();
  assert.deepEqual(trial.verdict, { held: false });
});

const uses: [string, Packet, string][] = [
  ['an answer', arpReply(arpProbe(IPV4, OUR_MAC), STRANGER), STRANGER],
  ['an announcement', arpAnnouncement(IPV4, STRANGER), STRANGER],
  ['a gratuitous reply', { ...arpAnnouncement(IPV4, STRANGER), operation: 'reply' }, STRANGER],
  [
    'a question the holder asks for another address',
    { ...arpProbe(ip('192.168.1.9'), STRANGER), senderAddress: IPV4 },
    STRANGER,
  ],
  [
    'an answer that names a multicast MAC',
    { ...arpReply(arpProbe(IPV4, OUR_MAC), STRANGER), senderMac: '03:bf:c0:a8:01:05' },
    STRANGER,
  ],
  [
    'an answer that names no MAC',
    { ...arpReply(arpProbe(IPV4, OUR_MAC), STRANGER), senderMac: '00:00:00:00:00:00' },
    STRANGER,
  ],
  ['a neighbour advertisement', ndDefence(IPV6, STRANGER), STRANGER],
  ['an advertisement without a MAC option', { ...ndDefence(IPV6, STRANGER), linkLayerAddress: null }, STRANGER],
  [
    'a solicitation the holder sends for another address',
    { ...ndProbe(ip('fd00::9'), STRANGER, '000000000001'), source: IPV6 },
    STRANGER,
  ],
];

for (const [what, packet, macAddress] of uses) {
  test(`${what} means held, at once`, options, async () => {
    const trial = ask(packet.protocol === 'ARP' ? IPV4 : IPV6);
    trial.world.run(30);
    trial.hear(packet);
    await settle();
    assert.deepEqual(trial.verdict, { held: true, macAddress, linkName: 'lan0', simultaneous: false, isOnHost: false });
    trial.world.run(20_000);
    assert.equal(trial.host.sent.length, 1, 'no probe after the answer');
  });
}

test('an answer in the last millisecond of the wait counts', options, async () => {
  const trial = ask(IPV4, { random: () => 0 });
  trial.world.run(589);
  trial.hear(arpAnnouncement(IPV4, STRANGER));
  trial.world.run(1000);
  await settle();
  assert.deepEqual(trial.verdict, {
    held: true,
    macAddress: STRANGER,
    linkName: 'lan0',
    simultaneous: false,
    isOnHost: false,
  });
});

test('an answer that waits in the socket when the verdict is due counts', options, async () => {
  const world = new World();
  const hosts: Host[] = [];
  const host = new Host(world, { macAddress: OUR_MAC, latencyMs: 1, stall: { fromMs: 500, forMs: 300 } }, hosts);
  const stranger = new Host(world, { macAddress: STRANGER, latencyMs: 0, stall: { fromMs: 0, forMs: 0 } }, hosts);
  hosts.push(host, stranger);
  host.detection = new Detection(
    {
      address: IPV4,
      parentName: 'lan0',
      profile: 'fast',
      guardMs: 0,
      isOwn: () => false,
      onLateConflict: () => undefined,
      onOver: () => undefined,
    },
    { wire: host, clock: host.clock, random: () => 0.5, answersForAll: undefined },
  );
  host.detection.start();
  world.at(550, () => stranger.send(encodeArp(arpAnnouncement(IPV4, STRANGER))));
  world.run(2000);
  assert.equal((await host.detection.verdict).held, true);
});

test('frames of our own, sent back by the LAN, and of our own containers are no conflict', options, async () => {
  const trial = ask(IPV4);
  trial.world.run(100);
  trial.hear(arpProbe(IPV4, OUR_MAC));
  trial.hear(arpReply(arpProbe(IPV4, STRANGER), OUR_MAC));
  trial.hear(arpAnnouncement(IPV4, CONTAINER));
  trial.hear(arpProbe(IPV4, CONTAINER));
  trial.world.run(1000);
  await settle();
  assert.deepEqual(trial.verdict, { held: false });
  trial.hear(arpProbe(IPV4, OUR_MAC));
  assert.equal(trial.host.sent.length, 3, 'neither reasserted nor defended against itself');
});

test(
  'a container of another network of ours holds the address until it is given out, and then is the one',
  options,
  async () => {
    const isOwn = (macAddress: string, isGiven: boolean) => isGiven && macAddress === CONTAINER;
    const asked = ask(IPV4, { isOwn });
    asked.world.run(100);
    asked.hear(arpAnnouncement(IPV4, CONTAINER));
    await settle();
    assert.deepEqual(asked.verdict, {
      held: true,
      macAddress: CONTAINER,
      linkName: 'lan0',
      simultaneous: false,
      isOnHost: false,
    });

    const given = ask(IPV4, { isOwn });
    given.world.run(1000);
    given.hear(arpAnnouncement(IPV4, CONTAINER));
    assert.deepEqual(given.late, []);
  },
);

test('our own solicitation that a repeater sent back under its MAC is known by its nonce', options, async () => {
  const trial = ask(IPV6);
  trial.world.run(100);
  const nonce = trial.host.sent[0]?.frame.subarray(-6).toString('hex') ?? '';
  trial.hear(ndProbe(IPV6, STRANGER, nonce));
  trial.world.run(1000);
  await settle();
  assert.deepEqual(trial.verdict, { held: false });
});

for (const address of [IPV4, IPV6]) {
  const probe = (mac: string) => (address === IPV4 ? arpProbe(address, mac) : ndProbe(address, mac, 'aaaaaaaaaaaa'));

  test(`a stranger that probes for the same ${address.family} address makes us give up`, options, async () => {
    const trial = ask(address);
    trial.world.run(100);
    trial.hear(probe(STRANGER));
    await settle();
    assert.deepEqual(trial.verdict, {
      held: true,
      macAddress: STRANGER,
      linkName: 'lan0',
      simultaneous: true,
      isOnHost: false,
    });
  });

  test(`of two daemons that probe for one ${address.family} address the lower MAC goes on`, options, async () => {
    const loser = ask(address);
    loser.world.run(100);
    loser.hear(probe(LOWER));
    await settle();
    assert.deepEqual(loser.verdict, {
      held: true,
      macAddress: LOWER,
      linkName: 'lan0',
      simultaneous: true,
      isOnHost: false,
    });

    const winner = ask(address);
    winner.world.run(100);
    winner.hear(probe(HIGHER));
    assert.equal(winner.host.sent.length, 2, 'it reasserts itself at once');
    winner.world.run(1000);
    await settle();
    assert.deepEqual(winner.verdict, { held: false });
  });

  test(`a rival that does not give up makes us give up (${address.family})`, options, async () => {
    const trial = ask(address);
    trial.world.run(100);
    trial.hear(probe(HIGHER));
    trial.world.run(300);
    trial.hear(probe(HIGHER));
    await settle();
    assert.deepEqual(trial.verdict, {
      held: true,
      macAddress: HIGHER,
      linkName: 'lan0',
      simultaneous: true,
      isOnHost: false,
    });
  });

  test(`a free ${address.family} address is defended until the guard is over`, options, async () => {
    const trial = ask(address);
    trial.world.run(1000);
    const before = trial.host.sent.length;
    trial.hear(probe(STRANGER));
    assert.equal(trial.host.sent.length, before + 1);
    trial.world.run(20_000);
    trial.hear(probe(STRANGER));
    assert.equal(trial.host.sent.length, before + 1);
    assert.deepEqual(trial.late, []);
  });
}

test('a switch that checks on its hosts by unicast probes is no rival', options, () => {
  assert.equal(readSighting({ ...arpProbe(IPV4, STRANGER), destinationMac: OUR_MAC }), undefined);
});

test('who begins to use a guarded address is reported once', options, () => {
  const trial = ask(IPV4);
  trial.world.run(1000);
  trial.hear(arpAnnouncement(IPV4, CONTAINER));
  trial.hear(arpAnnouncement(IPV4, STRANGER));
  trial.hear(arpAnnouncement(IPV4, STRANGER));
  assert.deepEqual(trial.late, [STRANGER]);
});

test('defences against a flood of probes are bounded', options, () => {
  const trial = ask(IPV4);
  trial.world.run(1000);
  const before = trial.host.sent.length;
  for (let count = 0; count < 1000; count++) trial.hear(arpProbe(IPV4, STRANGER));
  assert.equal(trial.host.sent.length, before + 10);
});

test(
  'a guard defends three times although questions of our own need the frames, and then only with those left',
  options,
  () => {
    const trial = ask(IPV4, { mostFrames: 100 });
    trial.world.run(2000);
    // Of the 20 that may go at once eight are left: less than half.
    for (let count = 0; count < 12; count++) assert.equal(trial.host.turn(), 0);
    const before = trial.host.sent.length;
    for (let count = 0; count < 5; count++) trial.hear(arpProbe(IPV4, STRANGER));
    assert.equal(trial.host.sent.length, before + 3);
  },
);

test('a defence for which no frame is left goes in its turn, unless the guard is over by then', options, () => {
  for (const isOver of [false, true]) {
    const trial = ask(IPV4, { mostFrames: 100 });
    trial.world.run(2000);
    for (let count = 0; count < 24; count++) trial.host.turn();
    const before = trial.host.sent.length;
    trial.hear(arpProbe(IPV4, STRANGER));
    assert.equal(trial.host.sent.length, before);
    if (isOver) trial.detection.end(new Error('released'));
    trial.world.run(2070);
    assert.equal(trial.host.sent.length, isOver ? before : before + 1);
  }
});

test('an answer that may be among frames lost in a flood is asked for again, for a bounded time', options, async () => {
  const trial = ask(IPV4);
  trial.world.run(500);
  trial.host.lostFrames = 7;
  trial.world.run(740);
  assert.ok(trial.detection.isAsking);
  trial.world.run(1000);
  await settle();
  assert.equal(trial.verdict?.held, false);
  assert.equal(trial.host.sent.length, 4);
  const flooded = ask(IPV4);
  for (let ms = 0; ms < 1600; ms += 10, flooded.host.lostFrames++) flooded.world.run(ms);
  await settle();
  assert.equal(flooded.verdict?.held, false);
  assert.equal(flooded.host.sent.length, 6);
});

test('the question asked while an endpoint is joined is asked again when frames were lost since', options, async () => {
  const trial = ask(IPV4);
  trial.world.run(1000);
  const before = trial.host.sent.length;
  const confirmed = trial.detection.confirm(null);
  await settle();
  trial.host.lostFrames = 7;
  await trial.world.live(1100);
  assert.deepEqual(await confirmed, { held: false });
  assert.equal(trial.host.sent.length, before + 2);
});

test(
  'the MAC address that the endpoint has is asked alone as well, as another host may have made the same',
  options,
  async () => {
    const twin = '02:42:c0:a8:01:02';
    const trial = ask(IPV4);
    trial.world.run(1000);
    const before = trial.host.sent.length;
    const confirmed = trial.detection.confirm(twin);
    await settle();
    await trial.world.live(1100);
    assert.deepEqual(await confirmed, { held: false });
    const frames = trial.host.sent.slice(before);
    assert.deepEqual(
      frames.map(({ frame }) => formatMac(frame.subarray(0, 6))),
      ['ff:ff:ff:ff:ff:ff', twin],
    );
  },
);

test('reassertions against a flood of rivals are bounded', options, async () => {
  const trial = ask(IPV4);
  trial.world.run(100);
  for (let count = 0x81; count < 0xff; count++) trial.hear(arpProbe(IPV4, `02:74:73:00:00:${count.toString(16)}`));
  await settle();
  assert.equal(trial.verdict?.held, true);
  assert.equal(trial.host.sent.length, 5);
});

/** Judges at the time that a test says. */
function judged(): {
  answersForAll: (macAddress: string) => Promise<boolean>;
  asked: string[];
  judge: (isProxy: boolean) => void;
} {
  const asked: string[] = [];
  const judgement = Promise.withResolvers<boolean>();
  const answersForAll = (macAddress: string) => {
    asked.push(macAddress);
    return judgement.promise;
  };
  return { answersForAll, asked, judge: judgement.resolve };
}

const answer = arpReply(arpProbe(IPV4, OUR_MAC), STRANGER);

test('an answer counts once it is known that its sender does not answer for all', options, async () => {
  for (const isProxy of [true, false]) {
    const { answersForAll, asked, judge } = judged();
    const trial = ask(IPV4, { answersForAll });
    trial.world.run(30);
    trial.hear(answer);
    trial.hear(answer);
    await settle();
    assert.ok(trial.detection.isAsking);
    judge(isProxy);
    await settle();
    assert.equal(trial.detection.isAsking, isProxy);
    trial.world.run(1000);
    await settle();
    assert.deepEqual(asked, [STRANGER]);
    assert.deepEqual(
      trial.verdict,
      isProxy
        ? { held: false }
        : { held: true, macAddress: STRANGER, linkName: 'lan0', simultaneous: false, isOnHost: false },
    );
  }
});

test('a verdict that is due waits for what is being judged', options, async () => {
  for (const isProxy of [true, false]) {
    const { answersForAll, judge } = judged();
    const trial = ask(IPV4, { random: () => 0, answersForAll });
    trial.world.run(585);
    trial.hear(answer);
    trial.world.run(640);
    await settle();
    assert.ok(trial.detection.isAsking);
    judge(isProxy);
    await settle();
    trial.world.run(650);
    await settle();
    assert.equal(trial.verdict?.held, !isProxy);
    assert.equal(trial.host.sent.length, 3);
  }
});

test('what a host says unasked is about itself, and is judged by nobody', options, async () => {
  const { answersForAll, asked, judge } = judged();
  judge(true);
  for (const packet of [
    arpAnnouncement(IPV4, STRANGER),
    { ...arpProbe(ip('192.168.1.9'), STRANGER), senderAddress: IPV4 },
  ]) {
    const trial = ask(IPV4, { answersForAll });
    trial.world.run(30);
    trial.hear(packet);
    await settle();
    assert.equal(trial.verdict?.held, true);
  }
  assert.deepEqual(asked, []);
});

test('an answer to a guarded address is reported once its sender is judged', options, async () => {
  for (const isProxy of [true, false]) {
    const { answersForAll, judge } = judged();
    const trial = ask(IPV4, { answersForAll });
    trial.world.run(1000);
    trial.hear(answer);
    await settle();
    assert.deepEqual(trial.late, []);
    judge(isProxy);
    await settle();
    assert.deepEqual(trial.late, isProxy ? [] : [STRANGER]);
    assert.equal(trial.detection.isGuarding, isProxy);
  }
});

test('of many that answer for one address no more than 16 are judged: one of them has it', options, async () => {
  const { answersForAll, asked } = judged();
  const trial = ask(IPV4, { answersForAll });
  trial.world.run(30);
  for (let count = 0; count < 1000; count++) {
    const mac = `3c:22:fb:10:${Math.floor(count / 256)
      .toString(16)
      .padStart(2, '0')}:${(count % 256).toString(16).padStart(2, '0')}`;
    trial.hear(arpReply(arpProbe(IPV4, OUR_MAC), mac));
  }
  await settle();
  assert.equal(asked.length, 16);
  assert.equal(trial.verdict?.held, true);
});

interface RaceSpec {
  readonly isIPv6: boolean;
  readonly seeds: number;
  readonly hosts: readonly {
    readonly mac: number;
    readonly startMs: number;
    readonly latencyMs: number;
    readonly stallFromMs: number;
    readonly stallForMs: number;
  }[];
}

/** Daemons that ask for one address: how many got it, and how many said afterwards that somebody else uses it. */
async function race({ isIPv6, seeds, hosts: specs }: RaceSpec): Promise<{ winners: number; reports: number }> {
  const address = isIPv6 ? IPV6 : IPV4;
  const world = new World();
  const hosts: Host[] = [];
  const verdicts: Promise<Verdict>[] = [];
  let reports = 0;
  let seed = seeds;
  const random = () => {
    seed = (seed * 1103515245 + 12345) % 2 ** 31;
    return seed / 2 ** 31;
  };
  for (const { mac, startMs, latencyMs, stallFromMs, stallForMs } of specs) {
    const macAddress = `02:74:73:00:00:${mac.toString(16).padStart(2, '0')}`;
    const host = new Host(world, { macAddress, latencyMs, stall: { fromMs: stallFromMs, forMs: stallForMs } }, hosts);
    hosts.push(host);
    world.at(startMs, () => {
      const detection = new Detection(
        {
          address,
          parentName: 'lan0',
          profile: 'fast',
          guardMs: 10_000,
          isOwn: () => false,
          onLateConflict: () => {
            reports++;
          },
          onOver: () => undefined,
        },
        { wire: host, clock: host.clock, random, answersForAll: undefined },
      );
      host.detection = detection;
      verdicts.push(detection.verdict);
      detection.start();
      host.tick();
    });
  }
  world.run(6000);
  assert.equal(verdicts.length, specs.length);
  const winners = (await Promise.all(verdicts)).filter(({ held }) => !held).length;
  return { winners, reports };
}

test(
  'a daemon that stalled while it asked, through all that its rival did, hears the defence and gives up',
  options,
  async () => {
    const calm = { latencyMs: 1, stallFromMs: 0, stallForMs: 0 };
    const hosts = [
      { ...calm, mac: 1, startMs: 0, stallFromMs: 500, stallForMs: 1200 },
      { ...calm, mac: 2, startMs: 520 },
    ];
    for (let seeds = 1; seeds < 50; seeds++) {
      assert.deepEqual(await race({ isIPv6: false, seeds, hosts }), { winners: 1, reports: 0 });
    }
  },
);

function racers(stallForMs: number, latencyMs: number) {
  return fc.record({
    isIPv6: fc.boolean(),
    seeds: fc.integer({ min: 1, max: 2 ** 31 - 1 }),
    hosts: fc.uniqueArray(
      fc.record({
        mac: fc.integer({ min: 0, max: 255 }),
        startMs: fc.integer({ min: 0, max: 1500 }),
        latencyMs: fc.integer({ min: 0, max: latencyMs }),
        stallFromMs: fc.integer({ min: 0, max: 2000 }),
        stallForMs: fc.integer({ min: 0, max: stallForMs }),
      }),
      { minLength: 2, maxLength: 4, selector: ({ mac }) => mac },
    ),
  });
}

test('of daemons that race for one address never two get it, even when they stall for a while', options, async () => {
  await fc.assert(
    fc.asyncProperty(racers(400, 100), async (spec) => assert.ok((await race(spec)).winners <= 1)),
    { numRuns: 400 },
  );
});

test('when a daemon stalls for so long that two get it, at least one reports it', options, async () => {
  await fc.assert(
    fc.asyncProperty(racers(2000, 100), async (spec) => {
      const { winners, reports } = await race(spec);
      assert.ok(winners <= 1 || reports >= 1);
    }),
    { numRuns: 400 },
  );
});

test('of two daemons that do not stall exactly one gets it', options, async () => {
  await fc.assert(
    fc.asyncProperty(racers(0, 10), async (spec) => {
      assert.equal((await race({ ...spec, hosts: spec.hosts.slice(0, 2) })).winners, 1);
    }),
    { numRuns: 400 },
  );
});

test('only a notice of a daemon is no answer: who sends from such a MAC address has the address', options, async () => {
  for (const daemon of [OUR_MAC, HIGHER]) {
    const keeper = standbyMac(daemon);
    const question = arpProbe(IPV4, OUR_MAC);
    for (const [address, notice, use] of [
      [IPV4, { ...arpReply(question, keeper), sourceMac: daemon }, arpReply(question, keeper)],
      [IPV6, { ...ndDefence(IPV6, keeper), sourceMac: daemon, destinationMac: OUR_MAC }, ndDefence(IPV6, keeper)],
    ] as const) {
      const trial = ask(address);
      trial.world.run(100);
      trial.hear(notice);
      assert.ok(trial.detection.isAsking);
      trial.hear(use);
      const verdict = await trial.detection.verdict;
      assert.equal(verdict.held && verdict.macAddress, keeper);
    }
  }
});
