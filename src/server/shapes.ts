/** The shapes that both sides of the door are read with, and the sentence for what does not fit one. */
import * as v from 'valibot';
import * as errors from '../errors.ts';

/** Longer than anything an engine sends and short enough to be stored and compared without thought. */
export const TEXT_LENGTH = 4096;
export const SHORT_TEXT = `text of at most ${TEXT_LENGTH} characters`;
export const NAME_LENGTH = 255;

export const text = v.pipe(v.string(), v.maxLength(TEXT_LENGTH, SHORT_TEXT));

/** Go has no null text: absent is "". */
export const optionalText = v.pipe(
  v.nullish(text, ''),
  v.transform((value) => (value === '' ? null : value)),
);

/** A JSON object; valibot alone would take a list for one. */
export const anyObject = v.custom<Record<string, unknown>>(
  (value) => typeof value === 'object' && value !== null && !Array.isArray(value),
  'an object',
);

/** An object with these entries. */
export function object<const E extends v.ObjectEntries>(entries: E) {
  return v.pipe(anyObject, v.object(entries));
}

/** A container's name as it may be recorded. Throws CONTAINER_NAME or CONTAINER_NAME_LONG. */
export function knownName(name: string): string {
  if (name.length > NAME_LENGTH) throw errors.containerNameLong(name, name.length, NAME_LENGTH);
  if (/^[^\s\p{C}]+$/u.test(name)) return name;
  throw errors.containerName(name);
}

/** Turns a schema into `body => our type`; throws WRONG_FIELD for the first thing that does not fit. */
export function reader<T>(schema: v.GenericSchema<unknown, T>): (body: unknown) => T {
  return (body) => {
    const result = v.safeParse(schema, body, { abortEarly: true });
    if (result.success) return result.output;
    throw refusal(result.issues[0]);
  };
}

function refusal(issue: v.BaseIssue<unknown>): errors.PluginError {
  // For a missing key valibot reports the object around it; the path says which key.
  const value = issue.path?.at(-1)?.value ?? issue.input;
  if (typeof value === 'string' && issue.message === SHORT_TEXT)
    return errors.textTooLong(pathOf(issue), value.length, TEXT_LENGTH);
  if (issue.received === 'undefined') return errors.missingField(pathOf(issue));
  return errors.wrongField(pathOf(issue), expectedBy(issue), received(value));
}

function pathOf({ path }: v.BaseIssue<unknown>): string {
  return path?.map(({ key }) => String(key)).join('.') ?? '';
}

const TYPES: ReadonlyMap<string, string> = new Map([
  ['string', 'text'],
  ['boolean', 'true or false'],
  ['number', 'a number'],
  ['array', 'a list'],
]);

/** valibot's own words are for programmers; messages of our shapes already are what was expected. */
function expectedBy(issue: v.BaseIssue<unknown>): string {
  return TYPES.get(issue.type) ?? issue.message;
}

/** Never the inside of a list or an object: it may be a megabyte deep. */
function received(value: unknown): string {
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'object' && value !== null) return 'an object';
  return errors.quote(value);
}
