/** Conflicts on an axis of days. Pure. */
import type { PictureConflict } from './picture.ts';

const DAY_MS = 86_400_000;

/** Lengths of the axis, in days. */
export const SPANS = [1, 7, 30, 365] as const;

/** The shortest axis, of a week at least, that has all of them; else the longest. */
export function spanOf(conflicts: readonly PictureConflict[], nowMs: number): number {
  const oldest = Math.min(nowMs, ...conflicts.map(({ firstSeenAt }) => Date.parse(firstSeenAt)));
  return SPANS.find((days) => days >= 7 && days * DAY_MS >= nowMs - oldest) ?? 365;
}

/** Where a conflict lies on the axis, in percent of its length; null for one that ended before. */
export function placeOnAxis(
  { firstSeenAt, endedAt }: PictureConflict,
  days: number,
  nowMs: number,
): { left: number; width: number } | null {
  const beginMs = nowMs - days * DAY_MS;
  const percent = (ms: number) => Math.min(100, Math.max(0, ((ms - beginMs) / (nowMs - beginMs)) * 100));
  const endMs = endedAt === null ? nowMs : Date.parse(endedAt);
  if (endMs < beginMs) return null;
  const left = percent(Date.parse(firstSeenAt));
  return { left, width: percent(endMs) - left };
}

/** Behind it, in percent, the words of a tick would not be on the axis any more. */
const ROOM_FROM = 92;

/** Some six days on the axis, each at the beginning of a day, by the clock of who looks. */
export function ticksOf(days: number, nowMs: number): { left: number; text: string }[] {
  const step = Math.max(1, Math.ceil(days / 6));
  const midnight = new Date(nowMs);
  midnight.setHours(0, 0, 0, 0);
  const some = Array.from({ length: Math.ceil(days / step) }, (_, index) => {
    const day = new Date(midnight);
    day.setDate(day.getDate() - index * step);
    return day;
  });
  return some
    .map((day) => ({ left: 100 - ((nowMs - day.getTime()) / (days * DAY_MS)) * 100, text: dayOf(day) }))
    .filter(({ left }, index, { length }) => left >= 0 && (left <= ROOM_FROM || (index === 0 && length === 1)));
}

function dayOf(day: Date): string {
  return `${day.getFullYear()}-${two(day.getMonth() + 1)}-${two(day.getDate())}`;
}

/** `2026-11-30 01:12`, by the clock of who looks. */
export function timeText(iso: string): string {
  const time = new Date(iso);
  return Number.isNaN(time.getTime()) ? iso : `${dayOf(time)} ${two(time.getHours())}:${two(time.getMinutes())}`;
}

function two(number: number): string {
  return String(number).padStart(2, '0');
}
