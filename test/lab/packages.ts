/**
 * What the lab takes from Debian: a few ordinary tools, installed when missing; Docker engines of three releases and a
 * kernel that has VLANs, which are only unpacked below `.lab/` and never installed.
 */
import { execFile } from 'node:child_process';
import { existsSync, globSync } from 'node:fs';
import { copyFile, mkdir, mkdtemp, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { fetchDebs, LAB, mirror } from '../../plugin/debian.ts';

/** Command → the package that brings it. */
const TOOLS = { ip: 'iproute2', openssl: 'openssl', ping: 'iputils-ping', systemctl: 'systemd', tcpdump: 'tcpdump' };

// bookworm's containerd and runc run with every later C library too, so all engines use them.
// Engines call iptables inside each container for their DNS server, even when told to leave the host's rules alone.
const PACKAGES = {
  bookworm: [
    ...['docker.io', 'containerd', 'runc', 'tini', 'libdevmapper1.02.1', 'libseccomp2', 'busybox-static', 'iptables'],
    ...['libxtables12', 'libip4tc2', 'libip6tc2', 'libnftnl11', 'libmnl0', 'libnetfilter-conntrack3', 'libnfnetlink0'],
  ],
  trixie: ['docker.io', 'docker-cli'],
  forky: ['docker.io', 'docker-cli'],
};

/** Programs beside the engines, each below a root of its own: another one does not fetch the engines again. */
const BESIDE = {
  registry: { suite: 'bookworm', packages: ['docker-registry'], program: 'usr/bin/docker-registry' },
  compose: { suite: 'forky', packages: ['docker-compose'], program: 'usr/libexec/docker/cli-plugins/docker-compose' },
} as const;

// Not beside the engines: levels without engines use it too.
const ETCD = { suite: 'bookworm', packages: ['etcd-server', 'etcd-client'], root: 'etcd' };

// The first suite whose user-mode Linux has the seccomp mode, three times as fast as ptrace; with the C library it needs.
const UML = { suite: 'forky', packages: ['user-mode-linux', 'libc6', 'libgcc-s1'] };

/** A Debian 12 as it is without any more than systemd: mmdebstrap makes it. */
const BARE = { suite: 'bookworm', packages: ['systemd', 'iproute2'], makers: ['mmdebstrap'] };

/** A browser without a screen, the libraries that it is linked with, and one family of fonts. */
const BROWSER = {
  suite: 'bookworm',
  root: 'chromium',
  packages: [
    ...['chromium-headless-shell', 'chromium-common', 'fonts-dejavu-core'],
    ...[
      'libasound2',
      'libasyncns0',
      'libatk1.0-0',
      'libatspi2.0-0',
      'libblkid1',
      'libbrotli1',
      'libbsd0',
      'libbz2-1.0',
    ],
    ...['libcap2', 'libdav1d6', 'libdbus-1-3', 'libdouble-conversion3', 'libdrm2', 'libexpat1', 'libffi8', 'libflac12'],
    ...['libfontconfig1', 'libfreetype6', 'libgbm1', 'libgcrypt20', 'libglib2.0-0', 'libgpg-error0', 'libgraphite2-3'],
    ...['libharfbuzz-subset0', 'libharfbuzz0b', 'libjpeg62-turbo', 'liblz4-1', 'liblzma5', 'libmd0', 'libminizip1'],
    ...['libmount1', 'libmp3lame0', 'libmpg123-0', 'libnspr4', 'libnss3', 'libogg0', 'libopenh264-7', 'libopus0'],
    ...['libpcre2-8-0', 'libpng16-16', 'libpulse0', 'libselinux1', 'libsndfile1', 'libsqlite3-0', 'libstdc++6'],
    ...['libsystemd0', 'libudev1', 'libvorbis0a', 'libvorbisenc2', 'libwayland-server0', 'libx11-6', 'libx11-xcb1'],
    ...['libxau6', 'libxcb-randr0', 'libxcb1', 'libxcomposite1', 'libxdamage1', 'libxdmcp6', 'libxext6', 'libxfixes3'],
    ...['libxi6', 'libxkbcommon0', 'libxnvctrl0', 'libxrandr2', 'libxrender1', 'libzstd1', 'xkb-data', 'zlib1g'],
  ],
  program: 'usr/lib/chromium/chromium-headless-shell',
} as const;

/** The DHCP servers that people's LANs have, with what they are linked with; busybox brings udhcpd, and a client. */
const DHCP = {
  suite: 'bookworm',
  root: 'dhcp',
  packages: [
    ...['dnsmasq-base', 'isc-dhcp-server', 'kea-dhcp4-server', 'kea-common', 'busybox-static'],
    ...['libcap2', 'libcom-err2', 'libdbus-1-3', 'libffi8', 'libgcrypt20', 'libgmp10', 'libgnutls30', 'libgpg-error0'],
    ...['libgssapi-krb5-2', 'libhogweed6', 'libidn2-0', 'libjansson4', 'libk5crypto3', 'libkeyutils1', 'libkrb5-3'],
    ...['libkrb5support0', 'libldap-2.5-0', 'liblog4cplus-2.0.5', 'liblz4-1', 'liblzma5', 'libmariadb3', 'libmnl0'],
    ...[
      'libnetfilter-conntrack3',
      'libnettle8',
      'libnfnetlink0',
      'libnftables1',
      'libnftnl11',
      'libp11-kit0',
      'libpq5',
    ],
    ...['libsasl2-2', 'libssl3', 'libsystemd0', 'libtasn1-6', 'libunistring2', 'libxtables12', 'libzstd1', 'zlib1g'],
  ],
  program: 'usr/sbin/kea-dhcp4',
} as const;

/** The same for IPv6, and a router that advertises itself; they are linked with what those above brought. */
const DHCP6 = {
  suite: 'bookworm',
  root: 'dhcp6',
  packages: ['radvd', 'kea-dhcp6-server'],
  program: 'usr/sbin/radvd',
} as const;

export type Suite = keyof typeof PACKAGES;

/** The image `busybox`, once `fetchEngines` is done. */
export const BUSYBOX_ARCHIVE = join(LAB, 'busybox.tar');

/** The root directory of user-mode Linux, once `fetchUml` could unpack it. */
export const UML_DIRECTORY = join(LAB, 'uml');

/** Its root directory, once `fetchBare` could make it. */
export const BARE_ROOT = join(LAB, 'bare');

const SUITES = Object.keys(PACKAGES) as Suite[];
const run = promisify(execFile);

/** Installs what is missing of the ordinary tools; `say` is told before anything that takes time. */
export async function installTools(say: (line: string) => void): Promise<void> {
  const missing = Object.entries(TOOLS).filter(([command]) => !isInPath(command));
  if (missing.length === 0) return;
  const packages = missing.map(([, name]) => name);
  say(`installing ${packages.join(', ')}`);
  const install = () => aptGet('install', '-y', '--no-install-recommends', ...packages);
  // The package lists may be absent, or older than the mirror.
  await install().catch(async () => {
    await aptGet('update');
    await install();
  });
}

/** Unpacks the engines of all suites below `.lab/`, unless they are there. */
export async function fetchEngines(say: (line: string) => void): Promise<void> {
  const announcement = setTimeout(() => say('fetching Docker engines from Debian (once, about 160 MB)'), 300);
  try {
    await Promise.all([
      ...SUITES.map((suite) => fetchDebs(suite, PACKAGES[suite], join(LAB, suite))),
      ...Object.entries(BESIDE).map(([root, { suite, packages }]) => fetchDebs(suite, packages, join(LAB, root))),
    ]);
  } finally {
    clearTimeout(announcement);
  }
  // An installed package gets this name from update-alternatives.
  const iptables = fileOf('bookworm', 'usr/sbin/iptables');
  if (!existsSync(iptables)) await symlink('xtables-nft-multi', iptables);
  if (!existsSync(BUSYBOX_ARCHIVE)) await makeBusyboxArchive();
}

/** Unpacks etcd below `.lab/`, unless it is there. */
export async function fetchEtcd(say: (line: string) => void): Promise<void> {
  await announced(say, 'fetching etcd from Debian (once, about 12 MB)', () =>
    fetchDebs(ETCD.suite, ETCD.packages, join(LAB, ETCD.root)),
  );
}

/** The path of `etcd` or `etcdctl`, once `fetchEtcd` is done. */
export function etcdProgram(name: 'etcd' | 'etcdctl'): string {
  return join(LAB, ETCD.root, 'usr/bin', name);
}

/** Unpacks user-mode Linux below `.lab/`, unless it is there; tests that need it are skipped where it cannot be had. */
export async function fetchUml(say: (line: string) => void): Promise<void> {
  try {
    await announced(say, 'fetching a kernel that has VLANs from Debian (once, about 60 MB)', () =>
      fetchDebs(UML.suite, UML.packages, UML_DIRECTORY),
    );
  } catch (error) {
    return say(`no kernel that has VLANs: ${(error as Error).message}`);
  }
  // What uml-boot.sh mounts on, and the path by which the program asks for its C library.
  for (const name of ['host', 'dev', 'proc', 'tmp']) await mkdir(join(UML_DIRECTORY, name), { recursive: true });
  const libraries = join(UML_DIRECTORY, 'lib64');
  if (!existsSync(libraries)) await symlink('usr/lib64', libraries);
}

/** The environment in which `minisign` is a command. */
export async function fetchMinisign(): Promise<NodeJS.ProcessEnv> {
  const root = await fetchDebs('bookworm', ['minisign', 'libsodium23'], join(LAB, 'minisign'));
  const [libraries = ''] = globSync('usr/lib/*-linux-gnu', { cwd: root });
  return {
    PATH: [join(root, 'usr/bin'), process.env.PATH].join(delimiter),
    LD_LIBRARY_PATH: join(root, libraries),
  };
}

/** Makes a bare Debian below `.lab/`, unless it is there; tests that need it are skipped where it cannot be had. */
export async function fetchBare(say: (line: string) => void): Promise<void> {
  if (existsSync(BARE_ROOT)) return;
  const root = `${BARE_ROOT}.${process.pid}`;
  try {
    await announced(say, 'making a bare Debian 12 (once, about 60 MB)', () => makeBareRoot(root));
    await rename(root, BARE_ROOT);
  } catch (error) {
    await rm(root, { recursive: true, force: true });
    // Another test process may have made it meanwhile.
    if (!existsSync(BARE_ROOT)) say(`no bare Debian 12: ${(error as Error).message}`);
  }
}

async function makeBareRoot(root: string): Promise<void> {
  const { suite, packages, makers } = BARE;
  const maker = join(await fetchDebs(suite, makers, join(LAB, 'mmdebstrap')), 'usr/bin/mmdebstrap');
  // It looks at nothing of this machine, which may need a proxy.
  const { stdout: options } = await run('apt-config', ['dump', '--format', '%F "%v";%n', 'Acquire']);
  const file = `${root}.conf`;
  await writeFile(file, options);
  const what = ['--variant=minbase', `--include=${packages.join(',')}`, `--aptopt=${file}`];
  try {
    await run('perl', [maker, '--mode=root', '--quiet', ...what, suite, root, await mirror()], { timeout: 600_000 });
  } finally {
    await rm(file);
  }
}

/** Unpacks a browser below `.lab/`, unless it is there; tests that need it are skipped where it cannot be had. */
export async function fetchBrowser(say: (line: string) => void): Promise<void> {
  try {
    await announced(say, 'fetching a browser from Debian (once, about 110 MB)', () =>
      fetchDebs(BROWSER.suite, BROWSER.packages, join(LAB, BROWSER.root)),
    );
  } catch (error) {
    say(`no browser: ${(error as Error).message}`);
  }
}

/** `make site`, which fetches its generator where that is missing: in an enclosure npm would look for a network for minutes. */
export async function buildSite(say: (line: string) => void): Promise<void> {
  await announced(say, 'building the site of the documents', () =>
    run('make', ['--silent', '-C', dirname(LAB), 'site']),
  );
}

/** Where the browser is, once `fetchBrowser` could unpack it: its program, the directories of its libraries, its fonts. */
export function browserFiles(): { program: string; libraries: string; fonts: string } {
  const root = join(LAB, BROWSER.root);
  // Where they are installed libpulse finds a part of itself in its own directory.
  const libraries = globSync('{,usr/}lib/*-linux-gnu{,/pulseaudio}', { cwd: root }).map((path) => join(root, path));
  return {
    program: join(root, BROWSER.program),
    libraries: libraries.join(delimiter),
    fonts: join(root, 'usr/share/fonts'),
  };
}

/** Unpacks DHCP servers below `.lab/`, unless they are there; tests that need them are skipped where they cannot be had. */
export async function fetchDhcp(say: (line: string) => void): Promise<void> {
  try {
    await announced(say, 'fetching DHCP servers from Debian (once, about 20 MB)', async () => {
      for (const { suite, packages, root } of [DHCP, DHCP6]) await fetchDebs(suite, packages, join(LAB, root));
    });
  } catch (error) {
    say(`no DHCP servers: ${(error as Error).message}`);
  }
}

/** The reason for skipping what needs DHCP servers; false where `fetchDhcp` could unpack them. */
export function withoutDhcp(): string | false {
  const programs = [dhcpProgram(DHCP.program), dhcp6Program(DHCP6.program)];
  return programs.every((program) => existsSync(program)) ? false : 'no DHCP servers could be fetched from Debian';
}

/** A program of these packages, by its path without leading slash. */
export function dhcpProgram(path: string): string {
  return join(LAB, DHCP.root, path);
}

/** The same of those for IPv6. */
export function dhcp6Program(path: string): string {
  return join(LAB, DHCP6.root, path);
}

/** The environment for running them. */
export function dhcpEnvironment(): NodeJS.ProcessEnv {
  const root = join(LAB, DHCP.root);
  const libraries = globSync('{,usr/}lib/*-linux-gnu', { cwd: root }).map((path) => join(root, path));
  return { PATH: process.env.PATH, LD_LIBRARY_PATH: libraries.join(delimiter) };
}

/** Tells what takes time, when it does. */
async function announced(say: (line: string) => void, line: string, action: () => Promise<unknown>): Promise<void> {
  const announcement = setTimeout(() => say(line), 300);
  try {
    await action();
  } finally {
    clearTimeout(announcement);
  }
}

/** A file that a package of the suite brought, by its path without leading slash. */
export function fileOf(suite: Suite, path: string): string {
  return join(LAB, suite, path);
}

/** The path of a program that is neither an engine's nor installed. */
export function programOf(name: keyof typeof BESIDE): string {
  return join(LAB, name, BESIDE[name].program);
}

/**
 * Of programs in Go, most of which end at once: those that an engine runs for each container spend a third of their time on collecting
 * garbage. One that lives collects it when it has so much.
 */
export const COLLECTS_LATE = { GOGC: 'off', GOMEMLIMIT: '192MiB' };

/** The environment for running the programs of a suite and, behind them, those of bookworm. */
export function environmentOf(suite: Suite): NodeJS.ProcessEnv {
  const roots = [...new Set<Suite>([suite, 'bookworm'])].map((name) => join(LAB, name));
  const find = (pattern: string) =>
    roots.flatMap((root) => globSync(pattern, { cwd: root }).map((path) => join(root, path)));
  return {
    PATH: [...find('{,usr/}{sbin,bin}'), '/usr/local/sbin', '/usr/sbin', '/usr/bin', '/sbin', '/bin'].join(delimiter),
    LD_LIBRARY_PATH: find('{,usr/}lib/*-linux-gnu').join(delimiter),
    XTABLES_LIBDIR: find('usr/lib/*-linux-gnu/xtables').join(delimiter),
    ...COLLECTS_LATE,
  };
}

/** A root file system with busybox under all its names, for `docker import`. */
async function makeBusyboxArchive(): Promise<void> {
  const root = await mkdtemp(join(tmpdir(), 'busybox-'));
  const busybox = join(root, 'bin/busybox');
  for (const name of ['bin', 'dev', 'etc', 'proc', 'root', 'sys', 'tmp']) await mkdir(join(root, name));
  await copyFile(fileOf('bookworm', 'bin/busybox'), busybox);
  const { stdout } = await run(busybox, ['--list']);
  const applets = stdout
    .trim()
    .split('\n')
    .filter((name) => name !== 'busybox');
  for (const name of applets) await symlink('busybox', join(root, 'bin', name));
  await run('tar', ['--directory', root, '--create', '--file', `${root}.tar`, '.']);
  await copyFile(`${root}.tar`, `${BUSYBOX_ARCHIVE}.${process.pid}`);
  await rename(`${BUSYBOX_ARCHIVE}.${process.pid}`, BUSYBOX_ARCHIVE);
  for (const path of [root, `${root}.tar`]) await rm(path, { recursive: true });
}

function isInPath(command: string): boolean {
  const directories = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/sbin'];
  return directories.some((directory) => existsSync(join(directory, command)));
}

async function aptGet(...args: string[]): Promise<void> {
  await run('apt-get', args, { env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }, timeout: 300_000 });
}
