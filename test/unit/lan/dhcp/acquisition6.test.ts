/** How an address of a DHCPv6 server is got and kept, on an imagined LAN in imagined time. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { formatAddress } from '../../../../src/address.ts';
import {
  type Acquired6,
  type Acquisition6Spec,
  type Dhcp6Lease,
  Voice6,
  acquire6,
} from '../../../../src/lan/dhcp/acquisition6.ts';
import type { ExchangeWire } from '../../../../src/lan/dhcp/question.ts';
import { keepWith } from '../../../../src/lan/dhcp/renewal.ts';
import type { LeaseLoss } from '../../../../src/model.ts';
import { type Dhcp6Answer, decodeDhcp6 } from '../../../../src/lan/frames/dhcp6.ts';
import { decodeUdp6 } from '../../../../src/lan/frames/udp6.ts';
import type { Verdict } from '../../../../src/lan/verdict.ts';
import { type Answer6Spec, SERVER6_DUID, answer6Frame } from '../frames/dhcp6answers.ts';
import { ip } from '../frames/dhcpanswers.ts';
import { World } from '../imagined.ts';

const options = { timeout: 20_000 };
const MAC = '02:42:5e:10:00:11';
const [FIRST, SECOND, THIRD] = ['fd77:1::100', 'fd77:1::101', 'fd77:1::102'];
const OTHER_DUID = '000300013c22fb000002';
const TYPES = new Map([
  [1, 'SOLICIT'],
  [3, 'REQUEST'],
  [5, 'RENEW'],
  [6, 'REBIND'],
  [8, 'RELEASE'],
  [9, 'DECLINE'],
]);
const stop = new AbortController();
after(() => stop.abort());

interface Heard {
  readonly atMs: number;
  readonly type: string;
  readonly xid: number;
  /** '' for none. */
  readonly address: string;
  readonly server: string;
}

/** Answers, or not; as many as it likes. */
type Server = (heard: Heard) => readonly (Partial<Answer6Spec> & { readonly afterMs?: number })[];

class Lan6 implements ExchangeWire<Dhcp6Answer> {
  readonly world = new World();
  readonly heard: Heard[] = [];
  servers: readonly Server[];
  readonly clock = {
    nowMs: () => this.world.nowMs,
    after: (delayMs: number, run: () => void) => this.world.at(this.world.nowMs + delayMs, run),
  };
  readonly #listeners = new Set<{ xid: number; hear: (answer: Dhcp6Answer) => void }>();

  constructor(servers: readonly Server[]) {
    this.servers = servers;
  }

  send(frame: Buffer): void {
    const heard = readRequest(frame, this.world.nowMs);
    this.heard.push(heard);
    for (const server of this.servers)
      for (const { afterMs = 1, ...spec } of server(heard))
        this.world.at(this.world.nowMs + afterMs, () =>
          this.#deliver({ type: 7, xid: heard.xid, macAddress: MAC, ...spec }),
        );
  }

