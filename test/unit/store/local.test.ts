import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { test } from 'node:test';
import { PluginError } from '../../../src/errors.ts';
import { openLocalStore, readLocalStore } from '../../../src/store/local.ts';
import { MIGRATIONS, migrate, schemaVersion } from '../../../src/store/schema.ts';
import { temporaryDirectory } from '../temporary.ts';
import { startWriter, testStore } from './contract.ts';
import { leaseRecord } from './lease.ts';
import { endpointRecord, networkRecord, poolRecord } from './records.ts';

const options = { timeout: 20_000 };

testStore('local', async (t) => {
  const directory = temporaryDirectory(t);
  return { open: async () => openLocalStore(directory), writerArguments: ['local', directory] };
});

function databaseOf(directory: string): string {
  return join(directory, 'tsmacvlan.db');
}

function refusal(action: () => unknown): PluginError {
  try {
    action();
  } catch (error) {
    assert.ok(error instanceof PluginError, String(error));
    return error;
  }
  assert.fail('nothing was refused');
}

// --- the directory -----------------------------------------------------------------------------------------------

test('a missing state directory is made, readable for its owner only, and so are the files', options, async (t) => {
  const directory = join(temporaryDirectory(t), 'var/lib/tsmacvlan');
  const store = openLocalStore(directory);
  t.after(() => store.close());
  assert.equal(statSync(directory).mode & 0o777, 0o700);
  for (const name of readdirSync(directory)) assert.equal(statSync(join(directory, name)).mode & 0o777, 0o600, name);
});

test('a state directory that is a file is refused with its name', options, (t) => {
  const file = join(temporaryDirectory(t), 'state');
  writeFileSync(file, '');
  const { code, message } = refusal(() => openLocalStore(file));
  assert.equal(code, 'STORE_NOT_WRITABLE');
  assert.match(message, /state" \((file already exists|not a directory)\); .* STATE_DIR /);
});

test('a state directory of another user is refused', options, (t) => {
  const directory = temporaryDirectory(t);
  const { stdout } = runAsStranger(directory, `openLocalStore(${JSON.stringify(directory)})`);
  assert.match(stdout, /^ROOT_NEEDED this user may not open directory "[^"]+"; run the command as root, with sudo\n$/);
  assert.deepEqual(readdirSync(directory), []);
});

test('a read-only disk is refused', options, (t) => {
  if (process.getuid?.() !== 0) return t.skip('needs root, to mount');
  const directory = temporaryDirectory(t);
  for (const path of [directory, join(directory, 'made/there')]) {
    const { stdout } = runOnTmpfs(directory, 'ro', `openLocalStore(${JSON.stringify(path)})`);
    assert.match(
      stdout,
      /^STORE_NOT_WRITABLE cannot keep state in directory "([^"]+)" \(read-only file system\); .* with mkdir -p \1 and ReadWritePaths=\1 /,
    );
  }
});

test('a state directory where none can be made is refused at once', options, () => {
  assert.equal(refusal(() => openLocalStore('/proc/tsmacvlan/state')).code, 'STORE_NOT_WRITABLE');
});

test(
  'state files that are deleted, moved or hidden by a mount take no change until they are there again',
  options,
  async (t) => {
    const directory = temporaryDirectory(t);
    const store = openLocalStore(directory);
    t.after(() => store.close());
    await store.networks.insert(networkRecord('n1'));
    for (const name of ['tsmacvlan.db', 'tsmacvlan.db-wal']) {
      const file = join(directory, name);
      renameSync(file, `${file}.away`);
      await assert.rejects(store.networks.insert(networkRecord('n2')), { code: 'STORE_GONE' });
      await assert.rejects(store.networks.remove(networkRecord('n1')), { code: 'STORE_GONE' });
      writeFileSync(file, '');
      await assert.rejects(store.leases.insert(leaseRecord('10.0.0.1')), { code: 'STORE_GONE' });
      renameSync(`${file}.away`, file);
      assert.ok(await store.leases.insert(leaseRecord(name === 'tsmacvlan.db' ? '10.0.0.2' : '10.0.0.3')));
      await store.durable();
    }
    rmSync(directory, { recursive: true });
    await assert.rejects(store.networks.insert(networkRecord('n2')), { code: 'STORE_GONE' });
    mkdirSync(directory);
  },
);

