/**
 * The scenarios as tests, for one engine: each is played by the built-in driver and by ours, with Docker's IPAM and with
 * our own, on a host of its own.
 *
 *     host ──lan0── switch 192.0.2.254, 2001:db8::fe; behind it 198.51.100.1
 *          ──lan1──
 *
 * The host and the switch each have a name server that knows outside.example.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { outsideLab } from '../lab/enclosure.ts';
import type { Version } from '../lab/engine.ts';
import { serveNames } from '../lab/nameserver.ts';
import { assertNothingLeft } from '../lab/invariant.ts';
import { type Machine, Site } from '../lab/site.ts';
import { compare, type Difference, isWanted, WANTED } from './differences.ts';
import type { Scenario } from './scenario.ts';
import { type Cast, CASTS, type Performance, Stage } from './stage.ts';

/** With `make parity`, which names engines, everything is played everywhere; else what Scenario says. */
const IS_WHOLE = process.env.ENGINES !== undefined;
const NEWEST: Version = '28.5.2';

const OUR_CASTS = (Object.keys(CASTS) as Cast[]).filter((cast) => cast !== 'macvlan');

/** Without a LAN to ask about addresses, as the built-in driver: that it is asked has its own tests. */
const SETTINGS = { PROBE: 'off', LOG_LEVEL: 'info' };

/** One refused command makes everything behind it differ. */
const MOST_SHOWN = 10;

/** `hasNames`: see Stage. */
export function playOn(version: Version, scenarios: readonly Scenario[], hasNames = true): void {
  const playable = scenarios.filter((scenario) => isPlayedOn(version, scenario));
  describe(`engine ${version}`, { skip: outsideLab(), timeout: 1_100_000, concurrency: 1 }, () => {
    let site: Site;
    let stage: Stage;
    let isDummyKnown = false;
    const seen: Difference[] = [];
    /** Names of the scenarios that both drivers could play here. */
    const compared = new Set<string>();

    before(async () => {
      const addresses = ['192.0.2.254/24', '2001:db8::fe/64'];
      const names = { lan: `lan-${version}`, hosts: [`host-${version}`] };
      site = await Site.open({ version, ...names, links: ['lan0', 'lan1'], addresses, settings: SETTINGS });
      await site.lan.namespace.ip('address add 198.51.100.1/32 dev lo');
      await serveNames(site.lan.namespace, 'outside.example', '198.51.100.1');
      await resolveByOneself(site.machines[0] as Machine);
      isDummyKnown = await knowsDummy(site);
      stage = await Stage.set(site.machines[0] as Machine, hasNames);
    });
    after(() => site.close());

    for (const scenario of playable) {
      test(scenario.name, async () => {
        // Without dummy links the built-in driver has nothing to show, and ours the same with any IPAM.
        const isComparable = !scenario.isOurs && (isDummyKnown || !scenario.needs?.includes('dummy'));
        const reference = isComparable ? await stage.play(scenario, 'macvlan') : undefined;
        if (isComparable) compared.add(scenario.name);
        const isShownByOne = !isComparable || (scenario.isOfLinks && !IS_WHOLE);
        for (const cast of isShownByOne ? OUR_CASTS.slice(-1) : OUR_CASTS) {
          const ours = await stage.play(scenario, cast);
          const differences = reference
            ? compare({ engine: version, cast, scenario: scenario.name }, reference, ours)
            : [];
          seen.push(...differences);
          check(cast, ours, reference, differences);
        }
      });
    }

    test('every wanted difference was seen, so that none is claimed that is not there', () => {
      const expected = WANTED.filter(
        ({ engines, scenarios: where }) =>
          (engines === undefined || engines.includes(version)) &&
          (where === undefined || where.some((name) => compared.has(name))),
      );
      const missing = expected.filter((wanted) => !seen.some((difference) => isWanted(difference, wanted)));
      assert.deepEqual(
        missing.map(({ subject }) => subject),
        [],
      );
    });

    test('in the end nothing is left, and the plugin logged no error', async () => {
      const machine = site.machines[0] as Machine;
      await assertNothingLeft(machine);
      assert.doesNotMatch(machine.plugin.log(), / error /);
    });
  });
}

function isPlayedOn(version: Version, { engines, isOfLinks }: Scenario): boolean {
  if (isOfLinks && !IS_WHOLE) return version === NEWEST;
  return engines === undefined || engines.includes(version);
}

function check(cast: Cast, ours: Performance, reference: Performance | undefined, differences: Difference[]): void {
  const defects = differences.filter((difference) => !WANTED.some((wanted) => isWanted(difference, wanted)));
  assert.deepEqual(defects.map(describeDifference).slice(0, MOST_SHOWN), [], `${cast} differs from macvlan`);
  // Where both drivers are wanted to differ, the scenario tells how one of them behaves.
  const excused = new Set(differences.map(({ fact }) => fact));
  const surprises = [...ours.surprises].filter(([fact]) => !excused.has(fact));
  assert.deepEqual(surprises, [], `${cast} does not do what the scenario says`);
  const strange = ours.refusals.filter((text) => !isOurSentence(text) && !reference?.refusals.includes(text));
  assert.deepEqual(
    strange.filter((text) => /Driver\./.test(text)),
    [],
    `${cast} refuses with words that help nobody`,
  );
}

function describeDifference({ fact, macvlan = 'nothing', tsmacvlan = 'nothing' }: Difference): string {
  return `${fact}: ${macvlan} → ${tsmacvlan}`;
}

/** What is wrong; then what to do. */
function isOurSentence(text: string): boolean {
  return /(?:NetworkDriver|IpamDriver)\.\w+: .+; .+/.test(text) && !text.includes('internal error');
}

/** Engines ask the name server of their host from outside the container, when they ask it at all. */
async function resolveByOneself({ host }: Machine): Promise<void> {
  await serveNames(host.namespace, 'outside.example', '198.51.100.1');
  const mount = 'echo nameserver 127.0.0.1 >/run/resolv.conf && mount --bind /run/resolv.conf /etc/resolv.conf';
  const { code, stderr } = await host.run(['sh', '-c', mount]);
  assert.equal(code, 0, stderr);
}

async function knowsDummy(site: Site): Promise<boolean> {
  const { code } = await site.lan.namespace.run(['ip', 'link', 'add', 'trial', 'type', 'dummy']);
  if (code === 0) await site.lan.namespace.ip('link delete trial');
  return code === 0;
}
