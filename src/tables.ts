/** The tables that the command line prints: a row for each record, and how rows become text; printing. */
import { formatInterfaceAddress } from './address.ts';
import { holderOf } from './contested.ts';
import { escapeControls } from './errors.ts';
import type { Conflict, Endpoint, Lease, Network, Tenancy, TenancyIPv6 } from './model.ts';
import type { Naming } from './naming.ts';

/** Cells by the heading of their column, in order. */
export type Row = Readonly<Record<string, string>>;

/** `conflicts`: those of its containers that last. `hosts`: the addresses at which its containers reach this host. */
export function networkRow(
  { id, parent, options, internal, subnets }: Network,
  isFiltered: boolean,
  hosts: readonly string[],
  conflicts: readonly Conflict[],
  naming: Naming,
): Row {
  return {
    NETWORK: naming.network(id),
    ...naming.columns({ 'NETWORK ID': [id] }),
    PARENT: isFiltered ? `${parent.name} (filtered)` : parent.name,
    MODE: options.mode,
    INTERNAL: internal ? 'yes' : 'no',
    SUBNETS: subnets.map(({ subnet }) => subnet).join(' '),
    HOST: hosts.join(' ') || '-',
    CONFLICTS: conflicts.length === 0 ? '-' : String(conflicts.length),
  };
}

/** Addresses with prefix length, as a link has them. */
export function endpointRow(
  { id, networkId, parent, macAddress, addresses, state, lostAt }: Endpoint,
  naming: Naming,
): Row {
  return {
    ENDPOINT: naming.id(id),
    CONTAINER: naming.container(id) ?? '-',
    NETWORK: naming.network(networkId),
    ...naming.columns({ 'NETWORK ID': [networkId] }),
    PARENT: parent,
    MAC: macAddress,
    ADDRESSES: addresses.map(formatInterfaceAddress).join(' ') || '-',
    STATE: lostAt === undefined ? state : 'lost',
  };
}

/** An address that is kept for a container which is not there. */
export function keptRow(
  { address, kind, name, realm, usedAt }: Readonly<Record<'address' | 'kind' | 'name' | 'realm' | 'usedAt', string>>,
  networkIds: readonly string[],
  naming: Naming,
): Row {
  return {
    ADDRESS: address,
    KIND: kind,
    NAME: naming.text(name),
    NETWORK: networksIn(networkIds, naming),
    ...naming.columns({ 'NETWORK ID': networkIds }),
    ENDPOINT: '-',
    REALM: realm,
    SINCE: usedAt,
    'ALSO USED BY': '-',
  };
}

/** Of a gateway perhaps several networks. */
function networksIn(networkIds: readonly string[], naming: Naming): string {
  return networkIds.map((id) => naming.network(id)).join(' ') || '-';
}

/** `reservedFor`: see keptOf(). `conflict`: one that lasts; null without. */
export function leaseRow(
  { address, kind, name, endpointId, realm, changedAt }: Lease,
  reservedFor: string | null,
  conflict: Conflict | null,
  networkIds: readonly string[],
  naming: Naming,
): Row {
  return {
    ADDRESS: address,
    KIND: kind,
    NAME: nameAndReservation(naming.container(endpointId) ?? name, reservedFor, naming),
    NETWORK: networksIn(networkIds, naming),
    ...naming.columns({ 'NETWORK ID': networkIds }),
    ENDPOINT: endpointId === null ? '-' : naming.id(endpointId),
    REALM: realm,
    SINCE: changedAt,
    'ALSO USED BY': conflict === null ? '-' : usedBy(conflict),
  };
}

