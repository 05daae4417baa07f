/**
 * Directed scenarios: one short story, in which a daemon is killed or stands still after each of its steps in turn. A step is one
 * event of its process, so between two of them lies each of its awaits.
 */
import { GATEWAY, type Scenario, type Step } from './scenario.ts';

/** More than a start has. */
const STEPS = 160;
/** How long it is away: others may start meanwhile, or their start comes first. */
const AWAY_MS = { kill: [1500], freeze: [40, 1500, 12_000] } as const;

export type Fault = keyof typeof AWAY_MS;

/** All of them, by name: `kill 17 1500`. */
export function sweepSeeds(): string[] {
  return Object.entries(AWAY_MS).flatMap(([fault, times]) =>
    times.flatMap((forMs) => Array.from({ length: STEPS }, (_, step) => `${fault} ${step + 1} ${forMs}`)),
  );
}

/** The scenario of such a name; null when it is none. */
export function drawSweep(seed: string): Scenario | null {
  const [, fault, steps, forMs] = seed.match(/^(kill|freeze) (\d+) (\d+)$/) ?? [];
  if (fault === undefined) return null;
  return { ...SHAPE, seed, steps: story(fault as Fault, Number(steps), Number(forMs)) };
}

const SHAPE = {
  hosts: [
    { isDockersIpam: false, gateway: GATEWAY },
    { isDockersIpam: false, gateway: GATEWAY },
  ],
  strangers: [{ kind: 'quiet' }],
  isShared: false,
  family: 'IPv4',
  probeRate: 0,
  addresses: 8,
  quality: 'good',
  lengthMs: 45_000,
} as const satisfies Omit<Scenario, 'seed' | 'steps'>;

/** A host begins to use the next address, the daemon is struck while it gives one out, and another host wants the same. */
function story(fault: Fault, steps: number, forMs: number): Step[] {
  const first = '192.168.77.65';
  return [
    { atMs: 9_900, do: 'take', stranger: 0, address: '192.168.77.64' },
    { atMs: 10_000, do: 'start', host: 0, container: 'c1', wanted: null },
    { atMs: 10_000, do: fault === 'kill' ? 'kill daemon after' : 'freeze daemon after', host: 0, steps, forMs },
    { atMs: 10_020, do: 'start', host: 1, container: 'c2', wanted: first },
    { atMs: 10_060, do: 'take', stranger: 0, address: '192.168.77.66' },
    { atMs: 10_900, do: 'start', host: 1, container: 'c3', wanted: null },
    { atMs: 14_000, do: 'start', host: 0, container: 'c4', wanted: first },
    { atMs: 26_000, do: 'stop', host: 0, container: 'c1' },
    { atMs: 26_300, do: 'start', host: 0, container: 'c5', wanted: null },
    { atMs: 26_400, do: 'start', host: 1, container: 'c6', wanted: null },
  ];
}
