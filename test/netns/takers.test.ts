/**
 * Linux hosts take addresses and tell nobody, at every moment of a container's start, and none of their addresses may become
 * a container's. Daemons and kernels are real ones; containers are namespaces into which links are moved as an engine does:
 *
 *     host one: tsmacvlan, containers ── lan0 ────────────┐
 *     host two: passthru containers ── single0, single1 … ┼── br0 (ns "lan", where everything is captured)
 *     hosts three to five, whose links fail ── lan0 ──────┤
 *     taker: a Linux kernel, and built-in containers ─────┤
 *     listener: hears what is asked ──────────────────────┘
 *
 * Judged by the addresses that the kernels of containers and takers have, and by who speaks for an address in the capture.
 * A taker who came before an address was chosen must be passed over, one who came later ends the start.
 *
 *     make squatters ROUNDS=50     that many takers of each kind, and twenty times as many starts without any
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Address, macFromIPv4, parseAddress } from '../../src/address.ts';
import { isProbeMac, isStandbyMac } from '../../src/lan/frames/mac.ts';
import { Capture } from '../lab/capture.ts';
import { addressesOf, doubles, type Statement, statements } from '../lab/census.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { Host } from '../lab/host.ts';
import { Lan } from '../lab/namespace.ts';
import { Neighbour } from '../lab/neighbour.ts';
import { until } from '../lab/patience.ts';
import { Plugin } from '../lab/plugin.ts';
import { Questions } from '../lab/questions.ts';
import { SilentTaker } from '../lab/silenttaker.ts';
import { Turns } from '../lab/turns.ts';
import { type FakeNetwork, type Moments, Refusal, Understudy } from '../lab/understudy.ts';

const ROUNDS = Number(process.env.ROUNDS ?? 3);
const CLEAN = ROUNDS * 20;
/** A part of the names of the kinds that are played; all of them when it is empty. */
const KIND = process.env.KIND ?? '';
/** A refused start asks for some eight seconds, and so do the profile's own waits. */
const AT_ONCE = 30;
const TAKER = '3c:22:fb:10:aa:04';
const LISTENER = '3c:22:fb:10:aa:05';
/** Of each kind, while a link fails. */
const NETWORKS_AT_ONCE = 5;
/** What the daemon has ready for each pool. */
const ON_STANDBY = 4;
/** In one network, as it asks on for those that are taken and has the fewer addresses ready. */
const MOST_ON_STANDBY = 6;
/** How long a port does not forward after its carrier is back. */
const SILENT_MS = 1500;

const DOCKERS = 'Docker’s IPAM';
const FAMILIES = ['IPv4', 'IPv6'] as const;
const WAYS = ['dynamic', '--ip', DOCKERS] as const;
const MOMENTS = {
  before: 'before the network',
  standby: 'on standby',
  chosen: 'before CreateEndpoint',
  created: 'before Join',
  ahead: 'in a burst, after it was asked for ahead',
  burst: 'in a burst, before CreateEndpoint',
  left: 'after a container left',
} as const;
type Moment = keyof typeof MOMENTS;

interface Kind {
  readonly moment: Moment;
  readonly family: Address['family'];
  readonly way: (typeof WAYS)[number];
  readonly rounds: number;
  /** One round is in the first of them, the next in the second. */
  readonly modes: readonly string[];
  readonly profile: 'fast' | 'rfc';
  /** The taker has the MAC address that the container would have, as one of the built-in driver on another host. */
  readonly isTwin?: boolean;
  /** What the parent went through meanwhile. */
  readonly failure?: string;
}

/** A link that is away for a moment. */
interface Failing {
  readonly lan: Lan;
  readonly host: Host;
  readonly port: string;
}

interface Failure {
  /** Also the name of its host. */
  readonly name: string;
  readonly title: string;
  readonly goAway: (link: Failing) => Promise<unknown>;
  readonly comeBack: (link: Failing) => Promise<unknown>;
}