  listen(_mac: string, xid: number, hear: (answer: Dhcp6Answer) => void): () => void {
    const listener = { xid, hear };
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #deliver(spec: Answer6Spec): void {
    const answer = decodeDhcp6(answer6Frame(spec));
    for (const { xid, hear } of this.#listeners) if (answer?.xid === xid) hear(answer);
  }
}

function readRequest(frame: Buffer, atMs: number): Heard {
  const data = decodeUdp6(frame)?.data ?? Buffer.alloc(4);
  let [address, server] = ['', ''];
  for (let at = 4; at < data.length; at += 4 + data.readUInt16BE(at + 2)) {
    const value = data.subarray(at + 4, at + 4 + data.readUInt16BE(at + 2));
    if (data.readUInt16BE(at) === 2) server = value.toString('hex');
    if (data.readUInt16BE(at) === 3 && value.length > 12)
      address = formatAddress({ family: 'IPv6', value: BigInt(`0x${value.toString('hex', 16, 32)}`) });
  }
  return { atMs, type: TYPES.get(data.readUInt8(0)) ?? '?', xid: data.readUIntBE(1, 3), address, server };
}

/** Offers what was not declined, the first of it or what is wished for, and gives it. */
function honest(offers: readonly string[], change: Partial<Answer6Spec> = {}): Server {
  const declined = new Set<string>();
  return ({ type, address, server }) => {
    if (type === 'DECLINE') declined.add(address);
    const free = offers.filter((one) => !declined.has(one));
    const offered = free.find((one) => one === address) ?? free[0];
    if (type === 'SOLICIT' && offered === undefined) return [{ type: 2, status: [2, 'none left'], ...change }];
    if (type === 'SOLICIT') return [{ type: 2, gives: [{ address: offered ?? '' }], ...change }];
    if (type === 'REBIND' || server === (change.server ?? SERVER6_DUID)) return [{ gives: [{ address }], ...change }];
    return [];
  };
}

interface Run {
  readonly lan: Lan6;
  readonly outcome: Acquired6 | undefined;
  readonly tookMs: number;
}

async function run(
  servers: readonly Server[],
  change: Partial<Acquisition6Spec> = {},
  holds: string[] = [],
): Promise<Run> {
  const lan = new Lan6(servers);
  const { world, clock } = lan;
  const check = ({ address }: Dhcp6Lease): Promise<Verdict> => {
    const held = {
      held: true,
      macAddress: '3c:22:fb:10:aa:01',
      linkName: 'lan0',
      simultaneous: false,
      isOnHost: false,
    } as const;
    const verdict = holds.includes(formatAddress(address)) ? held : ({ held: false } as const);
    return new Promise((resolve) => world.at(world.nowMs + 650, () => resolve(verdict)));
  };
  const spec = { macAddress: MAC, hostname: 'web', wish: null, isStrict: false, untilMs: 25_000, ...change };
  let [outcome, tookMs]: [Acquired6 | undefined, number] = [undefined, 0];
  void acquire6(spec, { wire: lan, clock, random: () => 0.5, check }).then((done) => {
    [outcome, tookMs] = [done, world.nowMs];
  });
  for (let ms = 0; ms <= 40_000 && outcome === undefined; ms += 10) await world.live(ms);
  return { lan, outcome, tookMs };
}

function addressIn({ outcome }: Run): string | undefined {
  return outcome?.kind === 'lease' ? formatAddress(outcome.lease.address) : outcome?.kind;
}

const kindsOf = ({ heard }: Lan6) => heard.map(({ type }) => type);

test('one server: its address after four messages, in the time of the question to the LAN', options, async () => {
  const done = await run([honest([FIRST])]);
  assert.equal(addressIn(done), FIRST);
  assert.deepEqual(kindsOf(done.lan), ['SOLICIT', 'REQUEST']);
  assert.ok(done.tookMs < 1000, `${done.tookMs} ms`);
  assert.ok(done.outcome?.kind === 'lease');
  const { leaseSeconds, t1Seconds, t2Seconds, server } = done.outcome.lease;
  assert.deepEqual(
    [leaseSeconds, t1Seconds, t2Seconds, server],
    [600, 150, 240, SERVER6_DUID],
    'T1 and T2 are ours to choose',
  );
});

test('the wish is taken at once, and of several servers the one that prefers itself', options, async () => {
  const wished = await run([honest([FIRST, SECOND], { preference: 3 })], { wish: ip(SECOND) });
  assert.equal(addressIn(wished), SECOND);
  const [weak, strong] = [honest([FIRST], { preference: 1 }), honest([SECOND], { preference: 2, server: OTHER_DUID })];
  assert.equal(addressIn(await run([weak, strong])), SECOND);
  const best = honest([THIRD], { preference: 255, server: OTHER_DUID });
  const done = await run([weak, best]);
  assert.equal(addressIn(done), THIRD);
  assert.ok((done.lan.heard[1]?.atMs ?? 0) < 100);
});

test('what the question to the LAN throws ends it and gives back what the server gave', options, async () => {
  const lan = new Lan6([honest([FIRST])]);
  const check = () => Promise.reject(new Error('the engine hung up'));
  const spec = { macAddress: MAC, hostname: 'web', wish: null, isStrict: false, untilMs: 25_000 };
  const ended = acquire6(spec, { wire: lan, clock: lan.clock, random: () => 0.5, check });
  ended.catch(() => undefined);
  for (let ms = 0; ms <= 1000; ms += 10) await lan.world.live(ms);
  await assert.rejects(ended, /the engine hung up/);
  assert.deepEqual(kindsOf(lan), ['SOLICIT', 'REQUEST', 'RELEASE']);
});

test('silence: asked for at 0, 1, 3, 7, 15 s, then given up', options, async () => {
  const done = await run([]);
  assert.equal(done.outcome?.kind, 'silent');
  assert.deepEqual(
    done.lan.heard.map(({ atMs }) => atMs),
    [0, 1000, 3000, 7000, 15_000],
  );
  assert.equal(done.tookMs, 25_000);
});

test(
  'a server without addresses is told in its own words, and another one that has some is waited for',
  options,
  async () => {
    const empty = await run([honest([])], { untilMs: 4000 });
    assert.deepEqual(empty.outcome, { kind: 'refused', message: 'none left' });
    const late: Server = (heard) =>
      honest([SECOND], { server: OTHER_DUID })(heard).map((one) => ({ ...one, afterMs: 900 }));
    assert.equal(addressIn(await run([honest([]), late])), SECOND);
  },
);

test('addresses that others use are declined, three at most', options, async () => {
  const done = await run([honest([FIRST, SECOND, THIRD])], {}, [FIRST, SECOND]);
  assert.equal(addressIn(done), THIRD);
  assert.deepEqual(
    done.lan.heard.filter(({ type }) => type === 'DECLINE').map(({ address, server }) => [address, server]),
    [
      [FIRST, SERVER6_DUID],
      [SECOND, SERVER6_DUID],
    ],
  );
  const all = await run([honest([FIRST, SECOND, THIRD, 'fd77:1::103'])], {}, [FIRST, SECOND, THIRD]);
  assert.ok(all.outcome?.kind === 'used');
  assert.equal(all.outcome.count, 3);
});

test('a server that takes its offer back is asked again, and not for ever', options, async () => {
  const fickle: Server = (heard) =>
    heard.type === 'SOLICIT' ? [{ type: 2, gives: [{ address: FIRST }] }] : [{ status: [2, 'gone'] }];
  const done = await run([fickle]);
  assert.deepEqual(done.outcome, { kind: 'refused', message: 'gone' });
  assert.equal(kindsOf(done.lan).filter((kind) => kind === 'REQUEST').length, 3);
});

test('of ten thousand offers one is kept', options, async () => {
  const flood: Server = (heard) =>
    heard.type === 'SOLICIT'
      ? Array.from({ length: 10_000 }, (_, number) => ({
          type: 2,
          gives: [{ address: `fd77:1::${number.toString(16)}:1` }],
        }))
      : [{ gives: [{ address: heard.address }] }];
  const done = await run([flood]);
  assert.equal(addressIn(done), 'fd77:1::1');
  assert.equal(done.lan.heard.length, 2);
});

class Kept {
  readonly lan: Lan6;
  readonly kept: number[] = [];
  readonly lost: (readonly [LeaseLoss, number])[] = [];

