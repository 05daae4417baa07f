/** What is to happen in a world, as plain data: drawn from a seed, and made smaller by leaving steps out. */
import type { WriteFault } from './disk.ts';
import type { Family } from './kernel/address.ts';
import { Random } from './random.ts';
import type { Kind } from './strangers.ts';
import { SUBNETS, familiesOf, rangeOf, rangeOfFamily } from './subnets.ts';

/** One thing that is done to the world. */
export type Step = { readonly atMs: number } & (
  | { readonly do: 'start'; readonly host: number; readonly container: string; readonly wanted: string | null }
  | { readonly do: 'stop'; readonly host: number; readonly container: string }
  | { readonly do: 'take' | 'leave'; readonly stranger: number; readonly address: string }
  | { readonly do: 'act'; readonly stranger: number; readonly forMs: number }
  | { readonly do: 'sleep stranger'; readonly stranger: number; readonly forMs: number }
  | { readonly do: 'kill daemon' | 'stop daemon'; readonly host: number; readonly forMs: number }
  | { readonly do: 'kill daemon after'; readonly host: number; readonly steps: number; readonly forMs: number }
  | { readonly do: 'freeze daemon after'; readonly host: number; readonly steps: number; readonly forMs: number }
  | { readonly do: 'sleep host' | 'kill engine'; readonly host: number; readonly forMs: number }
  | {
      readonly do: 'cut cable' | 'cut power';
      readonly host: number;
      readonly forMs: number;
      readonly blockedMs: number;
    }
  | { readonly do: 'block port'; readonly host: number; readonly forMs: number }
  | { readonly do: 'split'; readonly host: number; readonly forMs: number }
  | { readonly do: 'fail disk'; readonly host: number; readonly forMs: number }
  | {
      readonly do: 'break disk';
      readonly host: number;
      /** Changes of a record that succeed before. */
      readonly changes: number;
      readonly how: WriteFault;
      /** The daemon is killed with that write. */
      readonly kills: boolean;
      readonly forMs: number;
    }
  | { readonly do: 'set clock'; readonly host: number; readonly byMs: number }
  | { readonly do: 'cut etcd'; readonly host: number; readonly forMs: number }
  | { readonly do: 'save etcd' | 'restore etcd' | 'compact etcd' }
  | { readonly do: 'fill etcd' | 'behead etcd'; readonly forMs: number }
  | { readonly do: 'change leader' }
  | { readonly do: 'kill leader after'; readonly steps: number; readonly forMs: number }
  | { readonly do: 'kill leading engine'; readonly forMs: number }
  | { readonly do: 'stray member'; readonly member: number; readonly forMs: number }
);

/** Ports that deliver to the NIC alone, or admit no other's frames either. */
export interface Filter {
  readonly how: 'delivery' | 'security';
  /** The hosts have a route by a router on the LAN. */
  readonly hasRouter: boolean;
}

/** The world that it happens in. */
export interface Scenario {
  readonly seed: string;
  readonly hosts: readonly { readonly isDockersIpam: boolean; readonly gateway: string }[];
  /** The hosts share an etcd; then it alone decides, for the LAN is asked only where it cannot (PROBE=off). */
  readonly isShared: boolean;
  /** The hosts are managers of a swarm, of which one leads and gives out the addresses of all (SCOPE=global). */
  readonly isSwarm: boolean;
  /** Without, daemons do not ask the LAN (PROBE=off). */
  readonly asksLan: boolean;
  /** Nobody tells daemons when a socket can be read, as where Node lends no libuv: they look into it by the time. */
  readonly looksByTime?: boolean;
  /** What the ports of the hosts let through, and whether somebody is there whom the hosts know (lan.ts). */
  readonly filter: Filter | null;
  readonly strangers: readonly { readonly kind: Kind }[];
  readonly family: Family | 'both';
  /** PROBE_RATE of all daemons; 0 for the usual one. */
  readonly probeRate: number;
  /** How many addresses the range has. */
  readonly addresses: number;
  readonly quality: 'good' | 'slow' | 'lossy';
  readonly lengthMs: number;
  readonly steps: readonly Step[];
}

export const GATEWAY = `${SUBNETS.IPv4.prefix}1`;

/** Of what there are many, and of what few, is drawn anew for each seed: a few faults together find more than all at once. */
export function drawScenario(seed: string): Scenario {
  const random = new Random(seed).fork('scenario');
  const shape = drawShape(random, seed);
  if (!seed.includes(LIFE)) return { ...shape, steps: drawSteps(random, shape) };
  const steps = drawLife(random, { ...shape, lengthMs: LIFE_MS });
  return { ...shape, lengthMs: (steps.at(-1)?.atMs ?? 0) + DAY_MS, steps };
}