const FAILURES: readonly Failure[] = [
  {
    name: 'three',
    title: 'no carrier',
    goAway: ({ lan, port }) => lan.setCarrier(port, false),
    comeBack: ({ lan, port }) => lan.setCarrier(port, true),
  },
  {
    name: 'four',
    title: 'a port that forwards late',
    goAway: async ({ lan, port }) => {
      await lan.setCarrier(port, false);
      await lan.setCarrier(port, true);
      await lan.setForwarding(port, false);
      await sleep(SILENT_MS);
    },
    comeBack: ({ lan, port }) => lan.setForwarding(port, true),
  },
  {
    name: 'five',
    title: 'the parent down',
    goAway: ({ host }) => host.namespace.ip('link set lan0 down'),
    comeBack: ({ host }) => host.namespace.ip('link set lan0 up'),
  },
];

/** What became of some starts. */
interface Outcome {
  /** Addresses that the kernels of containers have. */
  readonly had: readonly string[];
  readonly refused: readonly string[];
  readonly taken: readonly string[];
}

/** Of a network's first container, above those that are on standby then; what Docker's IPAM gives out next is guessed behind it. */
const FIRST_HOST = 100;
const GUESSED = 48;

const table: Record<string, object> = {};

let places = 0;
/** A subnet of its own. */
function nextPlace(family: Address['family']) {
  const number = ++places;
  const isIPv4 = family === 'IPv4';
  const prefix = isIPv4 ? `10.${20 + (number >> 8)}.${number & 255}.` : `fd00:20:${number.toString(16)}::`;
  return {
    subnet: isIPv4 ? `${prefix}0/24` : `${prefix}/64`,
    at: (host: number) => `${prefix}${isIPv4 ? host : host.toString(16)}`,
    isWithin: (address: string) => address.startsWith(prefix),
    hostOf: (address: string) => Number.parseInt(address.slice(prefix.length), isIPv4 ? 10 : 16),
    length: isIPv4 ? 24 : 64,
  };
}
type Place = ReturnType<typeof nextPlace>;

const bare = (typed: string) => typed.split('/')[0] ?? '';
const times = (count: number) => Array.from({ length: count }, (_, round) => round);

/** Which address comes next is known, and nothing is waited for in RequestAddress. */
const isInBurst = ({ moment }: Pick<Kind, 'moment'>) => moment === 'ahead' || moment === 'burst';
const isPossible = ({ moment, way }: Pick<Kind, 'moment' | 'way'>) => !isInBurst({ moment }) || way === 'dynamic';
const PLAIN: readonly Kind[] = (Object.keys(MOMENTS) as Moment[]).flatMap((moment) =>
  WAYS.filter((way) => isPossible({ moment, way })).flatMap((way) =>
    FAMILIES.map((family) => {
      return { moment, way, family, rounds: ROUNDS, modes: ['bridge', 'private', 'vepa'], profile: 'fast' };
    }),
  ),
);
const inBridge = PLAIN.filter((kind) => kind.family === 'IPv4' && !isInBurst(kind)).map((kind) => ({
  ...kind,
  modes: ['bridge'],
}));
const KINDS: readonly Kind[] = [
  ...PLAIN,
  ...inBridge.map((kind) => ({ ...kind, isTwin: true })),
  ...inBridge.map((kind) => ({ ...kind, profile: 'rfc' as const, rounds: Math.ceil(ROUNDS / 10) })),
];
/** A parent in mode passthru has room for one container, and nothing is kept ready on it. */
const SINGLE = PLAIN.filter((kind) => kind.moment !== 'standby' && !isInBurst(kind)).map((kind, place) => ({
  parent: `single${place}`,
  kind: { ...kind, modes: ['passthru'], rounds: Math.ceil(ROUNDS / 3) },
}));
/** They wait until addresses are on standby. */
const isEarly = (kind: Kind) => kind.moment === 'standby' || isInBurst(kind);
const STANDBY = PLAIN.filter(({ moment }) => moment === 'standby');

