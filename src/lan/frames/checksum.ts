/** The Internet checksum (RFC 1071), which IPv4, UDP and ICMPv6 carry. Pure. */

/** The sum of all 16-bit words and of `start`, carries added in; a part of odd length counts as if a zero followed it. */
export function wordSum(start: number, ...parts: readonly Buffer[]): number {
  let sum = parts.reduce((total, part) => total + sumOf(part), start);
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x10000);
  return sum;
}

/** The complement of that sum. Over what carries its checksum it is 0. */
export function internetChecksum(start: number, ...parts: readonly Buffer[]): number {
  return ~wordSum(start, ...parts) & 0xffff;
}

function sumOf(bytes: Buffer): number {
  let sum = 0;
  for (let offset = 0; offset + 1 < bytes.length; offset += 2) sum += bytes.readUInt16BE(offset);
  return bytes.length % 2 === 0 ? sum : sum + (bytes.readUInt8(bytes.length - 1) << 8);
}
