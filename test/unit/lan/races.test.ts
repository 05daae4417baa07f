/**
 * Daemons on an imagined LAN from the first question to the running container: each keeps an address on standby or needs it
 * from the start, asks at the moment it gives it out, asks again while the endpoint is made and joined, and then its
 * container answers. Some come from a LAN of their own that is joined to the others' only later.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Address, parseAddress } from '../../../src/address.ts';
import { Detection } from '../../../src/lan/detection.ts';
import type { DetectionSpec } from '../../../src/lan/detectionspec.ts';
import { isProbeMac } from '../../../src/lan/frames/mac.ts';
import type { Verdict } from '../../../src/lan/verdict.ts';
import { Container, Host, type Station, World } from './imagined.ts';

const options = { timeout: 120_000 };

interface DaemonSpec {
  readonly mac: number;
  readonly startMs: number;
  /** Null: a container needs the address from the start. Else it is kept on standby, and needed that much later. */
  readonly keepMs: number | null;
  /** What the engine does between our answers. */
  readonly createMs: number;
  readonly joinMs: number;
  readonly upMs: number;
  readonly latencyMs: number;
  readonly stallFromMs: number;
  readonly stallForMs: number;
  readonly joinsAtMs: number;
}

interface RaceSpec {
  readonly isIPv6: boolean;
  readonly seeds: number;
  readonly hosts: readonly DaemonSpec[];
}

interface Outcome {
  /** Containers that were started, by when the LAN was asked first for each. */
  readonly givenSinceMs: readonly number[];
  /** How often somebody was heard to use an address that was guarded. */
  readonly reports: number;
}

/** One daemon's life with one address. */
class Daemon {
  readonly #host: Host;
  readonly #stations: Station[];
  readonly #address: Address;
  readonly #spec: DaemonSpec;
  readonly #random: () => number;
  reports = 0;
  #firstMs = Number.NaN;

  constructor(host: Host, stations: Station[], address: Address, spec: DaemonSpec, random: () => number) {
    [this.#host, this.#stations, this.#address] = [host, stations, address];
    [this.#spec, this.#random] = [spec, random];
  }

  /** When the LAN was asked first for the container that runs now; null when none does. */
  async live(): Promise<number | null> {
    const { startMs, keepMs, createMs, joinMs, upMs } = this.#spec;
    await this.#pause(startMs);
    const kept =
      keepMs === null ? undefined : this.#detect({ standby: { refreshMs: 3000, isOurs: false, isOfHost: null } });
    this.#host.tick();
    await this.#pause(keepMs ?? 0);
    let detection = this.#given(kept);
    let verdict = await detection.verdict;
    if (verdict.held && verdict.simultaneous && isProbeMac(verdict.macAddress)) {
      detection = this.#given(undefined);
      verdict = await detection.verdict;
    }
    for (const pauseMs of [createMs, joinMs]) {
      if (verdict.held) return null;
      await this.#pause(pauseMs);
      verdict = await this.#confirm(detection);
    }
    if (verdict.held) return null;
    void this.#pause(upMs).then(() => this.#startContainer());
    return this.#firstMs;
  }

  async #confirm(detection: Detection): Promise<Verdict> {
    return (await detection.confirm(null)) ?? this.#given(undefined).verdict;
  }

  /** As Prober.probe(): what is not on standby, or not surely, is asked for thoroughly. */
  #given(kept: Detection | undefined): Detection {
    this.#firstMs = this.#host.clock.nowMs();
    return kept?.grant() ? kept : this.#detect({});
  }

  #detect(terms: Pick<DetectionSpec, 'standby'>): Detection {
    const { clock } = this.#host;
    this.#host.detection = new Detection(
      {
        address: this.#address,
        parentName: 'lan0',
        profile: 'fast',
        guardMs: 10_000,
        isOwn: (macAddress) => macAddress === this.#containerMac,
        onLateConflict: () => this.reports++,
        onOver: () => undefined,
        ...terms,
      },
      { wire: this.#host, clock, random: this.#random, answersForAll: undefined },
    );
    this.#host.detection.start();
    return this.#host.detection;
  }

  #startContainer(): void {
    const container = new Container(this.#host, this.#address, this.#containerMac, this.#stations);
    this.#stations.push(container);
    container.announce();
  }

  get #containerMac(): string {
    return `02:42:00:00:00:${this.#host.macAddress.slice(-2)}`;
  }

  async #pause(ms: number): Promise<void> {
    await new Promise<void>((resolve) => this.#host.clock.after(ms, resolve));
  }
}

