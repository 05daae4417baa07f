/** `tsmacvlan dhcp`: which DHCP servers a LAN has, and what they would give. Beside a running daemon or without one. */
import { formatAddress } from '../address.ts';
import * as errors from '../errors.ts';
import { isKernelError } from '../kernel/errno.ts';
import { Links } from '../kernel/link.ts';
import type { DhcpOffer } from '../lan/dhcpoffers.ts';
import { NEVER_ENDS_SECONDS } from '../lan/frames/dhcp.ts';
import { Survey } from '../lan/survey.ts';
import { print, printJson, type Row, table } from '../tables.ts';
import type { Options } from './command.ts';

/** Some servers ping an address before they offer it: dnsmasq for three seconds (PING_WAIT, src/config.h). */
const ANSWERS_MS = 4000;

/** `dhcp` */
export async function dhcp({ json }: Options, parent: string): Promise<void> {
  const links = Links.open();
  const survey = new Survey(links);
  try {
    await refuseUnusable(links, parent);
    const offers = await survey.offers(parent, ANSWERS_MS);
    if (json) printJson(offers.map(written));
    else if (offers.length > 0) print(table(offers.map(row)));
    else print(`no DHCP server answered on ${parent} within ${ANSWERS_MS / 1000} seconds\n`);
  } catch (error) {
    throw isKernelError(error, 'EPERM') ? errors.notPermitted('ask DHCP servers', error) : error;
  } finally {
    await survey.close();
    links.close();
  }
}

async function refuseUnusable(links: Links, parent: string): Promise<void> {
  const link = await links.byName(parent);
  if (link === undefined) {
    const others = await links.list(({ isLoopback, kind }) => !isLoopback && kind !== 'macvlan');
    throw errors.dhcpParentGone(
      parent,
      others.map(({ name }) => name),
    );
  }
  if (!link.isUp) throw errors.dhcpParentDown(parent);
}

/** As data. */
function written({ server, terms }: DhcpOffer) {
  const { address, prefixLength, leaseSeconds, routers, dnsServers, domain } = terms;
  return {
    server: formatAddress(server.address),
    macAddress: server.macAddress,
    address: formatAddress(address),
    prefixLength,
    /** Null for one that never ends. */
    leaseSeconds: leaseSeconds === NEVER_ENDS_SECONDS ? null : leaseSeconds,
    routers: routers.map(formatAddress),
    dnsServers: dnsServers.map(formatAddress),
    domain,
  };
}

function row(offer: DhcpOffer): Row {
  const { server, macAddress, address, prefixLength, leaseSeconds, routers, dnsServers, domain } = written(offer);
  return {
    SERVER: server,
    MAC: macAddress,
    OFFERS: prefixLength === null ? address : `${address}/${prefixLength}`,
    FOR: leaseSeconds === null ? 'ever' : inWords(leaseSeconds),
    ROUTER: routers.join(' ') || '-',
    DNS: dnsServers.join(' ') || '-',
    DOMAIN: domain ?? '-',
  };
}

/** In the largest unit of which it is a whole number. */
function inWords(seconds: number): string {
  const [unit = 1, name = 's'] = UNITS.find(([size]) => seconds % size === 0) ?? [];
  return `${seconds / unit} ${name}`;
}

const UNITS = [
  [86_400, 'd'],
  [3600, 'h'],
  [60, 'min'],
] as const;
