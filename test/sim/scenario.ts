/** What is to happen in a world, as plain data: drawn from a seed, and made smaller by leaving steps out. */
import type { Family } from './kernel/address.ts';
import { Random } from './random.ts';
import type { Kind } from './strangers.ts';

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
  | { readonly do: 'set clock'; readonly host: number; readonly byMs: number }
  | { readonly do: 'cut etcd'; readonly host: number; readonly forMs: number }
  | { readonly do: 'save etcd' | 'restore etcd' | 'compact etcd' }
  | { readonly do: 'fill etcd' | 'behead etcd'; readonly forMs: number }
  | { readonly do: 'stray member'; readonly member: number; readonly forMs: number }
);

/** The world that it happens in. */
export interface Scenario {
  readonly seed: string;
  readonly hosts: readonly { readonly isDockersIpam: boolean; readonly gateway: string }[];
  /** The hosts share an etcd; then it alone decides, for the LAN is asked only where it cannot (PROBE=off). */
  readonly isShared: boolean;
  readonly strangers: readonly { readonly kind: Kind }[];
  readonly family: Family;
  /** PROBE_RATE of all daemons; 0 for the usual one. */
  readonly probeRate: number;
  /** How many addresses the range has. */
  readonly addresses: number;
  readonly quality: 'good' | 'slow' | 'lossy';
  readonly lengthMs: number;
  readonly steps: readonly Step[];
}

/** The subnet of all networks, by family. */
export const SUBNETS = {
  IPv4: { subnet: '192.168.77.0/24', prefix: '192.168.77.', prefixLength: 24, bits: 32, radix: 10 },
  IPv6: { subnet: 'fd00:77::/64', prefix: 'fd00:77::', prefixLength: 64, bits: 128, radix: 16 },
} as const;
export const GATEWAY = `${SUBNETS.IPv4.prefix}1`;
const FIRST = 64;

/** The addresses of the range. */
export function rangeOf({ addresses, family }: Pick<Scenario, 'addresses' | 'family'>): string[] {
  const { prefix, radix } = SUBNETS[family];
  return Array.from({ length: addresses }, (_, position) => `${prefix}${(FIRST + position).toString(radix)}`);
}

/** The same for an engine. */
export function subpoolOf(scenario: Pick<Scenario, 'addresses' | 'family'>): string {
  return `${rangeOf(scenario)[0]}/${SUBNETS[scenario.family].bits - Math.log2(scenario.addresses)}`;
}

/** Of what there are many, and of what few, is drawn anew for each seed: a few faults together find more than all at once. */
export function drawScenario(seed: string): Scenario {
  const random = new Random(seed).fork('scenario');
  const shape = seed.startsWith(SHARED) ? drawShared(random, seed) : drawAlone(random, seed);
  if (!seed.includes(LIFE)) return { ...shape, steps: drawSteps(random, shape) };
  const steps = drawLife(random, { ...shape, lengthMs: LIFE_MS });
  return { ...shape, lengthMs: (steps.at(-1)?.atMs ?? 0) + DAY_MS, steps };
}

/** Seeds of hosts that share an etcd begin so: `etcd 7`. */
export const SHARED = 'etcd ';
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

/** Hosts that have nothing but the LAN in common. */
function drawAlone(random: Random, seed: string): Shape {
  const count = random.pick([1, 1, 1, 2, 2, 2, 2, 3]);
  const family = random.fork('family').chance(IPV6) ? 'IPv6' : 'IPv4';
  const gateway = `${SUBNETS[family].prefix}1`;
  return {
    seed,
    isShared: false,
    hosts: Array.from({ length: count }, () => ({ isDockersIpam: random.chance(0.25), gateway })),
    family,
    probeRate: random.fork('rate').chance(SLOW) ? SLOW_RATE : 0,
    strangers: Array.from({ length: random.int(1, 4) }, () => ({ kind: random.weighted(STRANGERS) })),
    quality: random.weighted({ good: 8, slow: 1, lossy: 1 }),
    addresses: random.pick([8, 8, 16, 32]),
    lengthMs: random.pick([40_000, 120_000, 400_000, 1_500_000]),
  };
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

/** Of some kinds nothing happens, of others much: no fault at all, or one to three kinds. */
function drawWeights(random: Random, { isShared }: Shape, hasPowerCuts: boolean): Record<string, number> {
  const weights: Record<string, number> = { ...(isShared ? USUAL_OF_SHARED : USUAL) };
  const faults: Record<string, number> = isShared ? FAULTS_OF_SHARED : FAULTS;
  const kinds = random.chance(0.3) ? 0 : random.int(1, 3);
  for (let count = 0; count < kinds; count++) {
    const kind = random.pick(Object.keys(faults));
    weights[kind] = (faults[kind] ?? 1) * random.int(1, 3);
    if (kind === 'restore etcd') weights['save etcd'] = 2;
  }
  if (hasPowerCuts) weights['cut power'] = 1;
  return weights;
}

/** Much at once, then nothing for days: a burst has other kinds of faults than the last, or none. */
function drawLife(random: Random, shape: Shape): Step[] {
  const steps: Step[] = [];
  let pausesMs = 0;
  for (let dayMs = FIRST_STEP_MS; dayMs < shape.lengthMs; dayMs += random.between(DAY_MS / 24, LONGEST_PAUSE_MS)) {
    const weights = drawWeights(random, shape, random.chance(POWER_CUTS));
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
const MOST_IN_BURST = 12;

function drawSteps(random: Random, shape: Shape): Step[] {
  const weights = drawWeights(random, shape, random.fork('power').chance(POWER_CUTS));
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
  const address = random.pick(random.chance(0.6) ? addresses.slice(0, 6) : addresses);
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
