/** The documents as a reader meets them: every link leads somewhere, and the words are plain. Spelling is cspell's (`make check`). */
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { test } from 'node:test';
import { samples } from '../../plugin/messages.ts';
import { COMMANDS } from '../../src/commands/table.ts';
import { SETTINGS } from '../../src/settings.ts';
import { OPTION_ROWS } from '../../src/network/options.ts';
import { IPAM_OPTION_ROWS } from '../../src/ipam/pool.ts';

const CHECKOUT = join(import.meta.dirname, '../..');
const PAGES = [
  'README.md',
  'CONTRIBUTING.md',
  'CHANGELOG.md',
  'SECURITY.md',
  'test/README.md',
  'test/sim/README.md',
  ...readdirSync(join(CHECKOUT, 'docs'), { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.md'))
    .map((file) => `docs/${file}`),
];
/** For those who work on tsmacvlan; they may use the words of docs/architecture.md. */
const FOR_DEVELOPERS =
  /^(CONTRIBUTING|CHANGELOG|test\/.*|docs\/(architecture|kernel|lan|reliability|scale|dependencies|releasing|differences))\.md$/;

/** Without code, in which neither links nor English are looked for. */
function prose(text: string): string {
  return text
    .replace(/^( *)(```|~~~)[\s\S]*?^\1\2$/gm, '')
    .replace(/^ {4,}.*$/gm, '')
    .replace(/`[^`\n]*`/g, '``');
}

function read(page: string): string {
  return readFileSync(join(CHECKOUT, page), 'utf8');
}

/** As GitHub makes them of headings. */
function anchorsOf(text: string): Set<string> {
  const seen = new Map<string, number>();
  const headings = [...text.replace(/^( *)```[\s\S]*?^\1```$/gm, '').matchAll(/^#+ (.*)$/gm)];
  const anchors = headings.map(([, heading = '']) => {
    const slug = heading
      .replace(/\[([^\]]*)\]\([^)]*\)/g, '$1')
      .toLowerCase()
      .replace(/[^\p{L}\p{N}\s_-]/gu, '')
      .trim()
      .replace(/\s/g, '-');
    const count = seen.get(slug) ?? 0;
    seen.set(slug, count + 1);
    return count === 0 ? slug : `${slug}-${count}`;
  });
  return new Set(anchors);
}

test('every link within the documents leads to a file, and to a heading of it', () => {
  let count = 0;
  const broken = PAGES.flatMap((page) =>
    [...prose(read(page)).matchAll(/\]\(([^)\s]+)\)/g)].flatMap(([, link = '']) => {
      if (/^[a-z]+:/.test(link)) return [];
      count++;
      const [path = '', anchor] = link.split('#');
      const target = path === '' ? page : normalize(join(dirname(page), path));
      if (!existsSync(join(CHECKOUT, target))) return [`${page}: ${link}`];
      if (anchor === undefined) return [];
      return statSync(join(CHECKOUT, target)).isFile() && anchorsOf(read(target)).has(anchor)
        ? []
        : [`${page}: ${link}`];
    }),
  );
  assert.deepEqual(broken, []);
  assert.ok(count > 80, `${count} links`);
  console.log(`note: ${count} links within the documents, 0 broken`);
});

test('every page of docs/ is in the list of the site and in the table of README', () => {
  const rows = read('site/.vitepress/config.js').matchAll(/\['[^']+', '([\w-]+)'\]/g);
  const listed = [...rows].map(([, name]) => `docs/${name}.md`);
  const pages = PAGES.filter((page) => page.startsWith('docs/'));
  assert.deepEqual(
    pages.filter((page) => !listed.includes(page)),
    [],
  );
  assert.deepEqual(
    pages.filter((page) => !read('README.md').includes(`](${page})`)),
    [],
  );
});

test('every code of a message is a heading of docs/messages.md', () => {
  const anchors = anchorsOf(read('docs/messages.md'));
  const missing = samples().filter(({ code }) => !anchors.has(code.toLowerCase()));
  assert.deepEqual(missing, []);
});

// --- words -------------------------------------------------------------------------------------------------------

/** Not the English that people use. */
const NEVER = [
  /\bshall\b/,
  /\banew\b/,
  /\bstands? in\b/,
  /\bmade anew\b/,
  /\bis no [a-z]+ of\b/,
  /\bno whole\b/,
  /\bby nature\b/,
  /\ba word more\b/,
  /\ball the same\b/,
  /\bas ever\b/,
  /\bon and on\b/,
  /\bmade again\b/,
  /\basked for on the LAN\b/,
  /\b(has|have|had) to be\b/,
  /\bin some seconds\b/,
];
/** Of the house. Who only uses tsmacvlan has no need of them. */
const OF_THE_HOUSE = [
  /\brooms?\b/,
  /\bdiary\b/,
  /\bground floor\b/,
  /\bwitness(es)?\b/,
  /\bsentinels?\b/,
  /\bthe house\b/,
  /\btenanc(y|ies)\b/,
];

function found(where: string, text: string, words: readonly RegExp[]): string[] {
  return words.flatMap((word) => {
    const hit = word.exec(text);
    return hit === null ? [] : [`${where}: ${text.slice(Math.max(0, hit.index - 30), hit.index + 40)}`];
  });
}

test('documents, messages and help are in plain words', () => {
  const help = Object.entries(COMMANDS).map(
    ([name, { summary, details, options, examples }]) =>
      [
        `tsmacvlan ${name} --help`,
        [summary, details, ...Object.values({ ...options }), ...Object.values(examples)].join('\n'),
      ] as const,
  );
  const tables = [...Object.values(SETTINGS), ...OPTION_ROWS, ...IPAM_OPTION_ROWS].map(
    (row) => [row.name, row.meaning] as const,
  );
  const told = samples().map(({ code, message }) => [code, message] as const);
  const pages = PAGES.map((page) => [page, prose(read(page))] as const);
  const wrong = [...pages, ...help, ...tables, ...told].flatMap(([where, text]) => found(where, text, NEVER));
  assert.deepEqual(wrong, []);
  const forUsers = [...pages.filter(([page]) => !FOR_DEVELOPERS.test(page)), ...help, ...tables, ...told];
  assert.deepEqual(
    forUsers.flatMap(([where, text]) => found(where, text, OF_THE_HOUSE)),
    [],
  );
});
