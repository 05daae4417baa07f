import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseAddress } from '../../../../src/address.ts';
import { mldReportFrame } from '../../../../src/lan/frames/mld.ts';
import { solicitedNodeGroup } from '../../../../src/lan/frames/nd.ts';

test('a report has the bytes that Linux sends when it joins the group of an address', () => {
  const target = parseAddress('fd00::a');
  assert.ok(target);
  assert.equal(
    mldReportFrame(solicitedNodeGroup(target), 'fe:31:d2:85:d0:d5').toString('hex'),
    '333300000016fe31d285d0d586dd' +
      `6000000000240001${'00'.repeat(16)}ff020000000000000000000000000016` +
      '3a000502000001008f006f8000000001' +
      '04000000ff0200000000000000000001ff00000a',
  );
});