test('what a long reader makes the log grow by is given back when it has gone', options, async (t) => {
  const directory = temporaryDirectory(t);
  const store = openLocalStore(directory);
  t.after(() => store.close());
  const log = () => statSync(`${databaseOf(directory)}-wal`).size;
  const change = async (count: number) => {
    for (let at = 0; at < count; at++) {
      const record = { ...networkRecord(`n${at % 7}`), note: 'x'.repeat(100_000) };
      await store.networks.insert(record);
      await store.networks.remove(record);
    }
  };
  const reader = new DatabaseSync(databaseOf(directory), { readOnly: true });
  reader.exec('BEGIN');
  reader.prepare('SELECT count(*) FROM network_records').get();
  await change(200);
  assert.ok(log() > 16_000_000, `only ${log()}`);
  reader.close();
  await change(100);
  assert.ok(log() < 9_000_000, `still ${log()}`);
});

// --- one writer --------------------------------------------------------------------------------------------------

test('a second writer is refused by name of the first, and admitted when the first is killed', options, async (t) => {
  const directory = temporaryDirectory(t);
  const writer = startWriter(t, ['local', directory]);
  await once(writer.stdout as NodeJS.ReadableStream, 'data');
  const { code, message, kind } = refusal(() => openLocalStore(directory));
  assert.deepEqual([code, kind], ['STORE_HELD', 'mistake']);
  assert.match(message, new RegExp(`is in use by another running tsmacvlan \\(process ${writer.pid}\\); `));

  writer.stdout?.resume();
  writer.kill('SIGKILL');
  await once(writer, 'exit');
  const store = openLocalStore(directory);
  t.after(() => store.close());
  assert.ok((await store.leases.list()).length > 0);
});

test('a refused second writer does not loosen the hold of the first', options, async (t) => {
  const directory = temporaryDirectory(t);
  const store = openLocalStore(directory);
  t.after(() => store.close());
  for (let i = 0; i < 3; i++) assert.equal(refusal(() => openLocalStore(directory)).code, 'STORE_HELD');
  const { stdout } = runNode(`openLocalStore(${JSON.stringify(directory)})`);
  assert.match(stdout, new RegExp(`^STORE_HELD .* \\(process ${process.pid}\\); `));
});

test('closing twice is closing once, and frees the directory', options, async (t) => {
  const directory = temporaryDirectory(t);
  const first = openLocalStore(directory);
  await first.close();
  await first.close();
  const second = openLocalStore(directory);
  await second.close();
});

// --- readers -----------------------------------------------------------------------------------------------------

test('a reader sees what a running writer stored, and neither is in the way of the other', options, async (t) => {
  const directory = temporaryDirectory(t);
  const writer = openLocalStore(directory);
  t.after(() => writer.close());
  await writer.networks.insert(networkRecord('n1'));
  const reader = readLocalStore(directory);
  t.after(() => reader.close());
  assert.deepEqual(await reader.networks.list(), [networkRecord('n1')]);
  await writer.networks.insert(networkRecord('n2'));
  assert.deepEqual(await reader.networks.get('n2'), networkRecord('n2'));
});

test('a reader without a writer leaves no file behind', options, async (t) => {
  const directory = temporaryDirectory(t);
  const writer = openLocalStore(directory);
  await writer.networks.insert(networkRecord('n1'));
  await writer.close();
  const before = readdirSync(directory);
  const reader = readLocalStore(directory);
  assert.deepEqual(await reader.networks.list(), [networkRecord('n1')]);
  await reader.close();
  assert.deepEqual(readdirSync(directory), before);
});

