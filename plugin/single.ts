/**
 * The one file: Node with the program and koffi's library inside (https://nodejs.org/api/single-executable-applications.html),
 * for the command and the daemon, on a machine that has no Node. The same sources give the same bytes.
 *
 * Also a command: `node plugin/single.ts FILE [amd64|arm64]`
 */
import { execFileSync } from 'node:child_process';
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { type Architecture, CPU, ownArchitecture, provideArtefacts, readArchitecture } from './artefacts.ts';
import { readElf } from './elf.ts';

const CHECKOUT = resolve(import.meta.dirname, '..');
const PROGRAM = join(CHECKOUT, 'dist/single.cjs');
const POSTJECT = join(CHECKOUT, 'node_modules/postject/dist/cli.js');
/** Where Node looks for the program in its own file, and whether it looks (src/node_sea.cc). */
const NOTE = 'NODE_SEA_BLOB';
const FUSE = 'NODE_SEA_FUSE_fce680ab2cc467b6e072b8b5df1996b2';

export async function makeSingle(file: string, architecture: Architecture): Promise<void> {
  const { node, modules } = await provideArtefacts(architecture);
  const cpu = CPU[architecture];
  const koffi = join(modules, `@koromix/koffi-linux-${cpu}/linux_${cpu}/koffi.node`);
  const target = resolve(file);
  mkdirSync(dirname(target), { recursive: true });
  const scratch = mkdtempSync(join(dirname(target), '.single-'));
  try {
    const [blob, made] = ['blob', 'made'].map((name) => join(scratch, name)) as [string, string];
    await writeBlob(blob, koffi, scratch);
    writeFileSync(made, withoutSymbols(node, architecture));
    // It warns of the sections that are not there.
    execFileSync(process.execPath, [POSTJECT, made, NOTE, blob, '--sentinel-fuse', FUSE], { stdio: 'pipe' });
    chmodSync(made, 0o755);
    // What runs at this moment cannot be written to, only replaced.
    renameSync(made, target);
  } finally {
    rmSync(scratch, { recursive: true });
  }
}

function withoutSymbols(path: string, architecture: Architecture): Buffer {
  const elf = readElf(path);
  if (elf?.architecture !== architecture) throw new Error(`${path} is no program for ${architecture}`);
  return elf.loaded;
}

/** Made by this machine's Node of the same version, for whichever architecture: without a code cache it has nothing of a machine. */
async function writeBlob(output: string, koffi: string, scratch: string): Promise<void> {
  const { node } = await provideArtefacts(ownArchitecture());
  const [main, file] = ['tsmacvlan.cjs', 'config.json'];
  const config = {
    main,
    output,
    disableExperimentalSEAWarning: true,
    // As plugin/launcher.sh. NODE_OPTIONS is for programs that are known to be Node's.
    execArgv: ['--max-semi-space-size=1'],
    execArgvExtension: 'none',
    assets: { 'koffi.node': koffi },
  };
  writeFileSync(join(scratch, file), JSON.stringify(config));
  // The program's path goes into the blob as it is in the configuration: not that of a checkout.
  copyFileSync(PROGRAM, join(scratch, main));
  execFileSync(node, ['--experimental-sea-config', file], { cwd: scratch, stdio: 'pipe' });
}

if (import.meta.main) {
  const [file, architecture = ownArchitecture()] = process.argv.slice(2);
  if (file === undefined) throw new Error('usage: node plugin/single.ts FILE [amd64|arm64]');
  await makeSingle(file, readArchitecture(architecture));
}
