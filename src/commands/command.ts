/** What a command is: one row of the table (table.ts), from which come its run, its help, the completion and the man page. */
import { PROFILES } from '../lan/timing.ts';

/** How an option is written, whichever command takes it. */
interface OptionForm {
  readonly type: 'boolean' | 'string';
  readonly short?: string;
  /** What stands for its value in the help. */
  readonly value?: string;
  /** The only values taken. */
  readonly choices?: readonly string[];
  /** What a shell offers for the value. */
  readonly completes?: 'links' | 'networks' | 'files';
}

/** All options: one spelling and one type for each. */
export const OPTIONS = {
  json: { type: 'boolean' },
  'no-trunc': { type: 'boolean' },
  'dry-run': { type: 'boolean' },
  clear: { type: 'boolean' },
  force: { type: 'boolean' },
  cluster: { type: 'boolean' },
  html: { type: 'string', value: 'FILE', completes: 'files' },
  serve: { type: 'boolean' },
  listen: { type: 'string', value: 'PLACE' },
  open: { type: 'boolean' },
  parent: { type: 'string', value: 'LINK', completes: 'links' },
  profile: { type: 'string', value: PROFILES.join('|'), choices: PROFILES },
  network: { type: 'string', value: 'NETWORK', completes: 'networks' },
  from: { type: 'string', value: 'PLACE' },
  to: { type: 'string', value: 'PLACE' },
  help: { type: 'boolean', short: 'h' },
  version: { type: 'boolean', short: 'v' },
} as const satisfies Readonly<Record<string, OptionForm>>;

export type OptionName = keyof typeof OPTIONS;

/** The options that were given: true, or the text after one that takes a value. */
export type Options = {
  readonly [Name in OptionName]?: (typeof OPTIONS)[Name]['type'] extends 'boolean' ? boolean : string;
};

/** A row of the table of commands. */
export interface Command {
  /** One line. */
  readonly summary: string;
  /** What follows, if one line is not enough: one paragraph. */
  readonly details?: string;
  /** A word for each argument, `[ADDRESS]` for one that may be left out. */
  readonly arguments?: readonly string[];
  /** Its options with what they mean for it. */
  readonly options?: Readonly<Partial<Record<OptionName, string>>>;
  /** Of its options those that must be there. */
  readonly needs?: readonly OptionName[];
  /** Whole lines as they are typed, without `tsmacvlan `, with what each does. */
  readonly examples: Readonly<Record<string, string>>;
  /** Resolves with the exit code; nothing is 0. An argument that was not given is ''. */
  run(options: Options, first: string, second: string): Promise<number | void>;
}

/** `--parent LINK` */
export function optionAsTyped(name: OptionName): string {
  const { value }: OptionForm = OPTIONS[name];
  return value === undefined ? `--${name}` : `--${name} ${value}`;
}

/** `probe ADDRESS --parent LINK [--profile fast|rfc] [--json]` */
export function synopsis(name: string, { arguments: words = [], options = {}, needs = [] }: Command): string {
  const written = (Object.keys(options) as OptionName[]).map((option) =>
    needs.includes(option) ? optionAsTyped(option) : `[${optionAsTyped(option)}]`,
  );
  return [name, ...words, ...written].join(' ');
}
