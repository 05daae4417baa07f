/**
 * Recorded sessions of real engines (test/unit/transcripts), and a player that sends one again: as the engine would with
 * this plugin, so with the PoolIDs, pools and addresses that this plugin answered in place of the recorded ones.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Reply } from './door.ts';

type Json = Record<string, unknown>;

export interface Recorded {
  readonly call: string;
  /** Absent when it was empty. */
  readonly body?: Json;
  /** What the recording plugin answered, where later requests repeat it. */
  readonly answer?: { readonly PoolID?: string; readonly Pool?: string; readonly Address?: string };
  /** Which engine, in sessions with several. */
  readonly host?: string;
}

/** A request as it was sent now, and what came back. */
export interface Exchange {
  readonly recorded: Recorded;
  readonly body: Json | undefined;
  readonly reply: Reply;
}

export type Send = (call: string, body: Json | undefined) => Promise<Reply>;

const DIRECTORY = join(import.meta.dirname, '../transcripts');

export const SESSIONS = readdirSync(DIRECTORY)
  .filter((name) => name.endsWith('.jsonl'))
  .map((name) => name.slice(0, -'.jsonl'.length));

export function readSession(name: string): Recorded[] {
  const lines = readFileSync(join(DIRECTORY, `${name}.jsonl`), 'utf8')
    .split('\n')
    .filter(Boolean);
  return lines.map((line) => JSON.parse(line) as Recorded);
}

/** What one engine sent in one session. */
export interface Play {
  readonly title: string;
  readonly requests: readonly Recorded[];
}

/**
 * All but the live-replay sessions: an engine repeats what it knows only to a plugin that asks for it with
 * RequiresRequestReplay, as the recording one did there and this one does not.
 */
export const PLAYS: readonly Play[] = SESSIONS.filter((name) => !name.includes('live-replay')).flatMap((name) => {
  const byHost = Object.groupBy(readSession(name), ({ host = '' }) => host);
  return Object.entries(byHost).map(([host, requests = []]) => ({
    title: host === '' ? name : `${name} on ${host}`,
    requests,
  }));
});

/** Options that only the recording plugin knew. */
const FOREIGN_OPTIONS = new Set(['ipamk', 'ik', 'iok', 'k', 'k1', 'k2', 'nogw', 'allocated']);

export async function play(session: readonly Recorded[], send: Send): Promise<Exchange[]> {
  const words = new Words();
  const exchanges: Exchange[] = [];
  for (const recorded of session) {
    const body = recorded.body && (words.translate(recorded.body) as Json);
    const reply = await send(recorded.call, body);
    words.learn(recorded, reply);
    exchanges.push({ recorded, body, reply });
  }
  return exchanges;
}

/**
 * True for an `--ip` that was taken. What the recording plugin refused in the global space must be granted: a swarm
 * manager that leads again asks for what it holds, and allocates nothing any more when it is refused.
 */
export function isAddressTaken({ recorded: { call, body, answer } }: Exchange): boolean {
  const isGlobal = String(body?.['PoolID']).startsWith('tsglobal|');
  return call === 'IpamDriver.RequestAddress' && answer === undefined && !isGlobal;
}

export function describeExchange({ recorded, body, reply }: Exchange): string {
  return `${recorded.call} ${JSON.stringify(body)}: ${JSON.stringify(reply.body)}`;
}

/** What the recording plugin called things, and what this one calls them. */
class Words {
  readonly #words = new Map<string, string>();

  learn({ answer, call }: Recorded, { status, body }: Reply): void {
    if (status !== 200) return;
    const now = body as Json;
    for (const [key, then] of Object.entries(answer ?? {})) this.#learn(then, now[key]);
    if (call !== 'IpamDriver.GetDefaultAddressSpaces') return;
    this.#learn('tslocal', now['LocalDefaultAddressSpace']);
    this.#learn('tsglobal', now['GlobalDefaultAddressSpace']);
  }

  /** Addresses appear with and without prefix length. */
  #learn(then: string, now: unknown): void {
    if (typeof now !== 'string') return;
    this.#words.set(then, now);
    if (!then.includes('|')) this.#words.set(withoutLength(then), withoutLength(now));
  }

  translate(value: unknown): unknown {
    if (typeof value === 'string') return this.#words.get(value) ?? value;
    if (Array.isArray(value)) return value.map((each) => this.translate(each));
    if (typeof value !== 'object' || value === null) return value;
    const kept = Object.entries(value).filter(([key]) => !FOREIGN_OPTIONS.has(key));
    return Object.fromEntries(kept.map(([key, each]) => [key, this.translate(each)]));
  }
}

export function withoutLength(address: string): string {
  return address.replace(/\/\d+$/, '');
}