async function race({ isIPv6, seeds, hosts: specs }: RaceSpec): Promise<Outcome> {
  const address = parseAddress(isIPv6 ? 'fd00::5' : '192.168.1.5') ?? assert.fail();
  const world = new World();
  const stations: Station[] = [];
  let seed = seeds;
  const random = () => {
    seed = (seed * 1103515245 + 12345) % 2 ** 31;
    return seed / 2 ** 31;
  };
  const daemons = specs.map((spec) => {
    const macAddress = `02:74:73:00:00:${spec.mac.toString(16).padStart(2, '0')}`;
    const stall = { fromMs: spec.stallFromMs, forMs: spec.stallForMs };
    const host = new Host(world, { macAddress, stall, latencyMs: spec.latencyMs, joinsAtMs: spec.joinsAtMs }, stations);
    stations.push(host);
    return new Daemon(host, stations, address, spec, random);
  });
  const lives = Promise.all(daemons.map((daemon) => daemon.live()));
  await world.live(2500 + Math.max(...specs.map((one) => one.startMs + (one.keepMs ?? 0) + one.stallForMs)));
  const givenSinceMs = (await lives).filter((atMs) => atMs !== null);
  return { givenSinceMs, reports: daemons.reduce((sum, { reports }) => sum + reports, 0) };
}

interface Most {
  readonly stallMs: number;
  readonly latencyMs: number;
  readonly joinMs: number;
}

function races({ stallMs, latencyMs, joinMs }: Most) {
  const ms = (max: number) => fc.integer({ min: 0, max });
  const daemon = fc.record({
    mac: ms(255),
    startMs: ms(2000),
    keepMs: fc.option(ms(6000)),
    createMs: ms(40),
    joinMs: ms(40),
    upMs: ms(300),
    latencyMs: ms(latencyMs),
    stallFromMs: ms(8000),
    stallForMs: ms(stallMs),
    joinsAtMs: ms(joinMs),
  });
  return fc.record({
    isIPv6: fc.boolean(),
    seeds: fc.integer({ min: 1, max: 2 ** 31 - 1 }),
    hosts: fc.uniqueArray(daemon, { minLength: 2, maxLength: 3, selector: ({ mac }) => mac }),
  });
}

test('on one LAN no address is given twice, however the daemons stall', options, async () => {
  await fc.assert(
    fc.asyncProperty(races({ stallMs: 400, latencyMs: 100, joinMs: 0 }), async (spec) => {
      assert.ok((await race(spec)).givenSinceMs.length <= 1);
    }),
    { numRuns: 250 },
  );
});

test('of two LANs that are joined no address is given twice that was asked for afterwards', options, async () => {
  await fc.assert(
    fc.asyncProperty(races({ stallMs: 0, latencyMs: 7, joinMs: 8000 }), async ({ hosts: [one, two], ...rest }) => {
      assert.ok(one !== undefined && two !== undefined);
      const { joinsAtMs: joinedMs } = one;
      const { givenSinceMs } = await race({ ...rest, hosts: [one, { ...two, joinsAtMs: 0 }] });
      // Who was asked for on LANs apart was given on LANs apart.
      if (givenSinceMs.length > 1)
        assert.ok(
          givenSinceMs.every((atMs) => atMs < joinedMs),
          givenSinceMs.join(' '),
        );
    }),
    { numRuns: 400 },
  );
});

test(
  'when daemons stall for so long that one is given twice all the same, at least one of them says so',
  options,
  async () => {
    await fc.assert(
      fc.asyncProperty(
        races({ stallMs: 2000, latencyMs: 100, joinMs: 8000 }),
        async ({ hosts: [one, two], ...rest }) => {
          assert.ok(one !== undefined && two !== undefined);
          const { joinsAtMs: joinedMs } = one;
          const { givenSinceMs, reports } = await race({ ...rest, hosts: [one, { ...two, joinsAtMs: 0 }] });
          if (givenSinceMs.length > 1 && givenSinceMs.some((atMs) => atMs >= joinedMs)) assert.ok(reports > 0);
        },
      ),
      { numRuns: 200 },
    );
  },
);
