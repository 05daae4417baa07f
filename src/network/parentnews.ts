/** What becomes of the links below networks, for people: their cables, up and down, gone and back. Judges nothing. */
import { backgroundClock, type Clock } from '../clock.ts';
import type { ParentState } from '../happenings.ts';
import type { Link, LinkEvent, Links } from '../kernel/link.ts';

interface ParentNewsParts {
  readonly links: Pick<Links, 'known' | 'onChange'>;
  readonly tell: (parent: string, state: ParentState) => void;
  readonly clock?: Clock;
}

const GONE_MS = 500;

/** Follows parents by name. */
export class ParentNews {
  readonly #parts: ParentNewsParts;
  /** Undefined until the kernel was asked. */
  readonly #states = new Map<string, ParentState | undefined>();
  readonly #stop: () => void;

  constructor(parts: ParentNewsParts) {
    this.#parts = parts;
    this.#stop = parts.links.onChange((event) => this.#hear(event));
  }

  /** Exactly these from now on. What is new is looked at, and not told of. */
  follow(parents: ReadonlySet<string>): void {
    for (const name of this.#states.keys()) if (!parents.has(name)) this.#states.delete(name);
    for (const name of parents) if (!this.#states.has(name)) void this.#look(name);
  }

  /** By name, as far as they are known. */
  states(): Map<string, ParentState> {
    return new Map([...this.#states].flatMap(([name, state]) => (state === undefined ? [] : [[name, state]])));
  }

  /** Follows none any more. */
  close(): void {
    this.#stop();
    this.#states.clear();
  }

  async #look(name: string): Promise<void> {
    if (!this.#states.has(name)) this.#states.set(name, undefined);
    try {
      const link = await this.#parts.links.known(name);
      if (this.#states.has(name)) this.#note(name, link === undefined ? 'gone' : stateOf(link));
    } catch {
      // The next event of it says how it is.
    }
  }

  #hear(event: LinkEvent): void {
    if (event.type === 'overflow') {
      for (const name of this.#states.keys()) void this.#look(name);
      return;
    }
    const { link, type } = event;
    // The links of containers come and go by the hundred.
    if (link.kind === 'macvlan') return;
    for (const name of [link.name, ...link.alternativeNames])
      if (this.#states.has(name)) this.#note(name, type === 'deleted' ? 'gone' : stateOf(link));
  }

  #note(name: string, state: ParentState): void {
    const before = this.#states.get(name);
    this.#states.set(name, state);
    if (before === undefined || before === state) return;
    if (state !== 'gone') return this.#parts.tell(name, state);
    // One that goes with its last network, or is made again, is no news.
    const { tell, clock = backgroundClock } = this.#parts;
    clock.after(GONE_MS, () => this.#states.get(name) === 'gone' && tell(name, state));
  }
}

function stateOf({ isUp, hasCarrier }: Link): ParentState {
  if (!isUp) return 'down';
  return hasCarrier ? 'carrier' : 'no carrier';
}
