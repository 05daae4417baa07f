/**
 * Netlink messages as bytes (linux/netlink.h). Pure. A message is a header of 16 bytes, a body of fixed size that
 * belongs to its type, and attributes {u16 length, u16 type, value}, each padded to four bytes; the padding is not
 * counted in the attribute's length.
 *
 * Whatever bytes come in, decoding ends in a value or in a KernelError with code EBADMSG.
 */
import { constants } from 'node:os';
import { KernelError } from './errno.ts';

export const NLMSG_ERROR = 2;
export const NLMSG_DONE = 3;

const NLM_F_REQUEST = 0x1;
export const NLM_F_ACK = 0x4;
export const NLM_F_DUMP_INTR = 0x10;
export const NLM_F_EXCL = 0x200;
export const NLM_F_DUMP = 0x300;
export const NLM_F_CREATE = 0x400;

const NLM_F_CAPPED = 0x100;
const NLM_F_ACK_TLVS = 0x200;
const NLMSGERR_ATTR_MSG = 1;

const NLA_F_NESTED = 0x8000;
const NLA_TYPE_MASK = 0x3fff;

const HEADER_SIZE = 16;
const ATTRIBUTE_HEADER_SIZE = 4;
const EMPTY = Buffer.alloc(0);

/** What a request consists of; sequence number and length are added on sending. */
export interface Request {
  /** RTM_*. */
  readonly type: number;
  /** NLM_F_* beside NLM_F_REQUEST. */
  readonly flags: number;
  /** The type's fixed body, then attributes. */
  readonly body: Buffer;
}

/** A message from the kernel, without its header. */
export interface Message {
  readonly type: number;
  readonly flags: number;
  readonly sequence: number;
  readonly body: Buffer;
}

/** What the kernel said to one request. */
export interface Answer {
  readonly messages: Message[];
  /** The kernel's refusal; null when it did what was asked. */
  readonly error: KernelError | null;
}

/** One attribute, its type without flag bits. */
export interface Attribute {
  readonly type: number;
  readonly value: Buffer;
}

/** Header and body, padded to four bytes. */
export function encodeMessage({ type, flags, body }: Request, sequence: number): Buffer {
  const header = Buffer.alloc(HEADER_SIZE);
  header.writeUInt32LE(HEADER_SIZE + body.length);
  header.writeUInt16LE(type, 4);
  header.writeUInt16LE(flags | NLM_F_REQUEST, 6);
  header.writeUInt32LE(sequence, 8);
  return pad(Buffer.concat([header, body]));
}

/** The messages of one datagram; their bodies are slices of it. */
export function decodeMessages(datagram: Buffer): Message[] {
  const messages: Message[] = [];
  for (let offset = 0; offset + HEADER_SIZE <= datagram.length; ) {
    const length = u32(datagram, offset);
    if (length < HEADER_SIZE || offset + length > datagram.length) throw malformed('message', offset);
    messages.push({
      type: u16(datagram, offset + 4),
      flags: u16(datagram, offset + 6),
      sequence: u32(datagram, offset + 8),
      body: datagram.subarray(offset + HEADER_SIZE, offset + length),
    });
    offset += align(length);
  }
  return messages;
}

/** Header and value, padded to four bytes; the header has the length without padding. */
export function encodeAttribute(type: number, value: Uint8Array): Buffer {
  const header = Buffer.alloc(ATTRIBUTE_HEADER_SIZE);
  header.writeUInt16LE(ATTRIBUTE_HEADER_SIZE + value.length);
  header.writeUInt16LE(type, 2);
  return pad(Buffer.concat([header, value]));
}

/** An attribute whose value is attributes. */
export function nested(type: number, ...attributes: Buffer[]): Buffer {
  return encodeAttribute(type | NLA_F_NESTED, Buffer.concat(attributes));
}

/** NUL-terminated. Text with a NUL in it would silently become another text, so it is refused as the kernel would. */
export function stringAttribute(type: number, text: string): Buffer {
  if (text.includes('\0'))
    throw new KernelError('encode a netlink attribute', constants.errno.EINVAL, 'text holds a NUL');
  return encodeAttribute(type, Buffer.from(`${text}\0`));
}

/** One byte. */
export function u8Attribute(type: number, value: number): Buffer {
  return encodeAttribute(type, Uint8Array.of(value));
}

/** Two bytes in host byte order. */
export function u16Attribute(type: number, value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16LE(value);
  return encodeAttribute(type, bytes);
}

/** In network byte order: VLAN protocols. */
export function be16Attribute(type: number, value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return encodeAttribute(type, bytes);
}

/** Four bytes in host byte order. */
export function u32Attribute(type: number, value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return encodeAttribute(type, bytes);
}

/** Attributes from `offset` to the end, in order; types without their flag bits, values as slices. */
export function decodeAttributes(bytes: Buffer, offset = 0): Attribute[] {
  const attributes: Attribute[] = [];
  forEachAttribute(bytes, offset, (type, start, end) => attributes.push({ type, value: bytes.subarray(start, end) }));
  return attributes;
}

