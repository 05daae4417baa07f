import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Address, parseAddress } from '../../../src/address.ts';
import { arpAnnouncement, arpProbe, arpReply, decodeArp, encodeArp } from '../../../src/lan/frames/arp.ts';
import { Detection } from '../../../src/lan/detection.ts';
import type { StandbyTerms } from '../../../src/lan/detectionspec.ts';
import { type LossListener, NOT_HELD, type Verdict } from '../../../src/lan/verdict.ts';
import { decodeNd, ndDefence, ndProbe } from '../../../src/lan/frames/nd.ts';
import { standbyFrame } from '../../../src/lan/frames/outgoing.ts';
import { StandbyList } from '../../../src/lan/standby.ts';
import { isStandbyMac, standbyMac } from '../../../src/lan/frames/mac.ts';
import { type Packet, decodePacket, readSighting } from '../../../src/lan/frames/sighting.ts';
import { Host, World } from './imagined.ts';

const options = { timeout: 60_000 };

const OUR_MAC = '02:74:73:00:00:80';
const RIVAL = '02:74:73:00:00:ff';
const STRANGER = '3c:22:fb:10:aa:01';
const CONTAINER = '02:42:c0:a8:01:05';
const REFRESH_MS = 600_000;

const IPV4 = ip('192.168.1.5');
const IPV6 = ip('fd00::5');

function ip(text: string): Address {
  const parsed = parseAddress(text);
  assert.ok(parsed);
  return parsed;
}

class Trial {
  readonly world = new World();
  readonly host: Host;
  /** Each as it was told: why, and by whom. */
  readonly losses: Parameters<LossListener>[] = [];
  readonly late: string[] = [];
  readonly detection: Detection;
  /** What a MAC address that answers is judged to be. */
  readonly judgement = Promise.withResolvers<boolean>();
  verdict: Verdict | undefined;

  /** `isJudged`: an answer counts only when the test says what its sender is. */
  constructor(address: Address, terms: Partial<StandbyTerms> = {}, isJudged = false, mostFrames = 0) {
    this.host = new Host(
      this.world,
      { macAddress: OUR_MAC, latencyMs: 1, stall: { fromMs: 0, forMs: 0 }, mostFrames },
      [],
    );
    this.detection = new Detection(
      {
        address,
        parentName: 'lan0',
        profile: 'fast',
        guardMs: 10_000,
        isOwn: (mac) => mac === CONTAINER,
        onLateConflict: (mac) => this.late.push(mac),
        onOver: (...loss) => this.losses.push(loss),
        standby: { refreshMs: REFRESH_MS, isOurs: false, isOfHost: null, ...terms },
      },
      {
        wire: this.host,
        clock: this.host.clock,
        random: () => 0.5,
        answersForAll: isJudged ? () => this.judgement.promise : undefined,
      },
    );
    void this.detection.verdict.then((verdict) => {
      this.verdict = verdict;
    });
    this.detection.start();
  }

  hear(packet: Packet): void {
    const sighting = readSighting(packet);
    assert.ok(sighting);
    if (sighting.address.value === this.detection.address.value) this.detection.hear(sighting);
  }

  /** The packets sent since the last call. */
  sent(): Packet[] {
    return this.host.sent.splice(0).map(({ frame }) => decodePacket(frame) as Packet);
  }
}

/** On standby, and quiet for a while. */
function kept(address = IPV4, terms: Partial<StandbyTerms> = {}, isJudged = false): Trial {
  const trial = new Trial(address, terms, isJudged);
  trial.world.run(5000);
  trial.sent();
  assert.ok(trial.detection.isOnStandby);
  return trial;
}

const probes = {
  IPv4: (mac: string) => arpProbe(IPV4, mac),
  IPv6: (mac: string) => ndProbe(IPV6, mac, 'aaaaaaaaaaaa'),
};

