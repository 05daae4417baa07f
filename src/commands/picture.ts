/** Where the page gets its pictures: the records, Docker's names, the doctor's findings, and with `--cluster` what other hosts have. */
import { hostname, networkInterfaces } from 'node:os';
import { parseAddress } from '../address.ts';
import { holderOf } from '../contested.ts';
import type { EngineInventory } from '../engine/inventory.ts';
import * as errors from '../errors.ts';
import type { Conflict, Endpoint } from '../model.ts';
import type { Picture, PictureConflict } from '../page/picture.ts';
import type { SharedNode } from '../store/etcd/nodes.ts';
import type { Diagnosis } from './diagnosis.ts';
import { EMPTY, namingOf, readInventory } from './docker.ts';
import { findTroubles } from './doctor.ts';
import type { HostAddress } from './findings.ts';
import { type AddressElsewhere, gridsOf } from './picturegrids.ts';
import { type NewsSource, toldByDaemon, toldByStore } from './picturenews.ts';
import { type TreeFacts, treeOf } from './picturetree.ts';
import { settingsHere } from './places.ts';
import { readPoolUses } from './pooluses.ts';
import { daemonToAsk, readRecords } from './records.ts';
import { vendorOf } from './vendor.ts';

/** The doctor asks the LAN, and etcd has all hosts to serve: neither is asked again before this is over. */
const SELDOM_MS = 10_000;

type Troubles = ReadonlyMap<string, readonly Diagnosis[]>;

/** What is asked now and then, beside the pictures. A failure keeps what was known. */
class Seldom<T> {
  readonly #ask: () => Promise<T>;
  readonly #restMs: () => number;
  #known: T;
  #failure: string | null = null;
  #asking: Promise<void> | null = null;
  #nextMs = 0;

  /** `restMs`: until it is asked again, unless it expires. */
  constructor(nothing: T, ask: () => Promise<T>, restMs = () => SELDOM_MS) {
    this.#known = nothing;
    this.#ask = ask;
    this.#restMs = restMs;
  }

  /** It is time. */
  expire(): void {
    this.#nextMs = 0;
  }

  /** Begins to ask where it is time; what it brings is in a later picture, unless it is waited for. */
  async current(isAwaited: boolean): Promise<T> {
    if (performance.now() >= this.#nextMs) this.#asking ??= this.#again();
    if (isAwaited) await this.#asking;
    return this.#known;
  }

  /** Why it could not be asked; null otherwise. */
  get failure(): string | null {
    return this.#failure;
  }

  async #again(): Promise<void> {
    this.#nextMs = Number.POSITIVE_INFINITY;
    try {
      this.#known = await this.#ask();
      this.#failure = null;
    } catch (error) {
      this.#failure = error instanceof Error ? error.message : String(error);
    }
    // What it expired by meanwhile may not be in it.
    this.#nextMs = Math.min(this.#nextMs, performance.now() + this.#restMs());
    this.#asking = null;
  }
}

