import type { Log } from '../log.ts';

/** Undoing never hides the first error: its own failure is logged. `what`: the thing that is mended, for the log. */
export async function undo(log: Log, what: string, step: () => Promise<unknown>): Promise<void> {
  try {
    await step();
  } catch (error) {
    log.error(`could not mend ${what}`, { error: String(error) });
  }
}
