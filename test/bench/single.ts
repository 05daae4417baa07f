/** One after the other on an engine: a network, a container, an attachment; the drivers by turns. */
import { inRotation, type Spread, spread, timeOf } from './figures.ts';
import { ratio, type Report } from './report.ts';
import { BUILT_IN, DHCP, FLOOR, OURS, type Stand, UNASKED, UNROUTED, type Variant } from './stand.ts';

/** The first rounds warm all of them up. */
const WARM_UP = 2;

/** A network comes and goes, its gateway named as most name it. */
export async function measureNetworks(stand: Stand, what: string, report: Report): Promise<void> {
  const variants = [BUILT_IN, OURS, UNROUTED, FLOOR];
  const values = await timed(what, 30, variants, async (variant, round) => {
    const place = variants.indexOf(variant);
    const [name, net] = [`n${round}-${place}`, `10.${1 + place}.${round}`];
    await stand.createNetwork(variant, name, `${net}.0/24`, variant === UNROUTED ? undefined : `${net}.1`);
    await stand.deleteNetwork(name);
  });
  const figures = [...ratio(values, OURS.name, BUILT_IN.name, 2.5), ...ratio(values, FLOOR.name, BUILT_IN.name)];
  report.add({ what, unit: 'ms', values, figures });
}

/** `docker run --rm`, and the address that it needs is ready. */
export async function measureRun(stand: Stand, what: string, report: Report): Promise<void> {
  const values = await onNetworks(stand, what, 20, async (network) => {
    await stand.engine.must('run', '--rm', '--net', network, 'busybox', 'true');
  });
  const figures = [
    ...ratio(values, OURS.name, BUILT_IN.name, 1),
    ...ratio(values, OURS.name, UNASKED.name, 1.1),
    ...ratio(values, FLOOR.name, BUILT_IN.name),
  ];
  report.add({ what, unit: 'ms', values, figures });
}

/** The same with the address that a DHCP server gives. */
export async function measureDhcpRun(stand: Stand, what: string, report: Report): Promise<void> {
  const server = await stand.serveDhcp();
  try {
    const values = await onNetworks(
      stand,
      what,
      20,
      async (network) => {
        await stand.engine.must('run', '--rm', '--net', network, 'busybox', 'true');
      },
      [OURS, DHCP],
    );
    report.add({ what, unit: 'ms', values, figures: ratio(values, DHCP.name, OURS.name, 1.3) });
  } finally {
    await server.stop();
  }
}

/** An attachment of a running container comes and goes. */
export async function measureConnect(stand: Stand, what: string, report: Report): Promise<void> {
  const { engine } = stand;
  const values = await onNetworks(stand, what, 40, async (network) => {
    await engine.api('POST', `/networks/${network}/connect`, { Container: 'c0' });
    await engine.api('POST', `/networks/${network}/disconnect`, { Container: 'c0' });
  });
  const figures = [...ratio(values, OURS.name, BUILT_IN.name), ...ratio(values, FLOOR.name, BUILT_IN.name)];
  report.add({ what, unit: 'ms', values, figures });
}

async function onNetworks(
  stand: Stand,
  what: string,
  rounds: number,
  act: (network: string) => Promise<void>,
  variants: readonly Variant[] = [BUILT_IN, OURS, UNASKED, FLOOR],
): Promise<Record<string, Spread>> {
  const networkOf = (variant: Variant) => `single${variants.indexOf(variant)}`;
  for (const [at, variant] of variants.entries())
    await stand.createNetwork(variant, networkOf(variant), `10.${3 + at}.0.0/24`);
  const values = await timed(what, rounds, variants, (variant) => act(networkOf(variant)));
  for (const variant of variants) await stand.deleteNetwork(networkOf(variant));
  return values;
}

async function timed(
  what: string,
  rounds: number,
  variants: readonly Variant[],
  act: (variant: Variant, round: number) => Promise<void>,
): Promise<Record<string, Spread>> {
  const times = new Map<string, number[]>(variants.map(({ name }) => [name, []]));
  await inRotation(what, rounds + WARM_UP, variants, async (variant, round) => {
    const tookMs = await timeOf(() => act(variant, round));
    if (round >= WARM_UP) times.get(variant.name)?.push(tookMs);
  });
  return Object.fromEntries([...times].map(([name, values]) => [name, spread(values)]));
}
