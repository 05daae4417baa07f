/** What the LAN's verdict means for a pool's address. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { PluginError } from '../../../src/errors.ts';
import { PoolLan } from '../../../src/ipam/poollan.ts';
import type { Verdict } from '../../../src/lan/verdict.ts';
import type { Tenancy } from '../../../src/model.ts';
import { interfaceAddress } from '../../lab/addresses.ts';
import { callLimit } from '../../lab/patience.ts';
import { type Line, logInto } from '../server/door.ts';
import { networkRecord, poolRecord, tenancyRecord } from '../store/records.ts';

const options = { timeout: 10_000 };
const HOLDER: Verdict = {
  held: true,
  macAddress: '3c:22:fb:10:aa:01',
  linkName: 'eth0',
  simultaneous: false,
  isOnHost: false,
};

/** A LAN on which somebody answers, and a policy to warn of that. */
function poolLan({ isProof, tenancies = [] }: { isProof: boolean; tenancies?: Tenancy[] }) {
  const asked: string[] = [];
  const lines: Line[] = [];
  const answer = (question: string) => async () => {
    asked.push(question);
    return HOLDER;
  };
  const lan = new PoolLan({
    lan: { check: answer('check'), insist: answer('insist') } as never,
    store: {
      networks: { get: async () => networkRecord('n1') },
      leases: { needsProof: () => (isProof ? 'rfc' : null) },
      tenancies: { list: async () => tenancies },
    } as never,
    aliases: new Map(),
    settings: { conflict: 'warn' },
    log: logInto(lines),
  });
  return { lan, asked, lines };
}

const pool = { ...poolRecord('p1'), networkId: 'n1' };
const ask = ({ lan }: ReturnType<typeof poolLan>, isNamed: boolean) =>
  lan.probe(pool, interfaceAddress('192.168.1.40/24'), {
    limit: callLimit(),
    refusal: isNamed ? () => new Error('somebody has it') as PluginError : null,
  });

test(
  'with the policy to warn a named address is given although somebody has it, another one is not',
  options,
  async () => {
    const there = poolLan({ isProof: false });
    assert.deepEqual(await ask(there, true), { held: false });
    assert.equal(there.lines.length, 1);
    assert.deepEqual(await ask(there, false), HOLDER);
    assert.deepEqual(there.asked, ['check', 'check']);
  },
);

test(
  'what a container of a lost host may have is not given while somebody answers, whatever the policy',
  options,
  async () => {
    const there = poolLan({ isProof: true });
    assert.deepEqual(await ask(there, true), HOLDER);
    assert.deepEqual(await ask(there, false), HOLDER);
    assert.deepEqual(there.asked, ['insist', 'check']);
    assert.deepEqual(there.lines, []);
  },
);

test(
  'what a container has of a DHCP server is not given while it runs, nor before its lease is over',
  options,
  async () => {
    const known = { ...tenancyRecord('e1'), address: '192.168.1.40/24' };
    const [obtainedAt, before] = [new Date().toISOString(), '2026-01-01T00:00:00.000Z'];
    const verdictOf = async (tenancy: Tenancy) => {
      const there = poolLan({ isProof: false, tenancies: [tenancy] });
      const verdict = await ask(there, true);
      return [verdict.held && verdict.macAddress, there.asked.length];
    };
    const aside = { ...known, endpointId: null, state: 'aside' } as const;
    for (const held of [
      { ...aside, obtainedAt },
      { ...known, obtainedAt },
      { ...known, state: 'lost', obtainedAt: before },
    ])
      assert.deepEqual(await verdictOf(held as Tenancy), [known.macAddress, 0]);
    assert.deepEqual(await verdictOf({ ...aside, obtainedAt: before }), [false, 1]);
    assert.deepEqual(await verdictOf({ ...known, address: '192.168.1.4/24' }), [false, 1]);
  },
);
