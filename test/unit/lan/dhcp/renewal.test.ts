import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import type { LeaseLoss } from '../../../../src/model.ts';
import { type DhcpLease, leaseOf } from '../../../../src/lan/dhcp/question.ts';
import { type DatedLease, keepLease } from '../../../../src/lan/dhcp/renewal.ts';
import { SERVER_MAC, ip } from '../frames/dhcpanswers.ts';
import { World } from '../imagined.ts';
import { ImaginedLan, type Server, server } from './imaginary.ts';

const options = { timeout: 20_000 };
const MAC = '02:42:c0:a8:4d:64';
const OURS = '192.168.77.100';
/** When the tests begin, by the wall clock. */
const EPOCH_MS = Date.parse('2026-01-01T00:00:00Z');
const stop = new AbortController();
after(() => stop.abort());

function lease(change: Partial<DhcpLease> = {}): DhcpLease {
  const terms = {
    address: ip(OURS),
    prefixLength: 24,
    leaseSeconds: 3600,
    t1Seconds: null,
    t2Seconds: null,
    routers: [],
    routes: null,
    dnsServers: [],
    domain: null,
    mtu: null,
  };
  return { ...leaseOf(terms, { address: ip('192.168.77.1'), macAddress: SERVER_MAC }), ...change };
}

class Kept {
  readonly world = new World();
  readonly lan: ImaginedLan;
  readonly kept: DatedLease[] = [];
  readonly lost: { readonly loss: LeaseLoss; readonly atMs: number }[] = [];
  /** By which the wall clock runs ahead. */
  aheadMs = 0;

  constructor(servers: readonly Server[], change: Partial<DhcpLease> = {}, ageMs = 0, random = () => 0.5) {
    this.lan = new ImaginedLan(this.world, servers);
    const { lan, world } = this;
    const wallMs = () => EPOCH_MS + world.nowMs + this.aheadMs;
    void keepLease(
      { macAddress: MAC, hostname: null },
      { lease: lease(change), obtainedMs: EPOCH_MS - ageMs },
      {
        wire: lan,
        clock: lan.clock,
        random,
        signal: stop.signal,
        wallMs,
        onKept: (one) => this.kept.push(one),
        onLost: (loss) => this.lost.push({ loss, atMs: world.nowMs }),
      },
    ).catch(() => undefined);
  }

  async live(untilSeconds: number): Promise<void> {
    await new Promise(setImmediate);
    await this.world.live(untilSeconds * 1000);
  }

  /** `1800 REQUEST to one`: in seconds, and whether it went to the server alone. */
  get said(): string[] {
    return this.lan.heard.map(
      ({ atMs, type, isBroadcast }) => `${Math.round(atMs / 1000)} ${type}${isBroadcast ? '' : ' to one'}`,
    );
  }
}

test('at half of its time a lease is renewed at its server, again and again', options, async () => {
  const one = new Kept([server({ offers: [OURS] })]);
  await one.live(6000);
  assert.deepEqual(one.said, ['1800 REQUEST to one', '3600 REQUEST to one', '5400 REQUEST to one']);
  assert.deepEqual(
    one.lan.heard.map(({ macAddress, address, server: named }) => [macAddress, address, named]),
    Array.from({ length: 3 }, () => [MAC, OURS, '']),
  );
  assert.equal(one.kept.length, 3);
  assert.deepEqual(one.lost, []);
});

test('the times that the server says count, unless they make no sense', options, async () => {
  const said = new Kept([server({ offers: [OURS] })], { t1Seconds: 600, t2Seconds: 700 });
  await said.live(700);
  assert.deepEqual(said.said, ['600 REQUEST to one']);
  const nonsense = new Kept([server({ offers: [OURS] })], { t1Seconds: 3000, t2Seconds: 10 });
  await nonsense.live(2000);
  assert.deepEqual(nonsense.said, ['1800 REQUEST to one']);
});

test('containers that began together do not renew together', options, async () => {
  const early = new Kept([server({ offers: [OURS] })], {}, 0, () => 0);
  const late = new Kept([server({ offers: [OURS] })], {}, 0, () => 0.999);
  await early.live(2100);
  await late.live(2100);
  assert.deepEqual([early.said[0], late.said[0]], ['1620 REQUEST to one', '1980 REQUEST to one']);
});

test('a lease without end is never renewed', options, async () => {
  const one = new Kept([server({ offers: [OURS] })], { leaseSeconds: 0xffff_ffff });
  await one.live(100_000);
  assert.deepEqual(one.said, []);
});

test(
  'a silent server is asked at half of what is left, then any, and one that forgot gives it again before the end',
  options,
  async () => {
    const forgetful: Server = (heard, lan) => {
      // As udhcpd: it answers no renewal of what it does not know, and gives it to one who wishes for it.
      if (heard.type === 'REQUEST' && heard.server === '') return;
      server({ offers: [], givesWish: true })(heard, lan);
    };
    const one = new Kept([forgetful]);
    await one.live(3600);
    const renewing = one.said.filter((line) => line.endsWith('to one')).map((line) => Number.parseInt(line, 10));
    assert.deepEqual(
      renewing.filter((_, position) => position % 2 === 0).map((at) => Math.round(at / 10) * 10),
      [1800, 2480, 2820, 2990, 3070, 3130],
    );
    assert.ok(one.said.includes('3150 REQUEST'), 'from T2 on to all');
    assert.equal(one.said.at(-2)?.endsWith('DISCOVER'), true, one.said.join(', '));
    assert.equal(one.kept.length, 1);
    assert.deepEqual(one.lost, []);
  },
);

