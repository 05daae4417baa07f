/** Whether the daemon can do its work, for who asks `/healthz` or `Plugin.Health`. */
import { escapeControls, type PluginError } from './errors.ts';

/**
 * `starting`: what the host lost is being made again. `failing`: containers do not start. `degraded`: some do not, and to start the
 * daemon again would change nothing.
 */
export interface Health {
  readonly status: 'ok' | 'starting' | 'degraded' | 'failing';
  /** Sentences. */
  readonly reasons: readonly string[];
}

/** A store that hosts share, as this one sees it. */
export interface Sharing {
  readonly isUp: boolean;
  /** Why not, as the code of an error; null while it is up, and before it was asked. */
  readonly code: string | null;
}

/** A call that has ended. */
export interface EndedCall {
  /** `NetworkDriver.Join` */
  readonly name: string;
  /** `ok`, `unheard`, or the code of an error. */
  readonly outcome: string;
  readonly ms: number;
  /** Its reply told of a change that is on the disk. */
  readonly isLasting: boolean;
  readonly error: PluginError | null;
}

interface HealthParts {
  /** Settled when recovery is over. */
  readonly recovered: Promise<unknown>;
  /** Throws why nothing can be made durable any more. */
  readonly durable: () => Promise<void>;
  readonly sharing: () => Sharing | null;
}

/** Follows what it is told, and looks when it is asked. */
export class HealthWatch {
  readonly #parts: HealthParts;
  #recovery: 'pending' | 'done' | Error = 'pending';
  /** Of the state on the disk, by the last call that met it. */
  #storeFault: PluginError | null = null;

  constructor(parts: HealthParts) {
    this.#parts = parts;
    parts.recovered.then(
      () => (this.#recovery = 'done'),
      (error: unknown) => (this.#recovery = error instanceof Error ? error : new Error(String(error))),
    );
  }

  /** A call that wrote mends what one before could not write. */
  noteCall({ outcome, isLasting, error }: EndedCall): void {
    if (outcome === 'ok' && isLasting) this.#storeFault = null;
    else if (error?.code.startsWith('STORE_')) this.#storeFault = error;
  }

  /** Never throws. What comes from elsewhere has no control characters. */
  async health(): Promise<Health> {
    const { status, reasons } = await this.#look();
    return { status, reasons: reasons.map(escapeControls) };
  }

  async #look(): Promise<Health> {
    if (this.#recovery instanceof Error)
      return { status: 'failing', reasons: [`recovery failed: ${this.#recovery.message}`] };
    const fault = await this.#parts.durable().then(
      () => this.#storeFault?.message ?? null,
      (error: unknown) => (error instanceof Error ? error.message : String(error)),
    );
    if (fault !== null) return { status: 'failing', reasons: [fault] };
    if (this.#recovery === 'pending')
      return { status: 'starting', reasons: ['what this host lost is being made again'] };
    const sharing = this.#parts.sharing();
    if (sharing === null || sharing.isUp) return { status: 'ok', reasons: [] };
    return { status: 'degraded', reasons: [`the shared store cannot be used (${sharing.code ?? 'not reached yet'})`] };
  }
}
