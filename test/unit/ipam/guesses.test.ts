/**
 * What Docker's IPAM gives out next is guessed: how many windows many starts wait on its networks, and what that asks of the LAN.
 * Time, LAN and engine are imagined.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Address, formatAddress } from '../../../src/address.ts';
import { Guesses } from '../../../src/ipam/guesses.ts';
import { known } from '../../../src/ipam/pool.ts';
import type { Network, NetworkSubnet } from '../../../src/model.ts';
import { interfaceAddress } from '../../lab/addresses.ts';
import { World } from '../lan/imagined.ts';
import { networkRecord } from '../store/records.ts';
import { SWARM_NETWORK } from './fixture.ts';
import { FRESH_MS, MINUTE_MS, TimedLan, timed as timedOn, WINDOW_MS } from './timedlan.ts';

const options = { timeout: 60_000 };
/** What an engine does besides until it asks for the next address. */
const ENGINE_MS = 20;
const SUBNET = '10.9.0.0/24';

/** Gives out the lowest free address of a subnet, from `first` on. */
class DockersIpam {
  readonly subnet: NetworkSubnet;
  readonly reserved = new Set<bigint>();
  readonly #taken = new Set<bigint>();
  readonly #first: bigint;

  constructor(subnet: string, gateway: string | null, first = 1) {
    this.subnet = { addressSpace: 'LocalDefault', subnet, gateway, realm: null };
    this.#first = known(subnet).first + BigInt(first);
    if (gateway !== null) this.reserved.add(interfaceAddress(`${gateway}/32`).value);
  }