/** Makes pictures, one after the other. */
export class PictureSource {
  readonly #isCluster: boolean;
  readonly #isLive: boolean;
  readonly #doctor = new Seldom<Troubles>(new Map(), findTroubles);
  readonly #others = new Seldom<readonly AddressElsewhere[]>([], readElsewhere, () =>
    this.#storeNews?.isHeard === true ? Number.POSITIVE_INFINITY : SELDOM_MS,
  );
  readonly #daemonNews = toldByDaemon();
  readonly #storeNews: NewsSource | null;
  /** By the first three bytes. */
  readonly #vendors = new Map<string, string | null>();
  #inventory: { readonly names: EngineInventory; readonly at: string } | null = null;
  #silence: string | null = null;

  /** `isLive`: more pictures follow, so that none waits for what takes long. */
  constructor({ isCluster, isLive }: { readonly isCluster: boolean; readonly isLive: boolean }) {
    this.#isCluster = isCluster;
    this.#isLive = isLive;
    this.#storeNews = isCluster ? toldByStore() : null;
  }

  /** Whether each change of a network or a container is told: then pictures need not follow each other fast. */
  get isTold(): boolean {
    return this.#daemonNews.isHeard;
  }

  /** Calls back whenever a picture may be another one, until the signal. */
  async follow(tell: () => void, signal: AbortSignal): Promise<void> {
    const expire = () => {
      this.#others.expire();
      tell();
    };
    await Promise.all([this.#daemonNews.listen(tell, signal), this.#storeNews?.listen(expire, signal)]);
  }

  /** Throws why the records cannot be read. */
  async take(): Promise<Picture> {
    const at = new Date().toISOString();
    const tables = ['networks', 'endpoints', 'pools', 'leases', 'names', 'conflicts', 'tenancies'] as const;
    // At once: each of them may have to wait for a Docker that hangs.
    const [{ filteredParents, ...records }, socket, troubles, elsewhere] = await Promise.all([
      readRecords(...tables),
      daemonToAsk(),
      this.#doctor.current(!this.#isLive),
      this.#isCluster ? this.#others.current(!this.#isLive) : [],
      this.#askDocker(at),
    ]);
    const { known } = namingOf(this.#inventory?.names ?? EMPTY, true);
    const leased = new Map(records.leases.map(({ endpointId, name }) => [endpointId, name]));
    const facts: TreeFacts = {
      records,
      own: ownAddresses(),
      elsewhere,
      uses: await readPoolUses(records),
      networkName: ({ id }) => errors.escapeControls(known.networks.get(id) ?? errors.short(id)),
      containerName: (id) => errors.escapeControls(known.containers.get(id) ?? leased.get(id) ?? errors.short(id)),
      stopped: known.stopped,
      filteredParents,
      troubles: writtenTroubles(troubles),
    };
    return {
      at,
      host: hostname(),
      remarks: [...(socket === null ? [errors.noDaemonInPicture().message] : []), ...this.#remarks()],
      tree: treeOf(facts),
      grids: gridsOf(facts),
      conflicts: this.#conflictsOf(records.conflicts, facts),
    };
  }

  /** A Docker that is away for a moment takes no names away. */
  async #askDocker(at: string): Promise<void> {
    let silence: string | null = null;
    const names = await readInventory((sentence) => (silence = sentence));
    this.#silence = silence;
    if (silence === null) this.#inventory = { names, at };
  }

  #remarks(): string[] {
    const silence = this.#silence === null ? [] : [this.#silence];
    const old =
      this.#silence !== null && this.#inventory !== null ? [errors.namesAreOld(this.#inventory.at).message] : [];
    const others = [this.#doctor.failure, this.#others.failure].filter((one) => one !== null);
    return [...(old.length > 0 ? old : silence), ...others];
  }

  #conflictsOf(conflicts: readonly Conflict[], facts: TreeFacts): PictureConflict[] {
    const { endpoints } = facts.records;
    const sorted = [...conflicts].sort((a, b) => b.seenAt.localeCompare(a.seenAt));
    return sorted.map((conflict) => {
      const { kind, parent, address, ourMacAddress, count, firstSeenAt, seenAt, endedAt } = conflict;
      const container = endpoints.find((one) => isOf(one, parent, ourMacAddress));
      return {
        id: `${kind} ${parent} ${address} ${conflict.macAddress}`,
        address,
        parent,
        container: container === undefined ? '' : facts.containerName(container.id),
        holder: errors.escapeControls(this.#holder(conflict)),
        count,
        firstSeenAt,
        seenAt,
        endedAt,
      };
    });
  }

  /** With the vendor, for whom a list of some megabytes is read once. */
  #holder(conflict: Conflict): string {
    const { macAddress, kind } = conflict;
    const holder = holderOf(conflict);
    const prefix = macAddress.slice(0, 8);
    if (!this.#vendors.has(prefix)) this.#vendors.set(prefix, vendorOf(macAddress));
    const vendor = this.#vendors.get(prefix) ?? null;
    const words = holder === macAddress && vendor !== null ? `${holder} (${vendor})` : holder;
    return kind === 'mac' ? `${words}, with the container's MAC address` : words;
  }
}

function isOf({ parent, macAddress, state }: Endpoint, where: string, ourMacAddress: string | null): boolean {
  return parent === where && macAddress === ourMacAddress && state !== 'deleting';
}

function ownAddresses(): HostAddress[] {
  return Object.entries(networkInterfaces()).flatMap(([linkName, addresses = []]) =>
    addresses.map(({ address, mac }) => ({ linkName, macAddress: mac, address })),
  );
}

function writtenTroubles(troubles: Troubles): TreeFacts['troubles'] {
  const written = [...troubles].map(([id, all]) => {
    const some = all.map(({ level, says, todo }) => ({
      level: level === 'failure' ? ('failure' as const) : ('warning' as const),
      says: errors.escapeControls(says),
      todo: errors.escapeControls(todo),
    }));
    return [id, some] as const;
  });
  return new Map(written);
}

/** Of the shared store, but for what this host has. Throws USAGE where STORE is local. */
async function readElsewhere(): Promise<AddressElsewhere[]> {
  const { cluster, stateDirectory } = settingsHere();
  if (cluster === null) throw errors.storeIsLocal();
  const [{ readShared }, { readNodes }] = await Promise.all([
    import('../store/etcd/migrate.ts'),
    import('../store/etcd/nodes.ts'),
  ]);
  const [shared, nodes] = await Promise.all([readShared(cluster), readNodes(cluster, stateDirectory)]);
  const hosts = nodes.map(({ host }) => host);
  const nameOf = ({ node, host, isAlive }: SharedNode) => {
    if (!isAlive) return `${node} (not heard of)`;
    // Hosts may be called alike; nodes are not.
    return host === '' || hosts.filter((one) => one === host).length > 1 ? node : host;
  };
  const names = new Map(nodes.map((one) => [one.node, nameOf(one)]));
  const own = new Set(nodes.filter(({ isThisHost }) => isThisHost).map(({ node }) => node));
  const other = shared.filter(
    (one) => parseAddress(one.address) !== undefined && !one.nodes.some((node) => own.has(node)),
  );
  return other.flatMap(({ realm, address, nodes: holders }) =>
    holders.map((node) => ({ realm, address, host: names.get(node) ?? node })),
  );
}