test('what is free is kept, and asked for again within ten minutes', options, () => {
  const trial = new Trial(IPV4);
  trial.world.run(5000);
  assert.equal(trial.sent().length, 3);
  trial.world.run(539_000);
  assert.equal(trial.sent().length, 0, 'in between it only listens');
  trial.world.run(601_000);
  assert.equal(trial.sent().length, 3);
  trial.world.run(3_600_000);
  assert.equal(trial.sent().length, 15, 'three probes for each ten minutes');
  assert.ok(trial.detection.isOnStandby);
});

test('a switch with snooping is told every two minutes that the group of an IPv6 address is wanted', options, () => {
  const trial = new Trial(IPV6);
  const frames: Buffer[] = [];
  const send = trial.host.send.bind(trial.host);
  trial.host.send = (frame) => {
    frames.push(frame);
    send(frame);
  };
  trial.world.run(5000);
  frames.length = 0;
  trial.world.run(500_000);
  assert.equal(frames.length, 4);
  assert.deepEqual(frames.map(decodeNd), [undefined, undefined, undefined, undefined], 'and nothing is asked');
});

for (const [address, probe, reply] of [
  [IPV4, probes.IPv4, arpReply(probes.IPv4(OUR_MAC), STRANGER)],
  [IPV6, probes.IPv6, ndDefence(IPV6, STRANGER)],
] as const) {
  const { family } = address;

  test(`who uses a kept ${family} address has it`, options, () => {
    const trial = kept(address);
    trial.hear(reply);
    assert.deepEqual(trial.losses, [['used', STRANGER]]);
    assert.equal(trial.detection.grant(), false);
    assert.deepEqual(trial.sent(), [], 'nothing is said');
  });

  test(`a stranger that asks for a kept ${family} address gets it`, options, () => {
    const trial = kept(address);
    trial.hear(probe(STRANGER));
    assert.deepEqual(trial.losses, [['wanted', STRANGER]]);
    assert.deepEqual(trial.sent(), []);
  });

  test(`a daemon that asks for a kept ${family} address is told so, and gets it when it asks on`, options, () => {
    const trial = kept(address);
    trial.hear(probe(RIVAL));
    const [answer, ...more] = trial.sent();
    assert.deepEqual(more, []);
    assert.equal(answer && readSighting(answer)?.macAddress, standbyMac(OUR_MAC));
    assert.deepEqual(
      [answer?.sourceMac, answer?.destinationMac],
      [OUR_MAC, RIVAL],
      'no switch or cache learns anything',
    );
    trial.world.run(5200);
    assert.ok(trial.detection.isOnStandby);
    trial.hear(probe(RIVAL));
    assert.deepEqual(trial.losses, [['wanted', RIVAL]]);
    assert.deepEqual(trial.sent(), []);
  });

  test(`a daemon that asks for a kept ${family} address again a minute later is told again`, options, () => {
    const trial = kept(address);
    for (let minute = 1; minute < 5; minute++) {
      trial.world.run(minute * 60_000);
      trial.hear(probe(RIVAL));
      assert.equal(trial.sent().length, 1);
      trial.world.run(minute * 60_000 + 4999);
      assert.equal(trial.sent().length, 0);
      trial.world.run(minute * 60_000 + 10_000);
      assert.equal(trial.sent().length, 3, 'it is asked for again, as the other may have given it out');
    }
    assert.ok(trial.detection.isOnStandby);
  });

  test(`who looks for addresses to keep leaves a kept ${family} address to its keeper`, options, async () => {
    const trial = new Trial(address);
    trial.world.run(100);
    trial.hear(
      family === 'IPv4' ? arpReply(probe(OUR_MAC) as never, standbyMac(RIVAL)) : ndDefence(IPV6, standbyMac(RIVAL)),
    );
    await settle();
    assert.deepEqual(trial.verdict, {
      held: true,
      macAddress: standbyMac(RIVAL),
      linkName: 'lan0',
      simultaneous: false,
      isOnHost: false,
    });
  });

  test(`who looks for addresses to keep gives way to everybody who asks (${family})`, options, async () => {
    for (const mac of [STRANGER, RIVAL, '02:74:73:00:00:01']) {
      const trial = new Trial(address);
      trial.world.run(100);
      trial.hear(probe(mac));
      await settle();
      assert.deepEqual(trial.verdict, {
        held: true,
        macAddress: mac,
        linkName: 'lan0',
        simultaneous: true,
        isOnHost: false,
      });
      assert.deepEqual(trial.losses, [['ended', null]]);
    }
  });

  test(
    `while a kept ${family} address is asked for freshly the lower MAC goes on, and waits as long as anybody`,
    options,
    async () => {
      const loser = kept(address);
      assert.ok(loser.detection.grant());
      loser.hear(probe('02:74:73:00:00:01'));
      const verdict = await loser.detection.verdict;
      assert.ok(verdict.held && verdict.simultaneous);

      const winner = kept(address);
      assert.ok(winner.detection.grant());
      winner.world.run(5003);
      winner.hear(probe(RIVAL));
      assert.equal(winner.sent().length, 2, 'it reasserts itself at once');
      winner.world.run(5003 + 400);
      assert.ok(winner.detection.isAsking);
      winner.world.run(5003 + 470);
      assert.equal(winner.sent().length, 1, 'and asks once more');
      assert.deepEqual(await winner.detection.verdict, { held: false });
    },
  );

  test(
    `a kept ${family} address for which another daemon asked within five seconds is asked for thoroughly`,
    options,
    () => {
      const trial = kept(address);
      trial.hear(probe(RIVAL));
      trial.world.run(9900);
      assert.equal(trial.detection.grant(), false);
      trial.world.run(10_100);
      assert.equal(trial.detection.grant(), true);
    },
  );

  test(
    `a kept ${family} address that is given out is asked for at that moment, and then guarded`,
    options,
    async () => {
      const trial = kept(address);
      assert.ok(trial.detection.grant());
      assert.equal(trial.sent().length, 1);
      const waitMs = { IPv4: 9, IPv6: 10 }[family];
      trial.world.run(5000 + waitMs - 1);
      assert.ok(trial.detection.isAsking);
      trial.world.run(5000 + waitMs);
      assert.deepEqual(await trial.detection.verdict, { held: false });
      assert.ok(trial.detection.isGuarding);
      trial.hear(probe(RIVAL));
      trial.hear(probe(STRANGER));
      assert.deepEqual(
        trial.sent().map((packet) => readSighting(packet)?.macAddress),
        [OUR_MAC, OUR_MAC],
      );
      trial.hear(reply);
      assert.deepEqual(trial.late, [STRANGER]);
      assert.deepEqual(trial.losses, [['ended', null]]);
    },
  );
}