function drawShape(random: Random, seed: string): Shape {
  if (seed.startsWith(SHARED)) return drawShared(random, seed);
  return seed.startsWith(SWARM) ? drawSwarm(random, seed) : drawAlone(random, seed);
}

/** Seeds of hosts that share an etcd begin so: `etcd 7`. */
export const SHARED = 'etcd ';
/** Those of a swarm: `swarm 7`. */
export const SWARM = 'swarm ';
/** What is drawn for `timer etcd 7` is what is drawn for `etcd 7`, and daemons look by the time. */
export const BY_TIME = /^timer /;
/** In seeds with this word, `life 7` or `etcd life 7`, about a year passes: something happens every few days. */
export const LIFE = 'life ';

const DAY_MS = 24 * 3_600_000;
/** Without what lies between two bursts in any case. */
const LIFE_MS = 182 * DAY_MS;
const LEAST_PAUSE_MS = 2 * DAY_MS;
const LONGEST_PAUSE_MS = 4 * DAY_MS;

type Shape = Omit<Scenario, 'steps'>;

/** So many of the worlds are behind switches that allow few frames. */
const SLOW = 0.2;
const SLOW_RATE = 25;
/** So many of the worlds without etcd know no IPv4. */
const IPV6 = 0.2;
/** Of the others so many know both families, and so many are behind ports that filter. */
const BOTH = 0.15;
const FILTERED = 0.08;
const WITH_ROUTER = 0.7;
/** So many of the worlds without etcd have one more stranger, of a kind that is rare. */
const RARE = 0.12;

/** Hosts that have nothing but the LAN in common. */
function drawAlone(random: Random, seed: string): Shape {
  const count = random.pick([1, 1, 1, 2, 2, 2, 2, 3]);
  const family = drawFamily(random);
  const gateway = `${SUBNETS[family === 'IPv6' ? family : 'IPv4'].prefix}1`;
  return {
    seed,
    isShared: false,
    isSwarm: false,
    asksLan: true,
    filter: drawFilter(random.fork('filter'), family),
    hosts: Array.from({ length: count }, () => ({ isDockersIpam: random.chance(0.25), gateway })),
    family,
    probeRate: random.fork('rate').chance(SLOW) ? SLOW_RATE : 0,
    strangers: [
      ...Array.from({ length: random.int(1, 4) }, () => ({ kind: random.weighted(STRANGERS) })),
      ...drawRare(random.fork('rare')),
    ],
    quality: random.weighted({ good: 8, slow: 1, lossy: 1 }),
    addresses: random.pick([8, 8, 16, 32]),
    lengthMs: random.pick([40_000, 120_000, 400_000, 1_500_000]),
  };
}

function drawFamily(random: Random): Family | 'both' {
  if (random.fork('family').chance(IPV6)) return 'IPv6';
  return random.fork('both families').chance(BOTH) ? 'both' : 'IPv4';
}

/** With IPv6 an answer goes to all, and passes such a port. */
function drawFilter(random: Random, family: Family | 'both'): Filter | null {
  if (family !== 'IPv4' || !random.chance(FILTERED)) return null;
  return { how: random.pick(['delivery', 'delivery', 'security']), hasRouter: random.chance(WITH_ROUTER) };
}

function drawRare(random: Random): { kind: Kind }[] {
  return random.chance(RARE) ? [{ kind: random.pick(['many', 'babbler']) }] : [];
}

const STRANGERS = {
  quiet: 4,
  announcing: 2,
  masked: 1,
  late: 1,
  proxy: 1,
  builtin: 2,
  dhcp: 2,
  forger: 1,
  scanner: 1,
  flooder: 1,
};

/** Hosts that share an etcd. One may name a gateway of its own in the range. */
function drawShared(random: Random, seed: string): Shape {
  const gatewayInside = random.chance(0.4) ? '192.168.77.66' : GATEWAY;
  return {
    seed,
    isShared: true,
    isSwarm: false,
    asksLan: false,
    filter: null,
    family: 'IPv4',
    probeRate: 0,
    hosts: Array.from({ length: random.int(2, 3) }, (_, index) => ({
      isDockersIpam: false,
      gateway: index === 0 ? gatewayInside : GATEWAY,
    })),
    strangers: [],
    quality: 'good',
    addresses: random.pick([8, 8, 16]),
    lengthMs: random.pick([120_000, 400_000]),
  };
}

