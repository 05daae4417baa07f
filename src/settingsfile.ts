/**
 * The file with settings that systemd reads for the service, one NAME=value a line, read as systemd reads it (systemd.exec(5)
 * EnvironmentFile=; src/basic/env-file.c): a daemon that reads its settings again finds what its next start would find.
 */
/** What such a file says. Lines that are none are passed over, and of a name that comes twice the last one counts. */
export function parseSettingsFile(text: string): Record<string, string> {
  const found: Record<string, string> = {};
  let rest = text;
  while (rest !== '') {
    const [line = ''] = /^\s*(?:[#;](?:\\[\s\S]|[^\n\\])*|[^\n=]*)/.exec(rest) ?? [];
    const isValue = rest[line.length] === '=';
    const { value, length } = isValue ? readValue(rest.slice(line.length + 1)) : { value: '', length: 0 };
    if (isValue && /^[A-Za-z_]\w*$/.test(line.trim())) found[line.trim()] = value;
    rest = rest.slice(line.length + 1 + length);
  }
  return found;
}

/** A piece of a value: quoted, escaped, white space or other characters. Quotation marks within others mean themselves. */
const PIECES = {
  begin: /^(?:'([^']*)'?|"((?:\\[\s\S]?|[^"\\])*)"?|\\([\s\S]?)|([^\S\n]+)|([^\s\\]))/,
  within: /^(?:()()\\([\s\S]?)|([^\S\n]+)|([^\s\\]+))/,
};

/** The value at the beginning of the text, and how long it is up to the end of its line. */
function readValue(text: string): { value: string; length: number } {
  let [value, blank, length] = ['', '', 0];
  let place: keyof typeof PIECES = 'begin';
  for (;;) {
    const piece = PIECES[place].exec(text.slice(length));
    if (piece === null) return { value, length };
    const [all, single, double, escaped, space, plain] = piece;
    length += all.length;
    if (space !== undefined) blank += place === 'begin' ? '' : space;
    else {
      value +=
        blank + (plain ?? (escaped === undefined ? (single ?? inDoubleQuotes(double ?? '')) : afterBackslash(escaped)));
      blank = '';
      if (plain !== undefined || escaped !== undefined) place = 'within';
    }
  }
}

function afterBackslash(escaped: string): string {
  return escaped === '\n' ? '' : escaped;
}

/** There a backslash means itself before all but these. */
function inDoubleQuotes(text: string): string {
  return text.replace(/\\(["\\`$\n])/g, (_, escaped: string) => afterBackslash(escaped));
}
