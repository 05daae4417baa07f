/**
 * Silent takers at every moment of a start on real engines: between engine and plugin stands a test that gives the address to
 * another Linux host before it lets a call pass. Judged by the addresses inside the containers, and by what the docker command
 * says.
 *
 *     host: engine ── interposer ── tsmacvlan, containers ── lan0 ── switch ── taker: a Linux kernel
 *                                                                       └───── listener: hears what is asked
 *
 *     make squatters ROUNDS=50     that many rounds of each kind, on each engine
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { removeContainers, runIdle, runInside } from '../lab/container.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { Engine, type Version } from '../lab/engine.ts';
import { Host } from '../lab/host.ts';
import { Interposer } from '../lab/interposer.ts';
import { Lan } from '../lab/namespace.ts';
import { Neighbour } from '../lab/neighbour.ts';
import { until } from '../lab/patience.ts';
import { Plugin } from '../lab/plugin.ts';
import { Questions } from '../lab/questions.ts';
import { SilentTaker } from '../lab/silenttaker.ts';
import { Turns } from '../lab/turns.ts';

const VERSIONS: Version[] = ['20.10.24', '28.5.2'];
const ROUNDS = Number(process.env.ROUNDS ?? 1);
const IS_LONG = process.env.ROUNDS !== undefined;
/** A part of the names of the kinds that are played; all of them when it is empty. */
const KIND = process.env.KIND ?? '';
const AT_ONCE = 12;
const TAKER = '3c:22:fb:10:aa:04';
/** What the daemon has ready for each pool. */
const ON_STANDBY = 4;
/** Less than the daemon has for a call. */
const CONTESTED_MS = 4000;
const PLUGIN_SOCKET = '/run/tsmacvlan.sock';

type Family = 'IPv4' | 'IPv6';
/** When the taker comes: before all, while the address is on standby, before this call, or between stop and start. */
type Moment = 'before' | 'standby' | 'CreateEndpoint' | 'Join' | 'stop';

interface Kind {
  readonly ipam: 'ours' | 'Docker’s IPAM';
  readonly moment: Moment;
  readonly verb: 'run' | 'start' | 'connect';
  /** By --ip or --ip6. */
  readonly isNamed: boolean;
  /** Of the address that is taken; networks have IPv4, and for IPv6 both. */
  readonly family: Family;
}

const kind = (ipam: 'ours' | 'theirs', words: string, family: Family = 'IPv4'): Kind => {
  const [moment, verb, option] = words.split(' ') as [Moment, Kind['verb'], string | undefined];
  return { ipam: ipam === 'ours' ? ipam : 'Docker’s IPAM', moment, verb, isNamed: option === '--ip', family };
};

const KINDS: readonly Kind[] = [
  ...['before run', 'before run --ip', 'standby run', 'standby run --ip', 'standby connect'],
  ...['CreateEndpoint run', 'CreateEndpoint run --ip', 'CreateEndpoint connect', 'Join run', 'Join connect --ip'],
  ...['stop start', 'stop start --ip'],
]
  .map((words) => kind('ours', words))
  .concat(
    ['standby run', 'CreateEndpoint run', 'Join run', 'stop start --ip'].map((words) => kind('ours', words, 'IPv6')),
    ['before run', 'before run --ip', 'before connect', 'standby run', 'standby connect', 'Join run']
      .concat('stop start', 'stop start --ip')
      .map((words) => kind('theirs', words)),
    ['before run --ip', 'standby run', 'Join run'].map((words) => kind('theirs', words, 'IPv6')),
  );

function nameOf({ ipam, moment, verb, isNamed, family }: Kind): string {
  const when = { before: 'before', standby: 'on standby', stop: 'after stop' } as const;
  const at = moment in when ? when[moment as keyof typeof when] : `before ${moment}`;
  return `${at}, ${verb}${isNamed ? ' --ip' : ''}, ${ipam}, ${family}`;
}

