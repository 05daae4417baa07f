/**
 * The shape of the embedded state file and how older shapes become this one. PRAGMA user_version says which it has.
 *
 * A record is one JSON text under its key, so a new optional field in model.ts needs no migration. The views are for
 * people: `sqlite3 tsmacvlan.db 'SELECT * FROM leases'`; the program itself reads the `_records` tables only.
 */
import type { DatabaseSync, SQLOutputValue } from 'node:sqlite';
import { formatInterfaceAddress, parseInterfaceAddress } from '../address.ts';

/** Step N brings version N-1 to N. A step that was released is never edited; append the next one. */
export const MIGRATIONS: readonly string[] = [
  `
  CREATE TABLE network_records  (key TEXT PRIMARY KEY, record TEXT NOT NULL CHECK (json_valid(record))) STRICT, WITHOUT ROWID;
  CREATE TABLE endpoint_records (key TEXT PRIMARY KEY, record TEXT NOT NULL CHECK (json_valid(record))) STRICT, WITHOUT ROWID;
  CREATE TABLE pool_records     (key TEXT PRIMARY KEY, record TEXT NOT NULL CHECK (json_valid(record))) STRICT, WITHOUT ROWID;
  CREATE TABLE lease_records    (key TEXT PRIMARY KEY, record TEXT NOT NULL CHECK (json_valid(record))) STRICT, WITHOUT ROWID;
  CREATE TABLE conflict_records (key TEXT PRIMARY KEY, record TEXT NOT NULL CHECK (json_valid(record))) STRICT, WITHOUT ROWID;

  CREATE VIEW networks AS SELECT
    record->>'id' AS id, record->>'$.options.parent' AS parent, record->>'$.options.mode' AS mode,
    record->>'internal' AS internal, record->>'subnets' AS subnets, record->>'createdAt' AS created_at
    FROM network_records;
  CREATE VIEW endpoints AS SELECT
    record->>'id' AS id, record->>'networkId' AS network_id, record->>'state' AS state,
    record->>'linkName' AS link_name, record->>'macAddress' AS mac_address, record->>'address' AS address,
    record->>'addressIPv6' AS address_ipv6, record->>'changedAt' AS changed_at
    FROM endpoint_records;
  CREATE VIEW pools AS SELECT
    record->>'id' AS id, record->>'addressSpace' AS address_space, record->>'subnet' AS subnet,
    record->>'range' AS range, record->>'options' AS options, record->>'networkId' AS network_id,
    record->>'createdAt' AS created_at
    FROM pool_records;
  CREATE VIEW leases AS SELECT
    record->>'realm' AS realm, record->>'address' AS address, record->>'kind' AS kind,
    record->>'endpointId' AS endpoint_id, record->>'poolIds' AS pool_ids, record->>'changedAt' AS changed_at
    FROM lease_records;
  CREATE VIEW conflicts AS SELECT
    record->>'parent' AS parent, record->>'address' AS address, record->>'macAddress' AS mac_address,
    record->>'ourMacAddress' AS our_mac_address, record->>'count' AS count, record->>'seenAt' AS seen_at
    FROM conflict_records;
  `,
  // An endpoint has a list of addresses. Its records are compared as texts with sorted keys (local.ts), so the list, whose
  // name comes first, is put in front of what is left when the two old fields are gone. The addresses were kept as a client
  // wrote them (`FD00:0::2/64`), and have to be the texts that codec.ts writes.
  `
  UPDATE endpoint_records SET record =
    '{"addresses":[' || concat_ws(',', nullif(json_quote(canonical_address(record->>'address')), 'null'),
      nullif(json_quote(canonical_address(record->>'addressIPv6')), 'null')) || '],' ||
    substr(json_remove(record, '$.address', '$.addressIPv6'), 2);

  DROP VIEW endpoints;
  CREATE VIEW endpoints AS SELECT
    record->>'id' AS id, record->>'networkId' AS network_id, record->>'state' AS state,
    record->>'linkName' AS link_name, record->>'macAddress' AS mac_address,
    (SELECT group_concat(value, ' ') FROM json_each(record, '$.addresses')) AS addresses,
    record->>'changedAt' AS changed_at
    FROM endpoint_records;
  `,
  // A conflict has a kind and an end. The record is written again with its keys sorted, for the same reason.
  `
  UPDATE conflict_records SET record = json_object('address', record->>'address', 'count', record->'count',
    'endedAt', NULL, 'firstSeenAt', record->>'firstSeenAt', 'hostLink', NULL, 'kind', 'address',
    'macAddress', record->>'macAddress', 'ourMacAddress', record->>'ourMacAddress', 'parent', record->>'parent',
    'seenAt', record->>'seenAt');

  DROP VIEW conflicts;
  CREATE VIEW conflicts AS SELECT
    record->>'kind' AS kind, record->>'parent' AS parent, record->>'address' AS address,
    record->>'macAddress' AS mac_address, record->>'ourMacAddress' AS our_mac_address,
    record->>'hostLink' AS host_link, record->>'count' AS count, record->>'seenAt' AS seen_at,
    record->>'endedAt' AS ended_at
    FROM conflict_records;
  `,
  // What a container's name had last.
  `
  CREATE TABLE name_records (key TEXT PRIMARY KEY, record TEXT NOT NULL CHECK (json_valid(record))) STRICT, WITHOUT ROWID;

  CREATE VIEW names AS SELECT
    record->>'name' AS name, record->>'address' AS address, record->>'macAddress' AS mac_address,
    record->>'isReserved' AS is_reserved, record->>'poolId' AS pool_id, record->>'usedAt' AS used_at
    FROM name_records;
  `,
  // What MAC addresses have of DHCP servers.
  `
  CREATE TABLE tenancy_records (key TEXT PRIMARY KEY, record TEXT NOT NULL CHECK (json_valid(record))) STRICT, WITHOUT ROWID;

  CREATE VIEW tenancies AS SELECT
    record->>'parent' AS parent, record->>'macAddress' AS mac_address, record->>'address' AS address,
    record->>'state' AS state, record->>'server' AS server, record->>'obtainedAt' AS obtained_at,
    record->>'leaseSeconds' AS lease_seconds, record->>'owner' AS owner, record->>'endpointId' AS endpoint_id,
    record->>'networkId' AS network_id
    FROM tenancy_records;
  `,
];

/** 0 for a file that was just made. */
export function schemaVersion(database: DatabaseSync): number {
  return Number(database.prepare('PRAGMA user_version').get()?.['user_version'] ?? 0);
}

/** Each step and its version number are one transaction: a crash leaves the version before or the one after. */
export function migrate(database: DatabaseSync, migrations: readonly string[] = MIGRATIONS): void {
  database.function('canonical_address', { deterministic: true }, canonicalAddress);
  migrations.slice(schemaVersion(database)).forEach((step, index, { length }) => {
    const version = migrations.length - length + index + 1;
    transaction(database, `${step}; PRAGMA user_version = ${version}`);
  });
}

/** For the steps above. What is no address stays as it is, and is told as damage when it is read. */
function canonicalAddress(text: SQLOutputValue): SQLOutputValue {
  const address = typeof text === 'string' ? parseInterfaceAddress(text) : undefined;
  return address === undefined ? text : formatInterfaceAddress(address);
}

function transaction(database: DatabaseSync, statements: string): void {
  database.exec('BEGIN IMMEDIATE');
  try {
    database.exec(`${statements}; COMMIT`);
  } catch (error) {
    if (database.isTransaction) database.exec('ROLLBACK');
    throw error;
  }
}
