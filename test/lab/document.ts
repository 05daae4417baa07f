/** Documents as tests: the shell blocks below a heading, or all of a page, run as a reader would run them. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Engine } from './engine.ts';

export const DOCS = join(import.meta.dirname, '../../docs');

/** The `sh` blocks of `docs/NAME` below a heading, in order; throws when there are none. */
export function shellBlocks(name: string, heading: string): string[] {
  const section = sections(readFileSync(join(DOCS, name), 'utf8')).get(heading) ?? '';
  const blocks = [...section.matchAll(/^( *)```sh\n([\s\S]*?)^\1```/gm)];
  assert.ok(blocks.length > 0, `docs/${name} has no sh block below "${heading}"`);
  return blocks.map(([, indent = '', block = '']) => block.replaceAll(new RegExp(`^${indent}`, 'gm'), ''));
}

function sections(text: string): Map<string, string> {
  const parts = text.split(/^#+ (.*)$/m).slice(1);
  return new Map(parts.flatMap((part, index) => (index % 2 === 0 ? [[part, parts[index + 1] ?? ''] as const] : [])));
}

/** Runs them all on an engine; `words` are what this reader writes for the document's own words. Answers what was printed. */
export async function follow(
  engine: Engine,
  name: string,
  heading: string,
  words: Readonly<Record<string, string>> = {},
): Promise<string> {
  let printed = '';
  for (const block of shellBlocks(name, heading)) {
    const script = Object.entries(words).reduce((text, [word, own]) => text.replaceAll(word, own), block);
    const { code, stdout, stderr } = await engine.shell(script);
    assert.equal(code, 0, `${script}\n${stdout}${stderr}`);
    printed += stdout;
  }
  return printed;
}

/** A fenced block of a page. */
export interface Block {
  /** The word after the fence: `sh`, `yaml`, `text`. */
  readonly kind: string;
  readonly text: string;
}

/** All fenced blocks of a page, `README.md` or one of docs/, in order. */
export function blocksOf(page: string): Block[] {
  const text = readFileSync(join(DOCS, page === 'README.md' ? '..' : '.', page), 'utf8');
  return [...text.matchAll(/^( *)```(\w+)\n([\s\S]*?)^\1```$/gm)].map(([, indent = '', kind = '', block = '']) => ({
    kind,
    text: block.replaceAll(new RegExp(`^${indent}`, 'gm'), ''),
  }));
}

/** The commands of a block: lines, with those that go on in the next one. */
export function commandsOf({ text }: Block): string[] {
  return text
    .replaceAll('\\\n', ' ')
    .split('\n')
    .map((line) => line.replace(/(^| )#.*/, '').trim())
    .filter((line) => line !== '');
}

/** Whether what was printed has each of these lines, in this order; `…` is for what differs from time to time. */
export function isSeen({ text }: Block, printed: string): boolean {
  const lines = text.trimEnd().split('\n');
  const pattern = lines.map((line) => line.split('…').map(escapeRegExp).join('.*').replace(/ {2,}/g, ' +'));
  return new RegExp(pattern.join('[^]*')).test(printed);
}

function escapeRegExp(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
}
