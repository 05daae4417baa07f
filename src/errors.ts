/**
 * Every sentence a user can see. One maker per mistake with typed arguments, so that no message can forget its value.
 *
 * House style: one line, lower case first, no full stop. First what is wrong, with the value as typed; after the
 * semicolon what to do, in the words of the option. No stack, no errno alone, no 64-digit ids.
 */

/** `mistake`: the user can mend it (HTTP 400, one log line). `fault`: we or the world (HTTP 500, logged with cause). */
export type Kind = 'mistake' | 'fault';

export class PluginError extends Error {
  /** Stable, for tests and logs: `PARENT_MISSING`. */
  readonly code: string;
  readonly kind: Kind;

  constructor(kind: Kind, code: string, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = 'PluginError';
    this.kind = kind;
    this.code = code;
  }
}

function mistake(code: string, message: string): PluginError {
  return new PluginError('mistake', code, message);
}

function fault(code: string, message: string, cause?: unknown): PluginError {
  return new PluginError('fault', code, message, cause);
}

/** Twelve digits of an id, as Docker prints it. */
export function short(id: string): string {
  return id.slice(0, 12);
}

/** A value as typed, quoted; control characters escaped and long values cut, so that nothing reaches a terminal raw. */
export function quote(value: unknown): string {
  const text = JSON.stringify(typeof value === 'string' && value.length > 80 ? `${value.slice(0, 77)}...` : value);
  // JSON leaves C1 controls and DEL raw; a terminal would obey them.
  return (text ?? 'undefined').replace(/[\u007f-\u009f\u2028\u2029]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

// --- the engine's calls ------------------------------------------------------------------------------------------

export const emptyBody = (call: string) =>
  mistake('EMPTY_BODY', `empty request body for ${call} (an engine's retry after a broken connection, moby#35459); nothing was changed, run the command again`);
