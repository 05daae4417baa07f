/**
 * Directed scenarios: one short story each, in which a daemon is killed or stands still after each of its steps in turn. A step is one
 * event of its process, so between two of them lies each of its awaits.
 */
import type { WriteFault } from './disk.ts';
import { GATEWAY, SWARM, type Scenario, type Step } from './scenario.ts';

/** More than a start has. */
const STEPS = 160;
const STEPS_OF_SHARED = 60;
/** A container that wants the address of one that is being stopped starts so many fifths of a millisecond later. */
const CROSSINGS = 200;
const FIFTH_MS = 0.2;
/** An engine is killed, or a disk fails, at so many moments of a start. With Docker's IPAM it takes longer, for no address is on standby. */
const MOMENTS = 120;
const MOMENT_MS = { own: 1, dockers: 7 } as const;
/** How long it is away: others may start meanwhile, or their start comes first. */
const AWAY_MS = { kill: [1500], freeze: [40, 1500, 12_000] } as const;
/** Writes of a host's disk fail from one of so many changes of a record on; of every two hosts one has Docker's IPAM. */
const CHANGES = 32;
/** An engine is killed at so many milliseconds of a start that takes the last address of its range. */
const CROWDED_MOMENTS = 30;
/** A swarm's leader is struck at so many moments between the request for an address and its task. */
const STEPS_OF_SWARM = 60;
/** A host begins to use addresses at so many moments before and in starts behind ports that filter. */
const FILTERED_MOMENTS = 60;
const FILTERED_MOMENT_MS = 11;
/** After a restore of etcd another host starts so much later. */
const AFTER_RESTORE_MS = [500, 4000, 9000, 11_000, 15_000, 25_000, 40_000, 70_000];

type Fault = keyof typeof AWAY_MS;

/** All of them, by name: `kill 17 1500`, `crossing 12`, `scan 25`. */
export function sweepSeeds(): string[] {
  const struck = Object.entries(AWAY_MS).flatMap(([fault, times]) =>
    times.flatMap((forMs) => numbers(STEPS).map((step) => `${fault} ${step} ${forMs}`)),
  );
  const bothered = Object.keys(BOTHERERS).flatMap((kind) => AFTER_S.map((afterS) => `${kind} ${afterS}`));
  return [
    ...bothered,
    ...numbers(CROSSINGS).map((fifths) => `crossing ${fifths}`),
    ...numbers(MOMENTS).flatMap((moment) => [`engine ${moment}`, `disk ${moment}`]),
    ...numbers(CHANGES).flatMap((change) => [`full ${change}`, `broken ${change}`, `torn ${change}`]),
    ...numbers(CROWDED_MOMENTS).map((moment) => `crowd ${moment}`),
    ...numbers(STEPS).map((step) => `families ${step}`),
    ...numbers(FILTERED_MOMENTS).flatMap((moment) => [`filter ${moment}`, `security ${moment}`]),
    ...struck,
  ];
}

/** Those of hosts that share an etcd: `etcd standstill 17`, `etcd takeover 17`, `etcd restore 11000`. */
export function sharedSweepSeeds(): string[] {
  return [
    ...AFTER_RESTORE_MS.map((afterMs) => `etcd restore ${afterMs}`),
    ...numbers(SETTLING_STEPS).flatMap((moment) => [`etcd gateway ${moment}`, `etcd alarm ${moment}`]),
    ...numbers(CROSSINGS).map((fifths) => `etcd crossing ${fifths}`),
    ...numbers(STEPS_OF_SHARED).flatMap((step) => [`etcd standstill ${step}`, `etcd takeover ${step}`]),
  ];
}

/** Those of a swarm: `swarm request 17`, `swarm election 17`, `swarm return 17`. */
export function swarmSweepSeeds(): string[] {
  return numbers(STEPS_OF_SWARM).flatMap((step) =>
    Object.keys(STORIES_OF_SWARM).map((story) => `${SWARM}${story} ${step}`),
  );
}

