/**
 * Which files of src/ one call enters: as many as a reader has to open who follows it. `node test/bench/entered.ts` as root.
 *
 * The daemon runs in this process, from its sources, in a network namespace of its own; V8 counts every call of a function
 * (precise coverage), and a file counts when at least one of its functions was called between the request and its answer.
 * That includes what happens beside the call in that time, such as the watch over the LAN; the code of modules themselves
 * has run before, but for those that the call itself loads.
 *
 *     host: the daemon ── lan0 ──┐
 *     stranger: 10.9.0.1, .200 ──┴── br0 (ns "lan")
 */
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { Session } from 'node:inspector/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { startDaemon } from '../../src/main.ts';
import { readSettings } from '../../src/settings.ts';
import { output } from '../lab/command.ts';
import { enclose, outsideLab } from '../lab/enclosure.ts';
import { exchange } from '../lab/exchange.ts';
import { Lan, Namespace } from '../lab/namespace.ts';

const SOURCES = pathToFileURL(join(import.meta.dirname, '../../src/')).href;
const NETWORK = 'a'.repeat(64);
const SILENT = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: console.error };

class Counter {
  readonly #session = new Session();

  async start(): Promise<void> {
    this.#session.connect();
    await this.#session.post('Profiler.enable');
    await this.#session.post('Profiler.startPreciseCoverage', { callCount: true, detailed: false });
  }

  /** The files of src/ of which a function was called during `act`, with the number of those functions. */
  async entered(act: () => Promise<unknown>): Promise<Map<string, number>> {
    await this.#session.post('Profiler.takePreciseCoverage');
    await act();
    const { result } = await this.#session.post('Profiler.takePreciseCoverage');
    const files = result.map(({ url, functions }): [string, number] => {
      const called = functions.filter(({ ranges }) => (ranges[0]?.count ?? 0) > 0);
      return [url.slice(SOURCES.length), url.startsWith(SOURCES) ? called.length : 0];
    });
    return new Map(files.filter(([, functions]) => functions > 0).sort(([a], [b]) => (a < b ? -1 : 1)));
  }
}

async function plugStranger(): Promise<void> {
  const lan = await Lan.create();
  const stranger = await Namespace.create('stranger');
  await lan.plug(stranger);
  for (const address of ['10.9.0.1/16', '10.9.0.200/16']) await stranger.ip(`address add ${address} dev lan0`);
  await output(['ip', 'link', 'add', 'lan0', 'type', 'veth', 'peer', 'name', 'port-host', 'netns', 'lan']);
  await lan.namespace.ip('link set port-host master br0 up');
  await output(['ip', 'link', 'set', 'lan0', 'up']);
}

async function measure(): Promise<void> {
  await plugStranger();
  const counter = new Counter();
  await counter.start();
  const directory = mkdtempSync(join(tmpdir(), 'tsmacvlan-entered-'));
  const socket = join(directory, 's.sock');
  const daemon = await startDaemon(readSettings({ SOCKET: socket, STATE_DIR: join(directory, 'state') }), SILENT);
  const call = async (path: string, body: object) => {
    const answer = await exchange(socket, { path: `/${path}`, body: JSON.stringify(body) });
    return JSON.parse(answer.text) as Record<string, unknown>;
  };
  const request = (PoolID: unknown, Address: string) => call('IpamDriver.RequestAddress', { PoolID, Address });
  const pool = { AddressSpace: 'TsmacvlanLocal', Pool: '10.9.0.0/16', SubPool: '', V6: false, Options: {} };
  const { PoolID } = await call('IpamDriver.RequestPool', pool);
  const { Err } = await call('NetworkDriver.CreateNetwork', {
    NetworkID: NETWORK,
    Options: { 'com.docker.network.generic': { parent: 'lan0' }, 'com.docker.network.enable_ipv6': false },
    IPv4Data: [{ AddressSpace: 'TsmacvlanLocal', Pool: '10.9.0.0/16' }],
    IPv6Data: [],
  });
  if (Err !== undefined) throw new Error(JSON.stringify(Err));
  await report(counter, 'RequestAddress 10.9.0.200, which the stranger has', () => request(PoolID, '10.9.0.200'));
  await report(counter, 'RequestAddress, and the stranger has the lowest', () => request(PoolID, ''));
  await daemon.stop();
  rmSync(directory, { recursive: true });
}

async function report(counter: Counter, what: string, act: () => Promise<Record<string, unknown>>): Promise<void> {
  let answer: Record<string, unknown> = {};
  const files = await counter.entered(async () => void (answer = await act()));
  console.log(`\n${what}: ${files.size} files entered; answer ${JSON.stringify(answer)}`);
  for (const [file, functions] of files) console.log(`  ${file} (${functions})`);
}

if (outsideLab())
  process.exitCode = (
    (await once(enclose([process.execPath, import.meta.filename], 'inherit'), 'exit')) as [number]
  )[0];
else await measure();
