import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { formatAddress } from '../../../../src/address.ts';
import { type Acquired, type AcquisitionSpec, acquire } from '../../../../src/lan/dhcp/acquisition.ts';
import type { DhcpLease } from '../../../../src/lan/dhcp/question.ts';
import type { Verdict } from '../../../../src/lan/verdict.ts';
import { bytesOf, ip, seconds } from '../frames/dhcpanswers.ts';
import { World } from '../imagined.ts';
import { type Heard, ImaginedLan, type Server, server } from './imaginary.ts';

const options = { timeout: 20_000 };
const MAC = '02:42:c0:a8:4d:64';
const STRANGER = '3c:22:fb:10:aa:01';
const FREE: Verdict = { held: false };
const HELD: Verdict = { held: true, macAddress: STRANGER, linkName: 'lan0', simultaneous: false, isOnHost: false };
const spec: AcquisitionSpec = { macAddress: MAC, hostname: 'web', wish: null, isStrict: false, untilMs: 25_000 };

interface Run {
  readonly lan: ImaginedLan;
  readonly outcome: Acquired | Error | undefined;
  readonly tookMs: number;
  readonly checked: string[];
}

/** Lives until it is answered, 40 s at most. `holds`: what somebody else has on the LAN. */
async function run(
  servers: readonly Server[],
  change: Partial<AcquisitionSpec> = {},
  holds: string[] = [],
): Promise<Run> {
  const world = new World();
  const lan = new ImaginedLan(world, servers);
  const checked: string[] = [];
  const check = ({ address }: DhcpLease): Promise<Verdict> => {
    checked.push(formatAddress(address));
    const verdict = holds.includes(formatAddress(address)) ? HELD : FREE;
    return new Promise((resolve) => world.at(world.nowMs + 650, () => resolve(verdict)));
  };
  let [outcome, tookMs]: [Acquired | Error | undefined, number] = [undefined, 0];
  void acquire({ ...spec, ...change }, { wire: lan, clock: lan.clock, random: () => 0.5, check })
    .catch((error: unknown) => error as Error)
    .then((done) => {
      [outcome, tookMs] = [done, world.nowMs];
    });
  for (let ms = 0; ms <= 40_000 && outcome === undefined; ms += 10) await world.live(ms);
  return { lan, outcome, tookMs, checked };
}

function leaseIn(outcome: Run['outcome']): DhcpLease {
  assert.ok(
    outcome !== undefined && !(outcome instanceof Error) && outcome.kind === 'lease',
    JSON.stringify(outcome, stringify),
  );
  return outcome.lease;
}

const stringify = (_key: string, value: unknown) => (typeof value === 'bigint' ? String(value) : value);

function kinds(lan: ImaginedLan): string {
  return lan.heard.map(({ type, address }) => [type, address].filter(Boolean).join(' ')).join(', ');
}

test('a server that answers gives its lease in the time of the question to the LAN', options, async () => {
  const { lan, outcome, tookMs, checked } = await run([server({ offers: ['192.168.77.100'] })]);
  const lease = leaseIn(outcome);
  assert.equal(formatAddress(lease.address), '192.168.77.100');
  assert.deepEqual(
    [lease.prefixLength, lease.leaseSeconds, formatAddress(lease.server.address)],
    [24, 3600, '192.168.77.1'],
  );
  assert.equal(kinds(lan), 'DISCOVER, REQUEST 192.168.77.100');
  assert.deepEqual(checked, ['192.168.77.100']);
  assert.ok(tookMs < 800, `${tookMs} ms`);
  assert.equal(lan.listeners, 0);
});

test('all messages of an exchange have one xid and come from the MAC address that asks', options, async () => {
  const { lan } = await run([server({ offers: ['192.168.77.100'] })]);
  assert.equal(new Set(lan.heard.map(({ xid }) => xid)).size, 1);
  assert.ok(lan.heard.every(({ macAddress, isBroadcast }) => macAddress === MAC && isBroadcast));
});

test('without a server it asks at 0, 2, 5, 11 and 18 s, and gives up when its time is over', options, async () => {
  const { lan, outcome, tookMs } = await run([]);
  assert.deepEqual(outcome, { kind: 'silent' });
  assert.equal(tookMs, 25_000);
  assert.deepEqual(
    lan.heard.map(({ atMs }) => atMs),
    [0, 2000, 5000, 11_000, 18_000],
  );
  assert.equal(lan.listeners, 0);
});