function numbers(most: number): number[] {
  return Array.from({ length: most }, (_, position) => position + 1);
}

/** The scenario of such a name; null when it is none. */
export function drawSweep(seed: string): Scenario | null {
  const [, fault, steps, forMs] = seed.match(/^(kill|freeze) (\d+) (\d+)$/) ?? [];
  if (fault !== undefined) return { ...ALONE, seed, steps: silentTaker(fault as Fault, Number(steps), Number(forMs)) };
  const [, kind, afterS] = seed.match(/^(scan|flood|clock) (\d+)$/) ?? [];
  if (kind !== undefined)
    return { ...BOTHERED, ...BOTHERERS[kind as keyof typeof BOTHERERS], seed, steps: bothered(kind, Number(afterS)) };
  const [, swarms, moment] = seed.match(/^swarm (request|election|return) (\d+)$/) ?? [];
  if (swarms !== undefined)
    return { ...OF_SWARM, seed, steps: STORIES_OF_SWARM[swarms as keyof typeof STORIES_OF_SWARM](Number(moment)) };
  const [, quiet, count] = seed.match(/^(churn|day) (\d+)$/) ?? [];
  if (quiet !== undefined) return drawQuiet(seed, quiet as 'churn' | 'day', Number(count));
  const [, isShared, story, number] =
    seed.match(
      /^(etcd )?(crossing|engine|crowd|disk|full|broken|torn|families|filter|security|standstill|takeover|restore|gateway|alarm) (\d+)$/,
    ) ?? [];
  if (story === undefined) return null;
  if (isShared === undefined) return { ...ALONE, ...ofStory(story, Number(number)), seed };
  return { ...SHARED, ...TERMS[story], seed, steps: STORIES[story as keyof typeof STORIES](Number(number)) };
}

/** Of hosts without etcd. Of every two with an engine or a disk one has Docker's IPAM, from which no daemon hears what is given back. */
function ofStory(story: string, number: number): Partial<Scenario> & Pick<Scenario, 'steps'> {
  const isDockersIpam = WITH_DOCKERS_IPAM.includes(story) && isWithDockersIpam(number);
  const host = { ...HOST, isDockersIpam };
  const steps = STORIES[story as keyof typeof STORIES](number);
  return { hosts: [host, host], steps, ...TERMS[story] };
}

function isWithDockersIpam(moment: number): boolean {
  return moment % 2 === 0;
}

function momentMs(moment: number): number {
  return moment * MOMENT_MS[isWithDockersIpam(moment) ? 'dockers' : 'own'];
}

const HOST = { isDockersIpam: false, gateway: GATEWAY };
const WITH_DOCKERS_IPAM = ['engine', 'disk', 'full', 'broken', 'torn'];
/** Long enough for all that was left to be collected, and looked for. */
const COLLECTED = { lengthMs: 900_000 };
const TERMS: Readonly<Record<string, Partial<Scenario>>> = {
  full: COLLECTED,
  broken: COLLECTED,
  torn: COLLECTED,
  crowd: { hosts: [HOST], lengthMs: 730_000 },
  families: { family: 'both', ...COLLECTED },
  filter: { filter: { how: 'delivery', hasRouter: true }, lengthMs: 90_000 },
  security: { filter: { how: 'security', hasRouter: true }, lengthMs: 90_000 },
  gateway: { hosts: [{ ...HOST, gateway: '192.168.77.66' }, HOST, HOST] },
};

const WORLD = {
  family: 'IPv4',
  probeRate: 0,
  addresses: 8,
  quality: 'good',
  isSwarm: false,
  asksLan: true,
  filter: null,
} as const;
const ALONE = {
  ...WORLD,
  hosts: [HOST, HOST],
  strangers: [{ kind: 'quiet' }],
  isShared: false,
  lengthMs: 45_000,
} as const;
const SHARED = {
  ...WORLD,
  hosts: [HOST, HOST, HOST],
  strangers: [],
  isShared: true,
  asksLan: false,
  lengthMs: 300_000,
} as const;
const OF_SWARM = { ...SHARED, isShared: false, isSwarm: true, lengthMs: 900_000 } as const;

