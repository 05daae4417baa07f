/** Runs programs and says what came out. */
import { Program } from './program.ts';

export interface Result {
  code: number;
  stdout: string;
  stderr: string;
}

export interface RunOptions {
  env?: NodeJS.ProcessEnv;
  /** Written to the standard input, which is empty otherwise. */
  input?: string | Buffer;
  /** Default 180 s; the program is killed then and the code is not 0. */
  timeoutMs?: number;
}

/** Runs a program to its end; a code other than 0 is an answer, not an error. */
export async function run(argv: readonly string[], options: RunOptions = {}): Promise<Result> {
  const { env = process.env, input = '', timeoutMs = 180_000 } = options;
  const program = Program.start(argv, env, input.length > 0);
  const late = new AbortController();
  const deadline = setTimeout(() => {
    process.kill(program.pid, 'SIGKILL');
    late.abort();
  }, timeoutMs);
  try {
    const result = await program.ended(input, late.signal);
    return late.signal.aborted ? { ...result, stderr: `${result.stderr}\nkilled after ${timeoutMs} ms` } : result;
  } finally {
    clearTimeout(deadline);
  }
}

/** Runs a program that must succeed and answers its output without the last line end. */
export async function output(argv: readonly string[], options?: RunOptions): Promise<string> {
  return outputOf(argv, await run(argv, options));
}

/** The same while this process stands still: for what is over in a moment. */
export function outputSync(argv: readonly string[], input = ''): string {
  return outputOf(argv, Program.start(argv, process.env, input !== '').endedSync(input));
}

function outputOf(argv: readonly string[], { code, stdout, stderr }: Result): string {
  if (code !== 0) throw new Error(`${argv.join(' ')}: exit code ${code}: ${stderr.trim() || stdout.trim()}`);
  return stdout.trimEnd();
}
