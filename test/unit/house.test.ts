/** The rules of the house (docs/architecture.md) as an ordinary test. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize, relative } from 'node:path';
import { test } from 'node:test';

const SOURCES = join(import.meta.dirname, '../../src');

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
  ground: [],
};
const BUILDERS = ['tsmacvlan.ts', 'cli.ts', 'main.ts'];
/** Each outside library has one door: the room or file that may import it. */
const DOORS: Readonly<Record<string, string>> = {
  express: 'server/',
  valibot: 'server/wire.ts',
  koffi: 'kernel/libc.ts',
  winston: 'log.ts',
  'ip-address': 'address.ts',
  'node:sqlite': 'store/',
  'node:http2': 'store/etcd/connection.ts',
  '@connectrpc/connect': 'store/etcd/',
  '@connectrpc/connect-node': 'store/etcd/connection.ts',
  '@bufbuild/protobuf': 'store/etcd/',
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
  return file.includes('/') ? (file.split('/')[0] ?? '') : BUILDERS.includes(file) ? 'builders' : 'ground';
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
