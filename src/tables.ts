/** The tables that the command line prints: a row for each record, and how rows become text; printing. */
import { formatInterfaceAddress } from './address.ts';
import { holderOf } from './contested.ts';
import { short } from './errors.ts';
import type { Conflict, Endpoint, Lease, Network, Pool } from './model.ts';

/** Characters of a container's name. */
const WIDEST_NAME = 48;

/** Cells by the heading of their column, in order. */
export type Row = Readonly<Record<string, string>>;

/** `conflicts`: those of its containers that last. `hosts`: the addresses at which its containers reach this host. */
export function networkRow(
  { id, parent, options, internal, subnets }: Network,
  isFiltered: boolean,
  hosts: readonly string[],
  conflicts: readonly Conflict[],
): Row {
  return {
    NETWORK: short(id),
    PARENT: isFiltered ? `${parent.name} (filtered)` : parent.name,
    MODE: options.mode,
    INTERNAL: internal ? 'yes' : 'no',
    SUBNETS: subnets.map(({ subnet }) => subnet).join(' '),
    HOST: hosts.join(' ') || '-',
    CONFLICTS: conflicts.length === 0 ? '-' : String(conflicts.length),
  };
}

/** Addresses with prefix length, as a link has them. */
export function endpointRow({ id, networkId, parent, macAddress, addresses, state, lostAt }: Endpoint): Row {
  return {
    ENDPOINT: short(id),
    NETWORK: short(networkId),
    PARENT: parent,
    MAC: macAddress,
    ADDRESSES: addresses.map(formatInterfaceAddress).join(' ') || '-',
    STATE: lostAt === undefined ? state : 'lost',
  };
}

/** A range, where it is narrower than the subnet. */
export function poolRow({ subnet, range, networkId, addressSpace }: Pool): Row {
  return {
    SUBNET: subnet,
    RANGE: range ?? '-',
    NETWORK: networkId === null ? '-' : short(networkId),
    SPACE: addressSpace,
  };
}

/** An address that is kept for a container which is not there. */
export function keptRow(
  { address, kind, name, realm, usedAt }: Readonly<Record<'address' | 'kind' | 'name' | 'realm' | 'usedAt', string>>,
  networkIds: readonly string[],
): Row {
  return {
    ADDRESS: address,
    KIND: kind,
    NAME: cut(name),
    NETWORK: shortOf(networkIds),
    ENDPOINT: '-',
    REALM: realm,
    SINCE: usedAt,
    'ALSO USED BY': '-',
  };
}

/** Of a gateway perhaps several networks. */
function shortOf(networkIds: readonly string[]): string {
  return networkIds.map(short).join(' ') || '-';
}

/** A column is as wide as its widest cell; `--json` has it whole. */
function cut(name: string): string {
  return name.length > WIDEST_NAME ? `${name.slice(0, WIDEST_NAME - 3)}...` : name;
}

/** `reservedFor`: see keptOf(). `conflict`: one that lasts; null without. */
export function leaseRow(
  { address, kind, name, endpointId, realm, changedAt }: Lease,
  reservedFor: string | null,
  conflict: Conflict | null,
  networkIds: readonly string[],
): Row {
  return {
    ADDRESS: address,
    KIND: kind,
    NAME: nameAndReservation(name, reservedFor),
    NETWORK: shortOf(networkIds),
    ENDPOINT: endpointId === null ? '-' : short(endpointId),
    REALM: realm,
    SINCE: changedAt,
    'ALSO USED BY': conflict === null ? '-' : `${holderOf(conflict)} (${conflict.count} times)`,
  };
}

/** Who names a reserved address with an engine that tells no names has it, perhaps rightly. */
function nameAndReservation(name: string | undefined, reservedFor: string | null): string {
  if (reservedFor === null) return name === undefined ? '-' : cut(name);
  if (name === reservedFor) return `${cut(name)} (reserved)`;
  return [...(name === undefined ? [] : [cut(name)]), `(reserved for ${cut(reservedFor)})`].join(' ');
}

/** Also one that has ended. */
export function conflictRow(conflict: Conflict): Row {
  const { kind, address, parent, ourMacAddress, count, seenAt, endedAt } = conflict;
  return {
    ADDRESS: address,
    PARENT: parent,
    'HELD BY': holderOf(conflict),
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
  const lines = [headers, ...rows.map((row) => headers.map((header) => row[header] ?? ''))];
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
  print(`${JSON.stringify(data, null, 2)}\n`);
}
