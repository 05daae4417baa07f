/**
 * Programs of another Debian suite without installing them: packages are fetched with the ordinary apt client, in
 * private apt directories, and unpacked below a directory of ours. The mirror is the one this machine's own apt uses.
 *
 * Also a command, for set-up before the tests: `node plugin/debian.ts SUITE DIRECTORY PACKAGE...`
 */
import { execFile, execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** The cache of everything that is fetched for tests and for the other architecture; git ignores it and `make clean` may remove it. */
export const LAB = resolve(import.meta.dirname, '../.lab');

const FETCH_TIMEOUT_MS = 300_000;
const RECEIPT = '.fetched';
/** A line `NAME VERSION` for each package. */
const VERSIONS = '.versions';

/**
 * Leaves the unpacked packages of a suite in `directory` (`usr/bin/…`) and answers its absolute path. Dependencies are
 * not followed. What is already there is not fetched again; an interrupted fetch leaves nothing that looks finished,
 * because the directory gets its name only when it is complete. Throws with apt's own words when it cannot.
 * `architecture` as Debian names it, `arm64`; this machine's when left out.
 */
export async function fetchDebs(
  suite: string,
  packages: readonly string[],
  directory: string,
  architecture?: string,
): Promise<string> {
  const target = resolve(directory);
  const receipt = `${[suite, ...packages, architecture].join(' ').trim()}\n`;
  if (await isFetched(target, receipt)) return target;
  const scratch = `${target}.fetch-${process.pid}`;
  await removeAbandoned(target);
  try {
    await downloadAndUnpack(suite, packages, scratch, architecture);
    await writeFile(join(scratch, 'root', RECEIPT), receipt);
    await rm(target, { recursive: true, force: true });
    await rename(join(scratch, 'root'), target);
  } catch (error) {
    // Another test process may have fetched the same thing meanwhile: then its directory is as good as ours.
    if (!(await isFetched(target, receipt))) throw error;
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
  return target;
}

async function isFetched(directory: string, receipt: string): Promise<boolean> {
  return (await readFile(join(directory, RECEIPT), 'utf8').catch(() => '')) === receipt;
}

/** Scratch directories carry the id of the process that fills them; those of dead processes are litter. */
async function removeAbandoned(target: string): Promise<void> {
  const parent = dirname(target);
  for (const name of await readdir(parent).catch(() => [])) {
    const owner = name.match(/\.fetch-(\d+)$/)?.[1];
    if (owner !== undefined && !isAlive(Number(owner))) await rm(join(parent, name), { recursive: true, force: true });
  }
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

async function downloadAndUnpack(
  suite: string,
  packages: readonly string[],
  scratch: string,
  architecture?: string,
): Promise<void> {
  const debs = join(scratch, 'debs');
  for (const name of ['lists/partial', 'cache/archives/partial', 'debs', 'root']) {
    await mkdir(join(scratch, name), { recursive: true });
  }
  const options = await privateApt(suite, scratch);
  if (architecture !== undefined) options.push('-o', `APT::Architecture=${architecture}`);
  await apt([...options, 'update'], scratch);
  await apt([...options, 'download', ...packages], debs);
  let versions = '';
  for (const name of await readdir(debs)) {
    await run('dpkg-deb', ['--extract', join(debs, name), join(scratch, 'root')], { timeout: FETCH_TIMEOUT_MS });
    const { stdout } = await run('dpkg-deb', ['--show', '--showformat=${Package} ${Version}\n', join(debs, name)]);
    versions += stdout;
  }
  await writeFile(join(scratch, 'root', VERSIONS), versions);
}

/** The version of a package below a directory that `fetchDebs` left, or below `/`. */
export function versionOfDeb(name: string, directory: string): string {
  if (directory === '/') {
    return execFileSync('dpkg-query', ['--show', '--showformat=${Version}', name], { encoding: 'utf8' });
  }
  const line = readFileSync(join(directory, VERSIONS), 'utf8')
    .split('\n')
    .find((one) => one.startsWith(`${name} `));
  if (line === undefined) throw new Error(`package ${name} is not in ${directory}`);
  return line.slice(name.length + 1);
}

/** Options that make apt look at nothing of this machine but its keys, proxies and the mirror's address. */
async function privateApt(suite: string, scratch: string): Promise<string[]> {
  const keys = '/usr/share/keyrings/debian-archive-keyring.gpg';
  const source = join(scratch, 'sources.list');
  await writeFile(source, `deb [signed-by=${keys}] ${await mirror()} ${suite} main\n`);
  return [
    `Dir::Etc::SourceList=${source}`,
    'Dir::Etc::SourceParts=/dev/null',
    `Dir::State::lists=${join(scratch, 'lists')}`,
    'Dir::State::status=/dev/null',
    `Dir::Cache=${join(scratch, 'cache')}`,
    // A mirror that stands still (a snapshot, an archive) has a Release file past its date; its signature still holds.
    'Acquire::Check-Valid-Until=false',
    // Otherwise an update that reached nothing counts as done.
    'APT::Update::Error-Mode=any',
    'Acquire::Languages=none',
    'APT::Sandbox::User=root',
  ].flatMap((option) => ['-o', option]);
}

/** The address of the Debian archive in this machine's own sources: the one of the plain release, not its updates. */
export async function mirror(): Promise<string> {
  const listing = ['indextargets', '--no-release-info', '--format', '$(REPO_URI) $(RELEASE) $(COMPONENT)'];
  const { stdout } = await run('apt-get', listing, { timeout: FETCH_TIMEOUT_MS });
  const release = stdout.split('\n').find((line) => /^\S+ [a-z]+ main$/.test(line));
  if (release === undefined) throw new Error("no Debian archive in this machine's apt sources");
  return release.split(' ')[0] as string;
}

async function apt(argv: string[], cwd: string): Promise<void> {
  try {
    await run('apt-get', ['-q', ...argv], { cwd, timeout: FETCH_TIMEOUT_MS });
  } catch (error) {
    const { stderr } = error as { stderr?: string };
    throw new Error(`apt-get ${argv.at(-1)} failed: ${stderr?.trim() ?? String(error)}`, { cause: error });
  }
}

if (import.meta.main) {
  const [suite, directory, ...packages] = process.argv.slice(2);
  if (suite === undefined || directory === undefined || packages.length === 0) {
    throw new Error('usage: node plugin/debian.ts SUITE DIRECTORY PACKAGE...');
  }
  await fetchDebs(suite, packages, directory);
}
