/**
 * Conflicts of running containers as they are shown, end and are forgotten. The daemon is a real one; containers are
 * namespaces, and a stranger says what the test wants.
 *
 *     host: tsmacvlan, containers ── lan0 ── br0 (ns "lan") ── stranger (scripted frames)
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { type Address, formatAddress, parseAddress } from '../../src/address.ts';
import { arpAnnouncement, arpReply, encodeArp } from '../../src/lan/frames/arp.ts';
import type { Conflict } from '../../src/model.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { Host } from '../lab/host.ts';
import { Lan } from '../lab/namespace.ts';
import { Neighbour } from '../lab/neighbour.ts';
import { until } from '../lab/patience.ts';
import { Plugin } from '../lab/plugin.ts';
import { type Container, Understudy } from '../lab/understudy.ts';

const BUNDLE = join(import.meta.dirname, '../../dist/tsmacvlan.cjs');
const timeout = 180_000;
const STRANGER = '3c:22:fb:10:aa:03';
/** Of as many MAC addresses: two seconds, where nothing else runs. */
const FLOOD = 8000;

describe('conflicts of running containers', { skip: outsideLab(), timeout: 600_000 }, () => {
  let lan: Lan;
  let host: Host;
  let engine: Understudy;
  let stranger: Neighbour;
  let container: Container;
  let address: Address;
  let text: string;
  let macAddress: string;
  let subnets = 80;

  before(async () => {
    lan = await Lan.create();
    host = await Host.boot('one', lan);
    engine = new Understudy(await Plugin.start(host));
    stranger = await Neighbour.plug(lan, 'stranger', STRANGER);
  });

  beforeEach(async () => {
    container = await engine.run(await engine.createNetwork({ subnet: `10.${++subnets}.0.0/24` }));
    text = container.address.split('/')[0] ?? '';
    address = parseAddress(text) as Address;
    const [link] = await container.namespace.show<{ address: string }>('link show eth0');
    macAddress = link?.address ?? '';
  });

  afterEach(async () => {
    stranger.reset();
    await engine.clear();
    await shell('conflicts', '--clear');
    assert.doesNotMatch(engine.plugin.log(), /internal error|INTERNAL/);
  });

  after(() => stranger.close());

  const shell = (...words: string[]) => engine.plugin.command(...words);
  const known = () => engine.plugin.conflicts();
  const announce = (of = address, mac = STRANGER) => stranger.send(encodeArp(arpAnnouncement(of, mac)));

  /** As soon as there is one. */
  async function conflict(): Promise<Conflict> {
    await until(async () => (await known()).length > 0);
    const [first, ...others] = JSON.parse(await shell('conflicts', '--json')) as Conflict[];
    assert.ok(first !== undefined && others.length === 0);
    return first;
  }

  test('one that lasts is shown everywhere, and forgotten by command; when it shows again it is news', {
    timeout,
  }, async () => {
    announce();
    const { kind, parent, ourMacAddress, hostLink, endedAt } = await conflict();
    assert.deepEqual([kind, parent, ourMacAddress, hostLink, endedAt], ['address', 'lan0', macAddress, null, null]);
    assert.match(await shell('conflicts'), new RegExp(`${text} +lan0 +${STRANGER} +- +${macAddress} +address +1 `));
    assert.match(await shell('leases'), new RegExp(`${text} .*${STRANGER} \\(once\\)`));
    assert.match(await shell('map'), new RegExp(`${text}/24 .*\\(${text} also used by ${STRANGER}\\)`));
    assert.match(await shell('networks'), /CONFLICTS\n.* 1$/m);
    assert.equal(await shell('conflicts', '10.0.0.1'), 'none');
    assert.match(await shell('conflicts', '--clear', '10.0.0.1'), /^nothing was recorded of 10\.0\.0\.1$/);
    assert.match(await shell('conflicts', '--clear', text), /^1 conflict is forgotten; what lasts is reported again$/);
    assert.equal(await shell('conflicts'), 'none');
    assert.match(await shell('leases'), new RegExp(`${text} .* -$`, 'm'));
    announce();
    await conflict();
    const lines = engine.plugin.log().match(/somebody else uses the address of a running container/g);
    assert.equal(lines?.length, 2);
  });

  test('who answers refuses a reservation at once, and who is slow to answer is told when it is made', {
    timeout,
  }, async () => {
    const net = text.replace(/\d+$/, '');
    await stranger.namespace.ip(`address add ${net}90/32 dev lan0`);
    const reserve = (host: number) => shell('reserve', 'web', `${net}${host}`);
    await assert.rejects(reserve(90), new RegExp(`address ${net}90 is used on the LAN by ${STRANGER}`));
    await stranger.namespace.ip(`address del ${net}90/32 dev lan0`);
    await shell('conflicts', '--clear');
    let asked = 0;
    stranger.react = (packet) => {
      if (packet.protocol !== 'ARP' || formatAddress(packet.targetAddress) !== `${net}91` || ++asked <= 3) return;
      stranger.send(encodeArp(arpReply(packet, STRANGER)));
    };
    assert.match(await reserve(91), new RegExp(`^${net}91 is reserved for web`));
    const { address: found, macAddress: by, ourMacAddress } = await conflict();
    assert.deepEqual([found, by, ourMacAddress], [`${net}91`, STRANGER, null]);
    await until(() => /has an address that was just reserved address=\S+\.91 name=web/.test(engine.plugin.log()));
    assert.match(await shell('leases'), new RegExp(`^${net}91 +reserved +web `, 'm'), 'a reservation does not end');
    await shell('unreserve', 'web');
  });

  test('an address that is none is refused, and an option that is none', { timeout }, async () => {
    const { code, stderr } = await host.run([process.execPath, BUNDLE, 'conflicts', '10.0.0', '--clear']);
    assert.equal(code, 2);
    assert.equal(stderr, 'tsmacvlan: "10.0.0" is not an IP address; call tsmacvlan conflicts [ADDRESS] [--clear]\n');
    const typo = await host.run([process.execPath, BUNDLE, 'conflicts', '--clera']);
    assert.deepEqual(
      [typo.code, typo.stderr],
      [2, 'tsmacvlan: conflicts takes no option "--clera" (did you mean --clear?); see tsmacvlan conflicts --help\n'],
    );
  });

  test('it lasts while the other answers, and has ended when nobody answers any more', { timeout }, async () => {
    await stranger.namespace.ip(`address add ${text}/24 dev lan0`);
    announce();
    const first = await conflict();
    // Nothing is said unasked from here on.
    await until(async () => Number((await known())[0]?.count) > first.count);
    assert.equal((await known())[0]?.endedAt, null);
    await stranger.namespace.ip(`address del ${text}/24 dev lan0`);
    await until(async () => (await known())[0]?.endedAt !== null);
    assert.match(await shell('conflicts'), new RegExp(`${text} .* 20\\d\\d-\\S+Z$`, 'm'));
    assert.match(await shell('leases'), new RegExp(`${text} .* -$`, 'm'));
    assert.doesNotMatch(await shell('map'), /also used/);
    assert.match(await shell('networks'), /CONFLICTS\n.* -$/m);
  });

  test('a Linux host that keeps the address and says nothing more is recorded again after --clear', {
    timeout,
  }, async () => {
    await stranger.namespace.ip(`address add ${text}/24 dev lan0`);
    announce();
    await conflict();
    assert.match(await shell('conflicts', '--clear', text), /^1 conflict is forgotten/);
    assert.equal((await conflict()).macAddress, STRANGER);
    await stranger.namespace.ip(`address del ${text}/24 dev lan0`);
  });

  test('a daemon that was killed asks who has the addresses of its containers, and who had them', {
    timeout,
  }, async () => {
    announce();
    const gone = await conflict();
    const other = await engine.run(container.network);
    const second = other.address.split('/')[0] ?? '';
    await engine.plugin.stop('SIGKILL');
    // While nobody listens.
    await stranger.namespace.ip(`address add ${second}/24 dev lan0`);
    await engine.plugin.start();
    const of = async (one: string) => (await known()).find((record) => record.address === one);
    await until(async () => (await of(second)) !== undefined && (await of(text))?.endedAt !== null);
    assert.deepEqual([(await of(second))?.macAddress, (await of(second))?.endedAt], [STRANGER, null]);
    assert.equal((await of(text))?.count, gone.count);
    await engine.plugin.restart('SIGKILL');
    const { count = 0 } = (await of(second)) ?? {};
    await until(async () => Number((await of(second))?.count) > count);
    await stranger.namespace.ip(`address del ${second}/24 dev lan0`);
  });

  test("the host's own conflict lasts while the host has the address, and ends when it has dropped it", {
    timeout,
  }, async () => {
    const { namespace } = host;
    await namespace.ip(`address add ${text}/24 dev lan0`);
    await namespace.run(['ping', '-c', '4', '-W', '1', '-I', 'lan0', '10.99.0.99']);
    const first = await conflict();
    assert.equal(first.hostLink, 'lan0');
    // Nothing more is said after the pings, and what was said is told within ten seconds: then the host's own kernel is asked.
    await until(async () => Date.parse((await known())[0]?.seenAt ?? '') - Date.parse(first.seenAt) > 14_000);
    assert.equal((await known())[0]?.endedAt, null);
    await namespace.run(['ping', '-c', '2', '-W', '1', '-I', 'lan0', '10.99.0.98']);
    await namespace.ip(`address del ${text}/24 dev lan0`);
    await until(async () => (await known())[0]?.endedAt !== null);
  });

  test('another host with the MAC address of the container is recorded, shown, and told once', {
    timeout,
  }, async () => {
    const foreign = parseAddress('10.77.0.9') as Address;
    for (let count = 0; count < 5; count++) announce(foreign, macAddress);
    const found = await conflict();
    assert.deepEqual([found.kind, found.address, found.macAddress], ['mac', '10.77.0.9', macAddress]);
    assert.match(await shell('map'), /MAC address also used by another host, with 10\.77\.0\.9/);
    const lines = engine.plugin.log().match(/another host uses the MAC address of a running container/g);
    assert.equal(lines?.length, 1);
  });

  test('a flood from thousands of MAC addresses leaves few lines, one record, and the container alone', {
    timeout,
  }, async () => {
    const [lines, megabytes] = [logLines(), await engine.plugin.memoryMb()];
    for (let number = 0; number < FLOOD; number++) {
      const [high, low] = [(number >> 8) & 255, number & 255].map((byte) => byte.toString(16).padStart(2, '0'));
      announce(address, `3c:22:fb:12:${high}:${low}`);
      if (number % 50 === 0) await new Promise((resolve) => setTimeout(resolve, 10));
    }
    assert.equal((await known()).length, 1);
    assert.ok(logLines() - lines <= 10, `${logLines() - lines} lines`);
    assert.ok((await engine.plugin.memoryMb()) < megabytes + 40);
    const { stdout } = await container.namespace.run(['ip', '-4', '-o', 'address', 'show', 'dev', 'eth0']);
    assert.ok(stdout.includes(container.address));
  });

  function logLines(): number {
    return engine.plugin
      .log()
      .split('\n')
      .filter((line) => / warn /.test(line)).length;
  }
});