async function settle(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
}

test('on a machine that is busy a fresh question is listened to for longer', options, async () => {
  const world = new World();
  const stall = { fromMs: 5005, forMs: 60 };
  const host = new Host(world, { macAddress: OUR_MAC, latencyMs: 1, stall }, []);
  const detection = new Detection(
    {
      address: IPV4,
      parentName: 'lan0',
      profile: 'fast',
      guardMs: 10_000,
      isOwn: () => false,
      onLateConflict: () => undefined,
      onOver: () => undefined,
      standby: { refreshMs: REFRESH_MS, isOurs: false, isOfHost: null },
    },
    { wire: host, clock: host.clock, random: () => 0.5, answersForAll: undefined },
  );
  detection.start();
  world.run(5000);
  assert.ok(detection.grant());
  world.run(5065 + 11);
  assert.ok(detection.isAsking, 'woken 53 ms late');
  world.run(5065 + 13);
  assert.ok(detection.isGuarding);
});

test('what waits in the socket when a container comes counts first', options, () => {
  const trial = kept();
  trial.host.drain = () => trial.hear(arpAnnouncement(IPV4, STRANGER));
  assert.equal(trial.detection.grant(), false);
  assert.deepEqual(trial.losses, [['used', STRANGER]]);
});

test('an address that a container is leaving is kept from the first moment, and asked for meanwhile', options, () => {
  const trial = new Trial(IPV4, { isOurs: true });
  assert.ok(trial.detection.isOnStandby);
  trial.hear(arpAnnouncement(IPV4, CONTAINER));
  trial.world.run(100);
  assert.equal(trial.sent().length, 1);
  assert.ok(trial.detection.grant());
  trial.world.run(2000);
  assert.equal(trial.sent().length, 1, 'it is asked for when it is given out, and then no more');
});

