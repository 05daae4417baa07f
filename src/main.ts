/** The daemon from start to end: settings → store → kernel → drivers → socket → recovery; stops cleanly on a signal. */
import { IpamDriver } from './ipam/driver.ts';
import { Links } from './kernel/link.ts';
import { createLog, type Log } from './log.ts';
import { NetworkDriver } from './network/driver.ts';
import { createCalls } from './server/calls.ts';
import { PluginServer } from './server/server.ts';
import type { Settings } from './settings.ts';
import { openLocalStore } from './store/local.ts';
import type { Store } from './store/store.ts';
import { VERSION } from './version.ts';

export interface Daemon {
  /** Finishes calls in flight and acknowledged deletions, then closes everything. */
  stop(): Promise<void>;
}

/** Listens at once; calls wait until what the host lost is rebuilt. Throws a sentence when it cannot start. */
export async function startDaemon(settings: Settings, log: Log): Promise<Daemon> {
  const store = openLocalStore(settings.stateDirectory);
  try {
    return await startWithStore(settings, log, store);
  } catch (error) {
    await store.close();
    throw error;
  }
}

async function startWithStore(settings: Settings, log: Log, store: Store): Promise<Daemon> {
  const links = Links.open();
  const ipam = new IpamDriver({ store });
  const network = new NetworkDriver({ store, links, hostAddresses: ipam, parentAliases: settings.parents, log });
  const recovered = Promise.withResolvers<void>();
  const calls = createCalls({ network, ipam, scope: settings.scope });
  const server = new PluginServer({ calls, log, ready: recovered.promise });
  try {
    for (const socket of settings.sockets) await server.listen(socket);
  } catch (error) {
    await server.close();
    links.close();
    throw error;
  }
  log.info('listening', { version: VERSION, sockets: settings.sockets, state: settings.stateDirectory });
  network.recover().then(recovered.resolve, (error: unknown) => {
    log.error('recovery failed: every call is refused until the cause is mended', { error: String(error) });
    recovered.reject(error);
  });
  return {
    async stop() {
      await server.close();
      await network.close();
      links.close();
      await store.close();
    },
  };
}

/** Runs until SIGTERM or SIGINT. */
export async function serveUntilSignal(settings: Settings): Promise<void> {
  const log = createLog(settings.logLevel, settings.logFormat);
  const daemon = await startDaemon(settings, log);
  const signal = await new Promise<string>((resolve) => {
    for (const name of ['SIGTERM', 'SIGINT'] as const) process.once(name, resolve);
  });
  log.info('stopping', { signal });
  await daemon.stop();
}