/** `visit` gets the type and where the value starts and ends. */
function forEachAttribute(
  bytes: Buffer,
  offset: number,
  visit: (type: number, start: number, end: number) => void,
): void {
  if (offset > bytes.length) throw malformed('body', bytes.length);
  for (let at = offset; at + ATTRIBUTE_HEADER_SIZE <= bytes.length; ) {
    const length = u16(bytes, at);
    if (length < ATTRIBUTE_HEADER_SIZE || at + length > bytes.length) throw malformed('attribute', at);
    visit(u16(bytes, at + 2) & NLA_TYPE_MASK, at + ATTRIBUTE_HEADER_SIZE, at + length);
    at += align(length);
  }
}

/** Within bounds. Buffer's own method checks for them with every byte of a thousand links. */
function u16(bytes: Buffer, at: number): number {
  return (bytes[at] as number) | ((bytes[at + 1] as number) << 8);
}

function u32(bytes: Buffer, at: number): number {
  return (u16(bytes, at) | (u16(bytes, at + 2) << 16)) >>> 0;
}

/**
 * Attributes by type. A value that is shorter than its type reads as null, so that one odd link does not spoil a list;
 * a longer one is read as far as it is known, because the kernel lets attributes grow.
 */
export class Attributes {
  readonly #bytes: Buffer;
  /** Where values start: slices are made on demand. */
  readonly #starts = new Map<number, number>();

  /** Of `wanted` types only, where that is given: a link has some sixty attributes of which we read fifteen. */
  constructor(bytes: Buffer, offset = 0, wanted?: ReadonlySet<number>) {
    this.#bytes = bytes;
    forEachAttribute(bytes, offset, (type, start) => {
      if (wanted === undefined || wanted.has(type)) this.#starts.set(type, start);
    });
  }

  /** Whether the type occurs at all, and is one of the wanted. */
  has(type: number): boolean {
    return this.#starts.has(type);
  }

  /** The value as a slice of what was decoded; null when absent. */
  bytes(type: number): Buffer | null {
    const start = this.#starts.get(type);
    return start === undefined ? null : this.#bytes.subarray(start, this.#end(start));
  }

  /** Host byte order; null when absent or too short. */
  u16(type: number): number | null {
    const start = this.#startOf(type, 2);
    return start === null ? null : u16(this.#bytes, start);
  }

  /** Network byte order; null when absent or too short. */
  be16(type: number): number | null {
    const start = this.#startOf(type, 2);
    return start === null ? null : this.#bytes.readUInt16BE(start);
  }

  /** Host byte order; null when absent or too short. */
  u32(type: number): number | null {
    const start = this.#startOf(type, 4);
    return start === null ? null : u32(this.#bytes, start);
  }

  /** Signed, host byte order; null when absent or too short. */
  i32(type: number): number | null {
    const start = this.#startOf(type, 4);
    return start === null ? null : this.#bytes.readInt32LE(start);
  }

  /** Up to the first NUL; null when absent. */
  text(type: number): string | null {
    const value = this.bytes(type);
    return value === null ? null : decodeText(value);
  }

  /** Absent attributes read as an empty list. */
  nested(type: number): Attributes {
    return new Attributes(this.bytes(type) ?? EMPTY);
  }

  /** Null when the value is shorter than `size`. */
  #startOf(type: number, size: number): number | null {
    const start = this.#starts.get(type);
    return start !== undefined && this.#end(start) - start >= size ? start : null;
  }

  #end(start: number): number {
    const header = start - ATTRIBUTE_HEADER_SIZE;
    return header + u16(this.#bytes, header);
  }
}

/** Up to the first NUL, or to the end. */
export function decodeText(value: Buffer): string {
  const end = value.indexOf(0);
  return value.toString('utf8', 0, end < 0 ? value.length : end);
}

/** How a request or a dump ended. */
export interface Acknowledgement {
  /** Positive errno; 0 for success. */
  readonly errno: number;
  /** The kernel's extended-ACK text. */
  readonly detail: string | null;
}

/** The body of NLMSG_ERROR: i32 negated errno, the request's header and, unless capped, its body; then attributes. */
export function decodeAcknowledgement({ body, flags }: Message): Acknowledgement {
  if (body.length < 4 + HEADER_SIZE) throw malformed('acknowledgement', body.length);
  const errno = -body.readInt32LE();
  const requestLength = (flags & NLM_F_CAPPED) === 0 ? Math.max(HEADER_SIZE, body.readUInt32LE(4)) : HEADER_SIZE;
  return { errno, detail: flags & NLM_F_ACK_TLVS ? extendedText(body, 4 + align(requestLength)) : null };
}

/** The end of a dump carries the dump's errno, and after it the same attributes as an acknowledgement. */
export function decodeDone({ body, flags }: Message): Acknowledgement {
  if (body.length < 4) throw malformed('end of a dump', body.length);
  return { errno: -body.readInt32LE(), detail: flags & NLM_F_ACK_TLVS ? extendedText(body, 4) : null };
}

function extendedText(body: Buffer, offset: number): string | null {
  return new Attributes(body, offset).text(NLMSGERR_ATTR_MSG);
}

function align(length: number): number {
  return (length + 3) & ~3;
}

function pad(bytes: Buffer): Buffer {
  const missing = align(bytes.length) - bytes.length;
  return missing === 0 ? bytes : Buffer.concat([bytes, Buffer.alloc(missing)]);
}

/** EBADMSG: `what` does not fit into the bytes from `offset` on. */
export function malformed(what: string, offset: number): KernelError {
  return new KernelError(
    'decode a netlink message',
    constants.errno.EBADMSG,
    `${what} ends or is cut at byte ${offset}`,
  );
}