  constructor(servers: readonly Server[]) {
    this.lan = new Lan6(servers);
    const { lan } = this;
    const lease = { address: ip(FIRST), server: SERVER6_DUID, leaseSeconds: 600, t1Seconds: 150, t2Seconds: 240 };
    const context = { wire: lan, clock: lan.clock, random: () => 0.5, signal: stop.signal };
    const onKept = () => this.kept.push(lan.world.nowMs / 1000);
    const onLost = (loss: LeaseLoss) => this.lost.push([loss, lan.world.nowMs / 1000]);
    const keeping = { ...context, wallMs: () => lan.world.nowMs, onKept, onLost };
    const voice = new Voice6({ macAddress: MAC, hostname: null }, context);
    void keepWith(voice, { lease, obtainedMs: 0 }, keeping).catch(() => undefined);
  }

  async live(untilSeconds: number): Promise<void> {
    for (let ms = this.lan.world.nowMs; ms <= untilSeconds * 1000; ms += 50) await this.lan.world.live(ms);
  }
}

test('a lease is renewed at its server at T1, again and again', options, async () => {
  const one = new Kept([honest([FIRST], { t1Seconds: 150, t2Seconds: 240 })]);
  await one.live(460);
  assert.deepEqual(kindsOf(one.lan), ['RENEW', 'RENEW', 'RENEW']);
  assert.equal(one.kept.length, 3);
  assert.deepEqual(one.lost, []);
});

test('when its server is gone any server is asked from T2 on', options, async () => {
  const one = new Kept([honest([FIRST], { server: OTHER_DUID })]);
  await one.live(300);
  assert.equal(one.kept.length, 1);
  assert.ok((one.kept[0] ?? 0) >= 240 && (one.kept[0] ?? 0) < 250, `${one.kept[0]} s`);
  assert.deepEqual([...new Set(kindsOf(one.lan))], ['RENEW', 'REBIND']);
});

test('a server that forgot the lease gives it again to one who wishes for it', options, async () => {
  const given = honest([FIRST]);
  const forgetful: Server = (heard) => (heard.type === 'RENEW' ? [{ status: [3, 'no binding'] }] : given(heard));
  const one = new Kept([forgetful]);
  await one.live(200);
  assert.deepEqual(kindsOf(one.lan), ['RENEW', 'SOLICIT', 'REQUEST']);
  assert.equal(one.kept.length, 1);
  assert.deepEqual(one.lost, []);
});

test('a failure of a moment ends nothing, silence to the end is told once, and asking goes on', options, async () => {
  const moody = new Kept([({ type }) => (type === 'RENEW' ? [{ status: [1, 'busy'] }] : [])]);
  await moody.live(700);
  assert.deepEqual(
    moody.lost.map(([loss]) => loss),
    ['silent'],
  );
  assert.ok((moody.lost[0]?.[1] ?? 0) >= 600);
  moody.lan.servers = [honest([FIRST])];
  await moody.live(800);
  assert.ok(moody.kept.length > 0);
});

test('a server that gives only another address has taken it away', options, async () => {
  const moved: Server = ({ type }) =>
    type === 'RENEW'
      ? [{ gives: [{ address: FIRST, preferredSeconds: 0, validSeconds: 0 }] }]
      : [{ type: 2, gives: [{ address: SECOND }] }];
  const one = new Kept([moved]);
  await one.live(200);
  assert.deepEqual(
    one.lost.map(([loss]) => loss),
    ['refused'],
  );
});
