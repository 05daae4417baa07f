/**
 * The program, unchanged, with a number of steps to live: as soon as that many durable writes, claims and changes of the
 * kernel are done it kills itself with SIGKILL, which leaves exactly what kill -9 at that moment leaves. Each step is named in a
 * file first. Starts as `node test/lab/mortal.ts serve`; Serving (serving.ts) holds the other end of the channel.
 *
 * Its clock and its longer timers stand still but for the time that is let pass, so minutes take no longer than what is
 * done in them, and nothing happens by itself meanwhile. Shorter timers take their time, and the clock goes on by it. What
 * it leaves to chance is the same each time, or a wait would be a long one now and a short one then.
 */
import { AsyncLocalStorage } from 'node:async_hooks';
import { appendFileSync } from 'node:fs';
import { Server } from 'node:http';
import { type SQLInputValue, StatementSync } from 'node:sqlite';
import { Collector } from '../../src/collector.ts';
import { RtnetlinkSocket } from '../../src/kernel/rtnetlink.ts';
import { LinkTable } from '../../src/kernel/table.ts';
import { Announcements } from '../../src/network/announcements.ts';
import { Serial } from '../../src/serial.ts';
import { Etcd } from '../../src/store/etcd/client.ts';

/** `stepsToLive`: counted from now on, those of calls and of the collector. `pass`: until its next round is over. */
export interface Order {
  readonly stepsToLive?: number;
  readonly pass?: true;
}

export interface Report {
  /** Of the time that was let pass. */
  readonly passedMs: number;
}

interface Held {
  readonly isRound: boolean;
  readonly dueMs: number;
  readonly run: () => void;
}

/** RTM_GET* by the two low bits of the type (linux/rtnetlink.h). */
const RTM_GET = 2;
/** Shorter timers are how the program breathes. */
const HELD_FROM_MS = 1000;
const NEVER_MS = 2 ** 31 - 1;
/** The collector's timer is set again when its round is over: milliseconds later, unless the machine stands still. */
const ROUND_TIMEOUT_MS = 60_000;

// --- steps ----------------------------------------------------------------------------------------------------------

/** From the start on, when it is given. */
const { STEPS_TO_LIVE, STEPS_FILE = '' } = process.env;
let stepsToLive = Number(STEPS_TO_LIVE ?? Infinity);
/** Where a step comes from; what looks after the links in the background would be counted by chance. */
const cause = new AsyncLocalStorage<'call' | 'collector' | 'reading'>();

function step(name: string): void {
  if (stepsToLive === Infinity || (STEPS_TO_LIVE === undefined && cause.getStore() === undefined)) return;
  appendFileSync(STEPS_FILE, `${name}\n`);
  if (--stepsToLive === 0) process.kill(process.pid, 'SIGKILL');
}

/* eslint-disable @typescript-eslint/unbound-method -- each is called on its own object */
const { run } = StatementSync.prototype;
StatementSync.prototype.run = function (this: StatementSync, ...values: SQLInputValue[]) {
  const result = run.apply(this, values as never);
  if (Number(result.changes) > 0) step(this.sourceSQL);
  return result;
} as typeof run;

const { batch } = RtnetlinkSocket.prototype;
RtnetlinkSocket.prototype.batch = async function (operation, requests) {
  const answers = await batch.call(this, operation, requests);
  // What follows the first request of a batch does nothing when that was refused.
  if (requests.some(({ type }) => (type & 3) !== RTM_GET) && answers[0]?.error === null) step(operation);
  return answers;
};

const { transaction } = Etcd.prototype;
Etcd.prototype.transaction = async function (this: Etcd, conditions, changes, ...rest) {
  const outcome = await transaction.call(this, conditions, changes, ...rest);
  const [change] = changes;
  const key = change === undefined ? '' : 'put' in change ? change.put.key : change.delete;
  // When the host enters itself is for the clock to say.
  if (outcome.isDone && change !== undefined && key.includes('/leases/'))
    step('put' in change ? 'claim made' : 'claim given back');
  return outcome;
};

