/**
 * The page of `tsmacvlan map` for the bundle: its script and its style, each as one text.
 *
 * A command: `node plugin/page.ts dist/page.cjs`
 */
import { writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { build } from 'esbuild';

const PAGE = resolve(import.meta.dirname, '../src/page');

async function bundled(file: string): Promise<string> {
  const { outputFiles } = await build({
    entryPoints: [join(PAGE, file)],
    bundle: true,
    minify: true,
    format: 'iife',
    target: 'es2024',
    write: false,
    logLevel: 'warning',
  });
  return outputFiles[0]?.text ?? '';
}

const [target] = process.argv.slice(2);
if (target === undefined) throw new Error('usage: node plugin/page.ts FILE');
const [script, style] = await Promise.all(['page.ts', 'page.css'].map(bundled));
writeFileSync(target, `exports.script = ${JSON.stringify(script)};\nexports.style = ${JSON.stringify(style)};\n`);