test(
  'the container that leaves is no stranger on standby; who answers with its MAC address when it is given out is one',
  options,
  async () => {
    const trial = new Trial(IPV4, { isOurs: true, isLeaver: (mac) => mac === STRANGER });
    trial.hear(arpReply(probes.IPv4(OUR_MAC), STRANGER));
    trial.world.run(100);
    assert.ok(trial.detection.grant());
    trial.hear(arpReply(probes.IPv4(OUR_MAC), STRANGER));
    assert.equal((await trial.detection.verdict).held, true);
  },
);

test('where this process was woken late since the question, answers are waited for longer', options, async () => {
  const trial = kept();
  assert.ok(trial.detection.grant());
  trial.host.lateAtMs = 5002;
  trial.world.run(5020);
  assert.ok(trial.detection.isAsking);
  trial.world.run(5021);
  assert.ok(trial.detection.isGuarding);
  let isConfirmed = false;
  void trial.detection.confirm(null).then(() => (isConfirmed = true));
  await trial.world.live(5022);
  trial.host.lateAtMs = 5022;
  await trial.world.live(5038);
  assert.ok(!isConfirmed);
  await trial.world.live(5040);
  assert.ok(isConfirmed);
});

test(
  'a container that needs what is just being asked for waits for that verdict, by the same rule as any',
  options,
  async () => {
    const trial = new Trial(IPV4);
    trial.world.run(300);
    assert.ok(!trial.detection.join('rfc'));
    assert.ok(trial.detection.join('fast'));
    trial.hear(probes.IPv4(RIVAL));
    assert.ok(trial.detection.isAsking, 'the lower MAC goes on');
    trial.hear(decodePacket(standbyFrame(probes.IPv4(OUR_MAC), IPV4, RIVAL)) as Packet);
    assert.ok(trial.detection.isAsking, 'and who only keeps it gives way');
    trial.world.run(2000);
    assert.deepEqual(await trial.detection.verdict, { held: false });
    assert.ok(trial.detection.isGuarding);
    assert.ok(!trial.detection.join('fast'));
    assert.equal(trial.sent().length, 4);
  },
);

// --- asked ahead --------------------------------------------------------------------------------------------------------

test('an address that was asked for ahead is given out at once, and asked for again then', options, async () => {
  for (const one of [IPV4, IPV6]) {
    const trial = kept(one);
    trial.detection.askAhead();
    assert.equal(trial.sent().length, 1);
    trial.world.run(5050);
    assert.ok(trial.detection.grant());
    assert.ok(trial.detection.isGuarding);
    assert.equal(trial.sent().length, 1);
    assert.deepEqual(await trial.detection.verdict, { held: false });
    // Who took it in between is found before Join is answered.
    trial.hear(probes[one.family](STRANGER));
    trial.hear(one.family === 'IPv4' ? arpReply(probes.IPv4(OUR_MAC), STRANGER) : ndDefence(IPV6, STRANGER));
    assert.deepEqual(trial.late, [STRANGER]);
    assert.equal((await trial.detection.confirm(null))?.held, true);
  }
});

test(
  'the answer to a question asked ahead takes the address off standby before anybody needs it',
  options,
  async () => {
    const trial = kept(IPV4, {}, true);
    trial.detection.askAhead();
    trial.world.run(5002);
    trial.hear(arpReply(probes.IPv4(OUR_MAC), STRANGER));
    assert.ok(trial.detection.grant());
    assert.ok(trial.detection.isAsking, 'while it is being judged who answered, no address is given out');
    trial.judgement.resolve(false);
    await settle();
    assert.equal((await trial.detection.verdict).held, true);

    const later = kept();
    later.detection.askAhead();
    later.world.run(5100);
    later.hear(arpReply(probes.IPv4(OUR_MAC), STRANGER));
    assert.deepEqual(later.losses, [['used', STRANGER]]);
    assert.ok(!later.detection.grant());
  },
);