const { emit } = Server.prototype;
Server.prototype.emit = function (this: Server, event: string, ...given: unknown[]) {
  const hand = () => emit.apply(this, [event, ...given] as never);
  return event === 'request' ? cause.run('call', hand) : hand();
} as typeof emit;
const { start: startCollector, hurry } = Collector.prototype;
Collector.prototype.start = function (this: Collector) {
  cause.run('collector', () => startCollector.call(this));
};
Collector.prototype.hurry = function (this: Collector) {
  cause.run('collector', () => hurry.call(this));
};
// A reading waits for others, as for etcd: only the timer that is set when it is over is that of the next round.
const { run: runInTurn } = Serial.prototype;
Serial.prototype.run = function <T>(this: Serial, key: string, task: () => Promise<T>) {
  const isReading = cause.getStore() === 'collector';
  return runInTurn.call(this, key, isReading ? () => cause.run('reading', task) : task) as Promise<T>;
};
// What follows from an event of the kernel belongs to no call, whichever of them came to read it.
const { drain } = LinkTable.prototype;
LinkTable.prototype.drain = function (this: LinkTable) {
  cause.exit(() => drain.call(this));
};
// Whether a container is announced before it ends, and between which steps, is for the machine to say.
const { start } = Announcements.prototype;
Announcements.prototype.start = function (this: Announcements, ...given) {
  cause.exit(() => start.apply(this, given));
};
/* eslint-enable @typescript-eslint/unbound-method */

// --- time -----------------------------------------------------------------------------------------------------------

const { setTimeout, clearTimeout, Date } = globalThis;
const { random } = Math;
const monotonic = performance.now.bind(performance);
const held = new Map<unknown, Held>();
let rounds = 0;
let standingMs = monotonic();
const epochMs = Date.now() - standingMs;

Math.random = () => 0.5 + random() / 2 ** 20;
performance.now = () => standingMs;
globalThis.Date = class extends Date {
  constructor(given: number | string = epochMs + standingMs) {
    super(given);
  }
  static override now(): number {
    return epochMs + standingMs;
  }
} as DateConstructor;

globalThis.setTimeout = ((callback: (...given: unknown[]) => void, delayMs = 0, ...given: unknown[]) => {
  const dueMs = standingMs + delayMs;
  if (delayMs < HELD_FROM_MS)
    return setTimeout(() => {
      standingMs = Math.max(standingMs, dueMs);
      callback(...given);
    }, delayMs);
  const timer = setTimeout(() => undefined, NEVER_MS);
  const isRound = cause.getStore() === 'collector';
  if (isRound) rounds++;
  held.set(timer, { isRound, dueMs, run: () => callback(...given) });
  return timer;
}) as typeof setTimeout;

globalThis.clearTimeout = (timer) => {
  held.delete(timer);
  clearTimeout(timer);
};

/** Answers how much time that was. */
async function pass(): Promise<number> {
  const sinceMs = standingMs;
  // The reading with which the collector starts may not be over.
  await until(() => [...held.values()].some(({ isRound }) => isRound));
  for (;;) {
    const [next] = [...held].sort(([, one], [, other]) => one.dueMs - other.dueMs);
    if (next === undefined) break;
    const [timer, { isRound, dueMs, run: fire }] = next;
    standingMs = Math.max(standingMs, dueMs);
    globalThis.clearTimeout(timer as NodeJS.Timeout);
    if (isRound) {
      await collect(fire);
      break;
    }
    fire();
  }
  return standingMs - sinceMs;
}

async function collect(fire: () => void): Promise<void> {
  const known = rounds;
  cause.run('collector', fire);
  await until(() => rounds > known);
}

async function until(isSo: () => boolean): Promise<void> {
  const deadlineMs = monotonic() + ROUND_TIMEOUT_MS;
  while (!isSo() && monotonic() < deadlineMs) await new Promise((resolve) => setTimeout(resolve, 2));
}

// --- orders ---------------------------------------------------------------------------------------------------------

process.on('message', (order: Order) => {
  stepsToLive = order.stepsToLive ?? stepsToLive;
  void (order.pass ? pass() : Promise.resolve(0)).then((passedMs) => process.send?.({ passedMs } satisfies Report));
});
process.channel?.unref();

void import('../../src/tsmacvlan.ts');
