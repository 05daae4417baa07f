/** The daemon from start to end: store → kernel → drivers → socket → recovery, and back. */
import { resolve } from 'node:path';
import { type Address, formatAddress, parseAddress } from './address.ts';
import { Collector } from './collector.ts';
import { IpamDriver } from './ipam/driver.ts';
import { Guesses } from './ipam/guesses.ts';
import { PoolLan } from './ipam/poollan.ts';
import { Links } from './kernel/link.ts';
import { DhcpClient } from './lan/dhcp/dhcpclient.ts';
import { IPv6Client } from './lan/dhcp/ipv6client.ts';
import { type FoundConflict, Lan } from './lan/lan.ts';
import { Prober } from './lan/prober.ts';
import type { Profile } from './lan/timing.ts';
import type { Verdict } from './lan/verdict.ts';
import type { Log } from './log.ts';
import type { Conflict } from './model.ts';
import { Looking } from './looking.ts';
import { NetworkDriver } from './network/driver.ts';
import { EndpointLan } from './network/endpointlan.ts';
import { Endpoints } from './network/endpoints.ts';
import { IPv6Addresses } from './network/ipv6.ts';
import { gatewaysOfHost } from './network/gateways.ts';
import { type ConflictVerbs, createCalls } from './server/calls.ts';
import { Serial } from './serial.ts';
import { PluginServer } from './server/server.ts';
import { isWhereEnginesLook } from './server/socket.ts';
import type { LiveSettings, Settings } from './settings.ts';
import { Conflicts } from './store/conflicts.ts';
import { Contests } from './store/contests.ts';
import { isInCluster } from './store/etcd/identity.ts';
import { openLocalStore } from './store/local.ts';
import { readSnapshot } from './store/snapshot.ts';
import type { Store } from './store/store.ts';
import { VERSION } from './version.ts';

/** A daemon that runs in this process. */
export interface Daemon {
  /** See PluginServer.listenAgain(). */
  listenAgain(): Promise<void>;
  /** Goes by these settings from now on. */
  change(settings: LiveSettings): void;
  /** Finishes calls in flight and acknowledged deletions, then closes everything. */
  stop(): Promise<void>;
}

/** How often names and MAC addresses that are unused are looked for. */
const FORGET_MS = 3_600_000;

/** A call that waits for a DHCP server needs so much beside. */
const BESIDE_SERVER_MS = 2000;

/** Listens at once; calls wait until what the host lost is rebuilt. Throws a sentence when it cannot start. */
export async function startDaemon(settings: Settings, log: Log): Promise<Daemon> {
  const looking = await Looking.open(settings, log);
  const store = looking.overhear(await openStore(settings, looking.log));
  try {
    return await startWithStore(settings, log, store, looking);
  } catch (error) {
    await store.close();
    throw error;
  }
}

/** What talks to etcd is loaded only where it is used. */
async function openStore({ stateDirectory, cluster }: Settings, log: Log): Promise<Store> {
  if (cluster === null && isInCluster(stateDirectory))
    log.warn(
      'STORE is local, and this host shared addresses in etcd: it does not see what others have, nor they what it gets; set STORE again, or run tsmacvlan store migrate --from etcd://… --to local',
    );
  if (cluster === null) return openLocalStore(stateDirectory);
  const { openClusterStore } = await import('./store/etcd/store.ts');
  return openClusterStore(stateDirectory, cluster, log);
}

