/** What asking the LAN costs: cold, in a crowd, and in a storm of ARP. */
import { setTimeout as sleep } from 'node:timers/promises';
import { BusyLan, address, measured } from '../lab/busy.ts';
import { progress, timeOf } from './figures.ts';

/** One value for each round. */
export interface LanFigures {
  /** The first question on a parent makes the link that it comes from. */
  readonly coldMs: readonly number[];
  readonly oneMs: readonly number[];
  readonly hundredMs: readonly number[];
  /** Share of a core in percent while an address is guarded, on a quiet LAN and while 10,000 ARP frames a second pass by. */
  readonly quietPercent: readonly number[];
  readonly stormPercent: readonly number[];
}

const ROUNDS = 10;
const LOOK_MS = 2000;
const GUARD_MS = 60_000;

export async function measureLan(): Promise<LanFigures> {
  const lan = await BusyLan.open();
  try {
    const cold = await repeated('cold probe', async () => {
      await lan.cool();
      return timeOf(() => lan.probe(address(1)));
    });
    const crowd = await repeated('probes at once', async () => ({
      oneMs: await timeOf(() => lan.probe(address(1))),
      hundredMs: await timeOf(() => Promise.all(Array.from({ length: 100 }, (_, at) => lan.probe(address(at + 2))))),
    }));
    await lan.probe(address(1), GUARD_MS);
    const quietPercent = await repeated('quiet LAN', share);
    await lan.blow(null);
    const stormPercent = await repeated('storm of ARP', share);
    return {
      coldMs: cold,
      oneMs: crowd.map(({ oneMs }) => oneMs),
      hundredMs: crowd.map(({ hundredMs }) => hundredMs),
      quietPercent,
      stormPercent,
    };
  } finally {
    await lan.close();
  }
}

async function repeated<T>(what: string, act: () => Promise<T>): Promise<T[]> {
  const values: T[] = [];
  for (let round = 1; round <= ROUNDS; round++) {
    values.push(await act());
    progress(what, round, ROUNDS);
  }
  return values;
}

async function share(): Promise<number> {
  const { cpuMs, tookMs } = await measured(() => sleep(LOOK_MS));
  return (cpuMs / tookMs) * 100;
}
