/**
 * Starts the program beside it, `program.cjs`, with all that its earlier runs have compiled. Node's own cache has what is compiled when
 * a file is loaded; most functions are compiled at their first call, in a process that is killed soon after once more each time.
 */
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import Module from 'node:module';
import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { Script } from 'node:vm';

const PROGRAM = join(__dirname, 'program.cjs');
const COMPILED = join(__dirname, 'compiled');

const cachedData = existsSync(COMPILED) ? readFileSync(COMPILED) : undefined;
const script = new Script(Module.wrap(readFileSync(PROGRAM, 'utf8')), { filename: PROGRAM, cachedData });

process.on('exit', () => {
  // V8 takes only what was compiled with the flags with which it starts; the daemon has changed these (serve.ts).
  for (const flag of ['--opt', '--heap-growing-percent=0']) setFlagsFromString(flag);
  writeFileSync(`${COMPILED}.${process.pid}`, script.createCachedData());
  renameSync(`${COMPILED}.${process.pid}`, COMPILED);
});

const program = script.runInThisContext() as (...parts: readonly unknown[]) => void;
program({}, Module.createRequire(PROGRAM), {}, PROGRAM, __dirname);
