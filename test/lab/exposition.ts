/**
 * The text format of Prometheus (https://prometheus.io/docs/instrumenting/exposition_formats/), read as strictly as promtool does and
 * more: what is not said to be allowed is refused.
 */
export interface Sample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

export interface Family {
  readonly type: 'counter' | 'gauge' | 'histogram';
  readonly help: string;
  readonly samples: readonly Sample[];
}

const NAME = '[a-zA-Z_:][a-zA-Z0-9_:]*';
const HELP = new RegExp(`^# HELP (${NAME}) (\\S.*)$`);
const TYPE = new RegExp(`^# TYPE (${NAME}) (counter|gauge|histogram)$`);
const SAMPLE = new RegExp(`^(${NAME})(?:\\{(.*)\\})? (\\S+)$`);
const LABEL = /^([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"(,|$)/;
const NUMBER = /^([+-]Inf|NaN|[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?)$/;

/** By name. Throws for what the format does not allow, and for habits that promtool complains of. */
export function readExposition(text: string): Map<string, Family> {
  if (!text.endsWith('\n')) throw new Error('the last line has no end');
  const families = new Map<string, { type: Family['type']; help: string; samples: Sample[] }>();
  const seen = new Set<string>();
  let help: { name: string; text: string } | undefined;
  let current: { name: string; type: Family['type']; samples: Sample[] } | undefined;
  for (const line of text.slice(0, -1).split('\n')) {
    if (line === '') continue;
    const [, helped = '', words = ''] = HELP.exec(line) ?? [];
    const [, typed = '', type = ''] = TYPE.exec(line) ?? [];
    if (helped !== '') help = { name: helped, text: words };
    else if (typed !== '') {
      if (help?.name !== typed) throw new Error(`TYPE without its HELP: ${line}`);
      if (families.has(typed)) throw new Error(`a family comes twice: ${typed}`);
      if ((type === 'counter') !== typed.endsWith('_total')) throw new Error(`counters end in _total: ${line}`);
      current = { name: typed, type: type as Family['type'], samples: [] };
      families.set(typed, { type: current.type, help: help.text, samples: current.samples });
    } else {
      const sample = readSample(line);
      const key = JSON.stringify([sample.name, Object.entries(sample.labels).sort()]);
      if (seen.has(key)) throw new Error(`a series comes twice: ${line}`);
      seen.add(key);
      if (current === undefined || !belongs(sample, current)) throw new Error(`not of the family above: ${line}`);
      if (current.type !== 'gauge' && !(sample.value >= 0)) throw new Error(`below zero: ${line}`);
      current.samples.push(sample);
    }
  }
  for (const [name, family] of families) if (family.type === 'histogram') checkHistogram(name, family);
  return families;
}

/** The value of one series. */
export function valueOf(
  families: ReadonlyMap<string, Family>,
  name: string,
  labels: Readonly<Record<string, string>> = {},
) {
  const family = families.get(name) ?? families.get(name.replace(/_(bucket|sum|count)$/, ''));
  const isIt = (sample: Sample) =>
    sample.name === name && Object.entries(labels).every(([label, value]) => sample.labels[label] === value);
  return family?.samples.find(isIt)?.value;
}

function belongs({ name }: Sample, family: { name: string; type: string }): boolean {
  if (family.type !== 'histogram') return name === family.name;
  return ['_bucket', '_sum', '_count'].some((end) => name === family.name + end);
}

function readSample(line: string): Sample {
  const [, name = '', inner = '', number = ''] = SAMPLE.exec(line) ?? [];
  if (name === '' || !NUMBER.test(number)) throw new Error(`no sample: ${JSON.stringify(line)}`);
  const labels: Record<string, string> = {};
  for (let rest = inner; rest !== ''; ) {
    const found = LABEL.exec(rest);
    if (found === null) throw new Error(`no label: ${JSON.stringify(line)}`);
    const [all, label = '', value = ''] = found;
    if (label in labels || label.startsWith('__')) throw new Error(`label ${label}: ${line}`);
    labels[label] = value.replace(/\\([\\"n])/g, (_, one: string) => (one === 'n' ? '\n' : one));
    rest = rest.slice(all.length);
  }
  return { name, labels, value: number.endsWith('Inf') ? Number(`${number}inity`) : Number(number) };
}

/** Buckets grow, the last is that of all, and it is the count. */
function checkHistogram(name: string, { samples }: Family): void {
  const groups = new Map<string, Sample[]>();
  for (const sample of samples) {
    const { le: _, ...labels } = sample.labels;
    const key = JSON.stringify(Object.entries(labels).sort());
    groups.set(key, [...(groups.get(key) ?? []), sample]);
  }
  for (const [key, group] of groups) {
    const buckets = group.filter((sample) => sample.name === `${name}_bucket`);
    const bounds = buckets.map(({ labels }) =>
      labels['le'] === '+Inf' ? Number.POSITIVE_INFINITY : Number(labels['le']),
    );
    const counts = buckets.map(({ value }) => value);
    const grows = (some: readonly number[], isStrict: boolean) =>
      some.every((one, at) => at === 0 || (isStrict ? one > (some[at - 1] ?? 0) : one >= (some[at - 1] ?? 0)));
    const count = group.find((sample) => sample.name === `${name}_count`)?.value;
    const isWhole = bounds.at(-1) === Number.POSITIVE_INFINITY && counts.at(-1) === count;
    const hasSum = group.some((sample) => sample.name === `${name}_sum`);
    if (!grows(bounds, true) || !grows(counts, false) || !isWhole || !hasSum)
      throw new Error(`histogram ${name} ${key}`);
  }
}
