/** The words of a command line against the table of commands: what is meant, or what is wrong with them. Pure. */
import { parseArgs } from 'node:util';
import * as errors from '../errors.ts';
import { nearest, oneOf } from '../nearest.ts';
import { type Command, type OptionName, OPTIONS, type Options, synopsis } from './command.ts';
import { COMMANDS } from './table.ts';

/** A line that was understood. */
export type Line =
  | { readonly kind: 'version' }
  /** Null: of all commands. */
  | { readonly kind: 'help'; readonly of: string | null }
  | { readonly kind: 'run'; readonly command: Command; readonly options: Options; readonly words: readonly string[] };

type Token = ReturnType<typeof tokensOf>[number];
type OptionToken = Extract<Token, { kind: 'option' }>;

function tokensOf(words: readonly string[]) {
  return parseArgs({ args: [...words], allowPositionals: true, strict: false, options: OPTIONS, tokens: true }).tokens;
}

/** Throws USAGE. */
export function readLine(words: readonly string[]): Line {
  const tokens = tokensOf(words);
  const given = tokens.flatMap((token) => (token.kind === 'option' ? [token] : []));
  const positionals = tokens.flatMap((token) => (token.kind === 'positional' ? [token.value] : []));
  const [name, ...rest] = positionals;
  if (given.some((option) => option.name === 'version') || name === 'version') return { kind: 'version' };
  const isHelp = given.some((option) => option.name === 'help');
  if (name === 'help' || name === undefined) {
    for (const option of given) refuseUnknown(option, null);
    return { kind: 'help', of: rest[0] === undefined ? null : knownName(rest[0]) };
  }
  const known = knownName(name);
  if (isHelp) return { kind: 'help', of: known };
  const command = COMMANDS[known];
  if (command === undefined) throw errors.unknownCommand(name, undefined);
  const options = Object.fromEntries(given.map((option) => [option.name, valueOf(option, known, command)]));
  checkNumber(known, command, rest);
  for (const need of command.needs ?? [])
    if (!Object.hasOwn(options, need)) throw errors.optionMissing(known, `--${need}`, synopsis(known, command));
  return { kind: 'run', command, options, words: rest };
}

function knownName(name: string): string {
  if (Object.hasOwn(COMMANDS, name)) return name;
  throw errors.unknownCommand(name, nearest(name, Object.keys(COMMANDS)));
}

function checkNumber(name: string, command: Command, given: readonly string[]): void {
  const { arguments: words = [] } = command;
  const surplus = given[words.length];
  if (surplus !== undefined) throw errors.surplusArgument(surplus, name);
  // An empty word is what a shell makes of a variable that is not set.
  const missing = words.find((word, position) => !word.startsWith('[') && !given[position]);
  if (missing !== undefined) throw errors.argumentMissing(name, missing, synopsis(name, command));
}

function valueOf(option: OptionToken, name: string, command: Command): true | string {
  const known = refuseUnknown(option, { name, command });
  const { type, value: form, choices }: { type: string; value?: string; choices?: readonly string[] } = OPTIONS[known];
  const { value, inlineValue = false } = option;
  if (type === 'boolean') {
    if (value === undefined) return true;
    throw errors.optionTakesNoValue(`--${known}`, value);
  }
  const isNextOption = !inlineValue && value?.startsWith('-') === true;
  if (value === undefined || value === '' || isNextOption) throw errors.optionNeedsValue(`--${known}`, form ?? 'VALUE');
  if (choices !== undefined && oneOf(choices, value) === undefined)
    throw errors.optionChoice(`--${known}`, value, choices, nearest(value, choices));
  return value;
}

/** `of`: null where no command is named. */
function refuseUnknown(option: OptionToken, of: { name: string; command: Command } | null): OptionName {
  const { name: typed, rawName } = option;
  const isKnown = Object.hasOwn(OPTIONS, typed);
  const taken = of === null ? ['help', 'version'] : [...Object.keys(of.command.options ?? {}), 'help'];
  if (taken.includes(typed)) return typed as OptionName;
  const near = isKnown ? undefined : nearest(typed, taken);
  throw errors.unknownCommandOption(rawName, near && `--${near}`, of?.name ?? null);
}
