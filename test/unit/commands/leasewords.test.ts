/** What is left of a lease, as people read it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { leaseEnd, remaining } from '../../../src/commands/leasewords.ts';
import { NEVER_ENDS_SECONDS } from '../../../src/lan/frames/dhcp.ts';
import { tenancy, when } from './fixture.ts';

const at = (seconds: number) => Date.parse(when) + seconds * 1000;

test('the largest unit that is whole, the end, and why it is lost', () => {
  assert.equal(leaseEnd(tenancy), '2026-11-20T02:00:00.000Z');
  assert.equal(remaining(tenancy, at(0)), 'for 2 hours more');
  assert.equal(remaining(tenancy, at(3601)), 'for 59 minutes more');
  assert.equal(remaining(tenancy, at(7199)), 'for 1 second more');
  assert.equal(remaining(tenancy, at(7201)), 'over');
  assert.equal(remaining({ ...tenancy, leaseSeconds: NEVER_ENDS_SECONDS }, at(0)), 'for ever');
  assert.equal(remaining({ ...tenancy, state: 'lost', loss: 'refused' }, at(0)), 'lost: refused');
});
