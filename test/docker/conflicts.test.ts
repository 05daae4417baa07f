/**
 * Conflicts on the LAN, on real engines: two hosts that share nothing but the switch, and a stranger whose words the test
 * decides. Judged by a capture on the switch, by the addresses inside the containers, and by what the docker command says.
 *
 *     one ──lan0── switch ──lan0── two
 *                    └──────lan0── stranger
 */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { type Address, formatAddress, parseAddress } from '../../src/address.ts';
import { arpAnnouncement, arpReply, encodeArp } from '../../src/lan/frames/arp.ts';
import { isProbeMac } from '../../src/lan/frames/mac.ts';
import { ALL_NODES_MAC } from '../../src/lan/frames/nd.ts';
import { Capture, type Frame } from '../lab/capture.ts';
import { attachment, clearEngine, isRunning, removeContainers, runIdle, runInside } from '../lab/container.ts';
import { follow } from '../lab/document.ts';
import { outsideLab } from '../lab/enclosure.ts';
import type { Engine, Version } from '../lab/engine.ts';
import { assertNoLinkLeft } from '../lab/invariant.ts';
import { Neighbour } from '../lab/neighbour.ts';
import { until } from '../lab/patience.ts';
import { type Machine, Site } from '../lab/site.ts';

const VERSIONS: Version[] = ['20.10.24', '28.5.2'];
/** A subnet of its own for each test: what was found in one is remembered for a while. */
const network = (subnet: number, ipam = '--ipam-driver tsmacvlan ') =>
  `network create -d tsmacvlan ${ipam}--subnet 172.16.${subnet}.0/24 --gateway 172.16.${subnet}.254 -o parent=lan0 lan`;
const STRANGER = '3c:22:fb:10:aa:01';
/** The shortest window of the profile `fast` is 590 ms. */
const IN_TIME_MS = 500;
/** Twice the longest pause between the announcements of the engine, and between ours. */
const QUIET_MS = 4000;
/** Between two announcements, where the network says nothing. */
const USUAL_GAP_MS = 1000;
const ADVERTISE = 'com.docker.network.advertise_addr_';
/** So long a start is not refused. */
const IN_VAIN_MS = 6000;
/** Starts of a container on both hosts at the same time; RACES=200 for the long run. */
const RACES = Number(process.env.RACES ?? 6);

function address(text: string): Address {
  const parsed = parseAddress(text);
  assert.ok(parsed);
  return parsed;
}

/** The address spoken of in ARP by whoever is meant. */
function said(frames: readonly Frame[], address: string, isMeant: (mac: string) => boolean): Frame[] {
  const isAbout = ({ arp }: Frame) => arp?.senderAddress === address || arp?.targetAddress === address;
  return frames.filter((frame) => isAbout(frame) && isMeant(frame.sourceMac));
}

/** A process that is kept from running may be as late as it likes: nobody can know of it then. */
function wasInTime(frames: readonly Frame[], address: string): boolean {
  const answers = said(frames, address, (mac) => mac === STRANGER);
  const isAnswered = ({ atMs: askedMs }: Frame) =>
    answers.some(({ atMs }) => atMs > askedMs && atMs < askedMs + IN_TIME_MS);
  return said(frames, address, isProbeMac).every(isAnswered);
}

/** Gratuitous ARP. */
function announcements(frames: readonly Frame[], address: string): Frame[] {
  return frames.filter(({ arp }) => arp?.senderAddress === address && arp.targetAddress === address);
}

/** Neighbour Advertisements to all. */
function advertisements(frames: readonly Frame[], of: string): Frame[] {
  const target = address(of).value.toString(16).padStart(32, '0');
  return frames.filter(
    ({ neighbour, destinationMac }) =>
      neighbour?.kind === 'advertisement' && neighbour.target === target && destinationMac === ALL_NODES_MAC,
  );
}

/** The IPv6 subnet beside 172.16.N.0/24. */
const sixOf = (subnet: number) => `fd00:16:${subnet}::`;

const LIMITS = { skip: outsideLab(), timeout: 900_000 + RACES * 5000 };

