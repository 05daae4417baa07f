/** Stands where src/kernel/readiness.ts stands. A kernel that has no such thing: the product reads by the time. */
export function whenReadable(): null {
  return null;
}