const BOTHERED = { ...ALONE, hosts: [HOST], lengthMs: 700_000 } as const;
/** Who asks for all addresses, and who says of each with another MAC address that it is his; the last while the wall clock is wrong. */
const BOTHERERS = {
  scan: { strangers: [{ kind: 'scanner' }] },
  flood: { strangers: [{ kind: 'flooder' }] },
  clock: { strangers: [{ kind: 'flooder' }] },
} as const;
/** So many seconds after that a container starts. */
const AFTER_S = [25, 60, 200, 600];

const WANTED = '192.168.77.65';

const HOUR_MS = 3_600_000;
/** Between two stretches of a day in which something happens. */
const PAUSE_MS = HOUR_MS / 2;

function drawQuiet(seed: string, kind: 'churn' | 'day', count: number): Scenario {
  const steps = kind === 'churn' ? churn(count) : day(count);
  return { ...ALONE, seed, lengthMs: (steps.at(-1)?.atMs ?? 0) + PAUSE_MS, steps };
}

/** One container after the other, and each is gone before the next: of ninety, one thing each is more than a daemon may have (audit.ts). */
function churn(count: number): Step[] {
  return numbers(count).flatMap((number): Step[] => [
    { atMs: 7000 + 3000 * number, do: 'start', host: 0, container: 'c1', wanted: null },
    { atMs: 8500 + 3000 * number, do: 'stop', host: 0, container: 'c1' },
  ]);
}

/** Half an hour passes between things that do not race each other, so that what comes of them does not depend on a random delay. */
function day(count: number): Step[] {
  return numbers(count).flatMap((number): Step[] => {
    const atMs = 10_000 + PAUSE_MS * (number - 1);
    const [before, now] = [`c${number - 1}`, `c${number}`];
    return [
      { atMs, do: 'start', host: 0, container: now, wanted: null },
      { atMs: atMs + 5000, do: 'start', host: 1, container: now, wanted: null },
      { atMs: atMs + 10_000, do: 'stop', host: number % 2, container: before },
      { atMs: atMs + 15_000, do: 'take', stranger: 0, address: `192.168.77.${64 + ((3 * number) % 8)}` },
      { atMs: atMs + 20_000, do: 'kill daemon', host: number % 2, forMs: 2000 },
      { atMs: atMs + 30_000, do: 'cut cable', host: (number + 1) % 2, forMs: 3000, blockedMs: 0 },
    ];
  });
}

/** Somebody bothers the LAN while containers start; when it has been quiet for a while another one does. */
function bothered(kind: string, afterS: number): Step[] {
  const clockSet = (atMs: number, byMs: number): Step[] =>
    kind === 'clock' ? [{ atMs, do: 'set clock', host: 0, byMs }] : [];
  return [
    ...clockSet(8_000, 36_000_000),
    { atMs: 10_000, do: 'act', stranger: 0, forMs: 20_000 },
    { atMs: 12_000, do: 'start', host: 0, container: 'c1', wanted: null },
    { atMs: 14_000, do: 'start', host: 0, container: 'c2', wanted: null },
    ...clockSet(31_000, -36_000_000),
    { atMs: 30_000 + afterS * 1000, do: 'start', host: 0, container: 'c3', wanted: null },
  ];
}