/** Managers of a swarm, each of which runs tasks too. */
function drawSwarm(random: Random, seed: string): Shape {
  const asksLan = random.chance(0.3);
  return {
    seed,
    isShared: false,
    isSwarm: true,
    asksLan,
    filter: null,
    family: 'IPv4',
    probeRate: 0,
    hosts: Array.from({ length: random.int(2, 3) }, () => ({ isDockersIpam: false, gateway: GATEWAY })),
    strangers: asksLan ? [{ kind: 'quiet' }] : [],
    quality: 'good',
    addresses: random.pick([8, 8, 16]),
    lengthMs: random.pick([120_000, 400_000]),
  };
}

const USUAL_OF_SWARM = { start: 10, stop: 6 };
const FAULTS_OF_SWARM = {
  'change leader': 3,
  'kill leader after': 4,
  'kill leading engine': 1,
  'kill engine': 1,
  'kill daemon': 1,
  'kill daemon after': 2,
  'freeze daemon after': 1,
  'break disk': 1,
};
const USUAL = { start: 10, stop: 5, take: 8, leave: 5, act: 1 };
const USUAL_OF_SHARED = { start: 10, stop: 4 };
const FAULTS = {
  'sleep stranger': 2,
  'kill daemon': 1,
  'stop daemon': 1,
  'kill daemon after': 4,
  'freeze daemon after': 4,
  'sleep host': 1,
  'kill engine': 1,
  'cut cable': 2,
  'block port': 1,
  split: 1,
  'fail disk': 0.5,
  'set clock': 1,
};
const FAULTS_OF_SHARED = {
  'kill daemon': 2,
  'kill daemon after': 4,
  'freeze daemon after': 4,
  'sleep host': 1,
  'kill engine': 1,
  'cut etcd': 2,
  'save etcd': 2,
  'restore etcd': 2,
  'compact etcd': 1,
  'fill etcd': 1,
  'behead etcd': 1,
  'stray member': 1,
};

/** Faults that few scenarios, or bursts of a life, have. */
interface Rare {
  readonly hasPowerCuts: boolean;
  readonly hasBadDisks: boolean;
}

/** What is usual in a world, and its faults. */
function weightsOf({ isShared, isSwarm }: Shape): readonly [Record<string, number>, Record<string, number>] {
  if (isSwarm) return [{ ...USUAL_OF_SWARM }, FAULTS_OF_SWARM];
  return isShared ? [{ ...USUAL_OF_SHARED }, FAULTS_OF_SHARED] : [{ ...USUAL }, FAULTS];
}

/** Of some kinds nothing happens, of others much: no fault at all, or one to three kinds. */
function drawWeights(random: Random, shape: Shape, rare: Rare): Record<string, number> {
  const [weights, faults] = weightsOf(shape);
  const kinds = random.chance(0.3) ? 0 : random.int(1, 3);
  for (let count = 0; count < kinds; count++) {
    const kind = random.pick(Object.keys(faults));
    weights[kind] = (faults[kind] ?? 1) * random.int(1, 3);
    if (kind === 'restore etcd') weights['save etcd'] = 2;
  }
  if (rare.hasPowerCuts && !shape.isSwarm) weights['cut power'] = 1;
  if (rare.hasBadDisks) weights['break disk'] = 1;
  return weights;
}

/** Much at once, then nothing for days: a burst has other kinds of faults than the last, or none. */
function drawLife(random: Random, shape: Shape): Step[] {
  const steps: Step[] = [];
  let pausesMs = 0;
  for (let dayMs = FIRST_STEP_MS; dayMs < shape.lengthMs; dayMs += random.between(DAY_MS / 24, LONGEST_PAUSE_MS)) {
    const hasPowerCuts = random.chance(POWER_CUTS);
    const hasBadDisks = random.fork(`bad disk ${Math.round(dayMs)}`).chance(BAD_DISKS);
    const weights = drawWeights(random, shape, { hasPowerCuts, hasBadDisks });
    const pauseMs = random.pick([100, 700, 3000]);
    let atMs = dayMs;
    for (let count = random.int(2, MOST_IN_BURST); count > 0; count--) {
      steps.push(...drawStep(random, shape, random.weighted(weights) as Step['do'], Math.round(atMs) + pausesMs));
      atMs += random.chance(0.5) ? random.between(0, 60) : random.between(0, 2 * pauseMs);
    }
    pausesMs += LEAST_PAUSE_MS;
  }
  return steps.toSorted((one, other) => one.atMs - other.atMs);
}

/** So many of the scenarios, or of the bursts of a life, have them. */
const POWER_CUTS = 0.15;
const BAD_DISKS = 0.12;
const MOST_IN_BURST = 12;

