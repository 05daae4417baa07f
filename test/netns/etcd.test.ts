/** The store that hosts share, on a real etcd: the cases of every store, and hosts that want the same addresses. */
import assert from 'node:assert/strict';
import { mkdtempSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { leaseKey } from '../../src/store/store.ts';
import { outsideLab } from '../lab/enclosure.ts';
import { EtcdCluster } from '../lab/etcd.ts';
import { openShared } from '../lab/shared.ts';
import { testStore } from '../unit/store/contract.ts';
import { leaseRecord } from '../unit/store/lease.ts';

describe('etcd', { skip: outsideLab(), timeout: 150_000 }, () => {
  let etcd: EtcdCluster;
  let clusters = 0;

  before(async () => {
    etcd = await EtcdCluster.start({ directory: scratch() });
  });
  after(() => etcd.stop());

  testStore('etcd', async () => {
    const place = [scratch(), etcd.endpoints, `c${++clusters}`] as const;
    return { open: async () => openShared(...place), writerArguments: ['etcd', JSON.stringify(place)] };
  });
});

/** In memory, as everything in /run here. */
function scratch(): string {
  return mkdtempSync('/run/etcd-');
}
