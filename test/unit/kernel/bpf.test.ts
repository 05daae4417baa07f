import assert from 'node:assert/strict';
import { test } from 'node:test';
import { accept, assemble, drop, encodeProgram, ifEqual, loadHalf } from '../../../src/kernel/bpf.ts';

test('a program has the bytes that tcpdump -dd prints for it', () => {
  // tcpdump -dd arp: { 0x28, 0, 0, 0x0000000c }, { 0x15, 0, 1, 0x00000806 }, { 0x6, 0, 0, 0x00040000 }, { 0x6, 0, 0, 0 }
  const program = assemble([loadHalf(12), ifEqual(0x0806, undefined, 'drop'), accept, 'drop', drop]);
  const expected = ['280000000c000000', '1500000106080000', '0600000000000400', '0600000000000000'];
  assert.equal(encodeProgram(program).toString('hex'), expected.join(''));
});

test('a jump backwards, too far or to nowhere is refused', () => {
  assert.throws(() => assemble(['start', loadHalf(12), ifEqual(1, 'start'), accept]), RangeError);
  assert.throws(() => assemble([ifEqual(1, 'nowhere'), accept]), RangeError);
  assert.throws(
    () => assemble([ifEqual(1, 'end'), ...Array.from({ length: 256 }, () => accept), 'end', drop]),
    RangeError,
  );
});
