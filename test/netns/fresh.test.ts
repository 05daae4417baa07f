/**
 * Addresses are asked for at the moment they are given: what was on standby, what a container has just left, and again
 * while an endpoint is made and joined. The file's own network namespace is the host:
 *
 *     par ── veth ── br0 (ns "lan") ── veth ── machine (a Linux kernel: it takes addresses in silence, and answers)
 *                                   └─ veth ── squatter (scripted frames)
 */
import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Address, formatAddress, parseAddress, parsePrefix } from '../../src/address.ts';
import { type PluginError, addressHeld } from '../../src/errors.ts';
import { Links } from '../../src/kernel/link.ts';
import { arpProbe, arpReply, encodeArp } from '../../src/lan/frames/arp.ts';
import { isProbeMac } from '../../src/lan/frames/mac.ts';
import { solicitedNodeGroup } from '../../src/lan/frames/nd.ts';
import { type FoundConflict, Lan as LanRoom } from '../../src/lan/lan.ts';
import type { Speaker } from '../../src/lan/leavers.ts';
import { Prober } from '../../src/lan/prober.ts';
import type { HeldVerdict, Kept, Loss } from '../../src/lan/verdict.ts';
import { MODES, type ProbeProfile } from '../../src/model.ts';
import { output } from '../lab/command.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { Lan, Namespace } from '../lab/namespace.ts';
import { Neighbour } from '../lab/neighbour.ts';
import { callLimit, inTime, until } from '../lab/patience.ts';
import { type Line, logInto } from '../unit/server/door.ts';

const timeout = 60_000;
const MACHINE = '3c:22:fb:10:aa:02';
const SQUATTER = '3c:22:fb:10:aa:01';
const CONTAINER = '02:42:0a:09:00:32';
const OTHER = '02:42:ac:11:00:02';
/** What the kernel and this process take beside the waits. */
const PROMPT_MS = 200;

const refusal = ({ macAddress, linkName }: HeldVerdict) => addressHeld('wanted', macAddress, linkName, '--ip');

const ip = (words: string) => output(['ip', ...words.split(' ')]);

function address(text: string): Address {
  const parsed = parseAddress(text);
  assert.ok(parsed);
  return parsed;
}

let last = 50;
const FAMILIES = {
  IPv4: { next: () => address(`10.9.0.${++last}`), subnet: parsePrefix('10.9.0.0/24'), length: 24 },
  IPv6: { next: () => address(`fd00::${(++last).toString(16)}`), subnet: parsePrefix('fd00::/64'), length: 64 },
} as const;

