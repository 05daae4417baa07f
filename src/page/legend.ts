/** The key of the squares. */
import { element } from './elements.ts';
import type { SquareKind } from './picture.ts';
import { LEGEND, paintTile, themeColour } from './tiles.ts';

const SIZE = 14;

/** The list of all kinds, each with its tile; made again when the theme changes. */
export function drawLegend(): HTMLElement {
  const scale = window.devicePixelRatio;
  const colour = themeColour();
  const items = (Object.keys(LEGEND) as SquareKind[]).map((kind) => {
    const tile = element('canvas', { width: SIZE * scale, height: SIZE * scale, 'aria-hidden': 'true' });
    const paint = tile.getContext('2d');
    if (paint !== null) paintTile(paint, kind, SIZE * scale, colour);
    return element('li', {}, tile, LEGEND[kind]);
  });
  return element('ul', { class: 'legend', 'aria-label': 'what the squares mean' }, ...items);
}