function drawSteps(random: Random, shape: Shape): Step[] {
  const hasPowerCuts = random.fork('power').chance(POWER_CUTS);
  const weights = drawWeights(random, shape, { hasPowerCuts, hasBadDisks: random.fork('bad disk').chance(BAD_DISKS) });
  const steps: Step[] = [];
  const pauseMs = random.pick([100, 700, 3000, 12_000]);
  for (let atMs = FIRST_STEP_MS; atMs < shape.lengthMs; ) {
    steps.push(...drawStep(random, shape, random.weighted(weights) as Step['do'], Math.round(atMs)));
    // Things happen together, and then nothing does for a while.
    atMs += random.chance(0.5) ? random.between(0, 60) : random.between(0, 2 * pauseMs);
  }
  return steps.toSorted((one, other) => one.atMs - other.atMs);
}

const FIRST_STEP_MS = 6000;

function drawStep(random: Random, shape: Shape, kind: Step['do'], atMs: number): Step[] {
  const host = random.int(0, shape.hosts.length - 1);
  const stranger = random.int(0, Math.max(0, shape.strangers.length - 1));
  const addresses = rangeOf(shape);
  const low = familiesOf(shape).flatMap((family) => rangeOfFamily(shape.addresses, family).slice(0, 6));
  const address = random.pick(random.chance(0.6) ? low : addresses);
  const container = `c${random.int(1, 6)}`;
  const shortly = random.pick([5, 50, 300, 2000, 9000, 40_000]) * random.between(0.5, 1.5);
  const steps = random.int(1, 120);
  switch (kind) {
    case 'start':
      return [{ atMs, do: kind, host, container, wanted: random.chance(0.35) ? address : null }];
    case 'stop':
      return [{ atMs, do: kind, host, container }];
    case 'take':
    case 'leave':
      return [{ atMs, do: kind, stranger, address }];
    case 'act':
      return [{ atMs, do: kind, stranger, forMs: random.between(500, 20_000) }];
    case 'sleep stranger':
      return [{ atMs, do: kind, stranger, forMs: shortly }];
    case 'kill daemon after':
    case 'freeze daemon after':
      return [
        { atMs, do: 'start', host, container, wanted: random.chance(0.5) ? address : null },
        { atMs: atMs + 1, do: kind, host, steps, forMs: shortly },
      ];
    case 'cut cable':
    case 'cut power':
      return [{ atMs, do: kind, host, forMs: shortly, blockedMs: random.pick([0, 0, 2000, 30_000]) }];
    case 'set clock':
      return [{ atMs, do: kind, host, byMs: random.pick([-36_000_000, -60_000, 60_000, 36_000_000]) }];
    case 'break disk':
      return [
        {
          atMs,
          do: kind,
          host,
          changes: random.int(0, 12),
          how: random.pick(['full', 'broken']),
          kills: random.chance(0.3),
          forMs: random.between(500, 20_000),
        },
      ];
    case 'kill leader after':
      return [
        { atMs, do: 'start', host, container, wanted: null },
        { atMs: atMs + 1, do: kind, steps, forMs: random.pick([500, 3000, 30_000]) * random.between(0.5, 1.5) },
      ];
    case 'kill leading engine':
      return [{ atMs, do: kind, forMs: shortly }];
    case 'change leader':
    case 'save etcd':
    case 'restore etcd':
    case 'compact etcd':
      return [{ atMs, do: kind }];
    case 'fill etcd':
    case 'behead etcd':
      return [{ atMs, do: kind, forMs: shortly }];
    case 'stray member':
      return [{ atMs, do: kind, member: random.int(0, 2), forMs: 40_000 }];
    default:
      return [{ atMs, do: kind, host, forMs: shortly }];
  }
}

/** One line of a story. */
export function tell(step: Step, { strangers }: Scenario): string {
  const { atMs, do: verb, ...rest } = step;
  const words = Object.entries(rest).flatMap(([key, value]) => {
    if (key === 'host' || key === 'stranger' || value === null) return [];
    return [`${key === 'forMs' ? 'for' : key} ${typeof value === 'number' ? Math.round(value) : value}`];
  });
  const who = whoOf(step, strangers);
  return `${(atMs / 1000).toFixed(3).padStart(9)} s  ${who}${verb} ${words.join(', ')}`;
}

function whoOf(step: Step, strangers: Scenario['strangers']): string {
  if ('stranger' in step) return `stranger${step.stranger + 1} (${strangers[step.stranger]?.kind}): `;
  return 'host' in step ? `host${step.host + 1}: ` : '';
}