test('a reader sees what a killed writer had stored', options, async (t) => {
  const directory = temporaryDirectory(t);
  const writer = startWriter(t, ['local', directory]);
  const [line] = (await once(writer.stdout as NodeJS.ReadableStream, 'data')) as [Buffer];
  writer.stdout?.resume();
  writer.kill('SIGKILL');
  await once(writer, 'exit');
  const reader = readLocalStore(directory);
  t.after(() => reader.close());
  const [address = ''] = line.toString().split('\n');
  assert.deepEqual(await reader.leases.get(`LocalDefault/${address}`), leaseRecord(address));
});

test('a reader of nothing says where it looked and makes nothing', options, (t) => {
  const directory = temporaryDirectory(t);
  const { code, message } = refusal(() => readLocalStore(join(directory, 'absent')));
  assert.equal(code, 'STORE_MISSING');
  assert.match(message, /^there is no state file "[^"]+absent\/tsmacvlan\.db", and no tsmacvlan runs here; /);
  assert.deepEqual(readdirSync(directory), []);
});

test('a reader without permission is told whose file it is', options, async (t) => {
  const directory = temporaryDirectory(t);
  await openLocalStore(directory).close();
  const { stdout } = runAsStranger(directory, `readLocalStore(${JSON.stringify(directory)})`);
  assert.match(stdout, /^STORE_NOT_READABLE cannot read state file "[^"]+" \(permission denied\); /);
});

test('a reader cannot write', options, async (t) => {
  const directory = temporaryDirectory(t);
  await openLocalStore(directory).close();
  const reader = readLocalStore(directory) as ReturnType<typeof openLocalStore>;
  t.after(() => reader.close());
  await assert.rejects(reader.networks.insert(networkRecord('n1')), { code: 'STORE_NOT_WRITABLE' });
});

test('sqlite3 shows the records as columns', options, async (t) => {
  const directory = temporaryDirectory(t);
  const store = openLocalStore(directory);
  await store.networks.insert(networkRecord('n1'));
  await store.pools.insert(poolRecord('p1'));
  await store.leases.insert(leaseRecord('192.168.1.2'));
  await store.close();
  const database = new DatabaseSync(databaseOf(directory), { readOnly: true });
  t.after(() => database.close());
  const row = (statement: string) => ({ ...database.prepare(statement).get() });
  assert.deepEqual(row('SELECT id, parent, mode, internal FROM networks'), {
    id: 'n1',
    parent: 'eth0.10',
    mode: 'bridge',
    internal: 0,
  });
  assert.deepEqual(row('SELECT address, kind, endpoint_id FROM leases'), {
    address: '192.168.1.2',
    kind: 'container',
    endpoint_id: null,
  });
  assert.deepEqual(row('SELECT id, subnet, "range" FROM pools'), {
    id: 'p1',
    subnet: '192.168.1.0/24',
    range: '192.168.1.64/26',
  });
  assert.deepEqual(row('SELECT count(*) AS endpoints FROM endpoints'), { endpoints: 0 });
});

// --- schema ------------------------------------------------------------------------------------------------------

test('a state written by a newer program is refused by both, and stays as it is', options, async (t) => {
  const directory = temporaryDirectory(t);
  await openLocalStore(directory).close();
  setVersion(databaseOf(directory), MIGRATIONS.length + 1);
  const before = readFileSync(databaseOf(directory));
  for (const open of [openLocalStore, readLocalStore]) {
    const { code, message } = refusal(() => open(directory));
    assert.equal(code, 'STORE_NEWER');
    assert.match(message, /newer tsmacvlan \(schema \d+, this program knows up to \d+\); nothing was changed/);
  }
  assert.deepEqual(readFileSync(databaseOf(directory)), before);
});

test('a reader does not guess at a state written by an older program', options, async (t) => {
  const directory = temporaryDirectory(t);
  await openLocalStore(directory).close();
  setVersion(databaseOf(directory), MIGRATIONS.length - 1);
  assert.equal(refusal(() => readLocalStore(directory)).code, 'STORE_OLDER');
});

