/**
 * The questions of every day, each answered by one command on a host with an engine, forty containers and a stranger, timed as a
 * person waits for it; and what metrics and a watcher cost the daemon.
 */
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { exchange } from '../lab/exchange.ts';
import { runIdle } from '../lab/container.ts';
import { type Machine, Site } from '../lab/site.ts';
import { type Daemon, makeNetwork, makeParent, residentIn, residentMegabytes, withDaemon } from './daemon.ts';
import { inTurns, progress, type Spread, spread, timeOf } from './figures.ts';
import type { Figure, Report } from './report.ts';

const SOCKET = '/run/docker/plugins/tsmacvlan.sock';
const STRANGER = '192.0.2.65';
const MOST_MS = 300;
const ROUNDS = 5;
const LOOKING_MS = Number(process.env['LOOKING_MS'] ?? 60_000);

/** In the words of who asks, with the command; null for one that is no command of tsmacvlan's. */
const QUESTIONS: readonly (readonly [question: string, command: string | null])[] = [
  ['which container has .70?', 'who 192.0.2.70'],
  ['which network is that id?', 'who NETWORK'],
  ['why does web not reach the LAN?', 'doctor web'],
  ['why was .65 skipped?', `conflicts ${STRANGER}`],
  ['who is .65?', `who ${STRANGER}`],
  ['what is free in my range?', 'pools'],
  ['reserve an address', 'reserve later 192.0.2.200'],
  ['conflicts as they come (until it listens)', 'watch'],
  ['is it well? (Plugin.Health)', null],
  ['back up', 'backup /run/disk/backup'],
  ['the command line, whatever was installed', 'map'],
  ['which commands are there?', '--help'],
  ['help for one command', 'doctor --help'],
  ['what did the driver do for web?', 'who web'],
  ['which settings are there?', 'settings'],
];

/** A host with an engine, forty containers and a stranger; the id of its network. */
async function onFullHost(act: (machine: Machine, id: string) => Promise<void>): Promise<void> {
  const site = await Site.open({ version: '28.5.2', hosts: ['host'], addresses: ['192.0.2.254/24'] });
  try {
    const machine = site.machines[0] as Machine;
    await site.lan.namespace.ip(`address add ${STRANGER}/32 dev br0`);
    const create = 'network create -d tsmacvlan --ipam-driver tsmacvlan -o parent=lan0 --subnet 192.0.2.0/24';
    const id = await machine.engine.must(...create.split(' '), '--gateway', '192.0.2.254', 'lan');
    await runIdle(machine.engine, 'web', '--net lan --ip 192.0.2.70');
    await inTurns(39, 8, (number) => runIdle(machine.engine, `c${number}`, `--net lan --ip 192.0.2.${100 + number}`));
    await machine.engine.docker('run', '--rm', '--net', 'lan', '--ip', STRANGER, 'busybox', 'true');
    await act(machine, id);
  } finally {
    await site.close();
  }
}

/** Every question in turn, some rounds long. */
export async function measureQuestions(what: string, report: Report): Promise<void> {
  await onFullHost(async (machine, id) => {
    const values: Record<string, Spread> = {};
    for (const [question, command] of QUESTIONS) {
      const times: number[] = [];
      for (let round = 0; round < ROUNDS; round++)
        times.push(await answered(machine, command?.replace('NETWORK', id.slice(0, 12)) ?? null));
      values[`${question}  ${command ?? ''}`] = spread(times);
      progress(what, Object.keys(values).length, QUESTIONS.length);
    }
    const over = Object.values(values).filter(({ median }) => median > MOST_MS).length;
    report.add({
      what,
      unit: 'ms',
      values,
      figures: [{ name: `over ${MOST_MS} ms`, value: over, unit: 'x', wanted: 0 }],
    });
  });
}