/** A host begins to use the next address, the daemon is struck while it gives one out, and another host wants the same. */
function silentTaker(fault: Fault, steps: number, forMs: number): Step[] {
  return [
    { atMs: 9_900, do: 'take', stranger: 0, address: '192.168.77.64' },
    { atMs: 10_000, do: 'start', host: 0, container: 'c1', wanted: null },
    { atMs: 10_000, do: fault === 'kill' ? 'kill daemon after' : 'freeze daemon after', host: 0, steps, forMs },
    { atMs: 10_020, do: 'start', host: 1, container: 'c2', wanted: WANTED },
    { atMs: 10_060, do: 'take', stranger: 0, address: '192.168.77.66' },
    { atMs: 10_900, do: 'start', host: 1, container: 'c3', wanted: null },
    { atMs: 14_000, do: 'start', host: 0, container: 'c4', wanted: WANTED },
    { atMs: 26_000, do: 'stop', host: 0, container: 'c1' },
    { atMs: 26_300, do: 'start', host: 0, container: 'c5', wanted: null },
    { atMs: 26_400, do: 'start', host: 1, container: 'c6', wanted: null },
  ];
}

/** Writes fail from a change on, the daemon may be killed with it, and when there is room again others start. */
function writesFail(change: number, how: WriteFault, kills: boolean): Step[] {
  return [
    { atMs: 10_000, do: 'break disk', host: 0, changes: change >> 1, how, kills, forMs: 8000 },
    { atMs: 10_010, do: 'start', host: 0, container: 'c1', wanted: null },
    { atMs: 12_000, do: 'start', host: 0, container: 'c2', wanted: WANTED },
    { atMs: 14_000, do: 'stop', host: 0, container: 'c1' },
    { atMs: 15_000, do: 'stop', host: 0, container: 'c2' },
    { atMs: 19_000, do: 'start', host: 1, container: 'c3', wanted: WANTED },
    { atMs: 40_000, do: 'start', host: 0, container: 'c4', wanted: null },
    { atMs: 42_000, do: 'stop', host: 0, container: 'c4' },
    { atMs: 44_000, do: 'start', host: 0, container: 'c5', wanted: null },
  ];
}

/** Somebody takes addresses around a start, behind ports at which his answers arrive at the NIC alone, and once more while a cable is out. */
function filtered(moment: number): Step[] {
  return [
    { atMs: 6_000, do: 'take', stranger: 0, address: '192.168.77.64' },
    { atMs: 10_000, do: 'start', host: 0, container: 'c1', wanted: null },
    { atMs: 9_800 + moment * FILTERED_MOMENT_MS, do: 'take', stranger: 0, address: WANTED },
    { atMs: 10_010, do: 'start', host: 0, container: 'c2', wanted: '192.168.77.66' },
    { atMs: 10_020, do: 'start', host: 1, container: 'c3', wanted: '192.168.77.66' },
    { atMs: 14_000, do: 'start', host: 1, container: 'c4', wanted: null },
    { atMs: 16_000, do: 'cut cable', host: 0, forMs: 3000, blockedMs: 0 },
    { atMs: 17_000, do: 'take', stranger: 0, address: '192.168.77.66' },
    { atMs: 60_000, do: 'start', host: 1, container: 'c5', wanted: '192.168.77.64' },
  ];
}

