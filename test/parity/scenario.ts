/**
 * One list of scenarios for the built-in macvlan driver and for ours: what a person types, with the driver left open,
 * and what must come of it. A step is one of these lines:
 *
 *     network create … net             words of the docker command; the driver is filled in; must succeed
 *     run a --net net                  shorthand of `run -d --name a … busybox sleep`
 *     refused: network create …        the same, must not succeed
 *     a pings b                        by address or name; also: a does not ping b
 *     a resolves db                    by the container's own resolver; also: a does not resolve db
 *     host: ip link set lan1 mtu 1400  a command of the host itself
 *     look                             everything visible is noted, as it is at the end of each scenario
 *     the engine restarts
 */
import type { Version } from '../lab/engine.ts';
import type { MobyTest } from './moby.ts';

export type LinkKind = 'dummy' | 'vlan';

export interface Scenario {
  /** A sentence that fits behind "parity:". */
  readonly name: string;
  /** Tests of moby's integration/network/macvlan that it stands for. */
  readonly moby?: readonly MobyTest[];
  /** Kinds of link that the built-in driver makes here; our own driver needs only `vlan`. */
  readonly needs?: readonly LinkKind[];
  /** All, when not given. */
  readonly engines?: readonly Version[];
  /**
   * About links, modes and what is refused of them, in which neither engine nor IPAM has a part: `make test` plays it on the newest engine
   * and with our IPAM, `make parity` on each with both.
   */
  readonly isOfLinks?: boolean;
  /** With options that the built-in driver does not have: played by ours alone. */
  readonly isOurs?: boolean;
  readonly steps: readonly string[];
}

export type Step =
  | { readonly verb: 'docker'; readonly words: readonly string[]; readonly expected: Outcome }
  | Question
  | { readonly verb: 'host'; readonly words: readonly string[] }
  | { readonly verb: 'look' | 'restart' };

export interface Question {
  readonly verb: 'ping' | 'resolve';
  /** The container that asks. */
  readonly who: string;
  /** An address or a name. */
  readonly target: string;
  readonly expected: Outcome;
}

/** `done` and `refused` are those of a command; the others those of a question asked in a container. */
export type Outcome = 'done' | 'refused' | 'answered' | 'not answered';

export function readStep(line: string): Step {
  if (line === 'look') return { verb: 'look' };
  if (line === 'the engine restarts') return { verb: 'restart' };
  if (line.startsWith('host: ')) return { verb: 'host', words: line.slice(6).split(' ') };
  const question = /^(\w+) (?:(does not) )?(ping|resolve)s? (\S+)$/.exec(line);
  if (question === null) return readCommand(line);
  const [, who = '', not, verb, target = ''] = question;
  return { verb: verb as 'ping' | 'resolve', who, target, expected: not ? 'not answered' : 'answered' };
}

function readCommand(line: string): Step {
  const isRefused = line.startsWith('refused: ');
  const words = (isRefused ? line.slice(9) : line).split(' ');
  return { verb: 'docker', words, expected: isRefused ? 'refused' : 'done' };
}