function nameOf({ moment, family, way, modes, profile, failure, isTwin = false }: Kind): string {
  const whose = isTwin ? ', with the same MAC address' : '';
  const how = profile === 'rfc' ? ', profile rfc' : modes[0] === 'passthru' ? ', passthru' : '';
  return `${failure ?? MOMENTS[moment]}, ${way}, ${family}${whose}${how}`;
}

/** What every start needs. */
interface World {
  readonly taker: SilentTaker;
  readonly questions: Questions;
  readonly turns: Turns;
}

/** Some starts at once in one network, each with a taker. */
class Starts {
  readonly refused: string[] = [];
  readonly taken: string[] = [];
  readonly #kind: Kind;
  readonly #engine: Understudy;
  readonly #place: Place;
  readonly #world: World;

  constructor(kind: Kind, engine: Understudy, place: Place, world: World) {
    this.#kind = kind;
    this.#engine = engine;
    this.#place = place;
    this.#world = world;
  }

  /** `10.9.0.5/24` or without length. */
  async take(typed: string): Promise<void> {
    const address = bare(typed);
    this.taken.push(address);
    const { taker } = this.#world;
    if (!this.#kind.isTwin) return taker.take(address);
    await taker.takeAsContainer(address, macFromIPv4('02:42', parseAddress(address) as Address));
  }

  /** Of takers who came before the network. */
  async play(network: FakeNetwork, count: number): Promise<void> {
    const victims = times(count).map((round) => this.#place.at(round + 1));
    const { moment } = this.#kind;
    if (moment === 'before') await this.start(network, this.taken);
    else if (moment === 'standby') await this.#playOnStandby(network, count);
    else if (moment === 'left') await this.#playLeft(network, victims);
    else if (isInBurst({ moment })) await this.#playInBurst(network);
    else await this.start(network, victims, { [moment]: (address: string) => this.take(address) });
  }

  /** Those that are taken are lost to the daemon, and others are asked for in their place. */
  async #playOnStandby(network: FakeNetwork, count: number): Promise<void> {
    await this.keepReady(network);
    const most = this.#kind.way === 'dynamic' ? ON_STANDBY / 2 : 1;
    // While those that are taken are asked for again, fewer are on standby.
    for (let left = count; left > 0; left -= most) {
      const victims = (await this.untilReady(left === count ? ON_STANDBY : most)).slice(0, Math.min(most, left));
      for (const victim of victims) await this.take(victim);
      await this.start(network, victims);
    }
  }

  /** The second of a burst has the third asked for. */
  async #playInBurst(network: FakeNetwork): Promise<void> {
    await this.keepReady(network);
    const [, , third] = await this.untilReady();
    assert.ok(third);
    const before = [await this.#engine.requestAddress(network), await this.#engine.requestAddress(network)];
    const isAhead = this.#kind.moment === 'ahead';
    if (isAhead) await this.take(third);
    await this.start(network, [third], isAhead ? {} : { chosen: (address) => this.take(address) });
    for (const address of before) await this.#engine.releaseAddress(network, address);
  }

  async #playLeft(network: FakeNetwork, victims: readonly string[]): Promise<void> {
    const run = (address: string) => this.#world.turns.run(() => this.#engine.run(network, this.#wish(address)));
    const containers = await Promise.all(victims.map(run));
    for (const container of containers) await this.#engine.remove(container);
    for (const { address } of containers) await this.take(address);
    await this.start(network, victims);
  }

  /** One container, and from then on the daemon has addresses on standby. */
  async keepReady(network: FakeNetwork): Promise<void> {
    const address = this.#place.at(FIRST_HOST);
    await this.#engine.run(network, this.#kind.way === 'dynamic' ? { address } : this.#wish(address));
  }

