/** The command line: `serve` is the daemon, the others look, or ask the daemon to do what an engine did not. */
import { getSystemErrorMessage } from 'node:util';
import { helpOf } from './commands/help.ts';
import { readLine } from './commands/words.ts';
import * as errors from './errors.ts';
import { print } from './tables.ts';
import { VERSION } from './version.ts';

/** Resolves with the exit code: 0 done, 1 failed, 2 called wrongly; `probe` and `store` add 3. */
export async function main(words: readonly string[]): Promise<number> {
  try {
    const line = readLine(words);
    if (line.kind === 'version') return print(`tsmacvlan ${VERSION}\n`);
    if (line.kind === 'help') return print(helpOf(line.of));
    const [first = '', second = ''] = line.words;
    return (await line.command.run(line.options, first, second)) ?? 0;
  } catch (error) {
    complain(error instanceof Error ? error.message : String(error));
    return error instanceof errors.PluginError && error.code === 'USAGE' ? 2 : 1;
  }
}

/**
 * A reader that has gone, as of `tsmacvlan leases | head`, has what it wanted; what else keeps the output from being written is
 * a failure. Without a listener either would end the process with a stack trace, the daemon too.
 */
export function quietPipes(): void {
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') return;
    complain(errors.outputFailed(getSystemErrorMessage(error.errno ?? 0)).message);
    process.exitCode = 1;
  });
  process.stderr.on('error', () => undefined);
}

/** What the system or another host says may have anything in it. */
function complain(sentence: string): void {
  process.stderr.write(`tsmacvlan: ${errors.escapeControls(sentence)}\n`);
}