describe('an address is asked for at the moment it is given', { skip: outsideLab(), timeout: 400_000 }, () => {
  let lan: Lan;
  let machine: Neighbour;
  let squatter: Neighbour;
  let links: Links;
  let room: LanRoom;
  const records: FoundConflict[] = [];
  const lines: Line[] = [];
  let isDiskFull = false;
  /** Of our endpoints, by MAC address. */
  const speakers = new Map<string, Speaker>();

  before(async () => {
    lan = await Lan.create([], 'lan');
    await ip('link add par type veth peer name port-par netns lan');
    await lan.namespace.ip('link set port-par master br0 up');
    await ip('link set par up');
    machine = await Neighbour.plug(lan, 'machine', MACHINE);
    squatter = await Neighbour.plug(lan, 'squatter', SQUATTER);
    links = Links.open();
    // The kernels' own IPv6 start-up noise.
    await sleep(2500);
  });

  beforeEach(() => {
    records.length = 0;
    lines.length = 0;
    isDiskFull = false;
    speakers.clear();
    room = new LanRoom({
      links,
      usualProfile: 'fast',
      mostFrames: 0,
      settings: { defends: false },
      speaker: (_parent, macAddress) => speakers.get(macAddress),
      record: async (conflict) => {
        if (isDiskFull) throw new Error('database or disk is full');
        records.push(conflict);
      },
      onBack: () => undefined,
      ended: async () => undefined,
      log: logInto(lines),
    });
  });
  afterEach(async () => {
    await room.close();
    squatter.reset();
    machine.reset();
  });
  after(() => {
    machine.close();
    squatter.close();
    links.close();
  });

  interface Terms {
    readonly mode?: (typeof MODES)[number];
    readonly profile?: ProbeProfile;
    readonly leastProfile?: ProbeProfile;
  }

  const request = (one: Address, { mode = 'bridge', profile = 'fast', leastProfile }: Terms = {}) => ({
    parentName: 'par',
    mode,
    profile,
    address: one,
    subnet: FAMILIES[one.family].subnet ?? assert.fail(),
    leastProfile: leastProfile ?? null,
  });
  const heldBy = (macAddress: string) => ({
    held: true,
    macAddress,
    linkName: 'par',
    simultaneous: false,
    isOnHost: false,
  });

  async function keep(one: Address, terms: Terms = {}): Promise<{ kept: Kept; losses: Loss[] }> {
    const losses: Loss[] = [];
    const kept = await room.keep(request(one, terms), (loss) => losses.push(loss));
    assert.ok(kept !== null && typeof kept === 'object', `${formatAddress(one)} is not kept`);
    return { kept, losses };
  }

  /** Linux announces nothing: nobody hears of it who does not ask. */
  async function take(one: Address, namespace = machine.namespace, link = 'lan0'): Promise<void> {
    await namespace.ip(`address add ${formatAddress(one)}/${FAMILIES[one.family].length} dev ${link} nodad`);
    if (one.family === 'IPv4') return;
    // The kernel joins the group of an address's solicitations a moment later (addrconf_dad_work, net/ipv6/addrconf.c).
    const group = formatAddress(solicitedNodeGroup(one));
    await until(async () => (await namespace.run(['ip', 'maddress', 'show', 'dev', link])).stdout.includes(group));
  }
  const leave = (one: Address) =>
    machine.namespace.ip(`address delete ${formatAddress(one)}/${FAMILIES[one.family].length} dev lan0`);

  /** Probes for the address that the machine heard since. */
  const probesFor = (one: Address) =>
    machine.heard.filter(({ packet }) => {
      if (!isProbeMac(packet.sourceMac)) return false;
      if (packet.protocol === 'ARP')
        return packet.senderAddress.value === 0n && packet.targetAddress.value === one.value;
      return packet.protocol === 'NS' && packet.target.value === one.value;
    });

  const endpoint = (one: Address) => ({
    id: 'e1',
    parentName: 'par',
    mode: 'bridge' as const,
    profile: 'fast' as const,
    macAddress: CONTAINER,
    addresses: [{ ...one, length: FAMILIES[one.family].length }],
  });

  async function leaveAsContainer(leaving: ReturnType<typeof endpoint>): Promise<void> {
    await room.noteLeaver(leaving);
    await room.keepLeft(leaving);
  }

  for (const { next } of Object.values(FAMILIES)) {
    const family = next().family;

    for (const mode of MODES) {
      test(`who took an ${family} address in silence while it was on standby has it (${mode})`, {
        timeout,
      }, async () => {
        for (const profile of ['fast', 'rfc'] as const) {
          const wanted = next();
          const { losses } = await keep(wanted, { mode });
          await take(wanted);
          assert.deepEqual(losses, [], 'nobody heard of it');
          assert.deepEqual(await room.check(request(wanted, { mode, profile })), heldBy(MACHINE));
          assert.deepEqual(
            records.splice(0).map(({ macAddress }) => macAddress),
            [MACHINE],
          );
        }
      });
    }

    test(`a free ${family} address on standby costs one question and its short wait`, { timeout }, async () => {
      let wanted = next();
      await inTime(
        PROMPT_MS,
        async () => assert.deepEqual(await room.check(request(wanted)), { held: false }),
        async () => {
          wanted = next();
          await keep(wanted);
          machine.drain();
          machine.heard.length = 0;
        },
      );
      machine.drain();
      assert.equal(probesFor(wanted).length, 1);
    });

    test(`who needs an ${family} address that is just being asked for waits for that question`, {
      timeout,
    }, async () => {
      const [wanted, held] = [next(), next()];
      await take(held);
      for (const [one, verdict] of [
        [wanted, { held: false }],
        [held, heldBy(MACHINE)],
      ] as const) {
        // The port is open by then.
        await keep(next());
        machine.drain();
        machine.heard.length = 0;
        const keeping = room.keep(request(one), () => undefined);
        await until(() => {
          machine.drain();
          return probesFor(one).length === (verdict.held ? 0 : 2);
        });
        const checked = room.check(request(one));
        assert.deepEqual(await checked, verdict);
        assert.equal(await keeping, verdict.held ? 'used' : 'ended');
        machine.drain();
        if (!verdict.held) assert.equal(probesFor(one).length, 3);
        assert.ok(!room.isOnStandby(request(one)));
      }
      assert.deepEqual(await room.confirm({ ...request(wanted), macAddress: CONTAINER }), { held: false });
    });

    test(`a start that waits for a question about an ${family} address goes on when the pool that asked is dropped`, {
      timeout,
    }, async () => {
      const wanted = next();
      const dropping = new AbortController();
      const keeping = room.keep({ ...request(wanted), signal: dropping.signal }, () => undefined);
      await until(() => {
        machine.drain();
        return probesFor(wanted).length > 0;
      });
      const checked = room.check(request(wanted));
      // By then it is the start's question.
      await sleep(50);
      dropping.abort(new Error('the pool is gone'));
      assert.deepEqual(await checked, { held: false });
      assert.equal(await keeping, 'ended');
      machine.drain();
      assert.equal(probesFor(wanted).length, 3);
    });

    test(`an ${family} address that two want on standby is asked for once, and is kept until both let go`, {
      timeout,
    }, async () => {
      const wanted = next();
      machine.drain();
      machine.heard.length = 0;
      const [first, second] = await Promise.all([keep(wanted), keep(wanted)]);
      machine.drain();
      assert.equal(probesFor(wanted).length, 3);
      first.kept.release();
      assert.ok(room.isOnStandby(request(wanted)), 'the other wants it still');
      second.kept.release();
      assert.ok(!room.isOnStandby(request(wanted)));
      assert.deepEqual([first.losses, second.losses], [[], []], 'who lets go is told nothing');

      const both = await Promise.all([keep(wanted), keep(wanted)]);
      assert.deepEqual(await room.check(request(wanted)), { held: false });
      assert.deepEqual(
        both.map(({ losses }) => losses),
        [['ended'], ['ended']],
        'a container is to get it',
      );
    });

    test(`a brief question leaves an ${family} address on standby, guards none, and finds who answers`, {
      timeout,
    }, async () => {
      const wanted = next();
      const { kept, losses } = await keep(wanted);
      const brief = (one: Address) => room.check({ ...request(one, { profile: 'rfc' }), isBrief: true });
      machine.drain();
      machine.heard.length = 0;
      assert.deepEqual(await brief(wanted), { held: false });
      machine.drain();
      assert.equal(probesFor(wanted).length, 3);
      assert.ok(room.isOnStandby(request(wanted)));
      await take(wanted);
      assert.deepEqual(await brief(wanted), heldBy(MACHINE));
      await leave(wanted);
      kept.release();
      assert.deepEqual(losses, ['used'], 'who kept it hears the answer too');
      const other = next();
      assert.deepEqual(await brief(other), { held: false });
      await take(other);
      assert.deepEqual(await room.confirm({ ...request(other), macAddress: CONTAINER }), heldBy(MACHINE));
      await leave(other);
    });

    test(`when one of two who want an ${family} address on standby goes while it is asked for, the other has it kept`, {
      timeout,
    }, async () => {
      const wanted = next();
      const dropping = new AbortController();
      const going = room.keep({ ...request(wanted), signal: dropping.signal }, () => undefined);
      const staying = keep(wanted);
      await until(() => {
        machine.drain();
        return probesFor(wanted).length > 0;
      });
      dropping.abort(new Error('the pool is gone'));
      await assert.rejects(going, /the pool is gone/);
      const { kept } = await staying;
      assert.ok(room.isOnStandby(request(wanted)));
      kept.release();
      assert.ok(!room.isOnStandby(request(wanted)));
    });

    test(`an ${family} address that is asked for at one moment for a container and for standby is the container's`, {
      timeout,
    }, async () => {
      for (const isKeepFirst of [true, false]) {
        const wanted = next();
        const early = isKeepFirst ? room.keep(request(wanted), () => undefined) : null;
        const checked = room.check(request(wanted));
        const keeping = early ?? room.keep(request(wanted), () => undefined);
        assert.deepEqual(await checked, { held: false });
        await keeping;
        assert.ok(!room.isOnStandby(request(wanted)));
        machine.drain();
        machine.heard.length = 0;
        // It is guarded: one question is enough.
        assert.deepEqual(await room.confirm({ ...request(wanted), macAddress: CONTAINER }), { held: false });
        machine.drain();
        assert.ok(probesFor(wanted).length <= 2, `${probesFor(wanted).length} questions`);
      }
    });

    test(`where nothing else promises that an ${family} address is free the whole procedure runs, on standby or not`, {
      timeout,
    }, async () => {
      const wanted = next();
      const { losses } = await keep(wanted);
      machine.drain();
      machine.heard.length = 0;
      const beginMs = performance.now();
      assert.deepEqual(await room.check(request(wanted, { leastProfile: 'rfc' })), { held: false });
      const tookMs = performance.now() - beginMs;
      machine.drain();
      assert.equal(probesFor(wanted).length, 3);
      assert.ok(tookMs > (family === 'IPv4' ? 4000 : 3000), `${tookMs} ms`);
      assert.deepEqual(losses, ['ended']);
    });

    test(`who takes an ${family} address that a container has just left has it`, { timeout }, async () => {
      const wanted = next();
      await leaveAsContainer(endpoint(wanted));
      await sleep(1000);
      assert.ok(room.isOnStandby(request(wanted)));
      await take(wanted);
      assert.deepEqual(await room.check(request(wanted)), heldBy(MACHINE));
    });

    test(`who takes an ${family} address between check() and Join is found by confirm()`, { timeout }, async () => {
      const wanted = next();
      assert.deepEqual(await room.check(request(wanted)), { held: false });
      const confirm = () => room.confirm({ ...request(wanted), macAddress: CONTAINER });
      assert.deepEqual(await confirm(), { held: false });
      assert.deepEqual(records, []);
      await take(wanted);
      assert.deepEqual(await confirm(), heldBy(MACHINE));
      assert.deepEqual(await confirm(), heldBy(MACHINE), 'at once, the second time');
      await leave(wanted);
      assert.deepEqual(await room.check(request(wanted)), { held: false }, 'who went away again is forgotten');
      assert.deepEqual(await confirm(), { held: false });
    });

    test(`another host whose container has the same ${family} address and MAC is found by confirm()`, {
      timeout,
    }, async () => {
      const [wanted, again] = [next(), next()];
      assert.deepEqual(await room.check(request(wanted)), { held: false });
      // The endpoint is made, and not in its sandbox yet.
      speakers.set(CONTAINER, { isLeaving: false });
      // Else its other link answers for the address too.
      await machine.namespace.run(['sh', '-c', 'echo 1 > /proc/sys/net/ipv4/conf/lan0/arp_ignore']);
      // No macvlan: questions to a group reach one by a queue (macvlan_process_broadcast, drivers/net/macvlan.c) that a busy machine may
      // work off later than they are waited for.
      const port = await lan.plug(machine.namespace, 'twin');
      await machine.namespace.ip(`link set twin address ${CONTAINER}`);
      await take(wanted, machine.namespace, 'twin');
      assert.deepEqual(await room.confirm({ ...request(wanted), macAddress: CONTAINER }), heldBy(CONTAINER));

      // Nor is it the container that has just left and starts again.
      speakers.set(CONTAINER, { isLeaving: true });
      await leaveAsContainer(endpoint(again));
      assert.ok(room.isOnStandby(request(again)));
      // Its record is there still, but its link came back and is down: it says nothing any more.
      await ip(`link add back0 link par address ${CONTAINER} type macvlan mode bridge`);
      await take(again, machine.namespace, 'twin');
      assert.deepEqual(await room.check(request(again)), heldBy(CONTAINER));
      await ip('link delete back0');
      speakers.clear();
      await lan.unplug(port);
      await machine.namespace.run(['sh', '-c', 'echo 0 > /proc/sys/net/ipv4/conf/lan0/arp_ignore']);
    });

    test(`who has an ${family} address has it also when that cannot be recorded, which is said once`, {
      timeout,
    }, async () => {
      isDiskFull = true;
      const [wanted, named] = [next(), next()];
      for (const one of [wanted, named]) await take(one);
      assert.deepEqual(await room.check(request(wanted)), heldBy(MACHINE));
      assert.deepEqual(await room.insist(request(named), callLimit(1500), refusal), heldBy(MACHINE));
      assert.deepEqual(await room.confirm({ ...request(wanted), macAddress: CONTAINER }), heldBy(MACHINE));
      assert.equal(await room.keep(request(wanted), () => undefined), 'used');
      const errors = lines.filter(({ level }) => level === 'error');
      assert.deepEqual(
        errors.map(({ fields }) => fields['error']),
        ['Error: database or disk is full'],
      );
      for (const one of [wanted, named]) await leave(one);
    });

    test(`an ${family} address whose guard is over is confirmed by the whole procedure`, { timeout }, async () => {
      const wanted = next();
      machine.heard.length = 0;
      assert.deepEqual(await room.confirm({ ...request(wanted), macAddress: null }), { held: false });
      machine.drain();
      assert.equal(probesFor(wanted).length, 3);
    });
  }

  test('an answer that comes late is judged before the container starts', { timeout }, async () => {
    const wanted = FAMILIES.IPv4.next();
    await keep(wanted);
    let answer: Buffer | undefined;
    squatter.react = (packet) => {
      if (packet.protocol !== 'ARP' || packet.targetAddress.value !== wanted.value) return;
      answer ??= encodeArp(arpReply(packet, SQUATTER));
    };
    assert.deepEqual(await room.check(request(wanted)), { held: false });
    squatter.react = () => {};
    squatter.send(answer ?? assert.fail('the address was asked for'));
    await sleep(200);
    assert.deepEqual(await room.confirm({ ...request(wanted), macAddress: CONTAINER }), heldBy(SQUATTER));
  });

  test('while somebody has an address it is asked for again until just under the limit', { timeout }, async () => {
    const wanted = FAMILIES.IPv4.next();
    await take(wanted);
    const beginMs = performance.now();
    const insisted = room.insist(request(wanted), callLimit(9000), refusal);
    setTimeout(() => void leave(wanted), 3000);
    assert.deepEqual(await insisted, { held: false });
    const tookMs = performance.now() - beginMs;
    assert.ok(tookMs > 3000 && tookMs < 7000, `${tookMs} ms`);
    assert.equal(records.length, 1, 'and is recorded once');
  });

  test('so it is with the profile rfc, though its own procedure has no more time then', { timeout }, async () => {
    const wanted = FAMILIES.IPv4.next();
    await take(wanted);
    const insisted = room.insist(request(wanted, { profile: 'rfc' }), callLimit(9000), refusal);
    setTimeout(() => void leave(wanted), 3000);
    assert.deepEqual(await insisted, { held: false });
  });

  test('an address that stays in use is refused while there is still time to say so', { timeout }, async () => {
    const wanted = FAMILIES.IPv4.next();
    await take(wanted);
    const said: (PluginError | null)[] = [];
    const limit = { ...callLimit(4000), ifLate: (sentence: PluginError | null) => void said.push(sentence) };
    assert.deepEqual(await room.insist(request(wanted), limit, refusal), heldBy(MACHINE));
    assert.ok(said.length > 1 && said.every((sentence) => sentence?.message.includes(MACHINE)), 'were it late');
    const leftMs = limit.atMs - performance.now();
    assert.ok(leftMs > 400 && leftMs < 2000, `${leftMs} ms before the limit`);
  });

  test("the host's own address is refused at once, and recorded by nobody", { timeout }, async () => {
    const wanted = FAMILIES.IPv4.next();
    await ip(`address add ${formatAddress(wanted)}/24 dev par`);
    const limit = callLimit(9000);
    const verdict = await room.insist(request(wanted), limit, refusal);
    assert.ok(verdict.held && verdict.isOnHost);
    assert.ok(limit.atMs - performance.now() > 7000);
    assert.deepEqual(records, []);
    await ip(`address delete ${formatAddress(wanted)}/24 dev par`);
  });

  test('who only asks for an address is no holder of it', { timeout }, async () => {
    const wanted = FAMILIES.IPv4.next();
    squatter.react = (packet) => {
      if (packet.protocol === 'ARP' && packet.targetAddress.value === wanted.value)
        squatter.send(encodeArp(arpProbe(wanted, SQUATTER)));
    };
    assert.deepEqual(await room.check(request(wanted)), { ...heldBy(SQUATTER), simultaneous: true });
    assert.deepEqual(records, []);
  });

  test('after an event on the LAN nothing is on standby, and what is asked is asked anew', { timeout }, async () => {
    const [kept, asked, guarded] = [1, 2, 3].map(() => FAMILIES.IPv4.next()) as [Address, Address, Address];
    const { losses } = await keep(kept);
    assert.deepEqual(await room.check(request(guarded)), { held: false });
    machine.drain();
    machine.heard.length = 0;
    const checked = room.check(request(asked));
    await until(() => probesFor(asked).length === 2);
    room.voidParent('par');
    assert.deepEqual(losses, ['ended']);
    assert.deepEqual(await checked, { held: false });
    machine.drain();
    assert.equal(probesFor(asked).length, 5);
    assert.deepEqual(await room.confirm({ ...request(guarded), macAddress: CONTAINER }), { held: false });
    machine.drain();
    assert.equal(probesFor(guarded).length, 3);
  });

  test('who is only asked about goes on being guarded', { timeout }, async () => {
    const guarded = FAMILIES.IPv4.next();
    const prober = new Prober({ links });
    const question = { ...request(guarded), profile: 'fast' as const, isOwn: () => false };
    assert.deepEqual(await prober.probe(question), { held: false });
    assert.deepEqual(await prober.recheck(question), { held: false });
    squatter.drain();
    squatter.heard.length = 0;
    squatter.send(encodeArp(arpProbe(guarded, SQUATTER)));
    const isDefence = ({ packet }: (typeof squatter.heard)[number]) =>
      packet.protocol === 'ARP' && packet.operation === 'reply' && packet.senderAddress.value === guarded.value;
    await until(() => {
      squatter.drain();
      return squatter.heard.some(isDefence);
    });
    await prober.close();
  });

  test('below a parent without carrier nothing is kept, since silence says nothing there', { timeout }, async () => {
    await lan.namespace.ip('link set port-par down');
    await until(async () => (await links.byName('par'))?.hasCarrier === false);
    assert.equal(await room.keep(request(FAMILIES.IPv4.next()), () => undefined), 'ended');
    const left = FAMILIES.IPv4.next();
    await leaveAsContainer(endpoint(left));
    assert.ok(!room.isOnStandby(request(left)));
    await lan.namespace.ip('link set port-par up');
    await until(async () => (await links.byName('par'))?.hasCarrier === true);
  });

  for (const [how, ...wrapper] of [
    ['with'],
    ['without', 'setpriv', '--bounding-set', '-net_broadcast', '--inh-caps', '-net_broadcast'],
  ])
    test(`what a container has beside its interface is known when it leaves, ${how} CAP_NET_BROADCAST`, {
      timeout,
    }, async () => {
      await Namespace.create('leaving');
      const source = (file: string) => JSON.stringify(import.meta.resolve(`../../src/${file}.ts`));
      // All that happens to the container is news to the process, and past when the other interface is heard.
      const code = `
        import { execFileSync } from 'node:child_process';
        import { parseAddress } from ${source('address')};
        import { Links } from ${source('kernel/link')};
        import { Leavers } from ${source('lan/leavers')};
        const ip = (words) => execFileSync('ip', words.split(' '));
        const links = Links.open();
        await links.table.update();
        for (const [name, mac] of [['mine', '${CONTAINER}'], ['other', '${OTHER}']]) {
          ip('link add ' + name + ' link par address ' + mac + ' type macvlan mode bridge');
          ip('link set ' + name + ' netns leaving');
        }
        const leavers = new Leavers(links, () => undefined);
        const address = parseAddress('10.9.0.7');
        await leavers.note('par', '${CONTAINER}', [address]);
        ip('netns delete leaving');
        console.log(leavers.has({ parentName: 'par', address }, '${OTHER}'));`;
      const program = [...wrapper, process.execPath, '--input-type=module', '-e', code];
      assert.equal((await output(program)).trim(), 'true');
    });

  test('another interface of the container that leaves is no stranger, and not for ever', { timeout }, async () => {
    const wanted = FAMILIES.IPv4.next();
    const text = formatAddress(wanted);
    const sandbox = await Namespace.create('sandbox');
    for (const [name, mac] of [
      ['mine', CONTAINER],
      ['other', OTHER],
    ]) {
      await ip(`link add ${name} link par address ${mac} type macvlan mode bridge`);
      await ip(`link set ${name} netns sandbox`);
      await sandbox.ip(`link set ${name} up`);
    }
    await take(wanted, sandbox, 'mine');
    await leaveAsContainer(endpoint(wanted));
    await sleep(300);
    await sandbox.ip('link delete mine');
    assert.ok(room.isOnStandby(request(wanted)), 'on standby while the other answers');
    await sleep(1500);
    assert.ok(room.isOnStandby(request(wanted)), 'and when it is gone');
    assert.deepEqual(await room.check(request(wanted)), { held: false });

    // It is a holder when it has the address all the same.
    const own = FAMILIES.IPv4.next();
    await take(own, sandbox, 'other');
    await leaveAsContainer(endpoint(own));
    await sleep(300);
    assert.equal((await room.check(request(own))).held, true);
    await leaveAsContainer(endpoint(own));
    await until(() => !room.isOnStandby(request(own)), { timeoutMs: 20_000, detail: () => text });
    assert.deepEqual(records, []);
    await sandbox.delete();
  });
});
