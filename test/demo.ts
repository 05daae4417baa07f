/**
 * `make demo`: two Docker hosts on one LAN, in namespaces of their own, told as a session at their shells. Everything
 * shown is what really came out; the exit code is 0 only when every fact that is claimed held.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { styleText } from 'node:util';
import { LAB } from '../plugin/debian.ts';
import { isProbeMac, isStandbyMac } from '../src/lan/frames/mac.ts';
import { LabBrowser, withoutBrowser } from './lab/browser.ts';
import { Capture, type Frame } from './lab/capture.ts';
import type { Result } from './lab/command.ts';
import { attachment } from './lab/container.ts';
import { enclose, obstacle, removeCgroups } from './lab/enclosure.ts';
import { lastOf, leftovers } from './lab/invariant.ts';
import { Lan, Namespace } from './lab/namespace.ts';
import { fetchEngines, installTools } from './lab/packages.ts';
import { lookUntil } from './lab/patience.ts';
import { bootMachine, type Machine } from './lab/site.ts';

const ROUTER = '192.168.50.1';
/** A machine of somebody else's, with an address in the middle of what host "one" gives out. */
const PRINTER = { address: '192.168.50.65', macAddress: '3c:22:fb:10:aa:01' };
const NETWORK = `docker network create -d tsmacvlan --ipam-driver tsmacvlan --subnet 192.168.50.0/24 --gateway ${ROUTER} -o parent=lan0`;

/** Where the browser's picture of the page stays after all of this is gone. */
const SCREENSHOT = join(LAB, 'demo/map.png');

const failures: string[] = [];

async function main(): Promise<number> {
  // The hosts still run at the end; they go with this process, which is the last of its enclosure.
  if (process.env.TSMACVLAN_LAB) process.exit(await tell());
  const reason = obstacle();
  if (reason !== undefined) {
    process.stderr.write(`the demo ${reason}\n`);
    return 1;
  }
  await installTools(console.log);
  await fetchEngines(console.log);
  const child = enclose([process.execPath, import.meta.filename], 'inherit');
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => child.kill('SIGKILL'));
  const [code] = (await once(child, 'exit')) as [number | null];
  await removeCgroups();
  return code ?? 130;
}

