/** What the loader needs of an ELF file (elf(5)); 64-bit little-endian only, as our two architectures are. */
import { readFileSync } from 'node:fs';

/** The Debian names, by e_machine. */
const MACHINES: Readonly<Record<number, string>> = { 62: 'amd64', 183: 'arm64' };

const PT_LOAD = 1;
const PT_DYNAMIC = 2;
const PT_INTERP = 3;
const DT_NULL = 0n;
const DT_NEEDED = 1n;
const DT_STRTAB = 5n;
const SECTION_FIELDS_AT = 0x3a;

export interface Elf {
  /** `amd64` or `arm64`. */
  readonly architecture: string;
  /** Path of the dynamic loader; null for a library. */
  readonly interpreter: string | null;
  /** Names of the libraries it asks for, `libc.so.6`. */
  readonly needed: readonly string[];
  /** The file without symbols, debug information and section table: exactly what is mapped at run time. */
  readonly loaded: Buffer;
}

interface Segment {
  readonly type: number;
  readonly offset: number;
  readonly address: bigint;
  readonly size: number;
}

/** Undefined for a file that is no ELF. */
export function readElf(path: string): Elf | undefined {
  const file = readFileSync(path);
  if (file.subarray(0, 4).toString('latin1') !== '\x7fELF') return undefined;
  const architecture = MACHINES[file.readUInt16LE(18)];
  if (architecture === undefined) throw new Error(`${path} is for another machine than amd64 and arm64`);
  const segments = readSegments(file);
  const interpreter = segments.find(({ type }) => type === PT_INTERP);
  return {
    architecture,
    interpreter: interpreter === undefined ? null : text(file, interpreter.offset),
    needed: readNeeded(file, segments),
    loaded: withoutSections(file, segments),
  };
}

function readSegments(file: Buffer): Segment[] {
  const [start, size, count] = [Number(file.readBigUInt64LE(32)), file.readUInt16LE(54), file.readUInt16LE(56)];
  return Array.from({ length: count }, (_, index) => {
    const at = start + index * size;
    return {
      type: file.readUInt32LE(at),
      offset: Number(file.readBigUInt64LE(at + 8)),
      address: file.readBigUInt64LE(at + 16),
      size: Number(file.readBigUInt64LE(at + 32)),
    };
  });
}

function readNeeded(file: Buffer, segments: readonly Segment[]): string[] {
  const dynamic = segments.find(({ type }) => type === PT_DYNAMIC);
  if (dynamic === undefined) return [];
  const entries = readDynamic(file, dynamic);
  const strings = offsetOf(entries.find(([tag]) => tag === DT_STRTAB)?.[1] ?? 0n, segments);
  return entries.filter(([tag]) => tag === DT_NEEDED).map(([, value]) => text(file, strings + Number(value)));
}

function readDynamic(file: Buffer, { offset, size }: Segment): [bigint, bigint][] {
  const entries: [bigint, bigint][] = [];
  for (let at = offset; at < offset + size; at += 16) {
    const tag = file.readBigUInt64LE(at);
    if (tag === DT_NULL) break;
    entries.push([tag, file.readBigUInt64LE(at + 8)]);
  }
  return entries;
}

/** Where in the file a virtual address lies. */
function offsetOf(address: bigint, segments: readonly Segment[]): number {
  const segment = segments.find(
    ({ type, address: start, size }) => type === PT_LOAD && address >= start && address < start + BigInt(size),
  );
  if (segment === undefined) throw new Error(`address ${address} is in no segment`);
  return segment.offset + Number(address - segment.address);
}

function text(file: Buffer, at: number): string {
  return file.toString('latin1', at, file.indexOf(0, at));
}

/** What strip(1) does, for any architecture on any machine: the kernel and the loader look at segments only. */
function withoutSections(file: Buffer, segments: readonly Segment[]): Buffer {
  const end = Math.max(...segments.filter(({ type }) => type === PT_LOAD).map(({ offset, size }) => offset + size));
  const loaded = Buffer.from(file.subarray(0, end));
  loaded.writeBigUInt64LE(0n, 0x28);
  loaded.fill(0, SECTION_FIELDS_AT, SECTION_FIELDS_AT + 6);
  return loaded;
}
