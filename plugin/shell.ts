/**
 * What `make install` gives the shell and man(1), from the table of commands: completion for bash and zsh, and the page.
 *
 * Also a command: `node plugin/shell.ts bash|zsh|man`
 */
import { type Command, type OptionName, optionAsTyped, OPTIONS, synopsis } from '../src/commands/command.ts';
import { COMMANDS } from '../src/commands/table.ts';
import { SETTINGS } from '../src/settings.ts';
import { VERSION } from '../src/version.ts';

const WRITTEN = 'Written by "make tables" from src/commands/table.ts; edit that.';
const ROWS = Object.entries(COMMANDS);
const NAMES = [...ROWS.map(([name]) => name), 'help', 'version'];

interface Form {
  readonly type: string;
  readonly value?: string;
  readonly choices?: readonly string[];
  readonly completes?: 'links' | 'networks' | 'files';
}

function optionsOf({ options = {} }: Command): OptionName[] {
  return [...(Object.keys(options) as OptionName[]), 'help'];
}

/** The words that may stand there, where the table names them: `nodes|forget|migrate`; not `ADDRESS|MAC|NAME`. */
function choicesOf(word: string): string[] {
  return /[a-z]\|/.test(word) ? word.replace(/[[\]]/g, '').split('|') : [];
}

// --- bash --------------------------------------------------------------------------------------------------------

export function bashCompletion(): string {
  const values = (Object.entries(OPTIONS) as [OptionName, Form][]).filter(([, { value }]) => value !== undefined);
  return `# ${WRITTEN}
_tsmacvlan_networks() {
  tsmacvlan networks --json 2>/dev/null | sed -n 's/^    "id": "\\([^"]*\\)".*/\\1/p'
}

_tsmacvlan() {
  local word=\${COMP_WORDS[COMP_CWORD]} before=\${COMP_WORDS[COMP_CWORD - 1]} command=\${COMP_WORDS[1]} words=
  case $before in
${values.map(([name, form]) => `    --${name}) ${bashValue(form)} ;;\n`).join('')}  esac
  if ((COMP_CWORD == 1)); then words='${[...NAMES, '--help', '--version'].join(' ')}'
  else
    case $command in
${ROWS.map(([name, command]) => `      ${name}) ${bashWords(command)} ;;\n`).join('')}      help) words='${ROWS.map(([name]) => name).join(' ')}' ;;
    esac
  fi
  COMPREPLY+=($(compgen -W "$words" -- "$word"))
}

complete -F _tsmacvlan tsmacvlan
`;
}

const BASH_LINKS = '$(cd /sys/class/net && echo *)';

function bashValue({ choices, completes }: Form): string {
  const words = {
    links: BASH_LINKS,
    networks: '$(_tsmacvlan_networks)',
    files: '',
  };
  const from = completes === undefined ? (choices ?? []).join(' ') : words[completes];
  return `COMPREPLY=($(compgen -W "${from}" -- "$word")); return`;
}

function bashWords(command: Command): string {
  const { arguments: words = [] } = command;
  const options = optionsOf(command).map((name) => `--${name}`);
  const first = words[0] ?? '';
  const isFirst = '((COMP_CWORD == 2))';
  const files = first === 'FILE' ? `${isFirst} && COMPREPLY=($(compgen -f -- "$word")); ` : '';
  const names = { NETWORK: '$(_tsmacvlan_networks)', PARENT: BASH_LINKS }[first];
  const named = names === undefined ? '' : `; ${isFirst} && words+=" ${names}"`;
  const choices = choicesOf(first).length > 0 ? `; ${isFirst} && words+=' ${choicesOf(first).join(' ')}'` : '';
  return `${files}words='${options.join(' ')}'${named}${choices}`;
}

// --- zsh ---------------------------------------------------------------------------------------------------------

export function zshCompletion(): string {
  return `#compdef tsmacvlan
# ${WRITTEN}
_tsmacvlan_networks() {
  compadd -- \${(f)"$(tsmacvlan networks --json 2>/dev/null | sed -n 's/^    "id": "\\([^"]*\\)".*/\\1/p')"}
}

_tsmacvlan() {
  local -a commands
  commands=(
${ROWS.map(([name, { summary }]) => `    ${quoted(`${name}:${summary.replaceAll(':', '\\:')}`)}\n`).join('')}    'help:print the help of all commands, or of one'
    'version:print the version'
  )
  if ((CURRENT == 2)); then
    _describe command commands
    return
  fi
  shift words
  ((CURRENT--))
  case $words[1] in
${ROWS.map(([name, command]) => `    ${name}) _arguments ${zshWords(command)} ;;\n`).join('')}    help) _describe command commands ;;
  esac
}

_tsmacvlan "$@"
`;
}