test(
  'a question asked ahead counts once its answer had time, not for long, and only when nothing was heard or lost',
  options,
  () => {
    /** How long the grant waits. */
    const waits = (agoMs: number, meanwhile: (trial: Trial) => void = () => undefined): number => {
      const trial = kept();
      trial.detection.askAhead();
      meanwhile(trial);
      trial.world.run(5000 + agoMs);
      assert.ok(trial.detection.grant());
      const waitedMs = Array.from({ length: 30 }, (_, ms) => ms).find((ms) => {
        trial.world.run(5000 + agoMs + ms);
        return trial.detection.isGuarding;
      });
      return waitedMs ?? assert.fail();
    };
    assert.deepEqual(
      [5, 19, 22, 100, 250, 251, 2000].map((agoMs) => waits(agoMs)),
      [9, 3, 0, 0, 0, 9, 9],
    );
    assert.equal(
      waits(100, ({ host }) => (host.lostFrames += 20)),
      9,
    );
    assert.equal(
      waits(100, (trial) => trial.hear(arpReply(probes.IPv4(OUR_MAC), CONTAINER))),
      9,
      'its own container',
    );
  },
);

test(
  'nothing is asked ahead twice at a time, nor when another daemon asks, nor where the profile wants more',
  options,
  () => {
    const trial = kept();
    for (let time = 0; time < 3; time++) trial.detection.askAhead();
    assert.equal(trial.sent().length, 1);
    trial.world.run(5200);
    trial.detection.askAhead();
    assert.equal(trial.sent().length, 1, 'a burst goes on');

    const contended = kept();
    contended.hear(probes.IPv4(RIVAL));
    contended.sent();
    contended.detection.askAhead();
    assert.equal(contended.sent().length, 0);

    const busy = new Trial(IPV4, {}, false, 15);
    busy.world.run(5000);
    busy.sent();
    for (let frame = 0; frame < 3; frame++) busy.host.turn();
    busy.detection.askAhead();
    assert.equal(busy.sent().length, 0, 'and takes no frame from the questions of those who wait');
  },
);

test('asking again gives way to a daemon that asks', options, () => {
  const trial = new Trial(IPV4, { isOurs: true });
  trial.world.run(100);
  trial.sent();
  trial.hear(probes.IPv4(RIVAL));
  assert.equal(trial.sent().length, 1);
  trial.world.run(3000);
  assert.equal(trial.sent().length, 0);
  trial.world.run(8000);
  assert.equal(trial.sent().length, 3, 'and goes on later');
});

test('a device that answers for every address takes nothing off standby', options, async () => {
  const trial = kept(IPV4, {}, true);
  trial.hear(arpReply(probes.IPv4(OUR_MAC), STRANGER));
  trial.judgement.resolve(true);
  await settle();
  assert.ok(trial.detection.isOnStandby);
  assert.equal(trial.detection.grant(), true);
});

test('while the sender of an answer is being judged, the address is not given out', options, async () => {
  const trial = new Trial(IPV4, { isOurs: true }, true);
  trial.world.run(120);
  trial.hear(arpReply(probes.IPv4(OUR_MAC), STRANGER));
  assert.ok(trial.detection.grant());
  trial.world.run(200);
  assert.ok(trial.detection.isAsking);
  trial.judgement.resolve(false);
  await settle();
  assert.equal((await trial.detection.verdict).held, true);
});

