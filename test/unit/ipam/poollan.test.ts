/** What the LAN's verdict means for a pool's address. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { PluginError } from '../../../src/errors.ts';
import { PoolLan } from '../../../src/ipam/poollan.ts';
import type { Verdict } from '../../../src/lan/verdict.ts';
import { interfaceAddress } from '../../lab/addresses.ts';
import { callLimit } from '../../lab/patience.ts';
import { type Line, logInto } from '../server/door.ts';
import { networkRecord, poolRecord } from '../store/records.ts';

const options = { timeout: 10_000 };
const HOLDER: Verdict = {
  held: true,
  macAddress: '3c:22:fb:10:aa:01',
  linkName: 'eth0',
  simultaneous: false,
  isOnHost: false,
};

/** A LAN on which somebody answers, and a policy to warn of that. */
function poolLan({ isProof }: { isProof: boolean }) {
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