async function startWithStore(given: Settings, plainLog: Log, store: Store, looking: Looking): Promise<Daemon> {
  const { log } = looking;
  // Whoever goes by what may change keeps this, and looks into it each time.
  const settings = { ...given, parents: new Map(given.parents) };
  const change = ({ parents, defends, conflict }: LiveSettings) => {
    Object.assign(settings, { defends, conflict });
    settings.parents.clear();
    for (const [alias, link] of parents) settings.parents.set(alias, link);
  };
  const tell = settings.logsNetlink ? (line: string) => log.info(`netlink: ${line}`) : null;
  const links = Links.open(tell, (error) =>
    log.error('a change of a link was not understood', { error: String(error) }),
  );
  const endpoints = new Endpoints(store.endpoints);
  const conflicts = new Conflicts(store.conflicts);
  const lan = new Lan({
    links,
    usualProfile: settings.probe,
    // Hosts without etcd give out what those that have it learn of later.
    ...(settings.cluster?.fallsBack && { leastProfile: 'fast' as const }),
    mostFrames: settings.probeRate,
    settings,
    speaker: (parentName, macAddress, address) => {
      const endpoint = endpoints.speaker(parentName, macAddress, address);
      return endpoint && { isLeaving: endpoint.state === 'deleting' };
    },
    record: (conflict) => record(conflict, conflicts),
    ended: (parent, address) => conflicts.end({ parent, address: formatAddress(address) }),
    onBack: () => startStandby(),
    log,
    // A conflict is told by its record.
    conflictLog: plainLog,
    onProbe: looking.noteProbe,
  });
  const contests = new Contests({ store, conflicts, forget: (address) => forgetConflicts(address, lan), log });
  const poolLan = new PoolLan({
    lan,
    store,
    aliases: settings.parents,
    settings,
    log,
  });
  const ipam: IpamDriver = new IpamDriver({
    store,
    probe: poolLan.probe,
    keeper: poolLan,
    rememberDays: settings.remember,
    hostGateways: () => gatewaysOfHost(links),
    log,
    server: {
      patienceMs: settings.dhcpTimeout * 1000 + BESIDE_SERVER_MS,
      learn: (parent, limit) => network.addressServer.learn(parent, limit),
      lease: (wanted) => network.addressServer.lease(wanted),
      returned: (networkId, address) => network.addressServer.returned(networkId, address),
    },
    // Built below, over this one: the rooms do not know each other.
    endpoints: {
      isGone: (endpointId) => network.isGone(endpointId),
      hasEnded: (endpointId) => network.hasEnded(endpointId),
      hasAddress: (endpointId, address) => network.hasAddress(endpointId, address),
      dropAddress: (endpointId, address) => network.dropAddress(endpointId, address),
    },
  });
  const guesses = new Guesses({
    keeper: poolLan,
    isUsed: (parent, address) => endpoints.withAddress(parent, address).some(({ state }) => state !== 'deleting'),
  });
  const startStandby = (networkId?: string) =>
    void Promise.all([ipam.startStandby(networkId), guesses.start(networkId)]).catch((error: unknown) =>
      log.error('no addresses are kept ready; starts wait for a probe', { error: String(error) }),
    );
  const network: NetworkDriver = new NetworkDriver({
    store,
    endpoints,
    links,
    lan: new EndpointLan(lan, guesses, settings, log),
    dhcp: new DhcpClient({
      links,
      lan,
      timeout: settings.dhcpTimeout,
      log,
      onExchange: looking.noteExchange,
    }),
    ipv6: new IPv6Addresses({
      source: new IPv6Client({ links, lan, timeout: settings.dhcpTimeout, log, onExchange: looking.noteExchange }),
      log,
      now: () => new Date(),
    }),
    hostAddresses: ipam,
    parentAliases: settings.parents,
    log,
    onCreated: startStandby,
  });
  // The network room first: with an endpoint goes what held its addresses.
  const leaks = new Collector({ sources: [network, ipam], log });
  const telling = new Serial();
  const listening = Promise.withResolvers<void>();
  const recovery = listening.promise
    .then(() => network.recover())
    .then(() => {
      leaks.start();
      conflicts.start();
      void askAgain(conflicts, lan).catch(() => undefined);
      startStandby();
    });
  // Not before the clock of a machine that has just booted is set.
  const forgetting = setInterval(() => {
    for (const room of [ipam, network]) void room.forgetUnused().catch(() => undefined);
  }, FORGET_MS).unref();
  const server = new PluginServer({
    calls: createCalls({
      network,
      ipam,
      leaks,
      conflicts: clearing(conflicts, lan),
      scope: settings.scope,
      // One at a time: an answer of ten thousand leases takes five megabytes.
      state: { read: (tables) => telling.run('', () => readSnapshot(settings.stateDirectory, tables)) },
      filteredParents: () => lan.filteredParents(),
      health: () => looking.health(),
    }),
    log,
    ready: recovery,
    durable: () => store.durable(),
    noteCall: looking.noteCall,
    watchers: looking.watchers,
  });
  looking.begin({
    links,
    endpoints,
    filteredParents: () => lan.filteredParents(),
    poolUses: () => ipam.poolUses(),
    contests,
    recovered: recovery,
  });
  const stop = async () => {
    await server.close();
    await looking.stop();
    clearInterval(forgetting);
    // A signal during the start: what recovery has begun it ends.
    await recovery.catch(() => undefined);
    await leaks.stop();
    await network.close();
    await ipam.close();
    await guesses.close();
    await lan.close();
    contests.stop();
    await conflicts.stop();
    links.close();
    await store.close();
  };
  try {
    const [first = '', ...others] = settings.sockets;
    await server.listen(first);
    for (const socket of others) await server.listen(socket, 'ALIAS_SOCKET');
  } catch (error) {
    listening.reject(error);
    await stop();
    throw error;
  }
  log.info('listening', { version: VERSION, sockets: settings.sockets, state: settings.stateDirectory });
  const [socket = ''] = settings.sockets;
  if (!isWhereEnginesLook(socket))
    log.warn('no engine finds a driver at this socket, unless a .spec file in /etc/docker/plugins names it', {
      socket: resolve(socket),
      todo: 'set SOCKET to /run/docker/plugins/NAME.sock',
    });
  recovery.catch((error: unknown) =>
    log.error('recovery failed: every call is refused until the cause is gone', { error: String(error) }),
  );
  listening.resolve();
  const listenAgain = async () => {
    await server.listenAgain();
    await looking.tend();
  };
  return { stop, change, listenAgain };
}

