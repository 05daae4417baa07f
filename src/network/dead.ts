/**
 * Endpoints whose container is gone though no DeleteEndpoint came: the engine was killed with it, or gave up while the
 * plugin was away. Docker is not asked; the kernel is. One reading here, and collector.ts waits until two agree.
 *
 * Two witnesses have to say "nobody". A container's link is known wherever it is moved (identity.ts), and the namespaces of
 * containers can be read from here; and the kernel refuses a second link with a MAC address that is in use on a parent.
 * Each alone would be wrong: a link that is down inside its container does not occupy its MAC address, and a namespace
 * below another engine's (docker in docker) or of Linux before 5.0 cannot be read.
 */
import { formatInterfaceAddress } from '../address.ts';
import { short } from '../errors.ts';
import type { Links } from '../kernel/link.ts';
import type { Patience } from '../leak.ts';
import type { Endpoint, Mode, Network } from '../model.ts';
import type { Endpoints } from './endpoints.ts';
import { LinksOfEndpoints } from './identity.ts';
import { isOccupied } from './trial.ts';

export type Cause = 'vanished' | 'returned' | 'unjoined';

/** An endpoint that looks dead at this moment, and how it came to look so. */
export interface DeadEndpoint {
  readonly endpoint: Endpoint;
  readonly cause: Cause;
}

/** What an engine is doing with an endpoint at this moment is left alone. */
const RECENT_MS = 10_000;
/** A container whose interface went with the parent is shown so long, and keeps its address for its next start. */
const LOST_MS = 86_400_000;
/** Each is a link made and deleted, and the kernel deletes many at once in the time of one. */
const TRIALS_AT_ONCE = 32;

/**
 * Those of `endpoints` that look dead now; what changed within the last ten seconds is never among them, nor what was lost with
 * its parent within the last day.
 */
export async function findDead(
  links: Links,
  endpoints: readonly Endpoint[],
  networks: readonly Network[],
  recorded: Pick<Endpoints, 'ageMs' | 'get'>,
): Promise<DeadEndpoint[]> {
  const leastMs = ({ lostAt }: Endpoint) => (lostAt === undefined ? RECENT_MS : LOST_MS);
  const isSettled = (one: Endpoint) => one.state !== 'deleting' && recorded.ageMs(one) >= leastMs(one);
  const settled = endpoints.filter(isSettled);
  if (settled.length === 0) return [];
  const found = await LinksOfEndpoints.of(links, settled, (id) => recorded.get(id));
  const here = await found.here();
  const left = settled.filter((endpoint) => here(endpoint)?.isUp === false);
  const absent = settled.filter((endpoint) => here(endpoint) === undefined);
  const elsewhere = absent.length === 0 ? () => undefined : await found.elsewhere();
  const modes = new Map(networks.map(({ id, options }) => [id, options.mode]));
  const unseen = absent.filter((endpoint) => elsewhere(endpoint) === undefined);
  const vanished = await findVanished(links, unseen, modes);
  return [
    ...vanished.map((endpoint) => ({ endpoint, cause: 'vanished' as const })),
    ...left.map((endpoint) => ({ endpoint, cause: endpoint.state === 'joined' ? 'returned' : 'unjoined' }) as const),
  ];
}

async function findVanished(
  links: Links,
  unseen: readonly Endpoint[],
  modes: ReadonlyMap<string, Mode>,
): Promise<Endpoint[]> {
  const vanished: Endpoint[] = [];
  for (let start = 0; start < unseen.length; start += TRIALS_AT_ONCE) {
    const some = unseen.slice(start, start + TRIALS_AT_ONCE);
    const gone = await Promise.all(
      some.map((endpoint) => isUnoccupied(links, endpoint, modes.get(endpoint.networkId))),
    );
    vanished.push(...some.filter((_, position) => gone[position]));
  }
  return vanished;
}

/** Without its parent nothing is known: it may have been renamed, or moved, with the container's link still on it. */
export async function isUnoccupied(
  links: Links,
  { parent, macAddress }: Endpoint,
  mode: Mode = 'bridge',
): Promise<boolean> {
  const link = await links.byName(parent);
  return link !== undefined && (await isOccupied(links, link, { mode, macAddress })) === false;
}

/** How long it must look like this, and why, in words. */
export function explain({ endpoint, cause }: DeadEndpoint): { patience: Patience; why: string } {
  const { parent, linkName } = endpoint;
  switch (cause) {
    case 'vanished':
      return { patience: 'soon', why: `its link is gone and its MAC address is not in use on ${parent}` };
    case 'returned':
      return {
        patience: 'late',
        why: `its link ${linkName} came back from the container, and no DeleteEndpoint followed`,
      };
    case 'unjoined':
      return { patience: 'late', why: `its link ${linkName} was made, and no Join followed` };
  }
}

/** `7edcda37f0f2 192.168.1.2/24`, for the log and for the list of leaks. */
export function describe(endpoint: Endpoint): string {
  return [short(endpoint.id), ...endpoint.addresses.map(formatInterfaceAddress)].join(' ');
}
