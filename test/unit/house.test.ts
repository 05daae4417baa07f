/** The rules of the house (docs/architecture.md) as an ordinary test. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize, relative } from 'node:path';
import { test } from 'node:test';
import { type Exported, exportsOf, identifiersOf, typescriptFiles } from './house-facts.ts';

const CHECKOUT = join(import.meta.dirname, '../..');
const SOURCES = join(CHECKOUT, 'src');
const PLUGIN = join(CHECKOUT, 'plugin');

interface Import {
  readonly file: string;
  readonly target: string;
}

/** Rooms a room may look into. The ground floor (files directly in src/ but for the builders) is open to all. */
const BELOW: Readonly<Record<string, readonly string[]>> = {
  server: [],
  network: ['lan', 'kernel', 'store'],
  ipam: ['lan', 'store'],
  lan: ['kernel'],
  kernel: [],
  store: [],
  engine: [],
  page: [],
  ground: [],
};
const BUILDERS = ['tsmacvlan.ts', 'cli.ts', 'serve.ts', 'main.ts', 'looking.ts'];
/** Each outside library has one door: the room or file that may import it. */
const DOORS: Readonly<Record<string, string>> = {
  express: 'server/',
  valibot: 'server/',
  koffi: 'kernel/libc.ts',
  winston: 'log.ts',
  'ip-address': 'address.ts',
  // The page's script and style, as make build writes them.
  '#page': 'commands/pagefile.ts',
  'node:sqlite': 'store/',
  'node:http2': 'store/etcd/connection.ts',
  '@connectrpc/connect': 'store/etcd/',
  '@connectrpc/connect-node': 'store/etcd/connection.ts',
  '@bufbuild/protobuf': 'store/etcd/',
  'prom-client': 'prom-client.d.ts',
  'prom-client/lib/counter.js': 'metrics.ts',
  'prom-client/lib/gauge.js': 'metrics.ts',
  'prom-client/lib/histogram.js': 'metrics.ts',
  'prom-client/lib/registry.js': 'metrics.ts',
};

/** Without what a program wrote (`make proto`). */
const files = readdirSync(SOURCES, { recursive: true, encoding: 'utf8' }).filter(
  (file) => file.endsWith('.ts') && !file.endsWith('_pb.ts'),
);
const imports: Import[] = files.flatMap((file) => {
  const text = readFileSync(join(SOURCES, file), 'utf8');
  const targets = [
    ...text.matchAll(/(?:^|\n)\s*(?:import|export)\b[^'"]*?from\s+['"]([^'"]+)['"]|import\(['"]([^'"]+)['"]\)/g),
  ];
  return targets.map((match) => ({ file, target: match[1] ?? match[2] ?? '' }));
});

function room(file: string): string {
  const [first = '', ...rest] = file.split('/');
  if (BUILDERS.includes(first) || first === 'commands') return 'builders';
  return rest.length > 0 ? first : 'ground';
}

function inside({ file, target }: Import): string | undefined {
  return target.startsWith('.') ? normalize(relative(SOURCES, join(SOURCES, dirname(file), target))) : undefined;
}

test('imports only go down, and network and ipam never meet', () => {
  const wrong = imports.filter((found) => {
    const target = inside(found);
    const from = room(found.file);
    if (target === undefined || target.startsWith('..') || from === 'builders') return false;
    const to = room(target);
    return to !== from && to !== 'ground' && !(BELOW[from] ?? []).includes(to);
  });
  assert.deepEqual(wrong, []);
});

test('Docker is asked by the command line alone', () => {
  const askers = imports.filter((found) => inside(found)?.startsWith('engine/') && !found.file.startsWith('engine/'));
  assert.ok(askers.length > 0 && askers.every(({ file }) => file.startsWith('commands/')), JSON.stringify(askers));
});

test('what runs in a browser needs nothing of the rest, and the daemon nothing of it', () => {
  const inPage = imports.filter(({ file }) => file.startsWith('page/'));
  assert.ok(inPage.length > 10);
  assert.deepEqual(
    inPage.filter((found) => inside(found)?.startsWith('page/') !== true),
    [],
  );
  const users = imports.filter((found) => inside(found)?.startsWith('page/') && !found.file.startsWith('page/'));
  assert.ok(
    users.every(({ file }) => file.startsWith('commands/')),
    JSON.stringify(users),
  );
});

test('text never becomes markup, and nothing of the page comes from elsewhere', () => {
  const wrong = files.filter(
    (file) =>
      file.startsWith('page/') &&
      /innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|setHTML|https?:|\beval\b|new Function/.test(
        readFileSync(join(SOURCES, file), 'utf8'),
      ),
  );
  assert.deepEqual(wrong, []);
});

test('frames are apart from what acts: lan/frames looks at nothing else in its room', () => {
  const wrong = imports.filter((found) => {
    const target = inside(found);
    return found.file.startsWith('lan/frames/') && target?.startsWith('lan/') && !target.startsWith('lan/frames/');
  });
  assert.deepEqual(wrong, []);
});