test('the patience is what it was given', options, async () => {
  const { lan, outcome, tookMs } = await run([], { untilMs: 5500 });
  assert.deepEqual([outcome, tookMs, lan.heard.length], [{ kind: 'silent' }, 5500, 3]);
});

test('a server that asks the LAN first is waited for', options, async () => {
  const { lan, outcome } = await run([server({ offers: ['192.168.77.100'], offerAfterMs: 3500 })]);
  leaseIn(outcome);
  assert.equal(kinds(lan), 'DISCOVER, DISCOVER, REQUEST 192.168.77.100');
});

test('a wish is said, and of several servers the one that grants it is taken', options, async () => {
  const servers = [
    server({ address: '192.168.77.1', offers: ['192.168.77.100'] }),
    server({ address: '192.168.77.2', offers: [], givesWish: true, offerAfterMs: 200 }),
  ];
  const { lan, outcome } = await run(servers, { wish: ip('192.168.77.50') });
  assert.equal(formatAddress(leaseIn(outcome).server.address), '192.168.77.2');
  assert.equal(kinds(lan), 'DISCOVER 192.168.77.50, REQUEST 192.168.77.50');
  assert.equal(lan.heard[1]?.server, '192.168.77.2');
});

test('where nobody grants the wish soon, the first offer is taken', options, async () => {
  const servers = [
    server({ address: '192.168.77.1', offers: ['192.168.77.100'] }),
    server({ address: '192.168.77.2', offers: ['192.168.77.200'], offerAfterMs: 20 }),
    server({ address: '192.168.77.3', offers: ['192.168.77.50'], offerAfterMs: 400 }),
  ];
  const { outcome } = await run(servers, { wish: ip('192.168.77.50') });
  assert.equal(formatAddress(leaseIn(outcome).address), '192.168.77.100');
});

test('where only one address will do, another one is the reason of the refusal', options, async () => {
  const { lan, outcome, tookMs } = await run([server({ offers: ['192.168.77.100'] })], {
    wish: ip('192.168.77.50'),
    isStrict: true,
  });
  assert.ok(outcome !== undefined && !(outcome instanceof Error) && outcome.kind === 'other');
  assert.equal(formatAddress(outcome.offered.address), '192.168.77.100');
  assert.equal(kinds(lan), 'DISCOVER 192.168.77.50');
  assert.ok(tookMs < 1000);
});

test('what somebody else has is declined, and the next offer taken', options, async () => {
  const { lan, outcome } = await run([server({ offers: ['192.168.77.100', '192.168.77.101'] })], {}, [
    '192.168.77.100',
  ]);
  assert.equal(formatAddress(leaseIn(outcome).address), '192.168.77.101');
  assert.equal(
    kinds(lan),
    'DISCOVER, REQUEST 192.168.77.100, DECLINE 192.168.77.100, DISCOVER, REQUEST 192.168.77.101',
  );
});

test('after three that others use it is given up, with who has the last one', options, async () => {
  const offers = ['192.168.77.100', '192.168.77.101', '192.168.77.102', '192.168.77.103'];
  const { lan, outcome } = await run([server({ offers })], {}, offers);
  assert.ok(outcome !== undefined && !(outcome instanceof Error) && outcome.kind === 'used');
  assert.deepEqual(
    [outcome.count, formatAddress(outcome.offered.address), outcome.holder.macAddress],
    [3, '192.168.77.102', STRANGER],
  );
  assert.equal(lan.heard.filter(({ type }) => type === 'DECLINE').length, 3);
});

test('a server that offers again what was declined is not listened to', options, async () => {
  const { lan, outcome, tookMs } = await run(
    [(heard, there) => server({ offers: ['192.168.77.100'] })(heard, there)],
    {},
    ['192.168.77.100'],
  );
  assert.ok(outcome !== undefined && !(outcome instanceof Error) && outcome.kind === 'used');
  assert.equal(lan.heard.filter(({ type }) => type === 'REQUEST').length, 1);
  assert.equal(tookMs, 25_000);
});