  give(): Address {
    let value = this.#first;
    while (this.#taken.has(value) || this.reserved.has(value)) value++;
    this.#taken.add(value);
    return { family: known(this.subnet.subnet).family, value };
  }

  take(address: Address): Address {
    this.#taken.add(address.value);
    return address;
  }

  release({ value }: Address): void {
    this.#taken.delete(value);
  }
}

function host() {
  const world = new World();
  const lan = new TimedLan(world);
  const used = new Set<string>();
  const clock = {
    nowMs: () => world.nowMs,
    after: (ms: number, run: () => void) => world.at(world.nowMs + ms, run),
  };
  const isUsed = (_parent: string, address: Address) => used.has(formatAddress(address));
  const guesses = new Guesses({ keeper: lan, isUsed, clock, random: () => 0.5 });
  const timed = <T>(act: Promise<T>) => timedOn(world, act);
  const pass = (ms: number) => timed(lan.pass(ms));
  return { world, lan, used, guesses, timed, pass };
}
type HostOfTest = ReturnType<typeof host>;

let networks = 0;

/** A network of a host, and an engine that attaches containers to it one after the other. */
function plug(at: HostOfTest, ipams: readonly DockersIpam[] = [new DockersIpam(SUBNET, '10.9.0.1')]) {
  const { lan, used, guesses } = at;
  const id = (++networks).toString(16).padStart(64, '0');
  const network: Network = { ...networkRecord(id), subnets: ipams.map(({ subnet }) => subnet) };
  const [ipam] = ipams as [DockersIpam];

  const create = async (addresses: readonly Address[]) => {
    for (const [place, address] of addresses.entries()) {
      const { subnet } = ipams[place] as DockersIpam;
      guesses.given(network, subnet, address, lan.kept.has(formatAddress(address)));
    }
    await Promise.all(addresses.map((address) => lan.ask(formatAddress(address))));
    for (const address of addresses) used.add(formatAddress(address));
  };
  const connect = async (count: number) => {
    const given: string[] = [];
    for (let n = 0; n < count; n++) {
      const addresses = ipams.map((one) => one.give());
      await create(addresses);
      given.push(...addresses.map(formatAddress));
      await lan.pass(ENGINE_MS);
    }
    return given;
  };
  const name = async (text: string) => create([ipam.take(interfaceAddress(`${text}/24`))]);
  const disconnect = async (text: string) => {
    const address = interfaceAddress(`${text}/24`);
    lan.leave(text);
    used.delete(text);
    await guesses.returned(network, ipam.subnet, address);
    ipam.release(address);
  };
  return { network, create, connect, name, disconnect };
}

const attachMs = (count: number) => count * (FRESH_MS + ENGINE_MS);
const upTo = (count: number, first: number) => Array.from({ length: count }, (_, n) => `10.9.0.${first + n}`);

test(
  'forty that are attached at once wait for one window together, and the gateway is asked for never',
  options,
  async () => {
    const at = host();
    const { lan, timed } = at;
    const { answer: given, ms } = await timed(plug(at).connect(40));
    assert.deepEqual(given, upTo(40, 2));
    assert.equal(lan.windows, 1, 'questions that a call waited for');
    assert.ok(ms <= WINDOW_MS + attachMs(40), `${ms} ms`);
    assert.ok(lan.asked.length <= 120, `${lan.asked.length} asked for ahead`);
    assert.ok(!lan.asked.some(({ address }) => address === '10.9.0.1'));
  },
);

test('where a range begins is learnt from the first endpoint', options, async () => {
  const at = host();
  const { lan, timed } = at;
  await timed(plug(at, [new DockersIpam(SUBNET, '10.9.0.1', 64)]).connect(20));
  assert.equal(lan.windows, 1);
  const lowest = lan.asked.map(({ address }) => Number(address.split('.')[3])).toSorted((a, b) => a - b)[0];
  assert.equal(lowest, 65);
});

test('both families wait for one window together', options, async () => {
  const at = host();
  const { lan, timed } = at;
  const ipams = [new DockersIpam(SUBNET, '10.9.0.1'), new DockersIpam('fd09::/64', 'fd09::1')];
  const { ms } = await timed(plug(at, ipams).connect(30));
  assert.equal(lan.windows, 2, 'one address of each, at the same moment');
  assert.ok(ms <= WINDOW_MS + attachMs(30), `${ms} ms`);
  assert.ok(lan.mostAsking <= 128, `${lan.mostAsking} asked for at a time`);
});

test('a minute later four are on standby, and starts one by one take the place of one', options, async () => {
  const at = host();
  const { lan, timed, pass } = at;
  const engine = plug(at);
  await timed(engine.connect(1));
  await pass(10_000);
  assert.equal(lan.kept.size, 48);
  await pass(3 * MINUTE_MS);
  assert.deepEqual([...lan.kept.keys()].sort(), upTo(4, 3));
  const asked = lan.asked.length;
  for (let n = 0; n < 5; n++) {
    await timed(engine.connect(1));
    await pass(5000);
  }
  assert.equal(lan.windows, 1);
  assert.equal(lan.kept.size, 4);
  assert.equal(lan.asked.length, asked + 5);
});

test('what a container left is the next, at once and minutes later', options, async () => {
  const at = host();
  const { lan, timed, pass } = at;
  const engine = plug(at);
  await timed(engine.connect(20));
  await pass(3 * MINUTE_MS);
  await timed(engine.disconnect('10.9.0.7'));
  await timed(engine.disconnect('10.9.0.9'));
  const { answer: first } = await timed(engine.connect(1));
  await pass(5 * MINUTE_MS);
  const { answer: second } = await timed(engine.connect(1));
  assert.deepEqual([first, second], [['10.9.0.7'], ['10.9.0.9']]);
  assert.equal(lan.windows, 1);
});

test('forty that are attached again find all that they left', options, async () => {
  const at = host();
  const { lan, timed } = at;
  const engine = plug(at);
  const { answer: given } = await timed(engine.connect(40));
  for (const address of given) await timed(engine.disconnect(address));
  const asked = lan.asked.length;
  const { answer: again } = await timed(engine.connect(40));
  assert.deepEqual(again, given);
  assert.equal(lan.windows, 1);
  const askedAgain = lan.asked.slice(asked).filter(({ address }) => given.includes(address));
  assert.deepEqual(askedAgain, []);
});

test('addresses that are named in between end no guess: each kind of them waits for one window', options, async () => {
  const at = host();
  const { lan, timed } = at;
  const engine = plug(at);
  await timed(engine.connect(5));
  const { ms } = await timed(
    (async () => {
      for (let n = 0; n < 15; n++) {
        await engine.name(`10.9.0.${200 + n}`);
        await engine.connect(1);
      }
    })(),
  );
  // Only the second named one shows that they follow each other.
  assert.equal(lan.windows, 3);
  assert.ok(ms <= 2 * WINDOW_MS + attachMs(30), `${ms} ms`);
});

test('for addresses that are named here and there nothing is asked ahead', options, async () => {
  const at = host();
  const { lan, timed, pass } = at;
  const engine = plug(at);
  await timed(engine.connect(1));
  await pass(MINUTE_MS);
  const asked = lan.asked.length;
  for (const host of [90, 120, 150, 180, 210]) await timed(engine.name(`10.9.0.${host}`));
  await pass(10_000);
  assert.equal(lan.asked.length, asked);
});

test('what others have is not kept, nor asked for again with every start', options, async () => {
  const at = host();
  const { lan, timed } = at;
  const ipam = new DockersIpam(SUBNET, '10.9.0.1');
  for (const address of ['10.9.0.10', '10.9.0.11']) {
    lan.held.add(address);
    ipam.reserved.add(interfaceAddress(`${address}/24`).value);
  }
  await timed(plug(at, [ipam]).connect(20));
  assert.equal(lan.windows, 1);
  assert.equal(lan.asked.filter(({ address }) => address === '10.9.0.10').length, 1);
  assert.ok(!lan.kept.has('10.9.0.10'));
});

test('what the IPAM keeps back for reasons of its own is soon left alone', options, async () => {
  const at = host();
  const { lan, timed, pass } = at;
  const ipam = new DockersIpam(SUBNET, '10.9.0.1');
  for (const address of upTo(6, 3)) ipam.reserved.add(interfaceAddress(`${address}/24`).value);
  const engine = plug(at, [ipam]);
  for (let n = 0; n < 10; n++) {
    await timed(engine.connect(1));
    await pass(70_000);
  }
  // The four that are ready after the first are never given; the third one shows where it goes on.
  assert.equal(lan.windows, 3);
});

test('of a network that is gone nothing is on standby, and nothing is asked any more', options, async () => {
  const at = host();
  const { lan, timed, pass, guesses } = at;
  const engine = plug(at);
  await timed(engine.connect(3));
  const asked = lan.asked.length;
  guesses.forget(engine.network.id);
  await pass(10_000);
  assert.deepEqual([[...lan.kept.keys()], lan.asked.length], [[], asked]);
});

test('a parent that is down is not asked with every start, and is asked again when it is back', options, async () => {
  const at = host();
  const { lan, timed, pass, guesses } = at;
  const engine = plug(at);
  lan.isDown = true;
  await timed(engine.connect(100));
  // Three seconds: a batch in each, and the refill's.
  assert.ok(lan.asked.length <= 5 * 64, `${lan.asked.length} asked for in vain`);
  lan.isDown = false;
  await guesses.start();
  await pass(5000);
  assert.ok(lan.kept.size >= 4);
});

test('where the LAN is not asked, and in a swarm, nothing is guessed', options, async () => {
  const at = host();
  const { lan, timed, guesses } = at;
  lan.parentName = null;
  await timed(plug(at).connect(10));
  lan.parentName = 'eth0';
  const { subnet } = new DockersIpam(SUBNET, '10.9.0.1');
  const swarm = { ...networkRecord(SWARM_NETWORK), subnets: [subnet] };
  for (const text of upTo(3, 2)) guesses.given(swarm, subnet, interfaceAddress(`${text}/24`), false);
  await timed(lan.pass(5000));
  assert.deepEqual(lan.asked, []);
});

test('few frames may be sent: no more are asked for than always', options, async () => {
  const at = host();
  const { lan, timed } = at;
  lan.mostAtOnce = 2;
  await timed(plug(at).connect(10));
  assert.ok(lan.mostAsking <= 4, `${lan.mostAsking} asked for at a time`);
});

test('only networks that were used last have addresses on standby', options, async () => {
  const at = host();
  const { lan, timed, pass } = at;
  for (let n = 0; n < 70; n++) {
    await timed(plug(at, [new DockersIpam(`10.${n}.0.0/24`, `10.${n}.0.1`)]).connect(1));
  }
  await pass(6 * MINUTE_MS);
  assert.ok(lan.kept.size <= 64 * 4, `${lan.kept.size} on standby`);
  assert.ok(![...lan.kept.keys()].some((address) => address.startsWith('10.0.0.')));
});