test(
  'other interfaces of this host that answer for an address that was left are borne with, not for ever',
  options,
  async () => {
    const OTHER = '02:42:ac:11:00:02';
    const trial = new Trial(IPV4, { isOurs: true, isOfHost: async (mac) => mac === OTHER });
    for (let second = 0; second < 5; second++) {
      trial.world.run(second * 1000 + 500);
      trial.hear(arpReply(probes.IPv4(OUR_MAC), OTHER));
      await settle();
      assert.ok(trial.detection.isOnStandby);
    }
    trial.hear(arpReply(probes.IPv4(OUR_MAC), OTHER));
    await settle();
    assert.deepEqual(trial.losses, [['ended', null]], 'it is nobody else’s');

    const stranger = new Trial(IPV4, { isOurs: true, isOfHost: async (mac) => mac === OTHER });
    stranger.world.run(100);
    stranger.hear(arpReply(probes.IPv4(OUR_MAC), STRANGER));
    await settle();
    assert.deepEqual(stranger.losses, [['used', STRANGER]]);
  },
);

test('what answers while the address is being given out has it, be it of this host', options, async () => {
  const OTHER = '02:42:ac:11:00:02';
  const trial = new Trial(IPV4, { isOurs: true, isOfHost: async (mac) => mac === OTHER });
  trial.world.run(100);
  trial.hear(arpReply(probes.IPv4(OUR_MAC), OTHER));
  assert.ok(trial.detection.grant());
  await settle();
  assert.equal((await trial.detection.verdict).held, true);
});

test('an address that is only guessed goes to any daemon that asks for it', options, () => {
  const trial = kept(IPV4, { isGuess: true });
  trial.hear(arpProbe(IPV4, RIVAL));
  assert.deepEqual(trial.losses, [['wanted', RIVAL]]);
  assert.deepEqual(trial.sent(), []);
});

test('a crowd of daemons that want an address gets it, and few answers', options, () => {
  const trial = kept();
  for (let count = 0; count < 100; count++)
    trial.hear(arpProbe(IPV4, `02:74:73:00:01:${count.toString(16).padStart(2, '0')}`));
  assert.equal(trial.sent().length, 16);
  assert.equal(trial.losses.length, 1);
});

// --- who wants it kept --------------------------------------------------------------------------------------------------

test('an address is kept as long as one wants it', options, () => {
  const trial = kept();
  const list = new StandbyList(trial.host.clock);
  const told: string[] = [];
  const [one, two] = [() => told.push('one'), () => told.push('two')];
  assert.ok(list.add('k', trial.detection, one));
  assert.ok(list.join('k', two));
  list.leave('k', one);
  list.leave('k', one);
  assert.ok(trial.detection.isOnStandby);
  list.leave('k', two);
  assert.ok(!trial.detection.isOnStandby);
  assert.deepEqual(told, []);
});

test('what was asked for by the fast profile is no answer for a container of a network with rfc', options, () => {
  const trial = kept();
  const list = new StandbyList(trial.host.clock);
  const told: string[] = [];
  assert.ok(list.add('k', trial.detection, (loss) => told.push(loss)));
  assert.equal(list.grant('k', 'rfc'), undefined);
  assert.ok(!trial.detection.isOnStandby && !list.has('k'));
  assert.deepEqual(told, ['ended']);
  const another = kept();
  assert.ok(list.add('k', another.detection, () => undefined));
  assert.equal(list.grant('k', 'fast'), another.detection);
});

test('an address that a container left is kept for two minutes, or as long as one wants it', options, () => {
  for (const isWanted of [false, true]) {
    const trial = kept();
    const list = new StandbyList(trial.host.clock);
    assert.ok(list.addLeft('k', trial.detection));
    const lost = () => undefined;
    if (isWanted) list.join('k', lost);
    list.leave('k', () => undefined);
    trial.world.run(124_000);
    assert.ok(trial.detection.isOnStandby);
    trial.world.run(126_000);
    assert.equal(trial.detection.isOnStandby, isWanted);
    list.leave('k', lost);
    assert.ok(!trial.detection.isOnStandby);
  }
});