async function record(found: FoundConflict, conflicts: Conflicts): Promise<void> {
  const {
    kind = 'address',
    parentName: parent,
    macAddress,
    ourMacAddress,
    hostLinkName: hostLink = null,
    count,
  } = found;
  const address = formatAddress(found.address);
  await conflicts.record({ kind, parent, address, macAddress, ourMacAddress, hostLink }, count);
}

function forgetConflicts(address: string | null, lan: Lan): void {
  const known = address === null ? null : parseAddress(address);
  if (known !== undefined) lan.forgetConflicts(known);
}

/** What is forgotten is news when it shows again. */
function clearing(conflicts: Conflicts, lan: Lan): ConflictVerbs {
  return {
    async clear({ address }) {
      forgetConflicts(address, lan);
      const cleared = await conflicts.clear(address);
      suspectAll(cleared, lan);
      return { count: cleared.length };
    },
  };
}

/** Nobody listened until now: who took an address meanwhile, and who has one still. */
async function askAgain(conflicts: Conflicts, lan: Lan): Promise<void> {
  lan.recheck();
  suspectAll(await conflicts.lasting(), lan);
}

/** Who had an address may have it still. With the container's own MAC address his answer would look like the container's. */
function suspectAll(conflicts: readonly Conflict[], lan: Lan): void {
  for (const { kind, parent, address: text, macAddress, ourMacAddress, endedAt } of conflicts) {
    const address = parseAddress(text);
    if (address === undefined || kind !== 'address' || macAddress === ourMacAddress || endedAt !== null) continue;
    lan.suspect(parent, address);
  }
}

/** One question from the command line, beside a running daemon or without one. Throws the signal's reason when it is aborted. */
export async function askLan(
  parentName: string,
  address: Address,
  profile: Profile,
  signal?: AbortSignal,
): Promise<Verdict> {
  const links = Links.open();
  const prober = new Prober({ links });
  try {
    // Bridge mode hears most: the wire and the siblings that other programs made.
    return await prober.probe({ parentName, mode: 'bridge', address, profile, isOwn: () => false, guardMs: 0, signal });
  } finally {
    await prober.close();
    links.close();
  }
}