test('a wish that somebody else has by now is declined, and any address will do then', options, async () => {
  const offering = server({ offers: ['192.168.77.100'], givesWish: true });
  const { lan, outcome } = await run([offering], { wish: ip('192.168.77.50') }, ['192.168.77.50']);
  assert.equal(formatAddress(leaseIn(outcome).address), '192.168.77.100');
  assert.match(
    kinds(lan),
    /^DISCOVER 192\.168\.77\.50, REQUEST 192\.168\.77\.50, DECLINE 192\.168\.77\.50, DISCOVER, /,
  );
  const strict = await run([server({ offers: [], givesWish: true })], { wish: ip('192.168.77.50'), isStrict: true }, [
    '192.168.77.50',
  ]);
  assert.ok(strict.outcome !== undefined && !(strict.outcome instanceof Error) && strict.outcome.kind === 'used');
  assert.equal(strict.outcome.count, 1);
});

test('a refusal begins the exchange again, a second apart, and without the wish', options, async () => {
  let refusals = 0;
  const moody: Server = (heard, lan) =>
    server({
      offers: ['192.168.77.100'],
      givesWish: true,
      onRequest: heard.type === 'REQUEST' && ++refusals === 1 ? 'NAK' : 'ACK',
    })(heard, lan);
  const { lan, outcome } = await run([moody], { wish: ip('192.168.77.50') });
  assert.equal(formatAddress(leaseIn(outcome).address), '192.168.77.100');
  const [first = 0, second = 0] = lan.heard.filter(({ type }) => type === 'DISCOVER').map(({ atMs }) => atMs);
  assert.ok(second - first >= 1000);
});

test('a server that always refuses is asked three times, and its reason told', options, async () => {
  const { lan, outcome } = await run([server({ offers: ['192.168.77.100'], onRequest: 'NAK' })]);
  assert.ok(outcome !== undefined && !(outcome instanceof Error) && outcome.kind === 'refused');
  assert.equal(outcome.message, 'no more');
  assert.equal(lan.heard.filter(({ type }) => type === 'REQUEST').length, 3);
});

test('a server that offers and then says nothing is asked twice, and then the LAN again', options, async () => {
  const { lan, outcome } = await run([server({ offers: ['192.168.77.100'], onRequest: 'silence' })], { untilMs: 7000 });
  assert.deepEqual(outcome, { kind: 'silent' });
  assert.deepEqual(lan.heard.map(({ type, atMs }) => [type, atMs] as const).slice(0, 4), [
    ['DISCOVER', 0],
    ['REQUEST', 1],
    ['REQUEST', 1001],
    ['DISCOVER', 3001],
  ]);
});

test("another server's refusal, and an ACK of another address, settle nothing", options, async () => {
  const rogue: Server = (heard, lan) => {
    if (heard.type !== 'REQUEST') return;
    const base = { xid: heard.xid, macAddress: heard.macAddress };
    lan.answer(0, { ...base, type: 6, server: '192.168.77.66' });
    lan.answer(0, { ...base, type: 5, server: '192.168.77.1', address: '192.168.77.66', options: [[51, seconds(60)]] });
  };
  const { outcome } = await run([rogue, server({ offers: ['192.168.77.100'] })]);
  assert.equal(formatAddress(leaseIn(outcome).address), '192.168.77.100');
});

test('answers to another xid and another MAC address are not heard', options, async () => {
  const deaf: Server = (heard, lan) => {
    if (heard.type !== 'DISCOVER') return;
    const offer = { type: 2, address: '192.168.77.66', options: [[51, seconds(60)]] as const };
    lan.answer(0, { ...offer, xid: (heard.xid ^ 1) >>> 0, macAddress: heard.macAddress });
    lan.answer(0, { ...offer, xid: heard.xid, macAddress: STRANGER });
  };
  const { outcome } = await run([deaf], { untilMs: 1000 });
  assert.deepEqual(outcome, { kind: 'silent' });
});

test('ten thousand offers are one', options, async () => {
  const flood: Server = (heard, lan) => {
    if (heard.type === 'DISCOVER') lan.world.at(heard.atMs + 1, () => offerAll(heard, lan));
  };
  const offerAll = ({ xid, macAddress }: Heard, lan: ImaginedLan) => {
    const base = { xid, macAddress, type: 2, server: '192.168.77.66', options: [[51, seconds(60)]] as const };
    for (let count = 0; count < 10_000; count++) lan.deliver({ ...base, address: `10.${count >> 8}.${count & 255}.1` });
  };
  const { lan, outcome, tookMs } = await run([flood], { wish: ip('192.168.77.50'), untilMs: 1500 });
  assert.deepEqual([outcome, tookMs], [{ kind: 'silent' }, 1500]);
  assert.deepEqual(
    lan.heard.map(({ type, address }) => `${type} ${address}`),
    ['DISCOVER 192.168.77.50', 'REQUEST 10.0.0.1', 'REQUEST 10.0.0.1'],
  );
});

