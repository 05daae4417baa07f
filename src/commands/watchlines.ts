/** What happens, as a person reads it: one line each, with names. Pure. */
import { describeConflict, holderOf } from '../contested.ts';
import { escapeControls } from '../errors.ts';
import type { ConflictNews, Happening, ParentState, ToldHappening } from '../happenings.ts';
import type { Naming } from '../naming.ts';

/** Of the watching itself. */
export type WatchState = 'listening' | 'gone' | 'back' | 'slow';

const WATCH_STATES: Readonly<Record<WatchState, string>> = {
  listening: 'what happens is told from now on; Ctrl-C ends it',
  gone: 'tsmacvlan has ended; it is waited for',
  back: 'tsmacvlan is there again; what happened meanwhile is not told, but for the conflicts that last',
  slow: 'this command did not read fast enough, and some of what happened is not told; it listens again',
};

const PARENT_STATES: Readonly<Record<ParentState, string>> = {
  carrier: 'is up and has a carrier',
  'no carrier': 'has no carrier; look at its cable and at the switch port',
  down: 'is down',
  gone: 'is gone',
};

/** A line without its end. */
export function happeningLine(happening: ToldHappening, naming: Naming): string {
  const [heading, words] = wordsOf(happening, naming);
  return line(happening.time, heading, words);
}

/** The same of the watching. */
export function watchLine(time: string, state: WatchState): string {
  return line(time, 'watch', WATCH_STATES[state]);
}

/** The time as clocks here show it. No character of the words is obeyed by a terminal. */
function line(time: string, heading: string, words: string): string {
  return `${localTime(new Date(time))}  ${heading.padEnd(8)}  ${escapeControls(words)}`;
}

function localTime(at: Date): string {
  const two = (number: number) => String(number).padStart(2, '0');
  const day = [at.getFullYear(), two(at.getMonth() + 1), two(at.getDate())].join('-');
  return `${day} ${[at.getHours(), at.getMinutes(), at.getSeconds()].map(two).join(':')}`;
}

function wordsOf(happening: Happening, naming: Naming): [heading: string, words: string] {
  switch (happening.what) {
    case 'conflict':
      return [happening.state === 'ended' ? 'over' : 'conflict', conflictWords(happening, naming)];
    case 'endpoint': {
      const { state, endpointId, networkId, parent, macAddress, addresses } = happening;
      const who = naming.container(endpointId) ?? `endpoint ${naming.id(endpointId)}`;
      const where = `${addresses.join(' ') || 'no address'}  ${macAddress}  ${naming.network(networkId)} on ${parent}`;
      return [state, `${who}  ${where}${state === 'lost' ? ', which is gone, and its interface with it' : ''}`];
    }
    case 'network': {
      const { networkId, parent, state, subnets } = happening;
      return ['network', `${naming.network(networkId)} is ${state}: ${subnets.join(' ') || 'no subnet'} on ${parent}`];
    }
    case 'lease':
      return ['lease', leaseWords(happening, naming)];
    case 'parent':
      return ['parent', `${happening.parent} ${PARENT_STATES[happening.state]}`];
    default:
      return [happening.what, [happening.message, ...Object.entries(happening.fields).map(pair)].join(' ')];
  }
}

const LOSSES: Readonly<Record<string, string>> = {
  silent: 'no DHCP server has answered until its end',
  refused: 'the DHCP server gives it no more',
};

function leaseWords(lease: Extract<Happening, { what: 'lease' }>, naming: Naming): string {
  const { state, endpointId, macAddress, parent, server, reason } = lease;
  const who = naming.container(endpointId) ?? (endpointId === null ? macAddress : `endpoint ${naming.id(endpointId)}`);
  const address = lease.address ?? 'an address';
  switch (state) {
    case 'lost':
      return `${who}: the lease of ${address} on ${parent} is lost: ${LOSSES[reason ?? ''] ?? 'nobody keeps it'}`;
    case 'healed':
      return `${who}: DHCP server ${server} gives ${address} on ${parent} again`;
    case 'declined':
      return `${who}: ${address} of DHCP server ${server} is declined, since ${reason} on ${parent} has it`;
    case 'refused':
      return `${who}: DHCP server ${server} on ${parent} takes back ${address}${reason === null ? '' : ` (${JSON.stringify(reason)})`}`;
  }
}

function pair([name, value]: [string, unknown]): string {
  const text = typeof value === 'string' ? value : (JSON.stringify(value) ?? 'undefined');
  return `${name}=${/^[\w.:/@+-]+$/.test(text) ? text : JSON.stringify(text)}`;
}

function conflictWords(conflict: ConflictNews, naming: Naming): string {
  const { state, kind, address, parent, ourMacAddress, macAddress, endpointId } = conflict;
  const who =
    naming.container(endpointId) ?? (endpointId === null ? ourMacAddress : `endpoint ${naming.id(endpointId)}`);
  const still = state === 'lasts' ? 'still, ' : '';
  if (who === null)
    return state === 'ended'
      ? `nobody is known to use ${address} on ${parent} any more`
      : `${still}${address} is used by ${holderOf(conflict)} on ${parent}`;
  if (state !== 'ended') return `${still}${who}: ${describeConflict(conflict)}, on ${parent}`;
  return kind === 'mac'
    ? `${who}: no other host is known to use its MAC address ${macAddress} on ${parent} any more`
    : `${who}: nobody else is known to use ${address} on ${parent} any more`;
}