function setVersion(file: string, version: number): void {
  const database = new DatabaseSync(file);
  database.exec(`PRAGMA user_version = ${version}`);
  database.close();
}

test('an older schema is brought up to date step by step, and records come along', options, (t) => {
  const database = new DatabaseSync(join(temporaryDirectory(t), 'x.db'));
  t.after(() => database.close());
  const steps = ['CREATE TABLE a (x TEXT)', 'ALTER TABLE a ADD COLUMN y TEXT', "UPDATE a SET y = x || '!'"];
  migrate(database, steps.slice(0, 1));
  database.exec("INSERT INTO a VALUES ('kept')");
  migrate(database, steps);
  assert.equal(schemaVersion(database), 3);
  assert.deepEqual({ ...database.prepare('SELECT * FROM a').get() }, { x: 'kept', y: 'kept!' });
  migrate(database, steps);
  assert.equal(database.prepare('SELECT y FROM a').get()?.['y'], 'kept!', 'no step is taken twice');
});

test(
  'an endpoint of the first schema has its addresses in a list, and its record can be changed',
  options,
  async (t) => {
    const directory = temporaryDirectory(t);
    const database = new DatabaseSync(databaseOf(directory));
    migrate(database, MIGRATIONS.slice(0, 1));
    const { addresses: _, ...rest } = endpointRecord('');
    const cases = {
      both: ['192.168.1.2/24', 'fd00::2/64'],
      ipv4: ['192.168.1.2/24', null],
      none: [null, null],
      odd: ['192.168.1.2/24', 'FD00:0::2/64'],
    };
    for (const [id, [address, addressIPv6]] of Object.entries(cases)) {
      const sorted = Object.entries({ ...rest, id, address, addressIPv6 }).sort(([a], [b]) => (a < b ? -1 : 1));
      database
        .prepare('INSERT INTO endpoint_records VALUES (?, ?)')
        .run(id, JSON.stringify(Object.fromEntries(sorted)));
    }
    database.close();

    const store = openLocalStore(directory);
    const [ipv4, ipv6] = endpointRecord('').addresses;
    const expected = { both: [ipv4, ipv6], ipv4: [ipv4], none: [], odd: [ipv4, ipv6] };
    for (const [id, addresses] of Object.entries(expected)) {
      const endpoint = await store.endpoints.get(id);
      assert.deepEqual(endpoint, { ...rest, id, addresses });
      assert.ok(endpoint);
      assert.ok(
        await store.endpoints.replace(endpoint, { ...endpoint, state: 'joined' }),
        'its text is the canonical one',
      );
    }
    await store.close();

    const reader = new DatabaseSync(databaseOf(directory), { readOnly: true });
    t.after(() => reader.close());
    const rows = reader.prepare('SELECT id, state, addresses FROM endpoints ORDER BY id').all();
    assert.deepEqual(
      rows.map((row) => ({ ...row })),
      [
        { id: 'both', state: 'joined', addresses: '192.168.1.2/24 fd00::2/64' },
        { id: 'ipv4', state: 'joined', addresses: '192.168.1.2/24' },
        { id: 'none', state: 'joined', addresses: null },
        { id: 'odd', state: 'joined', addresses: '192.168.1.2/24 fd00::2/64' },
      ],
    );
  },
);

