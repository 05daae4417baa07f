/**
 * Node's own clocks, timers and sources of chance, replaced for the whole process: what the product reads is the virtual time
 * and the random numbers of the machine whose process is running. Files are real but for one thing: a sync to the disk takes
 * virtual time, and may fail.
 *
 * The names that the product imports are bindings of Node's modules, so they are changed there (syncBuiltinESMExports).
 */
import crypto from 'node:crypto';
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import os from 'node:os';
import timers from 'node:timers/promises';
import type { Parkable } from './idle.ts';
import { type Event, currentProcess, pause, scheduler } from './time.ts';

/** When the world begins, by the wall clock. */
export const BEGIN = Date.UTC(2026, 0, 1);

const real = { performanceNow: performance.now.bind(performance), fdatasync: fs.fdatasync };

/** The time of the machine that simulates. */
export function realNowMs(): number {
  return real.performanceNow();
}

/** What becomes of a sync of a process: how long it takes and how it fails. */
export interface Disk {
  sync(): {
    readonly delayMs: number;
    readonly error: NodeJS.ErrnoException | null;
    readonly ended: () => void;
  };
}

/** Replaces all of it. `diskOf` a process. */
export function replaceGlobals(diskOf: () => Disk | undefined): void {
  performance.now = nowMs;
  Date.now = wallMs;
  globalThis.Date = VirtualDate as DateConstructor;
  Math.random = randomNumber;
  replaceTimers();
  replaceMachine();
  fs.fdatasync = ((_fd: number, callback: (error: NodeJS.ErrnoException | null) => void) => {
    const { delayMs, error, ended } = diskOf()?.sync() ?? { delayMs: 0, error: null, ended: () => undefined };
    scheduler.after(delayMs, () => {
      ended();
      callback(error);
    });
  }) as typeof fs.fdatasync;
  syncBuiltinESMExports();
}

function nowMs(): number {
  const process = currentProcess();
  return process === undefined ? scheduler.nowMs : process.machine.monotonicMs() + process.skewMs;
}

function wallMs(): number {
  return currentProcess()?.machine.wallMs() ?? BEGIN + scheduler.nowMs;
}

function randomNumber(): number {
  const { random } = currentProcess()?.machine ?? {};
  if (random === undefined) throw new Error('the world draws from its own random numbers');
  return random.next();
}

const RealDate = Date;
class VirtualDate extends RealDate {
  constructor(...given: ConstructorParameters<DateConstructor> | []) {
    super(...((given.length === 0 ? [wallMs()] : given) as [number]));
  }

  static override now(): number {
    return wallMs();
  }
}

/** As Node's Timeout, as far as anybody here uses it. */
class Timer implements Parkable {
  readonly #run: () => void;
  readonly #owner = currentProcess();
  readonly periodMs: number;
  readonly isChain: boolean;
  dueMs = 0;
  isQuiet = false;
  #event: Event | null = null;

  constructor(run: () => void, delayMs: number, isRepeated: boolean) {
    // As Node: no less than a millisecond.
    [this.#run, this.periodMs, this.isChain] = [run, delayMs >= 1 ? delayMs : 1, !isRepeated];
    this.#owner?.idle.set.push(this);
    this.#begin();
  }

  #begin(): void {
    this.dueMs = scheduler.nowMs + this.periodMs;
    this.#event = scheduler.at(this.dueMs, this, this.#owner);
  }

  fire(): void {
    const owner = this.#owner;
    if (this.isChain) this.#event = null;
    else this.#begin();
    if (owner === undefined) return this.#run();
    // Only one that was parked runs before others of its moment.
    owner.skewMs = this.#isMoved ? -BEFORE_MS : 0;
    this.#isMoved = false;
    owner.idle.watch(this.#run, this, scheduler.nowMs);
    owner.skewMs = 0;
  }

  #isMoved = false;

  moveTo(atMs: number, order?: number): void {
    if (this.#event === null) return;
    this.#event.isCancelled = true;
    this.#isMoved = order !== undefined;
    this.#event = scheduler.at(atMs, this, this.#owner, order);
  }

  cancel(): void {
    if (this.#event === null) return;
    this.#event.isCancelled = true;
    this.#event = null;
    this.#owner?.idle.leave(this);
    if (this.#owner !== undefined) this.#owner.idle.effects++;
  }

  unref(): this {
    return this;
  }

  ref(): this {
    return this;
  }

  hasRef(): boolean {
    return true;
  }
}

/** What was due earlier sees a clock that is so much earlier. */
const BEFORE_MS = 0.01;

function replaceTimers(): void {
  const begin =
    (isRepeated: boolean) =>
    (run: (...args: unknown[]) => void, delayMs = 1, ...args: unknown[]) =>
      new Timer(() => run(...args), delayMs, isRepeated);
  const end = (timer: unknown) => {
    if (timer instanceof Timer) timer.cancel();
  };
  Object.assign(globalThis, {
    setTimeout: begin(false),
    setInterval: begin(true),
    clearTimeout: end,
    clearInterval: end,
    setImmediate: (run: (...args: unknown[]) => void, ...args: unknown[]) => new Immediate(() => run(...args)),
    clearImmediate: (immediate: unknown) => {
      if (immediate instanceof Immediate) immediate.cancel();
    },
  });
  Object.assign(timers, {
    setTimeout: sleep,
    setImmediate: (value?: unknown) => pause(0).then(() => value),
  });
  AbortSignal.timeout = (ms: number) => {
    const controller = new AbortController();
    scheduler.after(ms, () => controller.abort(new DOMException('The operation timed out', 'TimeoutError')));
    return controller.signal;
  };
  AbortSignal.any = firstOf;
}

/** Node keeps its own, while somebody listens, until they are aborted: those of processes that were killed for ever, and with them their worlds. */
function firstOf(signals: readonly AbortSignal[]): AbortSignal {
  const controller = new AbortController();
  for (const signal of signals) {
    if (signal.aborted) controller.abort(signal.reason);
    signal.addEventListener('abort', () => controller.abort(signal.reason), { once: true });
  }
  return controller.signal;
}

class Immediate {
  readonly #event: Event;

  constructor(run: () => void) {
    this.#event = scheduler.after(0, run);
  }

  cancel(): void {
    this.#event.isCancelled = true;
  }
}

function sleep<T>(ms = 1, value?: T, { signal }: { signal?: AbortSignal } = {}): Promise<T | undefined> {
  const { promise, resolve, reject } = Promise.withResolvers<T | undefined>();
  const stop = () => {
    event.isCancelled = true;
    reject(new DOMException('The operation was aborted', 'AbortError'));
  };
  const event = scheduler.after(Math.max(1, ms), () => {
    // A signal that outlives thousands of sleeps would keep them all.
    signal?.removeEventListener('abort', stop);
    resolve(value);
  });
  if (signal?.aborted) stop();
  signal?.addEventListener('abort', stop);
  return promise;
}

function replaceMachine(): void {
  const random = () => {
    const machine = currentProcess()?.machine;
    if (machine === undefined) throw new Error('the world draws from its own random numbers');
    return machine.random;
  };
  Object.assign(os, {
    uptime: () => currentProcess()?.machine.uptimeS() ?? scheduler.nowMs / 1000,
    hostname: () => currentProcess()?.machine.name ?? 'world',
  });
  Object.assign(crypto, {
    randomBytes: (length: number) => random().bytes(length),
    randomInt: (least: number, most: number) => random().int(least, most - 1),
  });
}
