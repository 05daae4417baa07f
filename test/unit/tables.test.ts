import assert from 'node:assert/strict';
import { test } from 'node:test';
import { keptOf } from '../../src/ipam/kept.ts';
import type { Lease, Remembered } from '../../src/model.ts';
import { Naming } from '../../src/naming.ts';
import { leaseRow, printJson } from '../../src/tables.ts';
import { leaseRecord } from './store/lease.ts';

const POOL = 'TsmacvlanLocal/192.168.1.0/24';

function remembered(name: string, address: string, isReserved: boolean): Remembered {
  return { poolId: POOL, name, address, macAddress: null, isReserved, usedAt: '2026-11-20T10:00:00.000Z' };
}

test('a reserved address shows for whom it is reserved, whoever has it', () => {
  const lease = (last: number, name?: string): Lease => ({
    ...leaseRecord(`192.168.1.${last}`, 'TsmacvlanLocal'),
    ...(name !== undefined && { name }),
  });
  const leases = [lease(1, 'web'), lease(2), lease(3, 'db'), lease(4, 'free'), lease(5)];
  const names = [
    remembered('web', '192.168.1.1', true),
    remembered('web', '192.168.1.2', true),
    remembered('x'.repeat(60), '192.168.1.3', true),
    remembered('free', '192.168.1.4', false),
    remembered('other', '192.168.1.5', false),
    remembered('away', '192.168.1.6', true),
  ];
  const { idle, reservedFor } = keptOf(leases, names);
  assert.deepEqual(
    leases.map((one) => leaseRow(one, reservedFor(one), null, [], new Naming())['NAME']),
    ['web (reserved)', '(reserved for web)', `db (reserved for ${'x'.repeat(45)}...)`, 'free', '-'],
  );
  assert.deepEqual(
    idle.map(({ name, kind }) => [name, kind]),
    [['away', 'reserved']],
  );
});

test('what --json prints is JSON, of which no terminal obeys anything', (t) => {
  const data = { 'a\u202eb': ['x\u001b[2J\u009b31m\n\u2028', 'x\u{e0001}'], fine: 'é 漢' };
  let said = '';
  const write = t.mock.method(process.stdout, 'write', (text: string) => (said += text) !== '');
  printJson(data);
  write.mock.restore();
  assert.deepEqual(JSON.parse(said), data);
  assert.doesNotMatch(said.replaceAll('\n', ''), /[\p{Cc}\p{Cf}\u2028]/u);
  assert.match(said, /é 漢/);
});
