import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import fc from 'fast-check';
import { Occupancy } from '../../../src/ipam/occupancy.ts';

const options = { timeout: 20_000 };

/** The same thing said naively. */
class Model {
  readonly used = new Set<bigint>();

  nextFree(from: bigint, to: bigint): bigint | undefined {
    for (let address = from; address <= to; address++) if (!this.used.has(address)) return address;
    return undefined;
  }

  count(from: bigint, to: bigint): number {
    return [...this.used].filter((address) => address >= from && address <= to).length;
  }
}

type Step = fc.Command<Model, Occupancy>;

/** Runs of up to 100 addresses in a window of 256 at the place given, so that cells fill, empty and touch their neighbours. */
function steps(base: bigint): fc.Arbitrary<Iterable<Step>> {
  const run = fc.tuple(fc.integer({ min: 0, max: 255 }), fc.integer({ min: 1, max: 100 }));
  const bounds = run.map(([first, length]): [bigint, bigint] => [
    base + BigInt(first),
    base + BigInt(first + length - 1),
  ]);
  return fc.commands([bounds.map(addRun), bounds.map(deleteRun), bounds.map(takeLowest), bounds.map(compare)], {
    maxCommands: 100,
    size: 'max',
  });
}

function step(name: string, run: (model: Model, real: Occupancy) => void): Step {
  return { check: () => true, run, toString: () => name };
}

function addRun([from, to]: [bigint, bigint]): Step {
  return step(`add ${from}-${to}`, (model, real) => {
    for (let address = from; address <= to; address++) {
      model.used.add(address);
      real.add(address);
    }
  });
}

function deleteRun([from, to]: [bigint, bigint]): Step {
  return step(`delete ${from}-${to}`, (model, real) => {
    for (let address = from; address <= to; address++) {
      model.used.delete(address);
      real.delete(address);
    }
  });
}

function takeLowest([from, to]: [bigint, bigint]): Step {
  return step(`take ${from}-${to}`, (model, real) => {
    const address = real.nextFree(from, to);
    assert.equal(address, model.nextFree(from, to));
    if (address === undefined) return;
    model.used.add(address);
    real.add(address);
  });
}

function compare([from, to]: [bigint, bigint]): Step {
  return step(`compare ${from}-${to}`, (model, real) => {
    assert.equal(real.count(from, to), model.count(from, to));
    assert.equal(real.has(from), model.used.has(from));
    assert.equal(real.nextFree(from, to), model.nextFree(from, to));
    const run = new Occupancy();
    for (let address = from; address <= to; address++) run.add(address);
    const outside = [...model.used].filter((address) => address < from || address > to);
    assert.deepEqual(new Set(real.addresses(run)), new Set(outside));
    assert.equal(real.isEmpty, model.used.size === 0);
  });
}

const places = {
  'at zero': 0n,
  'in the middle of IPv4': 0xc0a80100n,
  'across a cell of cells of cells': (1n << 30n) - 128n,
  'at the end of IPv4': (1n << 32n) - 356n,
  'at the end of IPv6': (1n << 128n) - 356n,
};

for (const [place, base] of Object.entries(places)) {
  test(`answers as a plain set would, ${place}`, options, () => {
    fc.assert(
      fc.property(steps(base), (run) => fc.modelRun(() => ({ model: new Model(), real: new Occupancy() }), run)),
      { numRuns: 60 },
    );
  });
}

test('forgets everything when cleared', options, () => {
  const occupancy = new Occupancy();
  for (let address = 0n; address < 100n; address++) occupancy.add(address);
  occupancy.clear();
  assert.equal(occupancy.nextFree(0n, 100n), 0n);
  assert.equal(occupancy.count(0n, 100n), 0);
});

/** Cells looked at while the action runs, and what it returned. */
function looks<T>(t: TestContext, action: () => T): [number, T] {
  const get = t.mock.method(Map.prototype, 'get');
  const result = action();
  const count = get.mock.callCount();
  get.mock.restore();
  return [count, result];
}

function filled(first: bigint, length: number): Occupancy {
  const occupancy = new Occupancy();
  for (let n = 0; n < length; n++) occupancy.add(first + BigInt(n));
  return occupancy;
}

test('the first address of a /8 and of a /64 costs what that of a /24 costs', options, (t) => {
  for (const [first, size] of [
    [0xc0a80101n, 8n],
    [0x0a000001n, 24n],
    [0xfdn << 120n, 64n],
  ] as const) {
    const occupancy = filled(first, 2);
    const [cells, address] = looks(t, () => occupancy.nextFree(first, first + (1n << size) - 3n));
    assert.equal(address, first + 2n);
    assert.equal(cells, 1);
  }
});

test('a search looks at a handful of cells, however many addresses in a row are used', options, (t) => {
  for (const [length, bound] of [
    [250, 4],
    [65_533, 8],
    [1_100_000, 10],
  ] as const) {
    const occupancy = filled(0x0a000001n, length);
    const [cells, address] = looks(t, () => occupancy.nextFree(0x0a000001n, 0x0afffffen));
    assert.equal(address, 0x0a000001n + BigInt(length));
    assert.ok(cells <= bound, `${cells} cells after ${length} addresses`);
  }
});

test('a free address between two long runs is found at once', options, (t) => {
  const occupancy = filled(0x0a000000n, 200_000);
  occupancy.delete(0x0a01869fn);
  const [cells, address] = looks(t, () => occupancy.nextFree(0x0a000000n, 0x0affffffn));
  assert.equal(address, 0x0a01869fn);
  assert.ok(cells <= 10, `${cells} cells`);
});
