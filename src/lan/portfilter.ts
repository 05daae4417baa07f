/**
 * Ports that deliver frames to the NIC's own MAC address only: of virtual switches (VMware, Hyper-V), of clouds, of switches
 * with port security. From a link of our own we ask there, and hear no answer. Nor do the containers, but that is for the
 * administrator to mend; that an address is free must not be concluded from silence.
 *
 * It is found out by asking hosts that are known to be there, the gateway and others of the host's neighbour table, from
 * our own MAC address and from the parent's. When only the second is answered, again and again, the port filters.
 */
import { type Address, formatAddress, parseAddress } from '../address.ts';
import { LatestMap } from '../bounded.ts';
import type { Clock } from '../clock.ts';
import type { Link, Links, Neighbour } from '../kernel/link.ts';
import { BROADCAST_MAC } from './frames/ethernet.ts';
import type { Port } from './port.ts';
import type { Ports } from './ports.ts';

/** What the knowledge about ports comes from, and whom it is told. */
interface PortFiltersSpec {
  readonly links: Pick<Links, 'neighbours' | 'routes'>;
  readonly ports: Ports;
  readonly clock: Clock;
  /** The port of this parent was found to filter, or not to filter any more. */
  readonly onChange: (parentName: string, isFiltered: boolean) => void;
}

/** A host that is known to be there. */
interface Reference {
  readonly address: Address;
  readonly macAddress: string;
}

/** What was found out counts for this long, and that nothing could be found out for that long. */
const KNOWN_MS = 600_000;
const UNKNOWN_MS = 30_000;
const MOST_REFERENCES = 3;
const MOST_PARENTS = 256;
/** So often only the parent has to be answered: one lost frame is no filter. */
const ROUNDS = 3;
/** States in which somebody is likely to be there, the surest first (RFC 4861 7.3.2). */
const LIKELY_STATES = ['reachable', 'permanent', 'delay', 'probe', 'stale'];

/** What is known about the ports of all parents. */
export class PortFilters {
  readonly #spec: PortFiltersSpec;
  readonly #filtered = new Set<string>();
  /** By parent: until when nothing has to be found out. */
  readonly #knownUntilMs = new LatestMap<string, number>(MOST_PARENTS);
  readonly #checks = new SharedReadings<boolean>();

  constructor(spec: PortFiltersSpec) {
    this.#spec = spec;
  }

  /** Whether the parent's port was found to deliver to the parent's MAC address only. */
  isFiltered(parentName: string): boolean {
    return this.#filtered.has(parentName);
  }

  /** The same, found out now where it is not known. 0.3 s at most, and mostly as fast as the LAN answers. Never rejects. */
  check(parent: Link, stop: AbortSignal): Promise<boolean> {
    const { clock } = this.#spec;
    const untilMs = this.#knownUntilMs.get(parent.name) ?? Number.NEGATIVE_INFINITY;
    if (clock.nowMs() < untilMs) return Promise.resolve(this.isFiltered(parent.name));
    return this.#checks.get(parent.name, () => this.#learn(parent, stop));
  }

  /** All parents with such a port. */
  filtered(): string[] {
    return [...this.#filtered];
  }

  /** Something happened to the parent's LAN: it may have another port now. */
  outdate(parentName: string): void {
    this.#knownUntilMs.delete(parentName);
  }

  async #learn(parent: Link, stop: AbortSignal): Promise<boolean> {
    const found = await this.#ask(parent, stop).catch(() => null);
    const forMs = found === null ? UNKNOWN_MS : KNOWN_MS;
    this.#knownUntilMs.put(parent.name, this.#spec.clock.nowMs() + forMs);
    if (found !== null && found !== this.isFiltered(parent.name)) {
      if (found) this.#filtered.add(parent.name);
      else this.#filtered.delete(parent.name);
      this.#spec.onChange(parent.name, found);
    }
    return this.isFiltered(parent.name);
  }

  /** Null when it cannot be told: nobody is known, or nobody answers. */
  async #ask(parent: Link, stop: AbortSignal): Promise<boolean | null> {
    const references = await this.#references(parent);
    if (references.length === 0) return null;
    const { ports } = this.#spec;
    const [link, own] = await Promise.all([ports.get(parent, 'bridge', stop), ports.get(parent, 'passthru', stop)]);
    // Where the kernel allows no link of ours everything is asked from the parent.
    if (link.macAddress === own.macAddress) return false;
    for (let round = 0; round < ROUNDS; round++) {
      const ownAnswer = isAnswered(own, references);
      if (await isAnswered(link, references)) return false;
      if (!(await ownAnswer)) return null;
    }
    return true;
  }

  /**
   * Gateways first, which are there if anybody is. Of IPv4, since an answer to an IPv6 probe goes to all (RFC 4861 7.2.4),
   * and comes through such a port.
   */
  async #references({ index }: Link): Promise<Reference[]> {
    const { links } = this.#spec;
    const [neighbours, routes] = await Promise.all([links.neighbours(index, 'IPv4'), links.routes()]);
    const gateways = routes.flatMap(({ linkIndex, gateway }) =>
      linkIndex === index && gateway !== null ? gateway : [],
    );
    const isGateway = ({ address }: Reference) => gateways.includes(formatAddress(address));
    const known = LIKELY_STATES.flatMap((state) =>
      neighbours.filter((one) => one.state === state).flatMap(toReference),
    );
    const [first, others] = [known.filter(isGateway), known.filter((one) => !isGateway(one))];
    return [...first, ...unknownGateways(gateways, first), ...others].slice(0, MOST_REFERENCES);
  }
}

function toReference({ address, macAddress }: Neighbour): Reference[] {
  return macAddress === null ? [] : [{ address, macAddress }];
}

/** All are asked for those that the table does not have. */
function unknownGateways(gateways: readonly string[], known: readonly Reference[]): Reference[] {
  const missing = new Set(gateways);
  for (const { address } of known) missing.delete(formatAddress(address));
  const addresses = [...missing].flatMap((text) => parseAddress(text) ?? []);
  return addresses.filter(({ family }) => family === 'IPv4').map((address) => ({ address, macAddress: BROADCAST_MAC }));
}

/** As soon as one has answered. */
async function isAnswered(port: Port, references: readonly Reference[]): Promise<boolean> {
  const asked = references.map(async ({ address, macAddress }) => {
    if ((await port.ask(address, macAddress)) === null) throw new Error('no answer');
  });
  return Promise.any(asked).then(
    () => true,
    () => false,
  );
}

/** Readings that many want at the same time: one serves all who ask while it lasts. */
class SharedReadings<T> {
  readonly #running = new Map<string, Promise<T>>();

  /** What a reading of `key` answers: that which is under way, else a new one. Rejects for all of them when it fails. */
  get(key: string, read: () => Promise<T>): Promise<T> {
    const running = this.#running.get(key);
    if (running !== undefined) return running;
    const reading = read().finally(() => this.#running.delete(key));
    this.#running.set(key, reading);
    return reading;
  }
}
