import assert from 'node:assert/strict';
import { KernelError } from '../../../src/kernel/errno.ts';

/** Passes when `decode` ends in a value or in EBADMSG. */
export function decodesOrRefuses(decode: () => unknown): void {
  try {
    decode();
  } catch (error) {
    if (!(error instanceof KernelError)) throw error;
    assert.equal(error.code, 'EBADMSG');
  }
}