/** An address of a DHCP server, or of a router's prefix. `until`: ISO 8601, when its lease ends; null where it does not. `conflict`: see leaseRow(). */
export function tenancyRow(
  tenancy: Tenancy & { readonly until: string | null; readonly source: 'dhcp' | TenancyIPv6['how'] },
  conflict: Conflict | null,
  naming: Naming,
): Row {
  const { address, owner, hostname, networkId, endpointId, parent, server, obtainedAt, until, source } = tenancy;
  return {
    ADDRESS: address.replace(/\/.*/, ''),
    KIND: owner === 'host' ? 'host' : 'container',
    NAME: naming.text(naming.container(endpointId) ?? hostname ?? '-'),
    NETWORK: naming.network(networkId),
    ...naming.columns({ 'NETWORK ID': [networkId] }),
    ENDPOINT: endpointId === null ? '-' : naming.id(endpointId),
    REALM: parent,
    SINCE: obtainedAt,
    'ALSO USED BY': conflict === null ? '-' : usedBy(conflict),
    SOURCE: source,
    SERVER: server,
    UNTIL: until ?? (source === 'slaac' ? '-' : 'for ever'),
    STATE: stateOf(tenancy),
  };
}

/** `lost: silent`, with the reason why it is lost. */
export function stateOf({ state, loss }: Pick<Tenancy, 'state' | 'loss'>): string {
  return state === 'lost' && loss !== undefined ? `lost: ${loss}` : state;
}

/** Beside addresses of DHCP servers those of an IPAM driver have these columns too. */
export const NOT_LEASED: Row = { SOURCE: 'ipam', SERVER: '-', UNTIL: '-', STATE: '-' };

function usedBy(conflict: Conflict): string {
  return `${holderOf(conflict)} (${times(conflict.count)})`;
}

/** Who names a reserved address with an engine that tells no names has it, perhaps rightly. */
function nameAndReservation(name: string | undefined, reservedFor: string | null, naming: Naming): string {
  if (reservedFor === null) return name === undefined ? '-' : naming.text(name);
  if (name === reservedFor) return `${naming.text(name)} (reserved)`;
  const words = name === undefined ? [] : [naming.text(name)];
  return [...words, `(reserved for ${naming.text(reservedFor)})`].join(' ');
}

/** How often. */
export function times(count: number): string {
  return count === 1 ? 'once' : `${count} times`;
}

/** Also one that has ended. `container`: whose address or MAC address it is; null for none that runs. */
export function conflictRow(conflict: Conflict, container: string | null): Row {
  const { kind, address, parent, ourMacAddress, count, seenAt, endedAt } = conflict;
  return {
    ADDRESS: address,
    PARENT: parent,
    'HELD BY': holderOf(conflict),
    CONTAINER: container ?? '-',
    OURS: ourMacAddress ?? '-',
    WHAT: kind === 'mac' ? 'MAC address' : 'address',
    TIMES: String(count),
    'LAST SEEN': seenAt,
    ENDED: endedAt ?? '-',
  };
}

/** Columns as wide as their widest cell; the header alone when there are no rows is no use, so a word instead. */
export function table(rows: readonly Row[]): string {
  const headers = Object.keys(rows[0] ?? {});
  if (headers.length === 0) return 'none\n';
  // Names of links and hosts come from elsewhere too: no cell is obeyed by a terminal.
  const lines = [headers, ...rows.map((row) => headers.map((header) => escapeControls(row[header] ?? '')))];
  const widths = headers.map((_, column) => Math.max(...lines.map((cells) => (cells[column] ?? '').length)));
  return lines
    .map(
      (cells) =>
        `${cells
          .map((cell, column) => cell.padEnd(widths[column] ?? 0))
          .join('  ')
          .trimEnd()}\n`,
    )
    .join('');
}

/** To the standard output. Answers the exit code of a command that did what it was asked. */
export function print(text: string): number {
  process.stdout.write(text);
  return 0;
}

/** What `--json` prints. */
export function printJson(data: unknown): void {
  const lines = JSON.stringify(data, null, 2).split('\n');
  // JSON leaves some of what a terminal obeys as it is; in its strings, where alone that can be, it knows these escapes.
  print(`${lines.map(escapeControls).join('\n')}\n`);
}