test('a conflict of the second schema gets a kind and no end, and its record can be changed', options, async (t) => {
  const directory = temporaryDirectory(t);
  const database = new DatabaseSync(databaseOf(directory));
  migrate(database, MIGRATIONS.slice(0, 2));
  const old = {
    address: '10.9.0.5',
    count: 7,
    firstSeenAt: '2026-11-20T10:00:00.000Z',
    macAddress: '3c:22:fb:10:aa:01',
    ourMacAddress: null as string | null,
    parent: 'lan0',
    seenAt: '2026-11-20T10:00:01.000Z',
  };
  const cases = [old, { ...old, address: 'fd00::5', ourMacAddress: '02:42:0a:09:00:05' }];
  for (const one of cases)
    database.prepare('INSERT INTO conflict_records VALUES (?, ?)').run(`lan0/${one.address}`, JSON.stringify(one));
  database.close();

  const store = openLocalStore(directory);
  const known = await store.conflicts.list();
  assert.deepEqual(
    known,
    cases.map((one) => ({ ...one, kind: 'address', hostLink: null, endedAt: null })),
  );
  for (const one of known)
    assert.ok(await store.conflicts.replace(one, { ...one, endedAt: one.seenAt }), 'its text is the canonical one');
  await store.close();

  const reader = new DatabaseSync(databaseOf(directory), { readOnly: true });
  t.after(() => reader.close());
  const rows = reader.prepare('SELECT kind, address, count, ended_at FROM conflicts').all();
  assert.deepEqual(
    rows.map((row) => ({ ...row })),
    cases.map(({ address, count, seenAt }) => ({ kind: 'address', address, count, ended_at: seenAt })),
  );
});

test('an endpoint whose address is none is a damaged state', options, async (t) => {
  const directory = temporaryDirectory(t);
  const store = openLocalStore(directory);
  await store.endpoints.insert(endpointRecord('e1'));
  await store.close();
  const database = new DatabaseSync(databaseOf(directory));
  database.exec(`UPDATE endpoint_records SET record = json_set(record, '$.addresses[0]', '192.168.1.256/24')`);
  database.close();
  assert.equal(refusal(() => openLocalStore(directory)).code, 'STORE_DAMAGED');
});

test('a step that fails leaves the version and the records of the step before', options, (t) => {
  const database = new DatabaseSync(join(temporaryDirectory(t), 'x.db'));
  t.after(() => database.close());
  const steps = ["CREATE TABLE a (x TEXT); INSERT INTO a VALUES ('kept')", 'DELETE FROM a; SELECT * FROM absent'];
  assert.throws(() => migrate(database, steps), /absent/);
  assert.equal(schemaVersion(database), 1);
  assert.equal(database.prepare('SELECT x FROM a').get()?.['x'], 'kept');
});

// --- a failing disk ----------------------------------------------------------------------------------------------

test('a file that is no database is refused by name and stays as it is', options, (t) => {
  const directory = temporaryDirectory(t);
  const text = 'not a database '.repeat(1000);
  writeFileSync(databaseOf(directory), text);
  for (const open of [openLocalStore, readLocalStore]) {
    const { code, message } = refusal(() => open(directory));
    assert.equal(code, 'STORE_DAMAGED');
    assert.match(message, /^state file "[^"]+tsmacvlan\.db" is damaged .*; nothing was changed, /);
  }
  assert.equal(readFileSync(databaseOf(directory), 'utf8'), text);
});

test('a database with damaged or missing pages is refused at the start', options, async (t) => {
  const directory = temporaryDirectory(t);
  const store = openLocalStore(directory);
  for (let i = 0; i < 500; i++) await store.leases.insert(leaseRecord(`10.0.${i >> 8}.${i & 255}`));
  await store.close();
  const whole = readFileSync(databaseOf(directory));
  const scrawled = Buffer.from(whole).fill(0xa5, 8 * 4096, 10 * 4096);
  writeFileSync(databaseOf(directory), scrawled);
  assert.equal(refusal(() => openLocalStore(directory)).code, 'STORE_DAMAGED');
  writeFileSync(databaseOf(directory), whole);
  truncateSync(databaseOf(directory), 5 * 4096);
  assert.equal(refusal(() => openLocalStore(directory)).code, 'STORE_DAMAGED');
  writeFileSync(databaseOf(directory), whole);
  await openLocalStore(directory).close();
});