/** What `map --serve` uses of a core while nothing happens, and its memory: with nobody who looks, with one page, and with eight. */
export async function measurePage(what: string, report: Report): Promise<void> {
  const percent: Record<string, Spread> = {};
  const megabytes: Record<string, Spread> = {};
  await onFullHost(async ({ host, plugin }) => {
    const place = '/run/page.sock';
    const words = plugin.commandLine('map', '--serve', '--listen', `unix:${place}`);
    const map = await host.start('map', words, plugin.environment());
    const closing = new AbortController();
    const read = async (file: string) => (await host.run(['cat', `/proc/${map.pid}/${file}`])).stdout;
    try {
      for (const [pages, name] of [
        [0, 'nobody looks'],
        [1, 'one page'],
        [7, 'eight pages'],
      ] as const) {
        for (let page = 0; page < pages; page++)
          exchange(host.file(place), {
            path: '/events',
            method: 'GET',
            headers: { Host: 'localhost' },
            signal: closing.signal,
          }).catch(() => undefined);
        // Until the first pictures, and the quiet after the news.
        await sleep(10_000);
        const [beganAtMs, beforeMs] = [performance.now(), processorMsIn(await read('stat'))];
        await sleep(LOOKING_MS);
        const usedMs = processorMsIn(await read('stat')) - beforeMs;
        percent[name] = spread([(usedMs / (performance.now() - beganAtMs)) * 100]);
        megabytes[name] = spread([residentIn(await read('status'))]);
      }
    } finally {
      closing.abort();
      await map.kill('SIGTERM');
    }
  });
  const atRest = percent['nobody looks']?.median ?? 0;
  const figures: Figure[] = [{ name: 'while nobody looks', value: atRest, unit: '%', wanted: 0.1 }];
  report.add({ what: `${what}, percent of a core`, unit: '%', values: percent, figures });
  report.add({ what: `${what}, memory`, unit: 'MB', values: megabytes, figures: [] });
}

async function answered({ host, plugin }: Machine, command: string | null): Promise<number> {
  if (command === null) return timeOf(() => exchange(host.file(SOCKET), { path: '/Plugin.Health', method: 'GET' }));
  const words = plugin.commandLine(...command.split(' '));
  const settings = { env: { PATH: process.env.PATH, SOCKET } };
  // It goes on for ever: its first line says that it listens.
  if (command === 'watch') return timeOf(() => host.run(['sh', '-c', '"$@" | head -1', 'sh', ...words], settings));
  return timeOf(() => host.run(words, settings));
}

/** Of two daemons with a network, one of which nobody looks at; at rest, in turns of a minute. */
export async function measureLooking(directory: string, what: string, report: Report): Promise<void> {
  await makeParent();
  const place = '/run/bench-metrics.sock';
  const plain = await withDaemon(`${directory}-plain`, (daemon) => atRest(daemon, LOOKING_MS, async () => undefined));
  await makeParent();
  const seen = await withDaemon(
    `${directory}-seen`,
    async (daemon) => {
      const watcher = new AbortController();
      const watching = exchange('/run/bench.sock', { path: '/Tsmacvlan.Watch', signal: watcher.signal });
      watching.catch(() => undefined);
      const found = await atRest(daemon, LOOKING_MS, async () => {
        await exchange(place, { path: '/metrics', method: 'GET' });
      });
      watcher.abort();
      return found;
    },
    { METRICS: `unix:${place}` },
  );
  const both = { alone: plain, 'metrics and a watcher': seen };
  for (const [unit, field, wanted] of [
    ['MB', 'megabytes', 4],
    ['%', 'percent', 0.2],
  ] as const) {
    const values = Object.fromEntries(Object.entries(both).map(([name, found]) => [name, spread([found[field]])]));
    const figures: Figure[] = [{ name: 'what it costs', value: seen[field] - plain[field], unit, wanted }];
    report.add({ what: `${what}, ${field}`, unit, values, figures });
  }
}

/** Asked every 15 s, as by Prometheus. */
async function atRest(
  daemon: Daemon,
  forMs: number,
  ask: () => Promise<void>,
): Promise<{ megabytes: number; percent: number }> {
  await makeNetwork(daemon);
  // Until the first addresses are on standby, and the code that answers is compiled.
  await ask();
  await sleep(12_000);
  await ask();
  const [beganAtMs, beforeMs] = [performance.now(), processorMs(daemon)];
  while (performance.now() - beganAtMs < forMs) {
    await sleep(Math.min(15_000, forMs));
    await ask();
  }
  const percent = ((processorMs(daemon) - beforeMs) / (performance.now() - beganAtMs)) * 100;
  return { megabytes: residentMegabytes(daemon), percent };
}

function processorMs({ process: { pid } }: Daemon): number {
  return processorMsIn(readFileSync(`/proc/${pid}/stat`, 'utf8'));
}

/** Of all its threads, by its proc_pid_stat(5); the kernel counts hundredths of a second. */
function processorMsIn(stat: string): number {
  const [user = 0, system = 0] = stat.split(') ')[1]?.split(' ').slice(11, 13).map(Number) ?? [];
  return (user + system) * 10;
}