const STORIES_OF_SWARM = {
  /** The leader's daemon is killed in the middle of a request for a task's address, which its engine repeats. */
  request: (steps: number): Step[] => [
    { atMs: 10_000, do: 'start', host: 0, container: 'c1', wanted: null },
    { atMs: 12_000, do: 'start', host: 1, container: 'c2', wanted: null },
    { atMs: 14_000, do: 'start', host: 2, container: 'c3', wanted: null },
    { atMs: 14_000, do: 'kill leader after', steps, forMs: 1500 },
    { atMs: 22_000, do: 'start', host: 1, container: 'c4', wanted: null },
    { atMs: 24_000, do: 'stop', host: 1, container: 'c2' },
  ],
  /** The leader's engine is killed between the request and the task; the next one claims what is in use. */
  election: (moment: number): Step[] => [
    { atMs: 10_000, do: 'start', host: 1, container: 'c1', wanted: null },
    { atMs: 12_000, do: 'start', host: 2, container: 'c2', wanted: null },
    { atMs: 14_000, do: 'start', host: 1, container: 'c3', wanted: null },
    { atMs: 14_000 + moment * ELECTION_MOMENT_MS, do: 'kill leading engine', forMs: 30_000 },
    { atMs: 15_000, do: 'stop', host: 2, container: 'c2' },
    { atMs: 60_000, do: 'start', host: 2, container: 'c4', wanted: null },
    { atMs: 62_000, do: 'start', host: 0, container: 'c5', wanted: null },
  ],
  /** Who led before leads again with books of what was; in the middle of its claims its daemon is killed. */
  return: (steps: number): Step[] => [
    { atMs: 10_000, do: 'start', host: 1, container: 'c1', wanted: null },
    { atMs: 11_000, do: 'start', host: 2, container: 'c2', wanted: null },
    { atMs: 14_000, do: 'change leader' },
    { atMs: 16_000, do: 'stop', host: 1, container: 'c1' },
    { atMs: 17_000, do: 'start', host: 1, container: 'c3', wanted: null },
    { atMs: 18_000, do: 'start', host: 0, container: 'c4', wanted: null },
    { atMs: 22_000, do: 'change leader' },
    { atMs: 24_000, do: 'change leader' },
    { atMs: 24_000, do: 'kill leader after', steps, forMs: 1500 },
    { atMs: 50_000, do: 'start', host: 2, container: 'c5', wanted: null },
    { atMs: 50_100, do: 'start', host: 0, container: 'c6', wanted: null },
  ],
};
const ELECTION_MOMENT_MS = 4;
/** Until a host that is silent counts as lost, in so many steps. */
const SETTLING_MS = 10_000;
const SETTLING_STEPS = 12;

