/** Runs programs and says what came out. */
import { execFile } from 'node:child_process';

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
export function run(argv: readonly string[], options: RunOptions = {}): Promise<Result> {
  const [command = '', ...args] = argv;
  const { env = process.env, input = '', timeoutMs = 180_000 } = options;
  return new Promise((resolve, reject) => {
    const settings = { env, timeout: timeoutMs, killSignal: 'SIGKILL', maxBuffer: 64 << 20 } as const;
    const child = execFile(command, args, settings, (error, stdout, stderr) => {
      if (error && typeof error.code === 'string') reject(new Error(`${command} cannot be run`, { cause: error }));
      else
        resolve({
          code: child.exitCode ?? 128,
          stdout,
          stderr: error?.killed ? `${stderr}\nkilled after ${timeoutMs} ms` : stderr,
        });
    });
    child.stdin?.on('error', () => {}).end(input);
  });
}

/** Runs a program that must succeed and answers its output without the last line end. */
export async function output(argv: readonly string[], options?: RunOptions): Promise<string> {
  const { code, stdout, stderr } = await run(argv, options);
  if (code !== 0) throw new Error(`${argv.join(' ')}: exit code ${code}: ${stderr.trim() || stdout.trim()}`);
  return stdout.trimEnd();
}
