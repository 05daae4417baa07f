/** How networks and containers are called before people: by Docker's names where they are known, else by ids. Pure. */
import { escapeControls, short } from './errors.ts';

/** Docker's names, by id. */
export interface KnownNames {
  readonly networks: ReadonlyMap<string, string>;
  /** The names of running containers, by the id of an endpoint. */
  readonly containers: ReadonlyMap<string, string>;
  /** Containers that do not run, by the network in which they will be when they start. */
  readonly stopped: ReadonlyMap<string, readonly string[]>;
}

/** Where the engine told nothing. */
export const NO_NAMES: KnownNames = { networks: new Map(), containers: new Map(), stopped: new Map() };

/** Characters of a name in a table, whose column is as wide as its widest cell. */
const WIDEST_NAME = 48;

/** `isWhole`: after `--no-trunc`, neither ids nor names are cut. */
export class Naming {
  readonly known: KnownNames;
  readonly isWhole: boolean;

  constructor(known: KnownNames = NO_NAMES, isWhole = false) {
    this.known = known;
    this.isWhole = isWhole;
  }

  /** An id as it is printed. */
  id(id: string): string {
    return this.isWhole ? id : short(id);
  }

  /** A name from anywhere as it is printed. */
  text(name: string): string {
    const safe = escapeControls(name);
    return safe.length > WIDEST_NAME && !this.isWhole ? `${safe.slice(0, WIDEST_NAME - 3)}...` : safe;
  }

  /** The network's name, else its id. */
  network(id: string): string {
    const name = this.known.networks.get(id);
    return name === undefined ? this.id(id) : this.text(name);
  }

  /** The network's name as data; null where it is not known. */
  nameOf(networkId: string): string | null {
    return this.known.networks.get(networkId) ?? null;
  }

  /** The name of the container that has the endpoint; null where it is not known. */
  container(endpointId: string | null): string | null {
    const name = endpointId === null ? undefined : this.known.containers.get(endpointId);
    return name === undefined ? null : this.text(name);
  }

  /** The columns that only `--no-trunc` has. */
  columns(ids: Readonly<Record<string, readonly (string | null)[]>>): Record<string, string> {
    if (!this.isWhole) return {};
    const cells = Object.entries(ids).map(([heading, some]) => {
      const known = some.filter((id) => id !== null);
      return [heading, known.join(' ') || '-'] as const;
    });
    return Object.fromEntries(cells);
  }
}

/** What Docker has now comes last; of what it has no more, the oldest is forgotten: a host may start containers for years. */
export function keepNames(names: Map<string, string>, known: ReadonlyMap<string, string>, mostGone: number): void {
  for (const [id, name] of known) {
    names.delete(id);
    names.set(id, name);
  }
  for (const id of names.keys()) {
    if (names.size <= known.size + mostGone) return;
    names.delete(id);
  }
}