let places = 0;
function nextPlace() {
  const number = ++places;
  const [four, six] = [`10.${40 + (number >> 8)}.${number & 255}.`, `fd00:40:${number.toString(16)}::`];
  return {
    subnets: { IPv4: `${four}0/24`, IPv6: `${six}/64` },
    gateways: { IPv4: `${four}254`, IPv6: `${six}fe` },
    at: (family: Family, host: number) => (family === 'IPv4' ? `${four}${host}` : `${six}${host.toString(16)}`),
    isWithin: (family: Family, address: string) => address.startsWith(family === 'IPv4' ? four : six),
  };
}

/** A container has to be on a network before it can be connected to another; on this one there is nobody to ask. */
const ELSEWHERE = 'elsewhere';

/** The request as an engine sends it. */
interface Call {
  readonly NetworkID?: string;
  readonly EndpointID?: string;
  readonly Interface?: { readonly Address?: string; readonly AddressIPv6?: string };
}

/** What is done before the first such call for a network. */
interface Ambush {
  readonly call: string;
  readonly family: Family;
  readonly take: (address: string) => Promise<void>;
}

for (const version of VERSIONS) {
  describe(`takers, engine ${version}`, { skip: outsideLab(), timeout: 3_600_000 }, () => {
    const turns = new Turns(AT_ONCE);
    const table: Record<string, object> = {};
    /** By network. */
    const ambushes = new Map<string, Ambush>();
    /** What the engine said in CreateEndpoint, by endpoint. */
    const endpoints = new Map<string, NonNullable<Call['Interface']>>();
    let lan: Lan;
    let engine: Engine;
    let host: Host;
    let plugin: Plugin;
    let interposer: Interposer;
    let taker: SilentTaker;
    let listener: Neighbour;
    let questions: Questions;

    before(async () => {
      const name = version.replaceAll('.', '-');
      lan = await Lan.create([], `lan-${name}`);
      host = await Host.boot(`host-${name}`, lan);
      taker = await SilentTaker.plug(lan, `taker-${name}`, TAKER);
      listener = await Neighbour.plug(lan, `listener-${name}`, '3c:22:fb:10:aa:05');
      questions = new Questions(listener);
      [engine, plugin] = await Promise.all([
        Engine.start(host, version),
        Plugin.start(host, { SOCKET: PLUGIN_SOCKET }),
      ]);
      const engineSide = host.file('/run/docker/plugins/tsmacvlan.sock');
      interposer = await Interposer.listen(engineSide, host.file(PLUGIN_SOCKET), spring, false);
      const isolated = '-d tsmacvlan --ipam-driver tsmacvlan --subnet 10.39.0.0/16'.split(' ');
      await engine.must('network', 'create', ...isolated, ELSEWHERE);
    });

    after(async () => {
      console.log(`engine ${version}`);
      console.table(table);
      interposer.close();
      listener.close();
      await host.scrap(lan);
      for (const { namespace } of [taker, listener, lan]) await namespace.delete();
    });

    async function spring(path: string, body: string): Promise<void> {
      const call = path.replace('NetworkDriver.', '');
      if (!['CreateEndpoint', 'Join'].includes(call)) return;
      const { NetworkID = '', EndpointID = '', Interface } = JSON.parse(body) as Call;
      if (call === 'CreateEndpoint') endpoints.set(EndpointID, Interface ?? {});
      const ambush = ambushes.get(NetworkID);
      if (ambush?.call !== call) return;
      ambushes.delete(NetworkID);
      const { Address = '', AddressIPv6 = '' } = endpoints.get(EndpointID) ?? {};
      await ambush.take((ambush.family === 'IPv4' ? Address : AddressIPv6).split('/')[0] ?? '');
    }

    /** One network, one container, one taker. */
    class Round {
      readonly #kind: Kind;
      readonly #place = nextPlace();
      readonly #name = `n${places}`;
      taken = '';

      constructor(kind: Kind) {
        this.#kind = kind;
      }

      /** Answers what docker said of it; empty when the container runs. */
      async play(): Promise<string> {
        const { moment, verb, family } = this.#kind;
        if (moment === 'before') await this.#take(this.#place.at(family, this.#kind.isNamed ? 9 : 1));
        const id = await this.#createNetwork();
        if (moment === 'standby') await this.#take(await this.#readyOne());
        if (moment === 'CreateEndpoint' || moment === 'Join')
          ambushes.set(id, { call: moment, family, take: (address) => this.#take(address) });
        if (verb === 'connect') await runIdle(engine, this.#name, `--net ${ELSEWHERE}`);
        if (verb === 'start') await this.#runAndStop();
        return this.#begin();
      }

      async #take(address: string): Promise<void> {
        this.taken = address;
        await taker.take(address);
      }

      async #createNetwork(): Promise<string> {
        const { ipam, family } = this.#kind;
        const { subnets, gateways } = this.#place;
        const of = (one: Family) => ['--subnet', subnets[one], '--gateway', gateways[one]];
        const six = family === 'IPv6' ? ['--ipv6', ...of('IPv6')] : [];
        const driver = ['-d', 'tsmacvlan', ...(ipam === 'ours' ? ['--ipam-driver', 'tsmacvlan'] : [])];
        return engine.must('network', 'create', ...driver, ...of('IPv4'), ...six, '-o', 'parent=lan0', this.#name);
      }

      /** The first container makes the daemon keep addresses ready; answers the one that the next would get. */
      async #readyOne(): Promise<string> {
        const { ipam, family } = this.#kind;
        // What Docker's IPAM gives out next is guessed from what it gave out before.
        const option = ipam === 'ours' ? ` --ip ${this.#place.at('IPv4', 99)}` : '';
        await runIdle(engine, `${this.#name}-first`, `--net ${this.#name}${option}`);
        const own = await this.#addressesOf(`${this.#name}-first`);
        const isFree = (address: string) => this.#place.isWithin(family, address) && !own.includes(address);
        await until(() => questions.answered(isFree).length >= ON_STANDBY);
        // Both IPAMs give out the lowest. Nobody hears everything on a busy machine: not all that was asked for was heard.
        const [one = '', other = ''] = [1, 2].map((number) => this.#place.at(family, number));
        return isFree(one) ? one : other;
      }

      async #runAndStop(): Promise<void> {
        await engine.must('run', '-d', ...this.#attachment());
        const [address = ''] = (await this.#addressesOf(this.#name)).filter((one) =>
          this.#place.isWithin(this.#kind.family, one),
        );
        await engine.must('stop', this.#name);
        await this.#take(address);
      }

      #attachment(): string[] {
        return [
          '--name',
          this.#name,
          '--stop-timeout',
          '0',
          '--net',
          this.#name,
          ...this.#option(),
          'busybox',
          'sleep',
          '3600',
        ];
      }

      #option(): string[] {
        const { isNamed, family, moment } = this.#kind;
        if (!isNamed) return [];
        const address = moment === 'standby' ? this.taken : this.#place.at(family, 9);
        return [family === 'IPv4' ? '--ip' : '--ip6', address];
      }

      async #begin(): Promise<string> {
        const { verb } = this.#kind;
        const command = {
          run: ['run', '-d', ...this.#attachment()],
          start: ['start', this.#name],
          connect: ['network', 'connect', ...this.#option(), this.#name, this.#name],
        }[verb];
        const { code, stderr } = await engine.docker(...command);
        return code === 0 ? '' : stderr;
      }

      /** Its process dies, and somebody has its address while the engine starts it again. */
      async restartContested(): Promise<void> {
        const id = await this.#createNetwork();
        await engine.must('run', '-d', '--restart', 'always', ...this.#attachment());
        const [address = ''] = await this.had();
        ambushes.set(id, { call: 'CreateEndpoint', family: 'IPv4', take: (taken) => this.#take(taken) });
        await host.run(['kill', '-9', await engine.must('inspect', '--format', '{{.State.Pid}}', this.#name)]);
        await until(() => this.taken === address);
        // On a busy machine a look takes seconds, and a call has six: it is taken meanwhile.
        const isOver = sleep(CONTESTED_MS);
        await sleep(CONTESTED_MS / 2);
        // An engine that starts a container tells nobody about it meanwhile.
        assert.ok(!(await addressesInSandboxes()).includes(address), 'it does not run while somebody has its address');
        await isOver;
        await taker.giveUp(address);
        const detail = () => engine.must('inspect', '--format', '{{json .State}}', this.#name);
        await until(async () => (await this.had()).includes(address), { detail });
      }

      /** The addresses that its kernel has, when it runs. */
      async had(): Promise<string[]> {
        return this.#addressesOf(this.#name);
      }

      async #addressesOf(container: string): Promise<string[]> {
        const { stdout } = await runInside(engine, container, ...'ip -o address show scope global'.split(' '));
        return Array.from(stdout.matchAll(/inet6? ([\da-f.:]+)\//g), ([, address]) => address ?? '');
      }

      async clear(): Promise<void> {
        await removeContainers(engine, this.#name, `${this.#name}-first`);
        await engine.api('DELETE', `/networks/${this.#name}`);
      }
    }

    describe('one network each', { concurrency: true }, () => {
      // That an engine tells addresses of both families alike is shown once; in a long run each has all kinds.
      const isPlayed = (one: Kind) => IS_LONG || version === '28.5.2' || one.family === 'IPv4';
      for (const kind of KINDS.filter((one) => isPlayed(one) && nameOf(one).includes(KIND)))
        test(nameOf(kind), () => play(kind));

      test('a container that restarts always runs again although its address was contested for a while', async () => {
        const round = new Round(kind('ours', 'CreateEndpoint run --ip'));
        await round.restartContested();
        await round.clear();
      });
    });

    test('no conflict is told but of takers', async () => {
      const listed = JSON.parse(await plugin.command('conflicts', '--json')) as { address: string }[];
      assert.deepEqual(
        listed.map(({ address }) => address).filter((address) => !taker.taken.has(address)),
        [],
      );
    });

    /** What ip prints in the network namespaces that the engine made. */
    async function addressesInSandboxes(): Promise<string> {
      const show = 'for ns in /run/docker/netns/*; do nsenter --net=$ns ip -o address; done';
      return (await host.run(['sh', '-c', show])).stdout;
    }

    async function play(kind: Kind): Promise<void> {
      const rounds = Array.from({ length: ROUNDS }, () => turns.run(() => playOne(kind)));
      const outcomes = await Promise.all(rounds);
      const duplicates = outcomes.filter(({ taken, had }) => had.includes(taken)).length;
      const refused = outcomes.filter(({ words }) => words !== '').length;
      const also = `${ROUNDS - refused} passed over, ${refused} refused`;
      table[nameOf(kind)] = { rounds: ROUNDS, duplicates, also };
      assert.equal(duplicates, 0);
      for (const { taken, words } of outcomes) assert.match(words, expected(kind, taken));
    }

    async function playOne(kind: Kind): Promise<{ taken: string; had: string[]; words: string }> {
      const round = new Round(kind);
      const words = await round.play();
      const outcome = { taken: round.taken, had: await round.had(), words };
      await round.clear();
      return outcome;
    }
  });
}

/** Of what docker says. */
function expected({ ipam, moment, isNamed }: Kind, taken: string): RegExp {
  const isPassedOver = ipam === 'ours' && !isNamed && ['before', 'standby', 'stop'].includes(moment);
  return isPassedOver ? /^$/ : new RegExp(`address ${taken.replaceAll('.', '\\.')} .*${TAKER}`);
}
