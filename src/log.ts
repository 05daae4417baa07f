/** The diary: winston behind a small face. The only door to winston. */
import winston from 'winston';
import { escapeControls } from './errors.ts';
import type { LogFormat, LogLevel } from './settings.ts';

/** What a line says beside its message, by name. */
export type Fields = Readonly<Record<string, unknown>>;

/** One method for each level. `fields` come after the message in their order; a value may be anything that JSON has. */
export interface Log {
  debug(message: string, fields?: Fields): void;
  info(message: string, fields?: Fields): void;
  warn(message: string, fields?: Fields): void;
  error(message: string, fields?: Fields): void;
}

/** The daemon's own log. */
export interface DaemonLog extends Log {
  /** From now on. */
  setLevel(level: LogLevel): void;
}

/** Warnings and errors go to standard error, the rest to standard output: an engine logs the two as `error` and `info`. */
export function createLog(level: LogLevel, format: LogFormat): DaemonLog {
  const logger = winston.createLogger({
    level,
    format: winston.format.combine(
      winston.format.timestamp(),
      format === 'json' ? winston.format.json() : textFormat(),
    ),
    transports: [new winston.transports.Console({ stderrLevels: ['error', 'warn'] })],
  });
  // A disabled winston call still costs about 2 µs of formatting arguments; debug is on the hot path.
  let isDebugging = logger.isDebugEnabled();
  return {
    debug: (message, fields) => void (isDebugging && logger.debug(message, fields)),
    info: (message, fields) => void logger.info(message, fields),
    warn: (message, fields) => void logger.warn(message, fields),
    error: (message, fields) => void logger.error(message, fields),
    setLevel(next) {
      logger.level = next;
      isDebugging = logger.isDebugEnabled();
    },
  };
}

/** `2026-11-20T10:00:00.000Z info CreateEndpoint network=3f2a9c1d04be ms=4`; values as JSON, so no value breaks a line. */
function textFormat(): winston.Logform.Format {
  return winston.format.printf(({ timestamp, level, message, ...fields }) => {
    const pairs = Object.entries(fields).map(([name, value]) => `${name}=${plain(value)}`);
    return [timestamp, level, escapeControls(String(message)), ...pairs].join(' ');
  });
}

function plain(value: unknown): string {
  if (typeof value === 'string' && /^[\w.:/@+-]+$/.test(value)) return value;
  return escapeControls(JSON.stringify(value) ?? 'undefined');
}