test('a mask that makes no sense gives the subnet of the class', options, async () => {
  const odd: Server = (heard, lan) => {
    const base = { xid: heard.xid, macAddress: heard.macAddress, address: '10.1.2.3' };
    const said = [[1, bytesOf('255.0.255.0')] as const, [51, seconds(60)] as const];
    lan.answer(1, { ...base, type: heard.type === 'DISCOVER' ? 2 : 5, options: said });
  };
  const { outcome } = await run([odd]);
  assert.equal(leaseIn(outcome).prefixLength, 8);
});

test(
  'what the question to the LAN throws ends it and gives back what the server gave, and so does the signal',
  options,
  async () => {
    const world = new World();
    const lan = new ImaginedLan(world, [server({ offers: ['192.168.77.100'] })]);
    const context = { wire: lan, clock: lan.clock, random: () => 0.5 };
    const broken = acquire(spec, { ...context, check: () => Promise.reject(new Error('the parent is down')) });
    broken.catch(() => undefined);
    for (let ms = 0; ms < 100; ms += 10) await world.live(ms);
    await assert.rejects(broken, /the parent is down/);
    assert.equal(kinds(lan), 'DISCOVER, REQUEST 192.168.77.100, RELEASE 192.168.77.100');
    const controller = new AbortController();
    const silent = acquire(
      { ...spec, untilMs: 60_000 },
      { ...context, wire: new ImaginedLan(world, []), check: null, signal: controller.signal },
    );
    silent.catch(() => undefined);
    await world.live(1000);
    controller.abort(new Error('the engine hung up'));
    await assert.rejects(silent, /the engine hung up/);
    // Whose container has the address already asks without the question to the LAN, and keeps it.
    const unanswered: Server = (heard, on) =>
      heard.type === 'DISCOVER' && server({ offers: ['192.168.77.100'] })(heard, on);
    const running = new ImaginedLan(new World(), [unanswered]);
    const ending = new AbortController();
    const kept = acquire(spec, { ...context, wire: running, clock: running.clock, check: null, signal: ending.signal });
    kept.catch(() => undefined);
    await running.world.live(100);
    ending.abort(new Error('the daemon stops'));
    await assert.rejects(kept, /the daemon stops/);
    assert.equal(kinds(running), 'DISCOVER, REQUEST 192.168.77.100');
  },
);

test(
  'whatever servers say, it ends in time, asks at a bounded rate, and forgets nobody who listens',
  options,
  async () => {
    const reply = fc.record({
      type: fc.constantFrom(2, 5, 6),
      address: fc.constantFrom('192.168.77.100', '192.168.77.101', '0.0.0.0', '224.0.0.1'),
      from: fc.constantFrom('192.168.77.1', '192.168.77.2'),
      afterMs: fc.nat(4000),
    });
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.array(reply, { maxLength: 4 }), { minLength: 1, maxLength: 6 }),
        fc.boolean(),
        async (script, isStrict) => {
          let turn = 0;
          const odd: Server = (heard, lan) => {
            for (const { type, address, from, afterMs } of script[turn++ % script.length] ?? [])
              lan.answer(afterMs, {
                xid: heard.xid,
                macAddress: heard.macAddress,
                type,
                address,
                server: from,
                options: [[51, seconds(60)]],
              });
          };
          const { lan, outcome, tookMs } = await run([odd], { wish: ip('192.168.77.100'), isStrict, untilMs: 8000 }, [
            '192.168.77.101',
          ]);
          assert.ok(outcome !== undefined && !(outcome instanceof Error), 'it has an outcome');
          // The question to the LAN may be the last thing that is waited for.
          assert.ok(tookMs <= 8000 + 700, `${tookMs} ms`);
          assert.ok(lan.heard.length <= 40, `${lan.heard.length} frames`);
          assert.equal(lan.listeners, 0);
        },
      ),
      { numRuns: 40 },
    );
  },
);