// Each on a LAN of its own: most of the time they wait.
describe('conflicts', { ...LIMITS, concurrency: true }, () => {
  for (const version of VERSIONS) {
    describe(`engine ${version}`, { ...LIMITS, concurrency: 1 }, () => {
      let site: Site;
      let one: Machine;
      let two: Machine;
      let stranger: Neighbour;

      before(async () => {
        const names = { lan: `lan-${version}`, hosts: [`one-${version}`, `two-${version}`] };
        site = await Site.open({ version, ...names, settings: { DEFEND: 'on' } });
        [one, two] = site.machines as [Machine, Machine];
        stranger = await Neighbour.plug(site.lan, `stranger-${version}`, STRANGER);
      });
      after(async () => {
        stranger.close();
        await stranger.namespace.delete();
        await site.close();
      });
      afterEach(async () => {
        stranger.reset();
        for (const { engine } of [one, two]) await clearEngine(engine);
      });

      const typed = (engine: Engine, command: string) => engine.must(...command.split(' '));
      const conflictsOf = ({ plugin }: Machine) => plugin.conflicts();

      test('the same --ip on both hosts: the second is refused, and told who has it', async () => {
        for (const { engine } of [one, two]) await typed(engine, network(10));
        await runIdle(one.engine, 'web', '--net lan --ip 172.16.10.10');
        const { MacAddress } = await attachment(one.engine, 'web', 'lan');
        const { code, stderr } = await two.engine.docker(
          ...'run --rm --net lan --ip 172.16.10.10 busybox true'.split(' '),
        );
        assert.equal(code, 125);
        const sentence = `address 172.16.10.10 is already used on the LAN by ${MacAddress}, which answered on lan0; choose another --ip`;
        // On a busy machine host one hands its container our questions to all too late: then that to the container alone finds it.
        const later = `address 172.16.10.10 was free when it was chosen, but is now used on the LAN by ${MacAddress}, seen on lan0`;
        assert.ok(stderr.includes(sentence) || stderr.includes(later), stderr);
      });

      test('the same --ip with the IPAM of Docker is refused too', async () => {
        for (const { engine } of [one, two]) {
          await typed(engine, network(11, ''));
        }
        await runIdle(one.engine, 'web', '--net lan --ip 172.16.11.10');
        const { code, stderr } = await two.engine.docker(
          ...'run --rm --net lan --ip 172.16.11.10 busybox true'.split(' '),
        );
        assert.equal(code, 125);
        assert.match(stderr, /address 172\.16\.11\.10 is already used on the LAN by 02:42:ac:10:0b:0a/);
      });

      // In what hosts and strangers do at the same time an engine has no part: one is enough.
      if (version === '28.5.2') {
        test(`containers started on both hosts at the same time never get the same address (${RACES} rounds)`, async () => {
          for (const { engine } of [one, two]) await typed(engine, network(12));
          let duplicates = 0;
          const names: string[] = [];
          for (let round = 0; round < RACES; round++) {
            const name = `c${round}`;
            names.push(name);
            await Promise.all([one, two].map(({ engine }) => runIdle(engine, name, '--net lan')));
            const given = await Promise.all([one, two].map(({ engine }) => inside(engine, name)));
            if (given[0] === given[1]) duplicates++;
            if (round % 10 !== 9) continue;
            for (const { engine } of [one, two]) await removeContainers(engine, ...names);
            names.length = 0;
          }
          console.log(`engine ${version}: ${duplicates} duplicates in ${RACES} rounds`);
          assert.equal(duplicates, 0);
        });

        test('a squatter known only by ARP, late or early, never shares its address with a container', async () => {
          const squatted = ['172.16.13.1', '172.16.13.2', '172.16.13.4', '172.16.13.7'];
          stranger.react = (packet) => {
            if (packet.protocol !== 'ARP' || packet.operation !== 'request') return;
            const at = squatted.indexOf(formatAddress(packet.targetAddress));
            if (at >= 0) setTimeout(() => stranger.send(encodeArp(arpReply(packet, STRANGER))), at * 100);
          };
          const capture = await Capture.start(site.lan.namespace, 'br0', 'arp');
          await typed(one.engine, network(13));
          const names = ['c0', 'c1', 'c2', 'c3', 'c4'];
          for (const name of names) await runIdle(one.engine, name, '--net lan');
          const given = await Promise.all(names.map((name) => inside(one.engine, name)));
          assert.equal(new Set(given).size, names.length);
          const frames = await capture.stop();
          const seen = (await conflictsOf(one)).map((conflict) => conflict.address);
          for (const taken of squatted.filter((one) => wasInTime(frames, one))) {
            assert.ok(!given.includes(taken), taken);
            assert.ok(seen.includes(taken), `${taken} is listed`);
          }
        });

        test('who takes the address of a running container is reported with both MACs, and answered', async () => {
          const capture = await Capture.start(site.lan.namespace, 'br0', 'arp');
          await typed(one.engine, network(14));
          await runIdle(one.engine, 'web', '--net lan --ip 172.16.14.30');
          const { MacAddress } = await attachment(one.engine, 'web', 'lan');
          const ours = (frames: Frame[]) => announcements(frames, '172.16.14.30').filter(isOurs);
          const isOurs = ({ arp }: Frame) => arp?.senderMac === MacAddress;
          await until(() => {
            const seen = ours(capture.frames());
            return seen.length >= 2 && Date.now() - (seen.at(-1)?.atMs ?? 0) > QUIET_MS;
          });
          const before = ours(capture.frames()).length;
          for (let count = 0; count < 5; count++)
            stranger.send(encodeArp(arpAnnouncement(address('172.16.14.30'), STRANGER)));
          const isListed = async () =>
            (await conflictsOf(one)).some((conflict) => conflict.ourMacAddress === MacAddress);
          await until(isListed);
          assert.match(await one.plugin.command('leases'), new RegExp(`172\\.16\\.14\\.30 .*${STRANGER}`));
          assert.match(
            one.plugin.log(),
            new RegExp(`somebody else uses the address of a running container.*${STRANGER}`),
          );
          await until(() => ours(capture.frames()).length > before);
          assert.equal(ours(await capture.stop()).length, before + 1, 'one announcement in defence');
          assert.match(await one.plugin.command('map'), new RegExp(`172\\.16\\.14\\.30 also used by ${STRANGER}`));
          assert.match(await one.plugin.command('conflicts', '--clear', '172.16.14.30'), /^1 conflict is forgotten/);
        });

        test('containers of two hosts with one MAC address are reported on both', async () => {
          const mac = '02:42:ac:10:11:11';
          for (const [position, { engine }] of [one, two].entries()) {
            await typed(engine, network(17));
            await runIdle(engine, 'web', `--net lan --mac-address ${mac} --ip 172.16.17.${20 + position}`);
          }
          for (const { engine } of [one, two])
            await engine.docker(...'exec web ping -c 1 -W 1 172.16.17.99'.split(' '));
          for (const machine of [one, two]) {
            await until(async () =>
              (await conflictsOf(machine)).some(({ kind, ourMacAddress }) => kind === 'mac' && ourMacAddress === mac),
            );
            assert.match(
              machine.plugin.log(),
              new RegExp(`another host uses the MAC address of a running container.*${mac}`),
            );
          }
        });
      }

      test('a restart brings the same address, and clean starts raise no alarm', async () => {
        await typed(one.engine, network(15));
        await runIdle(one.engine, 'web', '--net lan');
        const first = await inside(one.engine, 'web');
        for (let count = 0; count < 3; count++) await typed(one.engine, 'run --rm --net lan busybox true');
        for (let count = 0; count < 2; count++) await typed(one.engine, 'restart web');
        assert.equal(await inside(one.engine, 'web'), first);
        const alarms = (await conflictsOf(one)).filter((conflict) => conflict.address.startsWith('172.16.15.'));
        assert.deepEqual(alarms, []);
      });

      test('a container that is up is announced once, in both families, as often as its network says', async () => {
        // What no option says: the engine three times if it does (from 28 on, not for each container), else this host.
        const byNobodysWish = version === '28.5.2' ? [2, 3] : [2];
        const wishes: readonly [subnet: number, options: string, four: readonly number[], six: number][] = [
          [40, '', byNobodysWish, 3],
          [41, ` -o ${ADVERTISE}nmsgs=0`, [0], 0],
          [42, ` -o ${ADVERTISE}nmsgs=1`, [1], 1],
          [43, ` -o ${ADVERTISE}nmsgs=2 -o ${ADVERTISE}ms=100`, [2], 2],
        ];
        // A daemon that starts asks for the addresses of running containers a minute later, and tells whose they are.
        await one.plugin.stop();
        await one.plugin.start();
        for (const [subnet, options] of wishes)
          await typed(one.engine, `${network(subnet)}${subnet} --ipv6 --subnet ${sixOf(subnet)}/64${options}`);
        const capture = await Capture.start(site.lan.namespace, 'br0', 'arp or icmp6');
        for (const [subnet] of wishes)
          await runIdle(
            one.engine,
            `c${subnet}`,
            `--net lan${subnet} --ip 172.16.${subnet}.40 --ip6 ${sixOf(subnet)}40`,
          );
        const upMs = Date.now();
        const told = async (subnet: number): Promise<[four: Frame[], six: Frame[]]> => {
          const { MacAddress } = await attachment(one.engine, `c${subnet}`, `lan${subnet}`);
          const frames = capture.frames().filter(({ sourceMac }) => sourceMac === MacAddress);
          return [announcements(frames, `172.16.${subnet}.40`), advertisements(frames, `${sixOf(subnet)}40`)];
        };
        const all = async () => (await Promise.all(wishes.map(([subnet]) => told(subnet)))).flat(2);
        await until(async () => {
          const lastMs = Math.max(upMs, ...(await all()).map(({ atMs }) => atMs));
          return Date.now() - lastMs > QUIET_MS;
        });
        for (const [subnet, options, counts, six] of wishes) {
          const [arp, nd] = await told(subnet);
          assert.ok(counts.includes(arp.length), `${arp.length} of ARP${options}`);
          assert.equal(
            nd.length,
            six,
            `of neighbour discovery${options}: ${nd.map(({ atMs }) => Math.round(atMs - upMs)).join(' ')} ms`,
          );
        }
        const [[first, second]] = await told(43);
        assert.ok((second?.atMs ?? 0) - (first?.atMs ?? 0) < USUAL_GAP_MS, 'sooner than usual');
        await capture.stop();
      });

      /** Answers for the address from now on, until it is called off. */
      function contest(contested: string): () => void {
        let isOver = false;
        stranger.react = (packet) => {
          if (isOver || packet.protocol !== 'ARP' || packet.operation !== 'request') return;
          if (formatAddress(packet.targetAddress) === contested) stranger.send(encodeArp(arpReply(packet, STRANGER)));
        };
        return () => {
          isOver = true;
        };
      }

      for (const [subnet, ipam] of [
        [17, '--ipam-driver tsmacvlan '],
        [18, ''],
      ] as const) {
        const words = ipam === '' ? 'Docker’s IPAM' : 'our IPAM';
        const contested = `172.16.${subnet}.50`;

        test(`${words}: a restart whose address is contested for 8 s waits, and the container runs again`, async () => {
          await typed(one.engine, network(subnet, ipam));
          await runIdle(one.engine, 'web', `--net lan --restart always --ip ${contested}`);
          const callOff = contest(contested);
          setTimeout(callOff, 8000);
          await typed(one.engine, 'restart -t 1 web');
          assert.equal(await inside(one.engine, 'web'), contested);
        });

        test(`${words}: contested for longer it is refused, and starts by the watchdog of docs/conflicts.md`, async () => {
          await typed(one.engine, network(subnet + 2, ipam));
          const address = `172.16.${subnet + 2}.50`;
          await runIdle(one.engine, 'web', `--net lan --restart always --ip ${address}`);
          const callOff = contest(address);
          const { code, stderr } = await one.engine.docker('restart', '-t', '0', 'web');
          assert.equal(code, 1);
          assert.match(
            stderr,
            new RegExp(`address ${address} (is already|was free .* is now) used on the LAN by ${STRANGER}`),
          );
          assert.equal(await isRunning(one.engine, 'web'), false);
          callOff();
          await follow(one.engine, 'conflicts.md', 'When an address is in use: `CONFLICT`, `-o conflict=`');
          assert.equal(await inside(one.engine, 'web'), address);
        });

        if (version !== '28.5.2') continue;

        // Nobody waits and nothing is refused: the engine has no part in it.
        test(`${words}: with conflict=warn it starts at once however long that lasts, and it is said and recorded`, async () => {
          const address = `172.16.${subnet + 4}.50`;
          await typed(one.engine, network(subnet + 4, ipam).replace(/lan$/, '-o conflict=warn lan'));
          contest(address);
          const beginMs = performance.now();
          await runIdle(one.engine, 'web', `--net lan --restart always --ip ${address}`);
          await typed(one.engine, 'restart -t 0 web');
          assert.ok(performance.now() - beginMs < 2 * IN_VAIN_MS, 'nobody waited for the stranger');
          assert.equal(await inside(one.engine, 'web'), address);
          assert.ok((await conflictsOf(one)).some((conflict) => conflict.address === address));
          assert.match(
            one.plugin.log(),
            new RegExp(`a container starts although somebody else has its address.*${address}.*${STRANGER}`),
          );
        });
      }

      test('in the end no link is left from which the LAN was asked', async () => {
        for (const machine of [one, two]) await assertNoLinkLeft(machine);
      });

      async function inside(engine: Engine, name: string): Promise<string> {
        const { stdout } = await runInside(engine, name, ...'ip -4 -o address show dev eth0'.split(' '));
        return /inet ([\d.]+)/.exec(stdout)?.[1] ?? '';
      }
    });
  }
});