const STORIES = {
  full: (change: number): Step[] => writesFail(change, 'full', false),
  broken: (change: number): Step[] => writesFail(change, 'broken', false),
  torn: (change: number): Step[] => writesFail(change, 'full', true),
  filter: filtered,
  security: filtered,
  /** The second address of a start is refused, for somebody has it, or the daemon is killed in the request for it: the first goes back. */
  families: (steps: number): Step[] => [
    { atMs: 6_000, do: 'take', stranger: 0, address: 'fd00:77::41' },
    { atMs: 10_000, do: 'start', host: 0, container: 'c1', wanted: 'fd00:77::41' },
    { atMs: 22_000, do: 'start', host: 0, container: 'c2', wanted: null },
    { atMs: 22_000, do: 'kill daemon after', host: 0, steps, forMs: 1500 },
    { atMs: 22_020, do: 'start', host: 1, container: 'c3', wanted: 'fd00:77::42' },
    { atMs: 22_060, do: 'take', stranger: 0, address: WANTED },
    { atMs: 30_000, do: 'start', host: 1, container: 'c4', wanted: WANTED },
    { atMs: 44_000, do: 'stop', host: 1, container: 'c3' },
    { atMs: 44_500, do: 'start', host: 0, container: 'c5', wanted: 'fd00:77::42' },
  ],
  /** An address is released and asked for at once; then the other host wants it too. */
  crossing: (fifths: number): Step[] => [
    { atMs: 10_000, do: 'start', host: 0, container: 'c1', wanted: WANTED },
    { atMs: 14_000, do: 'stop', host: 0, container: 'c1' },
    { atMs: 14_000 + fifths * FIFTH_MS, do: 'start', host: 0, container: 'c2', wanted: WANTED },
    { atMs: 18_000, do: 'start', host: 1, container: 'c3', wanted: WANTED },
  ],
  /** An engine is killed in the middle of a start, and what it was told to start is started on the other host. */
  engine: (moment: number): Step[] => [
    { atMs: 10_000, do: 'start', host: 0, container: 'c1', wanted: WANTED },
    { atMs: 10_000 + momentMs(moment), do: 'kill engine', host: 0, forMs: 1500 },
    { atMs: 14_000, do: 'stop', host: 0, container: 'c1' },
    { atMs: 16_000, do: 'start', host: 1, container: 'c2', wanted: WANTED },
  ],
  /** The last address of the range may be given out in an answer that nobody hears, and is nobody's for a while. */
  crowd: (moment: number): Step[] => [
    ...numbers(6).map((count): Step => ({ atMs: 6000, do: 'take', stranger: 0, address: `192.168.77.${63 + count}` })),
    { atMs: 700_000, do: 'start', host: 0, container: 'c1', wanted: null },
    { atMs: 704_000, do: 'take', stranger: 0, address: '192.168.77.70' },
    { atMs: 710_000, do: 'start', host: 0, container: 'c2', wanted: null },
    { atMs: 710_000 + moment, do: 'kill engine', host: 0, forMs: 5 },
  ],
  /** A disk fails in the middle of a start; the container is stopped, and started on the other host. */
  disk: (moment: number): Step[] => [
    { atMs: 10_000, do: 'start', host: 0, container: 'c1', wanted: WANTED },
    { atMs: 10_000 + momentMs(moment), do: 'fail disk', host: 0, forMs: 12_000 },
    { atMs: 14_000, do: 'stop', host: 0, container: 'c1' },
    { atMs: 16_000, do: 'start', host: 1, container: 'c2', wanted: WANTED },
  ],
  /** A daemon stands still in the middle of a start, for so long that its host counts as lost, and another host takes the address. */
  standstill: (steps: number): Step[] => [
    { atMs: 10_000, do: 'start', host: 0, container: 'c1', wanted: WANTED },
    { atMs: 10_000, do: 'freeze daemon after', host: 0, steps, forMs: 84_000 },
    { atMs: 80_000, do: 'start', host: 1, container: 'c2', wanted: WANTED },
  ],
  /** A host is lost and its container runs on. Who takes over its address is killed meanwhile; a third wants it, when all is collected. */
  takeover: (steps: number): Step[] => [
    { atMs: 10_000, do: 'start', host: 0, container: 'c1', wanted: WANTED },
    { atMs: 14_000, do: 'kill daemon', host: 0, forMs: 280_000 },
    { atMs: 60_000, do: 'start', host: 1, container: 'c2', wanted: WANTED },
    { atMs: 60_000, do: 'kill daemon after', host: 1, steps, forMs: 1500 },
    { atMs: 240_000, do: 'start', host: 2, container: 'c3', wanted: WANTED },
  ],
  /** The host that named a gateway in the range is lost, and others fill the range. */
  gateway: (moment: number): Step[] => [
    { atMs: 10_000, do: 'kill daemon', host: 0, forMs: 250_000 },
    ...numbers(8).map((count): Step => {
      const atMs = 40_000 + moment * SETTLING_MS + count * 1000;
      return { atMs, do: 'start', host: 1 + (count % 2), container: `c${count}`, wanted: null };
    }),
  ],
  /** etcd is full while a host is started again, which so cannot say that it is there; when there is room another wants its address. */
  alarm: (moment: number): Step[] => [
    { atMs: 10_000, do: 'start', host: 0, container: 'c1', wanted: WANTED },
    { atMs: 14_000, do: 'fill etcd', forMs: 110_000 },
    { atMs: 20_000, do: 'kill daemon', host: 0, forMs: 2000 },
    { atMs: 124_000 + moment * SETTLING_MS * 0.01, do: 'start', host: 1, container: 'c2', wanted: WANTED },
  ],
  /** etcd is put back to a moment before an address was given out, while the host that has it is cut off from etcd. */
  restore: (afterMs: number): Step[] => [
    { atMs: 9_000, do: 'save etcd' },
    { atMs: 10_000, do: 'start', host: 0, container: 'c1', wanted: null },
    { atMs: 12_000, do: 'cut etcd', host: 0, forMs: 100_000 },
    { atMs: 14_000, do: 'restore etcd' },
    { atMs: 14_000 + afterMs, do: 'start', host: 1, container: 'c2', wanted: null },
  ],
};