test('of a lease of seconds too, what was forgotten is got again before the end', options, async () => {
  const forgetful: Server = (heard, lan) => {
    if (heard.type === 'REQUEST' && heard.server === '') return;
    server({ offers: [], givesWish: true })(heard, lan);
  };
  const one = new Kept([forgetful], { leaseSeconds: 20 });
  await one.live(21);
  assert.deepEqual([one.kept.length, one.lost.length], [1, 0], one.said.join(', '));
  const keptAtMs = one.kept[0]!.obtainedMs - EPOCH_MS;
  assert.ok(keptAtMs > 17_500 && keptAtMs < 18_500, `${keptAtMs} ms after it was got`);
});

test('after a refusal a lost frame is made up for before a lease of seconds ends', options, async () => {
  let wishes = 0;
  const refusing: Server = (heard, lan) => {
    if (heard.type === 'DISCOVER' && ++wishes <= 2) return;
    const isRenewal = heard.type === 'REQUEST' && heard.server === '';
    server({ offers: [], givesWish: true, onRequest: isRenewal ? 'NAK' : 'ACK' })(heard, lan);
  };
  const one = new Kept([refusing], { leaseSeconds: 20 });
  await one.live(21);
  assert.deepEqual([one.kept.length, one.lost.length], [1, 0], one.said.join(', '));
});

test('without any server it is lost at its end, and got back when one comes', options, async () => {
  let isThere = false;
  const later: Server = (heard, lan) => {
    if (isThere) server({ offers: [], givesWish: true })(heard, lan);
  };
  const one = new Kept([later]);
  await one.live(3500);
  assert.deepEqual(one.lost, [], 'not before its end');
  await one.live(4000);
  assert.deepEqual(
    one.lost.map(({ loss }) => loss),
    ['silent'],
  );
  const asked = one.lan.heard.length;
  await one.live(7600);
  assert.ok(one.lan.heard.length - asked <= 2 * 60 + 2, 'once a minute, each time by two frames');
  isThere = true;
  await one.live(7700);
  assert.equal(one.kept.length, 1);
  assert.equal(one.lost.length, 1);
});

test('a refusal is answered with the wish for the same address', options, async () => {
  const refusing: Server = (heard, lan) => {
    const isRenewal = heard.type === 'REQUEST' && heard.server === '';
    server({ offers: [], givesWish: true, onRequest: isRenewal ? 'NAK' : 'ACK' })(heard, lan);
  };
  const one = new Kept([refusing]);
  await one.live(1900);
  assert.deepEqual(one.said, ['1800 REQUEST to one', '1800 DISCOVER', '1800 REQUEST']);
  assert.deepEqual([one.kept.length, one.lost.length], [1, 0]);
});

test(
  'a server that gives only another address has taken it away: told once, and tried once more before',
  options,
  async () => {
    const another: Server = (heard, lan) => {
      const isRenewal = heard.type === 'REQUEST' && heard.server === '';
      server({ offers: ['10.0.0.7'], onRequest: isRenewal ? 'NAK' : 'ACK' })(heard, lan);
    };
    const one = new Kept([another]);
    await one.live(4000);
    assert.deepEqual(
      one.lost.map(({ loss }) => loss),
      ['refused'],
    );
    assert.ok((one.lost[0]?.atMs ?? 0) < 1_830_000, 'soon, since nothing changes by waiting');
    assert.equal(one.kept.length, 0);
    assert.ok(!one.lan.heard.some(({ type, address }) => type === 'REQUEST' && address === '10.0.0.7'));
  },
);

test(
  'after a start in its second half it is renewed at once; after its end it is wished for before it counts as lost',
  options,
  async () => {
    const late = new Kept([server({ offers: [OURS] })], {}, 2_000_000);
    await late.live(10);
    assert.deepEqual(late.said, ['1 REQUEST to one']);
    const over = new Kept([server({ offers: [], givesWish: true })], {}, 100_000_000);
    await over.live(10);
    assert.deepEqual(over.said, ['1 DISCOVER', '1 REQUEST']);
    assert.deepEqual([over.kept.length, over.lost.length], [1, 0]);
  },
);

test('a clock that was set, and a host that slept, lead to a renewal and not to a lost lease', options, async () => {
  const future = new Kept([server({ offers: [OURS] })], {}, -50_000_000);
  await future.live(10);
  assert.deepEqual(future.said, ['1 REQUEST to one']);
  const slept = new Kept([server({ offers: [OURS] })]);
  await slept.live(60);
  slept.aheadMs = 2_500_000;
  await slept.live(700);
  assert.deepEqual(slept.said, ['600 REQUEST to one'], 'the clocks are looked at every ten minutes');
  assert.deepEqual([slept.kept.length, slept.lost.length], [1, 0]);
});

test('leases of seconds are kept too', options, async () => {
  const one = new Kept([server({ offers: [OURS], leaseSeconds: 20 })], { leaseSeconds: 20 });
  await one.live(120);
  assert.equal(one.kept.length, 11);
  assert.deepEqual(one.lost, []);
});

test('a server that wants to be asked each second is asked each five, and the lease is kept', options, async () => {
  for (const short of [{ leaseSeconds: 1 }, { leaseSeconds: 3600, t1Seconds: 1, t2Seconds: 2 }]) {
    const one = new Kept([server({ offers: [OURS], ...short })], short);
    await one.live(121);
    assert.ok(one.kept.length >= 20 && one.kept.length <= 26, `${one.kept.length} times`);
    assert.deepEqual(one.lost, []);
  }
});

test('only the address of the container counts', options, async () => {
  const odd: Server = (heard, lan) => server({ offers: [OURS] })({ ...heard, address: '192.168.77.66' }, lan);
  const one = new Kept([odd]);
  await one.live(1900);
  assert.equal(one.kept.length, 0);
});
