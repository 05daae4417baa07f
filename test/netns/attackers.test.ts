/**
 * Machines that lie about who has which address. Each stands on a LAN of its own with a host, so that all can lie at once:
 *
 *     host: tsmacvlan, containers ── lan0 ──┬── br0
 *     attacker: scripted frames ────────────┤
 *     printer: a Linux kernel ──────────────┘
 *
 * `make squatters` lets them lie for ATTACK_SECONDS=60.
 */
import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Address, formatMac, parseAddress } from '../../src/address.ts';
import { arpProbe, arpReply, encodeArp } from '../../src/lan/frames/arp.ts';
import { encodeNd, ndAnnouncement } from '../../src/lan/frames/nd.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { Host } from '../lab/host.ts';
import { Lan } from '../lab/namespace.ts';
import { Neighbour } from '../lab/neighbour.ts';
import { until } from '../lab/patience.ts';
import { Plugin } from '../lab/plugin.ts';
import { SilentTaker } from '../lab/silenttaker.ts';
import { type FakeNetwork, Refusal, Understudy } from '../lab/understudy.ts';

const ATTACK_SECONDS = Number(process.env.ATTACK_SECONDS ?? 12);
const ROUNDS = Number(process.env.ROUNDS ?? 3);
/** A start has this long from the attacker's last word. */
const BACK_MS = 10_000;
const ATTACKER = '3c:22:fb:10:aa:06';
const PRINTER = '3c:22:fb:10:aa:07';
const BROADCAST = 'ff:ff:ff:ff:ff:ff';
/** So often a printer's MAC address is said to be that of another address. */
const FORGED_EVERY_MS = 1000;

/** Addresses of the LAN that no host has, and of none. */
const NOBODYS = ['10.66.0.0', '10.66.0.255', '0.0.0.0', '10.66.0.77', '169.254.1.1'];

const parsed = (text: string) => parseAddress(text) as Address;
const table: Record<string, object> = {};

/** A LAN with one host and an attacker. */
interface Stage {
  readonly lan: Lan;
  readonly engine: Understudy;
  readonly attacker: Neighbour;
}

describe('attackers', { skip: outsideLab(), timeout: 3_600_000, concurrency: true }, () => {
  const attackers: Neighbour[] = [];

  after(() => {
    console.table(table);
    for (const attacker of attackers) attacker.close();
  });

  async function enter(name: string): Promise<Stage> {
    const lan = await Lan.create([], `lan-${name}`);
    const engine = new Understudy(await Plugin.start(await Host.boot(`host-${name}`, lan)));
    const attacker = await Neighbour.plug(lan, `att-${name}`, ATTACKER);
    attackers.push(attacker);
    return { lan, engine, attacker };
  }

  /** Answers every question until it is reset. */
  function answerAll(attacker: Neighbour, macAddress: () => string): void {
    attacker.react = (packet) => {
      if (packet.protocol === 'ARP' && packet.operation === 'request')
        attacker.send(encodeArp(arpReply(packet, macAddress())));
      if (packet.protocol === 'NS') attacker.send(encodeNd(ndAnnouncement(packet.target, macAddress())));
    };
  }

  /** A container that comes and goes. */
  async function isStarted(engine: Understudy, network: FakeNetwork): Promise<boolean> {
    try {
      await engine.remove(await engine.run(network));
      return true;
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      return false;
    }
  }

  for (const [title, name, macAddress] of [
    ['answers for every address from ever new MAC addresses', 'many', randomMac],
    ['answers for every address from one MAC address', 'one', () => ATTACKER],
  ] as const)
    for (const family of ['IPv4', 'IPv6'] as const) {
      const kind = `${title}, ${family}`;
      test(`who ${kind}, holds up starts for ten seconds after he stopped at most`, async () => {
        const { engine, attacker } = await enter(`${name}${family.at(-1)}`);
        const subnet = family === 'IPv4' ? '10.66.0.0/24' : 'fd00:66::/64';
        // Before it, so that addresses are on standby when it begins.
        const network = await engine.createNetwork({ subnet });
        await engine.run(network);
        await sleep(4000);
        answerAll(attacker, macAddress);
        const beganMs = performance.now();
        let [given, refused] = [0, 0];
        const start = async () => {
          const isGiven = await isStarted(engine, network);
          if (isGiven) given++;
          else refused++;
          return isGiven;
        };
        while (performance.now() - beganMs < ATTACK_SECONDS * 1000) await start();
        attacker.reset();
        const stoppedMs = performance.now();
        await until(start);
        const backMs = Math.round(performance.now() - stoppedMs);
        table[kind] = { rounds: 1, also: `${given} given, ${refused} refused, back after ${backMs} ms` };
        assert.ok(backMs < BACK_MS, `${backMs} ms`);
      });
    }

  // A router that answers for all addresses is no holder of any: a forger who lends its looks to a printer makes it none.
  test('forged answers for addresses that nobody can have take no address from a printer', async () => {
    const { lan, engine, attacker } = await enter('forged');
    const printer = await SilentTaker.plug(lan, 'printer', PRINTER);
    const addresses = Array.from({ length: 2 * ROUNDS }, (_, place) => `10.66.0.${2 * place + 1}`);
    for (const address of addresses) await printer.take(address);
    const forged = NOBODYS.map((text) =>
      encodeArp({ ...arpReply(arpProbe(parsed(text), ATTACKER), PRINTER), destinationMac: BROADCAST }),
    );
    const say = () => forged.forEach((frame) => attacker.send(frame));
    say();
    const forging = setInterval(say, FORGED_EVERY_MS);
    const network = await engine.createNetwork({ subnet: '10.66.0.0/24' });
    const words: string[] = [];
    for (let round = 0; round < ROUNDS; round++) await engine.run(network);
    await Promise.all(
      addresses.map((address) =>
        engine.run(network, { address }).then(
          () => words.push(`${address} was given out`),
          (error: unknown) => words.push(String(error)),
        ),
      ),
    );
    clearInterval(forging);
    const given = [...engine.containers].map(({ address }) => address.split('/')[0] ?? '');
    const duplicates = given.filter((address) => addresses.includes(address));
    table['forged answers'] = { rounds: 3 * ROUNDS, duplicates: duplicates.length };
    assert.deepEqual(duplicates, []);
    for (const word of words) assert.match(word, new RegExp(`address 10\\.66\\.0\\.\\d+ .*${PRINTER}`));
  });
});

/** Locally administered. */
function randomMac(): string {
  return `02:${formatMac(Uint8Array.from({ length: 5 }, () => Math.floor(Math.random() * 256)))}`;
}
