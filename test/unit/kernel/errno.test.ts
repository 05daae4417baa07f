import assert from 'node:assert/strict';
import { constants } from 'node:os';
import { test } from 'node:test';
import { KernelError, check, errorCode, isKernelError } from '../../../src/kernel/errno.ts';

test('a kernel error says what was tried, its code and the words of the kernel', () => {
  const error = new KernelError('add macvlan tsm0123', constants.errno.EINVAL, 'mtu greater than device maximum');
  assert.equal(error.message, 'cannot add macvlan tsm0123: EINVAL (mtu greater than device maximum)');
  assert.deepEqual([error.errno, error.code, error.operation], [22, 'EINVAL', 'add macvlan tsm0123']);
  assert.equal(new KernelError('set link 7 up', constants.errno.ENODEV).message, 'cannot set link 7 up: ENODEV');
});

test('of two names for one number the kernel’s is used', () => {
  assert.equal(errorCode(95), 'EOPNOTSUPP');
  assert.equal(errorCode(11), 'EAGAIN');
  assert.equal(errorCode(4095), 'errno 4095');
});

test('a negative result is thrown, any other is passed on', () => {
  assert.equal(check('open a socket', 7), 7);
  assert.throws(() => check('open a socket', -constants.errno.EMFILE), { code: 'EMFILE', operation: 'open a socket' });
});

test('kernel errors are told by their code', () => {
  const error = new KernelError('delete link 7', constants.errno.ENODEV);
  assert.ok(isKernelError(error, 'EBUSY', 'ENODEV'));
  assert.ok(isKernelError(error));
  assert.ok(!isKernelError(error, 'EBUSY'));
  assert.ok(!isKernelError(new Error('ENODEV'), 'ENODEV'));
});
