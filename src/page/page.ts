/**
 * The page of `tsmacvlan map --serve` and `map --html`, as it runs in a browser. A page that was written into a file has its picture
 * inside; one that is served gets each new one by server-sent events.
 */
import { countContainers } from './branches.ts';
import { byId, element, oncePerFrame } from './elements.ts';
import { GridList } from './gridlist.ts';
import { drawLegend } from './legend.ts';
import type { Picture, PictureEvent } from './picture.ts';
import { followTheme } from './theme.ts';
import { Timeline } from './timeline.ts';
import { timeText } from './timespan.ts';
import { TreeView } from './treeview.ts';

/** A page that hears nothing for so long says so. */
const SILENCE_MS = 20_000;
/** What has not changed is drawn again so often. */
const REDRAW_MS = 60_000;

const tree = new TreeView();
const timeline = new Timeline();
const grids = new GridList();
const find = byId('find') as HTMLInputElement;
let picture: Picture | null = null;
let drawnAtMs = 0;

const draw = oncePerFrame(drawNow);

function drawNow(): void {
  if (picture === null) return;
  const startedMs = performance.now();
  drawnAtMs = Date.parse(picture.at);
  const wanted = find.value.trim().toLowerCase();
  byId('host').textContent = picture.host;
  const rows = tree.show(picture.tree, wanted);
  grids.show(picture.grids, wanted);
  const has = (text: string) => text.toLowerCase().includes(wanted);
  const conflicts = picture.conflicts.filter(
    ({ address, container, holder }) => has(address) || has(container) || has(holder),
  );
  timeline.show(conflicts, picture.at);
  byId('found').textContent = wanted === '' ? '' : `${countContainers(rows)} containers found`;
  sayAll('remarks', picture.remarks);
  // For who measures: what the browser does for one picture.
  performance.measure('draw', { start: startedMs, end: performance.now() });
}

function sayAll(id: string, sentences: readonly string[]): void {
  const place = byId(id);
  // What is said again would be read aloud again.
  if (place.textContent === sentences.join('')) return;
  place.replaceChildren(...sentences.map((text) => element('p', {}, text)));
}

// --- where pictures come from ------------------------------------------------------------------------------------

function listen(): void {
  let isSilent = setTimeout(lost, SILENCE_MS);
  const source = new EventSource('events');
  source.onmessage = ({ data }) => {
    const { at, picture: told, trouble } = JSON.parse(String(data)) as PictureEvent;
    clearTimeout(isSilent);
    isSilent = setTimeout(lost, SILENCE_MS);
    byId('live').textContent = `live, ${new Date(at).toLocaleTimeString()}`;
    sayAll('trouble', trouble === undefined ? [] : [shownIsOld(trouble)]);
    if (trouble !== undefined) return;
    // Where nothing has changed it is the picture of this moment too, and the days of the conflicts go on.
    if (told !== undefined) picture = told;
    else if (picture !== null) picture = { ...picture, at };
    if (told !== undefined || Math.abs(Date.parse(at) - drawnAtMs) > REDRAW_MS) draw();
  };
  source.onerror = () => {
    lost();
    // Refused, as where too many look: the browser does not ask again by itself.
    if (source.readyState !== EventSource.CLOSED) return;
    clearTimeout(isSilent);
    setTimeout(listen, SILENCE_MS);
  };
}

function lost(): void {
  byId('live').textContent = 'not live';
  sayAll('trouble', [shownIsOld('tsmacvlan map --serve does not answer')]);
}

function shownIsOld(trouble: string): string {
  return picture === null ? trouble : `${trouble}; this is the picture of ${new Date(picture.at).toLocaleTimeString()}`;
}

// --- the start ---------------------------------------------------------------------------------------------------

byId('tree').append(tree.element);
byId('grids').append(grids.element);
byId('conflicts').append(timeline.element);
find.addEventListener('input', draw);
followTheme(byId('theme'), () => {
  byId('legend').replaceChildren(drawLegend());
  grids.repaint();
});
const inside = JSON.parse(byId('picture').textContent) as Picture | null;
if (inside === null) listen();
else {
  picture = inside;
  byId('live').textContent = `as of ${timeText(inside.at)}`;
  drawNow();
}
