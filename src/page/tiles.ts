/** How a square looks: each kind by a pattern as well as by a colour, so that nobody has to tell colours apart. */
import { element } from './elements.ts';
import type { SquareKind } from './picture.ts';

/** The key beside the grids, in its order. */
export const LEGEND: Readonly<Record<SquareKind, string>> = {
  container: 'container',
  fixed: 'gateway, host, reserved',
  stranger: 'somebody else on the LAN',
  both: 'conflict: a container and somebody else',
  elsewhere: 'another host that shares the addresses',
  remembered: 'remembered for a container',
  excluded: 'excluded',
  unusable: 'not for hosts',
  free: 'free',
  outside: 'outside the range',
};

type Paint = CanvasRenderingContext2D;
type Painter = (paint: Paint, size: number, colour: (name: string) => string) => void;

const fill =
  (name: string): Painter =>
  (paint, size, colour) => {
    paint.fillStyle = colour(name);
    paint.fillRect(0, 0, size, size);
  };

const stroke =
  (name: string, lines: (size: number) => readonly (readonly number[])[], width = 0.1): Painter =>
  (paint, size, colour) => {
    paint.strokeStyle = colour(name);
    paint.lineWidth = Math.max(1, size * width);
    paint.beginPath();
    for (const [fromX = 0, fromY = 0, toX = 0, toY = 0] of lines(size)) {
      paint.moveTo(fromX, fromY);
      paint.lineTo(toX, toY);
    }
    paint.stroke();
  };

const frame =
  (name: string, width: number): Painter =>
  (paint, size, colour) => {
    const line = Math.max(1, size * width);
    paint.strokeStyle = colour(name);
    paint.lineWidth = line;
    paint.strokeRect(line / 2, line / 2, size - line, size - line);
  };

const dot =
  (name: string, share: number): Painter =>
  (paint, size, colour) => {
    paint.fillStyle = colour(name);
    paint.beginPath();
    paint.arc(size / 2, size / 2, size * share, 0, 2 * Math.PI);
    paint.fill();
  };

const half: Painter = (paint, size, colour) => {
  paint.fillStyle = colour('--stranger');
  paint.beginPath();
  paint.moveTo(size, 0);
  paint.lineTo(size, size);
  paint.lineTo(0, size);
  paint.fill();
};

const cross = (size: number) => [
  [size * 0.22, size * 0.22, size * 0.78, size * 0.78],
  [size * 0.78, size * 0.22, size * 0.22, size * 0.78],
];
const hatching = (size: number) => [
  [0, size / 2, size / 2, 0],
  [0, size, size, 0],
  [size / 2, size, size, size / 2],
];
const stripes = (size: number) => [0.25, 0.5, 0.75].map((share) => [0, size * share, size, size * share]);
const diagonal = (size: number) => [[size, 0, 0, size]];

const PAINTERS: Readonly<Record<SquareKind, readonly Painter[]>> = {
  container: [fill('--container')],
  fixed: [fill('--fixed'), dot('--page', 0.2)],
  stranger: [fill('--stranger'), stroke('--page', cross, 0.12)],
  both: [fill('--container'), half, stroke('--page', diagonal, 0.14)],
  elsewhere: [fill('--container'), stroke('--page', stripes, 0.1)],
  remembered: [fill('--free'), frame('--container', 0.16)],
  excluded: [fill('--free'), stroke('--excluded', hatching, 0.1)],
  unusable: [dot('--excluded', 0.12)],
  free: [fill('--free'), frame('--edge', 0.06)],
  outside: [frame('--free', 0.06)],
};

/** Paints one; `colour` answers the value of a custom property of the style. */
export function paintTile(paint: Paint, kind: SquareKind, size: number, colour: (name: string) => string): void {
  paint.clearRect(0, 0, size, size);
  for (const painter of PAINTERS[kind]) painter(paint, size, colour);
}

const COLOURS = ['--page', '--edge', '--container', '--fixed', '--stranger', '--excluded', '--free'] as const;

/** The value of a custom property of the style, as the theme has it now. A canvas does not know light-dark(): an element is asked. */
export function themeColour(): (name: string) => string {
  const asked = element('span', { hidden: '' });
  document.body.append(asked);
  const known = COLOURS.map((name) => {
    asked.style.color = `var(${name})`;
    return [name, getComputedStyle(asked).color] as const;
  });
  asked.remove();
  const colours = new Map<string, string>(known);
  return (name) => colours.get(name) ?? 'gray';
}

/** Tiles of one size, painted once each. */
export class Tiles {
  readonly size: number;
  readonly #made = new Map<SquareKind, HTMLCanvasElement>();
  readonly #colour = themeColour();

  constructor(size: number) {
    this.size = size;
  }

  /** The tile of a kind. */
  of(kind: SquareKind): HTMLCanvasElement {
    const known = this.#made.get(kind);
    if (known !== undefined) return known;
    const tile = document.createElement('canvas');
    tile.width = tile.height = this.size;
    const paint = tile.getContext('2d');
    if (paint !== null) paintTile(paint, kind, this.size, this.#colour);
    this.#made.set(kind, tile);
    return tile;
  }
}
