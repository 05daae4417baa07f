/** Refusals of the kernel as typed errors. */
import { constants } from 'node:os';

/** What callers and tests compare is `code`; the text is for logs, sentences for users are made in errors.ts. */
export class KernelError extends Error {
  /** Positive: 16. */
  readonly errno: number;
  /** `EBUSY`; `errno 132` where the number has no name here. */
  readonly code: string;
  /** What was tried: `add macvlan tsm0123`. */
  readonly operation: string;
  /** The kernel's own words (NLMSGERR_ATTR_MSG), when it gave any: `Unknown device type`. */
  readonly detail: string | null;

  constructor(operation: string, errno: number, detail: string | null = null) {
    const code = errorCode(errno);
    super(`cannot ${operation}: ${code}${detail === null ? '' : ` (${detail})`}`);
    this.name = 'KernelError';
    this.errno = errno;
    this.code = code;
    this.operation = operation;
    this.detail = detail;
  }
}

const SYNONYMS = new Set(['EWOULDBLOCK', 'ENOTSUP']);
const CODES = new Map(
  Object.entries(constants.errno)
    .filter(([code]) => !SYNONYMS.has(code))
    .map(([code, errno]) => [errno, code]),
);

/** 16 → `EBUSY`. Of two names for one number the kernel's: EAGAIN, EOPNOTSUPP. */
export function errorCode(errno: number): string {
  return CODES.get(errno) ?? `errno ${errno}`;
}

/** Passes the result of a system call on; a negative one is thrown. */
export function check(operation: string, result: number): number {
  if (result < 0) throw new KernelError(operation, -result);
  return result;
}

/** Whether `error` is the kernel's refusal with one of these codes. */
export function isKernelError(error: unknown, ...codes: string[]): boolean {
  return error instanceof KernelError && (codes.length === 0 || codes.includes(error.code));
}