  /** The lowest first. */
  async untilReady(least = ON_STANDBY): Promise<string[]> {
    const { isWithin, hostOf } = this.#place;
    // Others are asked for too, to know devices that answer for all.
    const [from, to] = this.#kind.way === DOCKERS ? [FIRST_HOST + 1, FIRST_HOST + GUESSED] : [1, FIRST_HOST - 1];
    const isNext = (address: string) => isWithin(address) && hostOf(address) >= from && hostOf(address) <= to;
    const isKept = (address: string) =>
      isNext(address) &&
      !this.taken.includes(address) &&
      ![...this.#engine.containers].some((container) => bare(container.address) === address);
    const ready = () => this.#world.questions.answered(isKept, this.#kind.profile);
    await until(() => ready().length >= least);
    return ready().sort((a, b) => hostOf(a) - hostOf(b));
  }

  /** One for each address, which counts where it is named. */
  async start(network: FakeNetwork, addresses: readonly string[], moments: Moments = {}): Promise<void> {
    const { turns } = this.#world;
    await Promise.all(addresses.map((address) => turns.run(() => this.#startOne(network, address, moments))));
  }

  async #startOne(network: FakeNetwork, address: string, moments: Moments): Promise<void> {
    try {
      await this.#engine.run(network, this.#wish(address), moments);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      this.refused.push(error.message);
    }
  }

  #wish(address: string): { address?: string } {
    const { way } = this.#kind;
    return way === 'dynamic' ? {} : { address: way === '--ip' ? address : `${address}/${this.#place.length}` };
  }

  /** Removes the containers, their network and their twins; answers the addresses that their kernels had. */
  async end(network: FakeNetwork): Promise<string[]> {
    const containers = [...this.#engine.containers].filter((container) => container.network === network);
    const had = (await Promise.all(containers.map(({ namespace }) => addressesOf(namespace, 'eth0')))).flat();
    assert.equal(had.length, containers.length, 'every container has its address');
    for (const container of containers) await this.#engine.remove(container);
    await this.#engine.deleteNetwork(network);
    // A host has some containers, not hundreds, which would share the time of one link.
    if (this.#kind.isTwin) for (const address of this.taken) await this.#world.taker.giveUp(address);
    return had;
  }
}

const optionsOf = ({ profile, way }: Kind, macvlanMode: string) => ({
  options: { macvlan_mode: macvlanMode, probe: profile },
  ipamOptions: way === DOCKERS ? null : {},
});

function isPlayed(kind: Kind): boolean {
  return nameOf(kind).includes(KIND);
}

/** What the daemon wrote about these addresses. */
function logOf({ plugin }: Understudy, addresses: readonly string[]): string {
  const lines = plugin.log().split('\n');
  return lines
    .filter((line) => addresses.some((address) => `${line} `.includes(`${address} `) || line.includes(`${address}/`)))
    .join('\n');
}

function judge(kind: Kind, engine: Understudy, outcomes: readonly Outcome[]): void {
  const all = (what: keyof Outcome) => outcomes.flatMap((outcome) => outcome[what]);
  const [had, refused, taken] = [all('had'), all('refused'), all('taken')];
  const duplicates = doubles([...had, ...taken]);
  const also = `${taken.length - refused.length - duplicates.length} passed over, ${refused.length} refused`;
  table[nameOf(kind)] = { rounds: taken.length, duplicates: duplicates.length, also };
  assert.equal(taken.length, kind.rounds);
  assert.deepEqual(duplicates, [], logOf(engine, duplicates));
  // It may be too long ago that it was asked for, on a busy machine: then it is passed over.
  if (kind.moment === 'ahead') return;
  const isBefore = !['chosen', 'created', 'burst'].includes(kind.moment);
  if (kind.way === 'dynamic' && isBefore) {
    // Broadcasts reach a container's macvlan link by a queue of its host: its answer may come after the fresh question.
    if (!kind.isTwin) assert.deepEqual(refused, [], 'another address was free');
    return;
  }
  const isSaid = (address: string) =>
    refused.some((words) => words.includes(`address ${address} `) && (kind.isTwin === true || words.includes(TAKER)));
  const unsaid = taken.filter((address) => !isSaid(address));
  assert.deepEqual(unsaid, [], `who has the address is told: ${refused.join('\n')}\n${logOf(engine, unsaid)}`);
}

const ALL = [...KINDS, ...SINGLE.map(({ kind }) => kind)];
const NAMES = [...ALL.map(nameOf), ...FAILURES.map(({ title }) => `${title} meanwhile`)];
if (!NAMES.some((name) => name.includes(KIND)))
  throw new Error(`no kind is called like "${KIND}"; one of ${NAMES.join('; ')}`);

describe('takers', { skip: outsideLab(), timeout: 3_600_000 }, () => {
  let lan: Lan;
  let world: World;
  let one: Understudy;
  let two: Understudy;
  let listener: Neighbour;
  let capture: Capture;

  before(async () => {
    lan = await Lan.create();
    listener = await Neighbour.plug(lan, 'listener', LISTENER);
    world = {
      taker: await SilentTaker.plug(lan, 'taker', TAKER),
      questions: new Questions(listener),
      turns: new Turns(AT_ONCE),
    };
    const booted = [
      boot('one'),
      boot(
        'two',
        SINGLE.map(({ parent }) => parent),
      ),
    ];
    [one, two] = (await Promise.all(booted)) as [Understudy, Understudy];
    capture = await Capture.start(lan.namespace, 'br0', 'arp or ip6');
  });

  after(() => {
    console.table(table);
    listener.close();
  });

  async function boot(name: string, links = ['lan0']): Promise<Understudy> {
    return new Understudy(await Plugin.start(await Host.boot(name, lan, links)));
  }

  async function play(kind: Kind, engine: Understudy, parent: string): Promise<void> {
    const { modes, rounds } = kind;
    const isAlone = modes[0] === 'passthru' || isInBurst(kind);
    const most = isAlone ? 1 : kind.moment === 'standby' ? MOST_ON_STANDBY : rounds;
    const playMode = async (mode: string, place: number) => {
      const outcomes: Outcome[] = [];
      const share = times(rounds).filter((round) => round % modes.length === place).length;
      for (let left = share; left > 0; left -= most)
        outcomes.push(await playIn(kind, engine, { parent, mode, count: Math.min(left, most) }));
      return outcomes;
    };
    const outcomes = (await Promise.all(modes.map(playMode))).flat();
    judge(kind, engine, outcomes);
  }

  interface Share {
    readonly parent: string;
    readonly mode: string;
    readonly count: number;
  }

  async function playIn(kind: Kind, engine: Understudy, { parent, mode, count }: Share): Promise<Outcome> {
    const place = nextPlace(kind.family);
    const starts = new Starts(kind, engine, place, world);
    if (kind.moment === 'before') for (const one of times(count)) await starts.take(place.at(2 * one + 1));
    const network = await engine.createNetwork({ subnet: place.subnet, parent, ...optionsOf(kind, mode) });
    await starts.play(network, count);
    return { had: await starts.end(network), refused: starts.refused, taken: starts.taken };
  }

  // Those that wait until addresses are on standby begin before others make the daemon ask for more.
  describe('while addresses are on standby', { concurrency: true }, () => {
    for (const kind of KINDS.filter(isPlayed).filter(isEarly)) test(nameOf(kind), () => play(kind, one, 'lan0'));
    for (const failure of FAILURES.filter(({ title }) => `${title} meanwhile`.includes(KIND)))
      test(`${failure.title} meanwhile`, () => playFailure(failure));
  });

  describe('at other moments', { concurrency: true }, () => {
    for (const kind of KINDS.filter(isPlayed).filter((some) => !isEarly(some)))
      test(nameOf(kind), () => play(kind, one, 'lan0'));
    for (const { parent, kind } of SINGLE.filter((single) => isPlayed(single.kind)))
      test(nameOf(kind), () => play(kind, two, parent));
  });

  // --- links that fail ------------------------------------------------------------------------------------------------

  /** A network that has addresses on standby. */
  interface Ground {
    readonly kind: Kind;
    readonly network: FakeNetwork;
    readonly starts: Starts;
  }

  async function playFailure(failure: Failure): Promise<void> {
    const engine = await boot(failure.name);
    const kinds = STANDBY.map((kind) => ({ ...kind, failure: failure.title }));
    const outcomes = new Map<Kind, Outcome[]>(kinds.map((kind) => [kind, []]));
    for (let left = ROUNDS; left > 0; left -= NETWORKS_AT_ONCE) {
      const all = times(Math.min(left, NETWORKS_AT_ONCE)).flatMap(() => kinds);
      for (const ground of await failOnce(failure, engine, all)) outcomes.get(ground.kind)?.push(await endOf(ground));
    }
    for (const [kind, all] of outcomes) judge(kind, engine, all);
  }

  async function failOnce(failure: Failure, engine: Understudy, kinds: readonly Kind[]): Promise<Ground[]> {
    const grounds = await Promise.all(kinds.map((kind) => prepare(kind, engine)));
    const victims = await Promise.all(grounds.map(async ({ starts }) => (await starts.untilReady()).slice(0, 1)));
    const { host } = engine.plugin;
    const link = { lan, host, port: host.ports['lan0'] ?? '' };
    await failure.goAway(link);
    for (const [place, { starts }] of grounds.entries()) for (const one of victims[place] ?? []) await starts.take(one);
    await failure.comeBack(link);
    await Promise.all(grounds.map(({ starts, network }, place) => starts.start(network, victims[place] ?? [])));
    return grounds;
  }

  async function prepare(kind: Kind, engine: Understudy): Promise<Ground> {
    const place = nextPlace(kind.family);
    const network = await engine.createNetwork({ subnet: place.subnet, ...optionsOf(kind, 'bridge') });
    const starts = new Starts(kind, engine, place, world);
    await starts.keepReady(network);
    return { kind, network, starts };
  }

  async function endOf({ starts, network }: Ground): Promise<Outcome> {
    return { had: await starts.end(network), refused: starts.refused, taken: starts.taken };
  }

  // --- nobody -----------------------------------------------------------------------------------------------------------

  describe('nobody takes anything', { concurrency: true }, () => {
    for (const way of WAYS)
      for (const family of FAMILIES) {
        const name = `nobody, ${way}, ${family}`;
        test(name, async () => {
          const rounds = Math.ceil(CLEAN / (WAYS.length * FAMILIES.length));
          const place = nextPlace(family);
          const network = await one.createNetwork({ subnet: place.subnet, ipamOptions: way === DOCKERS ? null : {} });
          const address = place.at(way === 'dynamic' ? 1 : 7);
          const typed = `${address}/${place.length}`;
          const wish = { dynamic: {}, '--ip': { address }, [DOCKERS]: { address: typed } }[way];
          for (const _ of times(rounds)) {
            const container = await one.run(network, wish);
            assert.equal(container.address, typed, 'nothing is passed over');
            await one.remove(container);
          }
          table[name] = { rounds, duplicates: 0, also: 'none refused, none passed over' };
        });
      }
  });

  test('no conflict is told but of takers, and nobody speaks for an address beside its taker', async () => {
    const { taken } = world.taker;
    const listed = JSON.parse(await one.plugin.command('conflicts', '--json')) as { address: string }[];
    const alarms = listed.map(({ address }) => address).filter((address) => !taken.has(address));
    const isOurs = (mac: string) => isProbeMac(mac) || isStandbyMac(mac);
    const isLater = ({ address, macAddress, atMs }: Statement) => {
      const taking = taken.get(address);
      return taking !== undefined && atMs > taking.atMs && macAddress !== taking.macAddress && !isOurs(macAddress);
    };
    const disputed = statements(await capture.stop()).filter(isLater);
    table['all'] = { rounds: taken.size, duplicates: 0, 'false alarms': alarms.length, also: '' };
    assert.deepEqual([alarms, disputed], [[], []]);
  });
});
