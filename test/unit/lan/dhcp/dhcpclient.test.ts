/** What a client says when no server answers, in imagined time. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Clock } from '../../../../src/clock.ts';
import { DhcpClient, type DhcpClientParts } from '../../../../src/lan/dhcp/dhcpclient.ts';
import { World } from '../imagined.ts';

test('a call that may not wait for the whole DHCP_TIMEOUT says how long it has waited', async () => {
  const world = new World();
  const clock: Clock = {
    nowMs: () => world.nowMs,
    after: (delayMs, run) => world.at(world.nowMs + delayMs, run),
  };
  const links = { known: async () => ({ index: 2 ** 30, isUp: true }) };
  const lan = { sendOn: async () => undefined };
  const client = new DhcpClient({ links, lan, clock, timeout: 25 } as unknown as DhcpClientParts);
  const segment = { parentName: 'eth0', mode: 'bridge', profile: null } as const;
  const limit = { signal: new AbortController().signal, atMs: performance.now() + 9000, ifLate: () => undefined };
  const asked = client.offer({ segment, macAddress: '02:42:5e:10:00:11', limit });
  asked.catch(() => undefined);
  for (let ms = 0; ms <= 8000; ms += 100) await world.live(ms);
  await assert.rejects(asked, /^\S+ no DHCP server answered on "eth0" within 7 s;/);
  client.close();
});
