/** A NetworkDriver whose LAN is never asked and never heard: what is tested is this host's kernel and its records. */
import * as errors from '../../src/errors.ts';
import { NOT_HELD } from '../../src/lan/verdict.ts';
import { NetworkDriver, type NetworkDriverParts } from '../../src/network/driver.ts';
import type { LanOfEndpoints } from '../../src/network/endpointlan.ts';
import { Endpoints } from '../../src/network/endpoints.ts';
import { IPv6Addresses, type IPv6AddressesParts } from '../../src/network/ipv6.ts';

/** Every address is free, nobody watches, nobody is told. */
const QUIET_LAN: LanOfEndpoints = {
  check: async () => undefined,
  ask: () => ({ answer: Promise.resolve(), isDoubtful: () => false }),
  confirm: async () => undefined,
  keep: async () => null,
  mostAtOnce: Number.POSITIVE_INFINITY,
  watch: () => undefined,
  close: () => undefined,
  forget: () => undefined,
  announce: async () => undefined,
  noteLeaver: async () => undefined,
  keepLeft: async () => undefined,
  returned: async () => undefined,
  endLeft: () => undefined,
  vacate: async () => undefined,
  whoIsAt: async () => NOT_HELD,
};

/** No DHCP server is there. */
const NO_DHCP: NetworkDriverParts['dhcp'] = {
  timeout: 5,
  acquire: async () => ({ kind: 'silent' }),
  offer: async () => Promise.reject(errors.dhcpSilent('eth0', 5)),
  keep: () => undefined,
  endKeeping: () => undefined,
  release: async () => undefined,
  close: () => undefined,
};

/** And no router. */
const NO_ROUTER: IPv6AddressesParts['source'] = {
  acquire: async () => ({ kind: 'unrouted', seconds: 1 }),
  keep: () => undefined,
  endKeeping: () => undefined,
  release: async () => undefined,
  close: () => undefined,
};

type QuietParts = Omit<NetworkDriverParts, 'endpoints' | 'lan' | 'dhcp' | 'ipv6' | 'onCreated'>;

/** `lan`: what of it is not quiet. */
export function quietDriver(parts: QuietParts, lan: Partial<LanOfEndpoints> = {}): NetworkDriver {
  const endpoints = new Endpoints(parts.store.endpoints, parts.now);
  return new NetworkDriver({
    ...parts,
    endpoints,
    lan: { ...QUIET_LAN, ...lan },
    dhcp: NO_DHCP,
    ipv6: new IPv6Addresses({ source: NO_ROUTER, log: parts.log, now: () => new Date() }),
    onCreated: () => undefined,
  });
}
