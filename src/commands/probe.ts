/** `probe`: one question to the LAN, beside a running daemon or without one. */
import { parseAddress } from '../address.ts';
import * as errors from '../errors.ts';
import { PROFILES } from '../lan/timing.ts';
import { oneOf } from '../nearest.ts';
import { print, printJson } from '../tables.ts';
import type { Options } from './command.ts';

/** Resolves with the exit code: 0 nobody, 3 somebody. */
export async function probe({ json, parent = '', profile = 'fast' }: Options, typed: string): Promise<number> {
  const address = parseAddress(typed);
  if (address === undefined) throw errors.probeUsage(typed);
  const { askLan } = await import('../main.ts');
  const begin = performance.now();
  const finding = await askLan(parent, address, oneOf(PROFILES, profile) ?? 'fast');
  const durationMs = Math.round(performance.now() - begin);
  if (json) printJson({ address: typed, parent, durationMs, ...finding });
  else if (finding.held)
    print(`${typed} is used by ${finding.macAddress}, which answered on ${finding.linkName} (${durationMs} ms)\n`);
  else print(`nobody answered for ${typed} on ${parent} (${durationMs} ms)\n`);
  return finding.held ? 3 : 0;
}