test(
  'who wants an address that is being asked for has it by that question, and asks anew when it went with its owner',
  options,
  async () => {
    const trial = kept();
    const list = new StandbyList(trial.host.clock);
    const answers = [0, 1, 2].map(() => Promise.withResolvers<Verdict | 'ended'>());
    let asked = 0;
    const keep = (key: string, lost: LossListener) =>
      list.keep(key, lost, undefined, () => (answers[asked++] as (typeof answers)[0]).promise);
    const told: string[] = [];
    const [first, second] = ['first', 'second'].map((name) => keep('k', () => told.push(name)));
    assert.equal(asked, 1);
    answers[0]?.reject(new Error('the pool is gone'));
    await assert.rejects(first as Promise<unknown>, /the pool is gone/);
    await settle();
    assert.equal(asked, 2);
    list.add('k', trial.detection, () => told.push('second'));
    answers[1]?.resolve(NOT_HELD);
    assert.deepEqual(await second, NOT_HELD);
    assert.deepEqual(await keep('k', () => told.push('third')), NOT_HELD);
    assert.equal(asked, 2, 'it is kept already');
    assert.ok(list.grant('k', 'fast'));
    assert.deepEqual(told, ['second', 'third'], 'a container is to get it');

    const both = [keep('k', () => undefined), keep('k', () => undefined)];
    answers[2]?.resolve('ended');
    assert.deepEqual(await Promise.all(both), ['ended', 'ended']);
  },
);

test('many containers that end together leave room for those after them', options, () => {
  const world = kept();
  const list = new StandbyList(world.host.clock);
  const trials = Array.from({ length: 300 }, () => kept());
  const added = trials.filter((trial, at) => list.addLeft(`k${at}`, trial.detection));
  assert.equal(added.length, 256);
  assert.ok(list.grant('k0', 'fast'));
  assert.ok(list.addLeft('again', (trials[256] as Trial).detection));
  world.world.run(200_000);
  assert.ok(list.addLeft('later', (trials[257] as Trial).detection));
});

// --- races --------------------------------------------------------------------------------------------------------------

interface DaemonSpec {
  readonly mac: number;
  readonly startMs: number;
  /** Null: a container waits from the start. Else it looks for a reserve, and a container comes that much later. */
  readonly containerAfterMs: number | null;
  /** It is asked for ahead that long before the container comes. */
  readonly aheadMs: number | null;
  /** Its container had the address until it starts. */
  readonly wasOurs: boolean;
  readonly latencyMs: number;
  readonly stallFromMs: number;
  readonly stallForMs: number;
}

interface RaceSpec {
  readonly isIPv6: boolean;
  readonly seeds: number;
  readonly hosts: readonly DaemonSpec[];
}

/** How many daemons gave the address to a container, and how many said afterwards that somebody else uses it. */
async function race(
  { isIPv6, seeds, hosts: specs }: RaceSpec,
  refreshMs = 3000,
): Promise<{ given: number; reports: number }> {
  const address = isIPv6 ? IPV6 : IPV4;
  const world = new World();
  const hosts: Host[] = [];
  let [given, reports, seed] = [0, 0, seeds];
  const random = () => {
    seed = (seed * 1103515245 + 12345) % 2 ** 31;
    return seed / 2 ** 31;
  };
  for (const spec of specs) {
    const macAddress = `02:74:73:00:00:${spec.mac.toString(16).padStart(2, '0')}`;
    const stall = { fromMs: spec.stallFromMs, forMs: spec.stallForMs };
    const host = new Host(world, { macAddress, latencyMs: spec.latencyMs, stall }, hosts);
    hosts.push(host);
    const begin = () => {
      const wanted = {
        address,
        parentName: 'lan0',
        profile: 'fast' as const,
        guardMs: 60_000,
        isOwn: () => false,
        onLateConflict: () => reports++,
        onOver: () => undefined,
      };
      const { containerAfterMs, aheadMs, wasOurs } = spec;
      const standby = { refreshMs, isOurs: wasOurs, isOfHost: null };
      const detect = (terms: Partial<typeof wanted & { standby: StandbyTerms }>) => {
        const context = { wire: host, clock: host.clock, random, answersForAll: undefined };
        host.detection = new Detection({ ...wanted, ...terms }, context);
        host.detection.start();
        return host.detection;
      };
      const count = ({ verdict }: Detection) => void verdict.then(({ held }) => !held && given++);
      // As Prober.probe(): what is not on standby, or not surely, is asked for thoroughly.
      const need = (detection: Detection) =>
        count(detection.join('fast') || detection.grant() ? detection : detect({}));
      const detection = detect(containerAfterMs === null ? {} : { standby });
      if (containerAfterMs === null) count(detection);
      else {
        if (aheadMs !== null) host.clock.after(Math.max(0, containerAfterMs - aheadMs), () => detection.askAhead());
        host.clock.after(containerAfterMs, () => need(detection));
      }
      host.tick();
    };
    // Who had the address was there before it could stall.
    if (spec.wasOurs) world.at(spec.startMs, begin);
    else host.clock.after(spec.startMs, begin);
  }
  world.run(20_000);
  await settle();
  return { given, reports };
}

