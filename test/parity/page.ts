/**
 * docs/differences.md, from the differences that the scenarios allow and the tests of moby that they stand for.
 *
 * Also a command: `node test/parity/page.ts > docs/differences.md`
 */
import { SUITE_OF } from '../lab/engine.ts';
import { WANTED, type WantedDifference } from './differences.ts';
import { MOBY_TESTS, type MobyTest, REMARKS } from './moby.ts';
import { SCENARIOS } from './scenarios.ts';

export function differencesPage(): string {
  const engines = Object.keys(SUITE_OF).join(', ');
  return `<!-- Written by "make tables" from test/parity; edit that. -->
# Differences from the built-in macvlan driver

${SCENARIOS.filter(({ isOurs }) => !isOurs).length} scenarios are played with \`-d macvlan\`, with \`-d tsmacvlan\` and with \`-d tsmacvlan --ipam-driver tsmacvlan\` on engines
${engines} (\`make parity\`; in \`make test\` without the middle one, and those of links alone on the newest and with our IPAM; those that need VLANs or dummy links in a kernel that has them,
\`test/vlan/parity.test.ts\`). After each, everything a user can see is compared: exit codes, \`docker inspect\` of networks and
containers, interfaces with their addresses, modes and sizes, routes, every switch below \`/proc/sys/net/ipv4/conf\` and \`ipv6/conf\`,
\`/etc/hosts\` and \`/etc/resolv.conf\`, who answers whom by address and by name, the links of the host, and what is left in the end.
Two differences are found everywhere and are in no row: the words of a refusal ([messages](messages.md)), and that addresses are
checked on the LAN ([conflicts](conflicts.md)), for which the host has a link \`tsmp…\` for some seconds. Beyond them only these
are allowed:

## Differences by design

${table(WANTED.filter(({ isForced }) => !isForced))}
Options that the built-in driver does not have are in the [reference](reference.md).

## Because the engine gives a plugin no choice

${table(WANTED.filter(({ isForced }) => isForced))}
${LIMITS.map((limit) => `* ${limit}\n`).join('')}
## The built-in driver's own tests

moby's \`integration/network/macvlan\`, and our scenario for each:

| test | scenario | remark |
| --- | --- | --- |
${MOBY_TESTS.map(mobyRow).join('')}`;
}

/** What no scenario can show, because only one of the drivers can be asked. */
const LIMITS = [
  'Without a gateway (`-o gateway=none`, `--internal`, no parent) containers of engines from 25 get SERVFAIL for names of the world outside: such an engine asks its name servers only for a container that has a default route. Names of containers resolve. A plugin cannot say that the names may be asked for nevertheless, as the built-in driver of engine 29 can',
  'Engines before 28 give a container the IPv6 gateway of a network only if it has an IPv4 gateway as well. Where tsmacvlan finds none of IPv4, for which the built-in driver has the one that such an engine made up, there is no IPv6 default route either but that of router advertisements; a warning in the log says so: [gateways](gateways.md)',
  'When the first of several subnets is full, the engine goes on to the next only with its own IPAM; `--ipam-driver tsmacvlan` does it by itself, and the gateway is that of the subnet an address is in',
  '`docker run -p` is accepted, as by the built-in driver, and publishes nothing: a container on the LAN has all its ports on its own address. A line in the log of tsmacvlan says so',
];

function table(rows: readonly WantedDifference[]): string {
  const lines = rows.map((row) => `| ${row.subject} | ${row.macvlan} | ${row.tsmacvlan} | ${row.reason} |\n`);
  return `| | built-in macvlan | tsmacvlan | why |\n| --- | --- | --- | --- |\n${lines.join('')}`;
}

function mobyRow(test: MobyTest): string {
  const names = SCENARIOS.filter(({ moby }) => moby?.includes(test)).map(({ name }) => name);
  return `| ${test} | ${names.join('; ') || '–'} | ${REMARKS[test] ?? ''} |\n`;
}

if (process.argv[1] === import.meta.filename) process.stdout.write(differencesPage());
