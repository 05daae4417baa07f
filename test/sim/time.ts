/**
 * Virtual time for the whole process. Events run in order of their time, and of their making where that is the same; after
 * each one all microtasks have run before the next begins. Nothing here ever waits.
 *
 * Whose event it is decides what becomes of it: those of a process that was killed never run, those of one that stands still
 * run when it goes on, in their order. Which process is running is known by an AsyncLocalStorage, so that what it sets going
 * is its own however deep in the product.
 */
import { AsyncLocalStorage } from 'node:async_hooks';
import type { DatabaseSync } from 'node:sqlite';
import { Idle, type Parkable } from './idle.ts';
import type { Random } from './random.ts';

/** What a process finds of the machine it runs on. */
export interface Machine {
  readonly name: string;
  /** CLOCK_MONOTONIC, in milliseconds: stands still while the machine sleeps. */
  monotonicMs(): number;
  /** CLOCK_REALTIME, in milliseconds. */
  wallMs(): number;
  /** CLOCK_BOOTTIME, in seconds. */
  uptimeS(): number;
  readonly random: Random;
}

/** A program that runs on a simulated machine. */
export class Process<M extends Machine = Machine> {
  readonly machine: M;
  readonly name: string;
  /** Called once when it is killed: what the kernel closes for it. */
  readonly onKilled = new Set<() => void>();
  readonly databases = new Set<DatabaseSync>();
  readonly idle = new Idle();
  /** Added to its clock: what was due before something else is a moment before it. */
  skewMs = 0;
  #isAlive = true;
  #isFrozen = false;
  readonly #waiting: Event[] = [];
  #countdown: { left: number; readonly run: () => void } | null = null;

  constructor(machine: M, name: string) {
    [this.machine, this.name] = [machine, name];
  }

  get isAlive(): boolean {
    return this.#isAlive;
  }

  get isFrozen(): boolean {
    return this.#isFrozen;
  }

  /** Runs the code as this process. */
  enter<T>(run: () => T): T {
    return running.run(this, run);
  }