function races(stallForMs: number, latencyMs: number, least: number, most: number) {
  return fc.record({
    isIPv6: fc.boolean(),
    seeds: fc.integer({ min: 1, max: 2 ** 31 - 1 }),
    hosts: fc
      .uniqueArray(
        fc.record({
          mac: fc.integer({ min: 0, max: 255 }),
          startMs: fc.integer({ min: 0, max: 4000 }),
          containerAfterMs: fc.option(fc.integer({ min: 0, max: 6000 })),
          aheadMs: fc.option(fc.integer({ min: 0, max: 300 })),
          wasOurs: fc.boolean(),
          latencyMs: fc.integer({ min: 0, max: latencyMs }),
          stallFromMs: fc.integer({ min: 0, max: 6000 }),
          stallForMs: fc.integer({ min: 0, max: stallForMs }),
        }),
        { minLength: least, maxLength: most, selector: ({ mac }) => mac },
      )
      .map(onlyFirstWasOurs),
  });
}

/** One at most had the address before, and from the beginning: else it was in use twice already. */
function onlyFirstWasOurs(hosts: DaemonSpec[]): DaemonSpec[] {
  return hosts.map((host, at) =>
    at === 0 && host.wasOurs && host.containerAfterMs !== null ? { ...host, startMs: 0 } : { ...host, wasOurs: false },
  );
}

test(
  'daemons that keep, look for and need one address never give it out twice, even when they stall',
  options,
  async () => {
    await fc.assert(
      fc.asyncProperty(races(400, 100, 2, 4), async (spec) => assert.ok((await race(spec)).given <= 1)),
      { numRuns: 500 },
    );
  },
);

test('when a daemon stalls for so long that two give it out, at least one reports it', options, async () => {
  await fc.assert(
    fc.asyncProperty(races(2000, 100, 2, 4), async (spec) => {
      const { given, reports } = await race(spec);
      assert.ok(given <= 1 || reports >= 1);
    }),
    { numRuns: 300 },
  );
});

test('a container that needs an address gets it from the daemon that only keeps it', options, async () => {
  await fc.assert(
    fc.asyncProperty(races(0, 10, 1, 1), fc.integer({ min: 1000, max: 5000 }), async ({ hosts, ...race_ }, startMs) => {
      const [keeper] = hosts;
      assert.ok(keeper);
      const one = { ...keeper, containerAfterMs: 60_000, wasOurs: false, startMs: 0 };
      const two = { ...keeper, mac: (keeper.mac + 1) % 256, containerAfterMs: null, wasOurs: false, startMs };
      assert.equal((await race({ ...race_, hosts: [one, two] }, REFRESH_MS)).given, 1);
    }),
    { numRuns: 300 },
  );
});

test('the MAC that a keeper names is not one that anybody probes with', options, () => {
  assert.ok(isStandbyMac(standbyMac(OUR_MAC)));
  assert.ok(!isStandbyMac(OUR_MAC));
  assert.equal(decodeArp(encodeArp(arpReply(probes.IPv4(RIVAL), standbyMac(OUR_MAC))))?.senderMac, '02:74:6b:00:00:80');
});
