/** Apart from the other records: the writer that is killed again and again must start fast. */
import type { Lease } from '../../../src/model.ts';

export function leaseRecord(address: string, realm = 'LocalDefault'): Lease {
  return {
    realm,
    address,
    kind: 'container',
    poolIds: ['LocalDefault/192.168.1.0/24'],
    endpointId: null,
    changedAt: '2026-11-20T10:00:00.000Z',
  };
}