  /** kill -9: not one more instruction that anybody else could notice. */
  kill(): void {
    if (!this.#isAlive) return;
    this.#isAlive = false;
    this.#waiting.length = 0;
    for (const close of [...this.onKilled]) close();
    this.onKilled.clear();
    for (const database of this.databases) if (database.isOpen) database.close();
  }

  /** SIGSTOP, or an event loop that stands still. */
  freeze(): void {
    this.#isFrozen = true;
  }

  /** What came meanwhile runs now, in its order. */
  thaw(): void {
    if (!this.#isFrozen) return;
    this.#isFrozen = false;
    for (const event of this.#waiting.splice(0)) if (!event.isCancelled) scheduler.again(event);
  }

  /** Something happens to it just after so many of its next events: between two of its steps. */
  afterSteps(steps: number, run: () => void): void {
    this.#countdown = { left: steps, run };
  }

  /** One of its events has run. */
  step(): void {
    if (this.#countdown === null || --this.#countdown.left > 0) return;
    const { run } = this.#countdown;
    this.#countdown = null;
    scheduler.world(0, run);
  }

  keep(event: Event): void {
    this.#waiting.push(event);
  }
}

const running = new AsyncLocalStorage<Process>();

/** The process whose code is running; undefined while the world itself acts. */
export function currentProcess(): Process | undefined {
  return running.getStore();
}

/** Something that is to happen. */
export interface Event {
  readonly atMs: number;
  readonly order: number;
  readonly run: () => void;
  readonly owner: Process | undefined;
  /** It touches no code that waits for promises: nothing has to be drained after it. */
  readonly isInert: boolean;
  /** Whose it is, where it is one that may be parked. */
  readonly timer: Parkable | null;
  isCancelled: boolean;
}

const realImmediate = globalThis.setImmediate;

/** The events of the whole world. */
export class Scheduler {
  nowMs = 0;
  /** Cut out of quiet stretches (quiet.ts): the calendar shows it, no clock of a machine does. */
  cutMs = 0;
  /** Events that were run. */
  steps = 0;
  #order = 0;
  #heap: Event[] = [];

  get calendarMs(): number {
    return this.nowMs + this.cutMs;
  }

  /** Runs once, `delayMs` from now, as the process that is running. */
  after(delayMs: number, run: () => void): Event {
    const owner = currentProcess();
    if (owner !== undefined) owner.idle.effects++;
    return this.#add(delayMs, run, owner, false);
  }

  /** As after(), at a moment and at a place among the events of that moment: for timers that are moved. */
  at(atMs: number, timer: Parkable, owner: Process | undefined, order?: number): Event {
    const isLast = order === undefined;
    return this.#add(atMs - this.nowMs, () => timer.fire(), owner, false, isLast ? this.#order++ : order, timer);
  }

  /** As after(), of the world itself. */
  world(delayMs: number, run: () => void): Event {
    return this.#add(delayMs, run, undefined, false);
  }

  /** As world(), where no code of a process is reached and so no promise waits: nothing has to be drained. */
  inert(delayMs: number, run: () => void): Event {
    return this.#add(delayMs, run, undefined, true);
  }

  /** What is due some time, of a process. */
  pendingOf(process: Process): number {
    return this.#heap.filter(({ owner, isCancelled }) => owner === process && !isCancelled).length;
  }

  /** An event that could not run when it was due, now. */
  again(event: Event): void {
    this.#add(0, () => event.isCancelled || event.run(), event.owner, false);
  }

  #add(
    delayMs: number,
    run: () => void,
    owner: Process | undefined,
    isInert: boolean,
    order = this.#order++,
    timer: Parkable | null = null,
  ): Event {
    const atMs = this.nowMs + Math.max(0, delayMs);
    const event: Event = { atMs, order, run, owner, isInert, timer, isCancelled: false };
    this.#push(event);
    return event;
  }

  /** Runs what is due, in order, until nothing is left, that moment is reached, or `isOver` says so. */
  async run(untilMs: number, isOver: () => boolean = () => false): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const step = () => {
      try {
        if (isOver() || !this.#runNext(untilMs)) resolve();
        else realImmediate(step);
      } catch (error) {
        reject(error);
      }
    };
    realImmediate(step);
    await promise;
    if (!isOver()) this.nowMs = Math.max(this.nowMs, untilMs);
  }

  /** A new world: nothing is due. */
  reset(): void {
    [this.nowMs, this.cutMs, this.steps, this.#order, this.#heap] = [0, 0, 0, 0, []];
  }

  /** One event that is not inert, and the inert ones before it. False when nothing more is due. */
  #runNext(untilMs: number): boolean {
    for (;;) {
      const event = this.#heap[0];
      if (event === undefined || event.atMs > untilMs) return false;
      this.#pop();
      if (event.isCancelled || event.owner?.isAlive === false) continue;
      if (event.owner?.isFrozen) {
        event.owner.keep(event);
        continue;
      }
      this.nowMs = event.atMs;
      if (event.owner?.idle.begins(event.timer, event.atMs, event.order)) {
        this.#push(event);
        continue;
      }
      this.steps++;
      // Nobody's process is entered here: run() is the world's own.
      if (event.owner === undefined) event.run();
      else {
        event.owner.enter(event.run);
        event.owner.step();
      }
      if (!event.isInert) return true;
    }
  }

  #push(event: Event): void {
    const heap = this.#heap;
    let at = heap.length;
    while (at > 0) {
      const above = (at - 1) >> 1;
      const parent = heap[above] as Event;
      if (isBefore(parent, event)) break;
      heap[at] = parent;
      at = above;
    }
    heap[at] = event;
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop() as Event;
    if (heap.length === 0) return;
    let at = 0;
    for (;;) {
      let below = 2 * at + 1;
      if (below >= heap.length) break;
      if (below + 1 < heap.length && isBefore(heap[below + 1] as Event, heap[below] as Event)) below++;
      if (isBefore(last, heap[below] as Event)) break;
      heap[at] = heap[below] as Event;
      at = below;
    }
    heap[at] = last;
  }
}

function isBefore(one: Event, other: Event): boolean {
  return one.atMs < other.atMs || (one.atMs === other.atMs && one.order < other.order);
}

export const scheduler = new Scheduler();

/** Resolves so much later, in virtual time. */
export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => void scheduler.after(ms, resolve));
}
