/** The help as text, of all commands and of one. Pure. */
import { type Command, type OptionName, optionAsTyped, synopsis } from './command.ts';
import { COMMANDS } from './table.ts';

/** Columns, where a terminal does not say. */
const WIDTH = 100;

/** `of`: a command's name; null for the list of all. */
export function helpOf(of: string | null): string {
  const command = of === null ? undefined : COMMANDS[of];
  return of === null || command === undefined ? list() : page(of, command);
}

function list(): string {
  const names = Object.keys(COMMANDS);
  const width = Math.max(...names.map((name) => name.length));
  const rows = Object.entries(COMMANDS).map(([name, { summary }]) => entry(name, summary, width));
  return [
    'usage: tsmacvlan COMMAND [ARGUMENT] [--OPTION]',
    '',
    ...rows,
    '',
    "  tsmacvlan COMMAND --help prints a command's options and examples; tsmacvlan --version the version",
    '',
  ].join('\n');
}

function page(name: string, command: Command): string {
  const { summary, details, options = {}, examples } = command;
  const meanings = Object.entries({ ...options, help: 'print this' });
  const typed = meanings.map(([option]) => optionAsTyped(option as OptionName));
  const width = Math.max(...typed.map((option) => option.length));
  const lines = Object.entries(examples);
  const wide = Math.max(...lines.map(([line]) => line.length));
  return [
    `usage: tsmacvlan ${synopsis(name, command)}`,
    '',
    ...wrap(summary, 0),
    ...(details === undefined ? [] : ['', ...wrap(details, 0)]),
    '',
    ...meanings.map(([, meaning], position) => entry(typed[position] ?? '', meaning, width)),
    '',
    'examples:',
    ...lines.map(([line, meaning]) => `  tsmacvlan ${line.padEnd(wide)}  # ${meaning}`),
    '',
  ].join('\n');
}

function entry(left: string, right: string, width: number): string {
  const [first = '', ...more] = wrap(right, width + 4);
  return [`  ${left.padEnd(width)}  ${first}`, ...more.map((line) => `${' '.repeat(width + 4)}${line}`)].join('\n');
}

function wrap(text: string, indent: number): string[] {
  const lines: string[] = [];
  for (const word of text.split(' ')) {
    const last = lines.at(-1);
    if (last === undefined || last.length + word.length + 1 > WIDTH - indent) lines.push(word);
    else lines[lines.length - 1] = `${last} ${word}`;
  }
  return lines;
}
