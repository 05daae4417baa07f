/**
 * docs/reference.md, from the tables that the program itself goes by.
 *
 * Also a command: `node plugin/reference.ts > docs/reference.md`
 */
import { IPAM_OPTION_ROWS } from '../src/ipam/pool.ts';
import { OPTION_ROWS } from '../src/network/options.ts';
import { SETTINGS, type Setting } from '../src/settings.ts';

export function reference(): string {
  return `<!-- Written by "make tables" from src/settings.ts, src/network/options.ts and src/ipam/pool.ts; edit those. -->
# Reference

## Network options, \`docker network create -o NAME=VALUE\`

${table(OPTION_ROWS)}
What \`docker network create\` itself offers (\`--subnet\`, \`--gateway\`, \`--ip-range\`, \`--aux-address\`, \`--ipv6\`, \`--internal\`, …) means
what it means for the built-in macvlan driver.

## IPAM options, \`docker network create --ipam-driver tsmacvlan --ipam-opt NAME=VALUE\`

${table(IPAM_OPTION_ROWS)}
## Settings of the daemon

Environment variables of \`tsmacvlan serve\`: a line \`NAME=VALUE\` in \`/etc/default/tsmacvlan\` for the systemd service, \`docker plugin set
tsmacvlan:lan NAME=VALUE\` for the managed plugin (while it is disabled). An empty value means the default. ${live()}
can be changed while the service runs: \`systemctl reload tsmacvlan\`, or SIGHUP, has the file read again; the others need a restart, and
the log names them.

${table(Object.values<Setting>(SETTINGS).map(settingRow))}
The managed plugin fixes \`SOCKET\` and \`STATE_DIR\`, and its \`ALIAS_SOCKET\` is \`tsmacvlan.sock\` in the engine's own plugin directory
(\`install.md\`).
`;
}

function live(): string {
  const names = Object.values<Setting>(SETTINGS).flatMap(({ name, isLive }) => (isLive ? [`\`${name}\``] : []));
  return `${names.slice(0, -1).join(', ')} and ${names.at(-1)}`;
}

interface Row {
  readonly name: string;
  readonly values: string;
  readonly fallback?: string;
  readonly meaning: string;
}

function settingRow({ name, allowed, fallback, meaning }: Setting): Row {
  return { name, values: allowed?.join(', ') ?? 'text', fallback: fallback === '' ? 'empty' : fallback, meaning };
}

/** The column of defaults only where the rows know theirs. */
function table(rows: readonly Row[]): string {
  const hasFallback = rows.some(({ fallback }) => fallback !== undefined);
  const cells = rows.map(({ name, values, fallback = '', meaning }) =>
    [`\`${name}\``, values, ...(hasFallback ? [fallback] : []), meaning].map(escapeBars),
  );
  const header = ['name', 'values', ...(hasFallback ? ['default'] : []), 'meaning'];
  return [header, header.map(() => '---'), ...cells].map((row) => `| ${row.join(' | ')} |\n`).join('');
}

function escapeBars(text: string): string {
  return text.replaceAll('|', '\\|');
}

if (import.meta.main) process.stdout.write(reference());
