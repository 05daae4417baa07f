/** What was measured: rows of medians, and beside them the figures that are judged. */
import { writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { digits, type Spread } from './figures.ts';

type Unit = 'x' | 'ms' | 'µs' | 'MB' | '%';

/** A ratio, a difference or a value of its own; `wanted`: the most it should be, null where it only shows. */
export interface Figure {
  readonly name: string;
  readonly value: number;
  readonly unit: Unit;
  readonly wanted: number | null;
}

export interface Row {
  readonly what: string;
  readonly unit: Unit;
  readonly values: Readonly<Record<string, Spread>>;
  readonly figures: readonly Figure[];
}

/** One median over another. None where one of them is missing. */
export function ratio(values: Row['values'], of: string, to: string, wanted: number | null = null): Figure[] {
  const [above, below] = [values[of]?.median, values[to]?.median];
  if (above === undefined || below === undefined) return [];
  return [{ name: `${of} / ${to}`, value: above / below, unit: 'x', wanted }];
}

/** What one median is above another, in the row's unit of milliseconds. None where one of them is missing. */
export function excess(values: Row['values'], of: string, to: string, wanted: number): Figure[] {
  const [above, below] = [values[of]?.median, values[to]?.median];
  if (above === undefined || below === undefined) return [];
  return [{ name: `${of} - ${to}`, value: above - below, unit: 'ms', wanted }];
}

export class Report {
  readonly #rows: Row[] = [];
  readonly #failures: string[] = [];

  add(row: Row): void {
    this.#rows.push(row);
  }

  /** A measurement that did not come to its end; the others go on. */
  fail(what: string, error: unknown): void {
    this.#failures.push(`${what}: ${error instanceof Error ? error.message : String(error)}`);
  }

  get hasFailed(): boolean {
    return this.#failures.length > 0;
  }

  /** Prints all of it. */
  print(): void {
    console.log(`\n${machine()}; median (10 % to 90 %)`);
    for (const { what, unit, values, figures } of this.#rows) {
      console.log(`\n${what}`);
      for (const [name, { median, p10, p90, count }] of Object.entries(values)) {
        const range = count > 1 ? ` (${digits(p10)} to ${digits(p90)})` : '';
        console.log(`  ${name.padEnd(16)} ${digits(median)} ${unit}${range}`);
      }
      for (const figure of figures) console.log(`  ${figure.name.padEnd(32)} ${judged(figure)}`);
    }
    for (const failure of this.#failures) console.log(`\nnot measured: ${failure}`);
  }

  /** Writes all of it as JSON. */
  write(path: string): void {
    const found = { machine: machine(), date: new Date().toISOString(), rows: this.#rows, failures: this.#failures };
    writeFileSync(path, `${JSON.stringify(found, null, 2)}\n`);
  }
}

function machine(): string {
  return `${cpus().length} cores, Node ${process.version}`;
}

function judged({ value, unit, wanted }: Figure): string {
  const shown = `${unit === 'x' ? value.toFixed(2) : digits(value)} ${unit}`;
  return wanted === null ? shown : `${shown}  (wanted: <= ${wanted} ${unit}${value <= wanted ? '' : ', MISSED'})`;
}