test('each library has one door', () => {
  const wrong = imports.filter(({ file, target }) => DOORS[target] !== undefined && !file.startsWith(DOORS[target]));
  assert.deepEqual(wrong, []);
});

test('every library that is imported has a door', () => {
  const libraries = new Set(
    imports.map(({ target }) => target).filter((target) => !target.startsWith('.') && !target.startsWith('node:')),
  );
  assert.deepEqual(
    [...libraries].filter((library) => DOORS[library] === undefined),
    [],
  );
});

test('no import goes in a circle', () => {
  const graph = new Map(
    files.map((file) => [file, imports.filter((found) => found.file === file).flatMap((found) => inside(found) ?? [])]),
  );
  const done = new Set<string>();
  const visit = (file: string, path: readonly string[]): void => {
    assert.ok(!path.includes(file), `circle: ${[...path, file].join(' → ')}`);
    if (done.has(file)) return;
    for (const next of graph.get(file) ?? []) visit(next, [...path, file]);
    done.add(file);
  };
  for (const file of files) visit(file, []);
});

test('nothing in the sources names a path or a tool of one machine', () => {
  const wrong = files.filter((file) =>
    /\/work\/|\/home\/|eth0['"`]\s*\)/.test(readFileSync(join(SOURCES, file), 'utf8')),
  );
  assert.deepEqual(wrong, []);
});

// --- sizes, names and words --------------------------------------------------------------------------------------

const MOST_LINES = 480;
/** One page of sentences, which nobody reads from top to bottom. */
const LONG = ['errors.ts'];
/** Functions and values that are exported for tests alone. */
const FOR_TESTS = ['startDaemon', 'errorCode', 'REFRESH_MS', 'holderOfNamespace'];

const exported: readonly Exported[] = files.flatMap((file) => exportsOf(SOURCES, file));

test('no file of the sources is long', () => {
  const generated = readdirSync(SOURCES, { recursive: true, encoding: 'utf8' }).filter((file) =>
    file.endsWith('_pb.ts'),
  );
  const long = [...files, ...generated].filter((file) => {
    const limit = file === 'network/driver.ts' ? 450 : MOST_LINES;
    return !LONG.includes(file) && readFileSync(join(SOURCES, file), 'utf8').split('\n').length > limit;
  });
  assert.deepEqual(long, []);
});

test('an exported name means one thing', () => {
  const twice = exported.filter(({ name, file }) => exported.some((other) => other.name === name && other.file < file));
  assert.deepEqual(
    twice.map(({ file, name }) => `${file}: ${name}`),
    [],
  );
});

test('what is exported is used by another file of src/ or plugin/', () => {
  const users = [
    ...files.map((file) => ({ file, names: identifiersOf(join(SOURCES, file)) })),
    ...typescriptFiles(PLUGIN).map((file) => ({ file: `plugin/${file}`, names: identifiersOf(join(PLUGIN, file)) })),
  ];
  const unused = exported.filter(
    ({ file, name, kind }) =>
      ['function', 'value'].includes(kind) &&
      !FOR_TESTS.includes(name) &&
      !users.some((user) => user.file !== file && user.names.has(name)),
  );
  assert.deepEqual(
    unused.map(({ file, name }) => `${file}: ${name}`),
    [],
  );
});

test('every exported class, function and interface and every public method has a doc comment', () => {
  const silent = exported.flatMap(({ file, name, kind, isDocumented, undocumentedMembers }) => {
    const needsOne = ['class', 'function', 'interface'].includes(kind);
    return [...(needsOne && !isDocumented ? [name] : []), ...undocumentedMembers].map((one) => `${file}: ${one}`);
  });
  assert.deepEqual(silent, []);
});

test('plugin/ imports nothing of test/', () => {
  const wrong = typescriptFiles(PLUGIN).filter((file) =>
    /from '[^']*\.\.\/test\//.test(readFileSync(join(PLUGIN, file), 'utf8')),
  );
  assert.deepEqual(wrong, []);
});

test('every file of the sources is in a table of the docs', () => {
  const named = (page: string) => new Set(readFileSync(join(CHECKOUT, 'docs', page), 'utf8').match(/`[\w./-]+\.ts`/g));
  const pages = { kernel: named('kernel.md'), lan: named('lan.md') };
  const house = named('architecture.md');
  const missing = files.filter((file) => {
    const [room = '', ...rest] = file.split('/');
    if (room === 'kernel' || room === 'lan') return !pages[room].has(`\`${rest.join('/')}\``);
    return !house.has(`\`${file}\``);
  });
  assert.deepEqual(missing, []);
  const elsewhere = /^(test|plugin|kernel|lan)\/|_pb\.ts$/;
  const gone = [...house]
    .map((name) => name.slice(1, -1))
    .filter((name) => !elsewhere.test(name) && !files.includes(name));
  assert.deepEqual(gone, []);
});
