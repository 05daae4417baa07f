/** How tests reach etcd: what a file would say is said at once. */
import type { EtcdAccess, Login, TlsFiles } from '../../src/store/etcd/client.ts';

export function accessTo(
  endpoints: readonly string[],
  tls: TlsFiles | null = null,
  user: Login | null = null,
): EtcdAccess {
  return { endpoints, tls: () => tls, user: () => user };
}
