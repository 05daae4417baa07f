/**
 * A LAN whose router advertises itself, as at home, and networks that name no IPv6 gateway: containers reach what lies beyond it, in
 * both families. With engines before 28 and Docker's IPAM too, which tell a gateway that the engine made up.
 *
 *     host ──lan0── switch ──lan0── router: 10.30.0.254, fd00:30::ff, and beyond it 198.51.100.1, 2001:db8:1::1
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { macBytes, parseAddress, type Address } from '../../src/address.ts';
import { encodeFrame, ETHERTYPE_IPV6 } from '../../src/lan/frames/ethernet.ts';
import { ALL_NODES_MAC, encodeIcmpv6 } from '../../src/lan/frames/nd.ts';
import { pings, runIdle, runInside } from '../lab/container.ts';
import { outsideLab } from '../lab/enclosure.ts';
import type { Engine, Version } from '../lab/engine.ts';
import { Neighbour } from '../lab/neighbour.ts';
import { until } from '../lab/patience.ts';
import { Site } from '../lab/site.ts';

/** One before 28; the other one before has its turn with ENGINES=26.1.5. */
const VERSIONS = (process.env.ENGINES?.split(',') ?? ['20.10.24', '28.5.2']) as Version[];
const ROUTER_MAC = '02:00:5e:00:53:01';
const LIMITS = { skip: outsideLab(), timeout: 300_000 };
const PINGS = 3;

/** RFC 4861 4.2: a router for half an hour; no prefix, as containers have addresses. */
function advertisement(source: Address): Buffer {
  const message = Buffer.alloc(16);
  message.writeUInt8(134);
  message.writeUInt8(64, 4);
  message.writeUInt16BE(1800, 6);
  const option = Buffer.concat([Buffer.of(1, 1), macBytes(ROUTER_MAC)]);
  const destination = parseAddress('ff02::1') as Address;
  const packet = encodeIcmpv6({ source, destination, hopLimit: 255 }, Buffer.concat([message, option]));
  return encodeFrame({ destinationMac: ALL_NODES_MAC, sourceMac: ROUTER_MAC }, ETHERTYPE_IPV6, packet);
}

async function linkLocalOf({ namespace }: Neighbour): Promise<Address> {
  let found: string | undefined;
  await until(async () => {
    const [link] = await namespace.show<{ addr_info: { local: string; scope: string; tentative?: boolean }[] }>(
      '-6 address show lan0',
    );
    found = link?.addr_info.find(({ scope, tentative }) => scope === 'link' && tentative !== true)?.local;
    return found !== undefined;
  });
  return parseAddress(found ?? '') as Address;
}

describe('routers that advertise themselves', { ...LIMITS, concurrency: true }, () => {
  for (const version of VERSIONS) {
    describe(`engine ${version}`, { ...LIMITS, concurrency: 1 }, () => {
      let site: Site;
      let router: Neighbour;
      let sending: NodeJS.Timeout;
      let engine: Engine;

      before(async () => {
        site = await Site.open({ version, lan: `lan-${version}`, hosts: [`host-${version}`] });
        engine = site.machines[0]?.engine as Engine;
        router = await Neighbour.plug(site.lan, `router-${version}`, ROUTER_MAC);
        for (const address of ['10.30.0.254/24', 'fd00:30::ff/64'])
          await router.namespace.ip(`address add ${address} dev lan0${address.includes(':') ? ' nodad' : ''}`);
        await router.namespace.ip('address add 198.51.100.1/32 dev lo');
        await router.namespace.ip('address add 2001:db8:1::1/128 dev lo');
        const frame = advertisement(await linkLocalOf(router));
        sending = setInterval(() => router.send(frame), 500);
      });
      after(async () => {
        clearInterval(sending);
        router.close();
        await router.namespace.delete();
        await site.close();
      });

      for (const [ipam, words] of [
        ['Docker’s IPAM', []],
        ['our IPAM', ['--ipam-driver', 'tsmacvlan']],
      ] as const) {
        test(`beyond the router, without a word about an IPv6 gateway, with ${ipam}`, async () => {
          const subnets = '--subnet 10.30.0.0/24 --gateway 10.30.0.254 --ipv6 --subnet fd00:30::/64'.split(' ');
          await engine.must('network', 'create', '-d', 'tsmacvlan', ...words, ...subnets, '-o', 'parent=lan0', 'net');
          await runIdle(engine, 'web', '--net net');
          const routes = async () => (await runInside(engine, 'web', 'ip', '-6', 'route')).stdout;
          await until(async () => (await routes()).includes('default via fe80:'), { timeoutMs: 20_000 });
          for (let n = 0; n < PINGS; n++) {
            assert.ok(await pings(engine, 'web', '2001:db8:1::1', 1), `IPv6: ${await routes()}`);
            assert.ok(await pings(engine, 'web', '198.51.100.1', 1), 'IPv4');
          }
          assert.equal((await routes()).match(/^default/gm)?.length, 1);
          assert.match((await runInside(engine, 'web', 'ip', 'route')).stdout, /default via 10\.30\.0\.254 /);
          await engine.must('rm', '-f', 'web');
          await engine.must('network', 'rm', 'net');
        });
      }
    });
  }
});