async function tell(): Promise<number> {
  say(
    'Two Docker hosts, "one" and "two", on one LAN. Both live in namespaces of their own: the Docker and the network',
  );
  say('cards of this machine are not touched.');
  say('');
  say(`  one ──lan0── switch and router ${ROUTER} ──lan0── two`);
  say(`                              │`);
  say(`          a printer, ${PRINTER.address}, ${PRINTER.macAddress}: nobody told Docker of it`);

  const startedMs = performance.now();
  const lan = await Lan.create([`${ROUTER}/24`]);
  const printer = await plugPrinter(lan);
  const [one, two] = await Promise.all([
    bootMachine('one', lan, { version: '20.10.24' }),
    bootMachine('two', lan, { version: '28.5.2' }),
  ]);
  for (const { host, engine } of [one, two]) {
    say(
      `  ${host.name}: Docker ${await engine.must('version', '--format', '{{.Server.Version}}')} and tsmacvlan are up`,
    );
  }
  say(`  (${seconds(performance.now() - startedMs)})`);

  chapter('The same network on both hosts, with a range for each');
  await typed(one, `${NETWORK} --ip-range 192.168.50.64/26 lan`);
  await typed(two, `${NETWORK} --ip-range 192.168.50.128/26 lan`);

  chapter('Containers on the LAN');
  await typed(one, 'docker run -d --name web --network lan --stop-timeout 0 busybox sleep 3600');
  await typed(one, 'docker run -d --name cache --network lan --stop-timeout 0 busybox sleep 3600');
  await typed(two, 'docker run -d --name db --network lan --stop-timeout 0 busybox sleep 3600');
  const web = await attachment(one.engine, 'web', 'lan');
  const cache = await attachment(one.engine, 'cache', 'lan');
  const db = await attachment(two.engine, 'db', 'lan');
  say('');
  say('  container  host  address          MAC address');
  for (const [name, host, { IPAddress, MacAddress }] of [
    ['web', 'one', web],
    ['cache', 'one', cache],
    ['db', 'two', db],
  ] as const) {
    say(`  ${name.padEnd(10)} ${host}   ${IPAddress.padEnd(16)} ${MacAddress}`);
  }

  claim(
    `the printer has ${PRINTER.address}: it was skipped, and nobody had to exclude it`,
    [web, cache].every(({ IPAddress }) => IPAddress !== PRINTER.address) && cache.IPAddress > PRINTER.address,
  );

  chapter('An address that somebody has');
  await mistyped(
    one,
    `docker run --rm --network lan --ip ${PRINTER.address} busybox true`,
    new RegExp(`already used on the LAN by ${PRINTER.macAddress}`),
  );
  await command(one, `who ${PRINTER.address}`, /is used by somebody else on the LAN/);

  chapter('They reach each other across hosts, both ways, and by name on one host');
  const port = one.host.ports.lan0 ?? '';
  const capture = await Capture.start(lan.namespace, port, 'icmp or arp');
  await ping(one, 'web', db.IPAddress);
  await ping(two, 'db', web.IPAddress);
  await ping(one, 'web', 'cache');
  await ping(two, 'db', ROUTER);
  const frames = await capture.stop();

  chapter('On the wire: what the switch saw on the port of host "one"');
  const [bridge] = await lan.namespace.show<{ address: string }>('link show br0');
  const names = new Map([
    [web.MacAddress, 'web'],
    [db.MacAddress, 'db'],
    [cache.MacAddress, 'cache'],
    [PRINTER.macAddress, 'the printer'],
    [bridge?.address ?? '', 'the router'],
  ]);
  const asking = 'tsmacvlan, which asks whether an address is free';
  for (const [sender, count] of countSenders(frames)) {
    const name = names.get(sender) ?? (isProbeMac(sender) || isStandbyMac(sender) ? asking : 'another link of a host');
    say(`  ${sender}  ${String(count).padStart(3)} frames from ${name}`);
  }
  const [parent] = await one.host.namespace.show<{ address: string }>('link show lan0');
  const senders = frames.map(({ sourceMac }) => sourceMac);
  claim(
    'each container speaks with its own MAC address',
    senders.includes(web.MacAddress) && senders.includes(db.MacAddress),
  );
  claim(
    `none of these frames carries the MAC address of the host's lan0, ${parent?.address}`,
    !senders.includes(parent?.address ?? ''),
  );

  chapter('The picture');
  const browser = withoutBrowser() === false ? openBrowser(one) : null;
  for (const machine of [one, two]) await draw(machine);

  chapter('Somebody takes the address of a container that runs');
  const page = await steal(one, printer, cache.IPAddress);

  chapter('A mistake');
  await mistyped(
    one,
    `${NETWORK.replace('lan0', 'lan9')} --ip-range 192.168.50.32/27 second`,
    /parent interface "lan9" does not exist on this host/,
  );
  await mistyped(two, `docker run --rm --network lan --ip ${db.IPAddress} busybox true`, /is used by endpoint/);

  chapter('The page');
  await photograph(one, page, browser);

  chapter('And away again');
  await typed(one, 'docker rm -f web cache');
  await typed(two, 'docker rm -f db');
  for (const machine of [one, two]) {
    await typed(machine, 'docker network rm lan');
    const left = await lastOf(() => leftovers(machine), 3000);
    claim(`no link, address or record is left on host "${machine.host.name}"`, left.length === 0);
    for (const item of left) say(indent(item));
  }

  say('');
  say(
    failures.length === 0
      ? styleText('green', 'All of it held.')
      : styleText('red', `Not held: ${failures.join('; ')}`),
  );
  return failures.length === 0 ? 0 : 1;
}

/** Types a command at a host's shell and shows what it answers. */
async function typed({ host, engine }: Machine, command: string): Promise<string> {
  prompt(host.name, command);
  const { code, stdout, stderr } = await engine.docker(...command.split(' ').slice(1));
  const answer = `${stdout}${stderr}`.trimEnd();
  // Ids of networks and containers say nothing here.
  if (!/^[0-9a-f]{64}$/.test(answer)) say(indent(answer));
  if (code !== 0) failures.push(command);
  return answer;
}

async function ping(machine: Machine, container: string, target: string): Promise<void> {
  const answer = await typed(machine, `docker exec ${container} ping -c 2 ${target}`);
  claim(`${container} reaches ${target}`, / 0% packet loss/.test(answer));
}

async function mistyped({ host, engine }: Machine, command: string, expected: RegExp): Promise<void> {
  prompt(host.name, command);
  const { code, stderr } = await engine.docker(...command.split(' ').slice(1));
  say(indent(stderr.split('\n')[0] ?? ''));
  claim('it is refused with a sentence that says why', code !== 0 && expected.test(stderr));
}

async function plugPrinter(lan: Lan): Promise<Namespace> {
  const printer = await Namespace.create('printer');
  await lan.plug(printer);
  await printer.ip(`link set lan0 address ${PRINTER.macAddress}`);
  await printer.ip(`address add ${PRINTER.address}/24 dev lan0`);
  return printer;
}