test('a file locked by another program is a fault that passes', options, async (t) => {
  const directory = temporaryDirectory(t);
  const store = openLocalStore(directory);
  t.after(() => store.close());
  const operator = new DatabaseSync(databaseOf(directory));
  t.after(() => operator.close());
  operator.exec('BEGIN IMMEDIATE');
  await assert.rejects(store.leases.insert(leaseRecord('10.0.0.1')), { code: 'STORE_BUSY', kind: 'fault' });
  operator.exec('ROLLBACK');
  assert.equal(await store.leases.insert(leaseRecord('10.0.0.1')), true);
});

test('a full disk is a fault, nothing is half written, and the store goes on when there is room', options, (t) => {
  if (process.getuid?.() !== 0) return t.skip('needs root, to mount a small disk');
  const directory = temporaryDirectory(t);
  const { stdout } = runOnTmpfs(
    directory,
    'size=1m',
    `
    const ballast = ${JSON.stringify(join(directory, 'ballast'))};
    writeFileSync(ballast, Buffer.alloc(512 * 1024));
    const store = openLocalStore(${JSON.stringify(join(directory, 'state'))});
    const lease = (i) => ({ realm: 'r', address: String(i), kind: 'container', poolIds: ['p'.repeat(500)], endpointId: null, changedAt: '' });
    let count = 0;
    let error;
    while (error === undefined && count < 10_000) await store.leases.insert(lease(count)).then(() => count++, (e) => { error = e; });
    const again = await store.leases.insert(lease(count)).catch((e) => e.code);
    const whenFull = (await store.leases.list()).length;
    rmSync(ballast);
    const retried = await store.leases.insert(lease(count));
    console.log(JSON.stringify({ code: error.code, kind: error.kind, message: error.message, again, count, whenFull, retried, after: (await store.leases.list()).length }));
    await store.close();`,
  );
  const seen = JSON.parse(stdout) as Record<string, unknown>;
  t.diagnostic(`full after ${String(seen['count'])} leases`);
  assert.ok((seen['count'] as number) > 10);
  assert.equal(seen['code'], 'STORE_FULL');
  assert.equal(seen['kind'], 'fault');
  assert.equal(seen['again'], 'STORE_FULL');
  assert.match(
    String(seen['message']),
    /^no space left on the disk of state file "[^"]+"; nothing was changed, free some space/,
  );
  assert.equal(seen['whenFull'], seen['count']);
  assert.deepEqual([seen['retried'], seen['after']], [true, (seen['count'] as number) + 1]);
});

// --- other processes ---------------------------------------------------------------------------------------------

/** Runs statements in a Node of their own; a PluginError prints as `CODE sentence`. */
function runNode(statements: string, wrapper: readonly string[] = [], setUp = '') {
  const source = join(import.meta.dirname, '../../../src/store/local.ts');
  const program = `
    import { rmSync, writeFileSync } from 'node:fs';
    import { openLocalStore, readLocalStore } from ${JSON.stringify(source)};
    ${setUp}
    try { ${statements} } catch (error) { console.log(error.code, error.message); }`;
  const [command = '', ...words] = [...wrapper, process.execPath, '--input-type=module', '-e', program];
  const result = spawnSync(command, words, { encoding: 'utf8', timeout: 15_000 });
  assert.equal(result.status, 0, result.stderr);
  return result;
}

/** Root would be let in everywhere; anybody else is kept out by the mode. */
function runAsStranger(directory: string, statements: string) {
  if (process.getuid?.() === 0) return runNode(statements, [], 'process.setgid(65534); process.setuid(65534);');
  chmodSync(directory, 0o000);
  try {
    return runNode(statements);
  } finally {
    chmodSync(directory, 0o700);
  }
}

/** In a mount namespace of its own, which the kernel drops with the process. */
function runOnTmpfs(directory: string, mountOptions: string, statements: string) {
  mkdirSync(directory, { recursive: true });
  const mount = `mount -t tmpfs -o ${mountOptions} tmpfs '${directory}' && exec "$@"`;
  return runNode(statements, ['unshare', '--mount', '--propagation', 'private', 'sh', '-c', mount, 'sh']);
}