function zshWords(command: Command): string {
  const options = optionsOf(command).map((name) => {
    const form: Form = OPTIONS[name];
    const meaning = (command.options?.[name] ?? 'print its help').replace(/[[\]:]/g, '\\$&');
    return quoted(
      `--${name}[${meaning}]${form.value === undefined ? '' : `:${zshName(form.value)}:${zshValue(form)}`}`,
    );
  });
  const words = (command.arguments ?? []).map((word, position) =>
    quoted(`${position + 1}:${zshName(word)}:${zshArgument(word)}`),
  );
  return [...options, ...words].join(' ');
}

function zshName(word: string): string {
  return word.replace(/[[\]]/g, '');
}

function zshValue({ choices, completes }: Form): string {
  if (choices !== undefined) return `(${choices.join(' ')})`;
  return completes === undefined
    ? ' '
    : { links: '_net_interfaces', networks: '_tsmacvlan_networks', files: '_files' }[completes];
}

function zshArgument(word: string): string {
  if (choicesOf(word).length > 0) return `(${choicesOf(word).join(' ')})`;
  return { FILE: '_files', NETWORK: '_tsmacvlan_networks', PARENT: '_net_interfaces' }[word] ?? ' ';
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

// --- man ---------------------------------------------------------------------------------------------------------

export function manPage(): string {
  return `.\\" ${WRITTEN}
.TH TSMACVLAN 8 "" "tsmacvlan ${VERSION}" "System Administration"
.SH NAME
tsmacvlan \\- Docker network and IPAM plugin: containers straight on the LAN
.SH SYNOPSIS
.B tsmacvlan
.I COMMAND
.RI [ ARGUMENT ]
.RI [ \\-\\-OPTION ]
.SH DESCRIPTION
.B tsmacvlan serve
is the daemon that a Docker engine calls; the other commands look, or have the daemon do what an engine did not.
They ask the daemon that runs on this host, whatever way it was installed, and read its state where none runs. They need root.
.SH COMMANDS
${ROWS.map(([name, command]) => manCommand(name, command)).join('')}.SH EXIT STATUS
0 when it is done, 1 when it failed, 2 when it was called wrongly; 3 as the commands above say.
.SH ENVIRONMENT
The settings of the daemon, in /etc/default/tsmacvlan for the service:
${Object.values(SETTINGS)
  .map(({ name, meaning }) => `.TP\n.B ${roff(name)}\n${roff(meaning)}\n`)
  .join('')}.SH FILES
.TP
.I /run/docker/plugins/tsmacvlan.sock
the socket on which the daemon is called
.TP
.I /var/lib/tsmacvlan
what the daemon keeps
.TP
.I /etc/default/tsmacvlan
settings of the service
.SH SEE ALSO
.BR docker (1)
`;
}

function manCommand(name: string, command: Command): string {
  const { summary, details, options = {}, examples } = command;
  const meanings = Object.entries(options).map(
    ([option, meaning]) => `.RS\n.TP\n.B ${roff(optionAsTyped(option as OptionName))}\n${roff(meaning)}\n.RE\n`,
  );
  const lines = Object.entries(examples).map(
    ([line, meaning]) => `.RS\n.TP\n.B tsmacvlan ${roff(line)}\n${roff(meaning)}\n.RE\n`,
  );
  return `.SS ${roff(synopsis(name, command))}\n${roff(summary)}.\n${details === undefined ? '' : `${roff(details)}\n`}${meanings.join('')}.P\nExamples:\n${lines.join('')}`;
}

/** A dash that can be copied, and no line that begins with a request. */
function roff(text: string): string {
  return text.replaceAll('\\', '\\e').replaceAll('-', '\\-').replace(/^[.']/, '\\&$&');
}

const WAYS: Readonly<Record<string, () => string>> = { bash: bashCompletion, zsh: zshCompletion, man: manPage };

if (import.meta.main) {
  const write = WAYS[process.argv[2] ?? ''];
  if (write === undefined) throw new Error('usage: node plugin/shell.ts bash|zsh|man');
  process.stdout.write(write());
}