/** It starts while the hosts do other things. What keeps it from that is said where it is wanted. */
function openBrowser({ host }: Machine): Promise<LabBrowser> {
  const opened = LabBrowser.open(host.namespace);
  opened.catch(() => undefined);
  return opened;
}

/** Writes the page beside what follows; resolves with its file and what the command said. */
function writePage({ plugin }: Machine): { readonly file: string; readonly written: Promise<Result> } {
  // /run is the host's own, /tmp is not.
  const file = join(tmpdir(), `tsmacvlan-demo-${process.pid}.html`);
  return { file, written: plugin.commandInside('map', '--html', file) };
}

/** What a browser shows of it, as a file of this machine. */
async function photograph(
  { host }: Machine,
  { file, written }: ReturnType<typeof writePage>,
  browser: Promise<LabBrowser> | null,
): Promise<void> {
  prompt(host.name, 'tsmacvlan map --html map.html');
  const { code, stderr } = await written;
  if (code !== 0) say(indent(stderr));
  const html = code === 0 ? readFileSync(file, 'utf8') : '';
  claim(
    'the page has the containers, and who has an address too',
    html.includes('also used by') && html.includes('cache'),
  );
  if (browser === null) return say('    (a browser would show it here; make test-docker fetches one)');
  const open = await browser;
  const page = await open.browser.newPage({ viewport: { width: 1280, height: 720 } });
  await page.goto(`file://${file}`);
  await page.getByText('also used by').first().waitFor();
  mkdirSync(dirname(SCREENSHOT), { recursive: true });
  await page.screenshot({ path: SCREENSHOT, fullPage: true });
  await open.close();
  say(`    in a browser: ${relative(process.cwd(), SCREENSHOT)}`);
}

/**
 * The printer gets another address by mistake, and speaks; `tsmacvlan watch` runs meanwhile. Resolves with the page of that moment,
 * as it is written.
 */
async function steal(machine: Machine, printer: Namespace, address: string): Promise<ReturnType<typeof writePage>> {
  const { host, plugin } = machine;
  prompt(host.name, 'tsmacvlan watch');
  const [program = '', ...words] = host.enter(plugin.commandLine('watch'));
  const watching = spawn(program, words, { stdio: ['ignore', 'pipe', 'ignore'], detached: true });
  let said = '';
  watching.stdout.setEncoding('utf8').on('data', (text: string) => (said += text));
  await lookUntil(() => said.includes('\n'), 20_000);
  await printer.ip(`address add ${address}/24 dev lan0`);
  const isTold = () => said.includes(`cache: ${address} also used by ${PRINTER.macAddress}`);
  const speak = () => printer.run(['ping', '-c', '1', '-W', '1', '-I', address, ROUTER]);
  const isSeen = await lookUntil(async () => isTold() || (await speak(), isTold()), 20_000);
  process.kill(-(watching.pid ?? 0), 'SIGINT');
  say(indent(said.split('\n').find((line) => line.includes(address)) ?? ''));
  claim('the watch names the container, and who has its address too', isSeen);
  const page = writePage(machine);
  await command(machine, 'map', new RegExp(`cache.*also used by ${PRINTER.macAddress}`, 'i'));
  await printer.ip(`address del ${address}/24 dev lan0`);
  return page;
}

async function command({ host, plugin }: Machine, words: string, expected: RegExp): Promise<void> {
  prompt(host.name, `tsmacvlan ${words}`);
  const { stdout } = await plugin.commandInside(...words.split(' '));
  say(indent(stdout));
  claim('it says who', expected.test(stdout));
}

const PICTURE = /^lan0\n.* network lan {2}[^]* (web|db)\n/;

async function draw({ host, plugin }: Machine): Promise<void> {
  prompt(host.name, 'tsmacvlan map');
  const { stdout: picture } = await plugin.commandInside('map');
  say(indent(picture));
  claim('the picture shows the network on its parent, and its containers by name', PICTURE.test(picture));
}

function countSenders(frames: Frame[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const { sourceMac } of frames) counts.set(sourceMac, (counts.get(sourceMac) ?? 0) + 1);
  return counts;
}

function claim(fact: string, held: boolean): void {
  say(held ? styleText('green', `  ✓ ${fact}`) : styleText('red', `  ✗ ${fact}`));
  if (!held) failures.push(fact);
}

function chapter(title: string): void {
  say('');
  say(styleText('bold', title));
}

function prompt(host: string, command: string): void {
  say(`  ${styleText('dim', `${host}$`)} ${command}`);
}

function indent(text: string): string {
  return text.trimEnd().replaceAll(/^(?=.)/gm, '    ');
}

function seconds(durationMs: number): string {
  return `${(durationMs / 1000).toFixed(1)} s`;
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

process.exitCode = await main();
