/**
 * The wire format of protocol buffers (protobuf.dev/programming-guides/encoding) as far as etcd's messages use it:
 * varints and length-delimited fields. Numbers are exact up to 2^53, beyond every revision and count.
 */

type Scalar = number | boolean | string | Uint8Array;

/** Field number → value, or several for a repeated field. What is undefined is left out. */
export type Fields = Readonly<Record<number, Scalar | readonly Scalar[] | undefined>>;

const VARINT = 0;
const FIXED64 = 1;
const DELIMITED = 2;
const FIXED32 = 5;

export function encode(fields: Fields): Buffer {
  const parts: Uint8Array[] = [];
  for (const [number, given] of Object.entries(fields)) {
    const values = Array.isArray(given) ? (given as readonly Scalar[]) : given === undefined ? [] : [given as Scalar];
    for (const value of values) parts.push(...field(Number(number), value));
  }
  return Buffer.concat(parts);
}

function field(number: number, value: Scalar): Uint8Array[] {
  if (typeof value === 'number' || typeof value === 'boolean')
    return [varint(number * 8 + VARINT), varint(Number(value))];
  const bytes = typeof value === 'string' ? Buffer.from(value) : value;
  return [varint(number * 8 + DELIMITED), varint(bytes.length), bytes];
}

function varint(value: number): Uint8Array {
  const bytes: number[] = [];
  let rest = value;
  for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) bytes.push((rest % 0x80) | 0x80);
  bytes.push(rest);
  return Uint8Array.from(bytes);
}

/** A message read once; fields that are missing have the default of proto3. */
export class Message {
  readonly #fields = new Map<number, (number | Buffer)[]>();
  readonly #bytes: Buffer;
  #at = 0;

  /** Throws RangeError for what is no message. */
  constructor(bytes: Buffer) {
    this.#bytes = bytes;
    while (this.#at < bytes.length) this.#readField();
  }

  number(field: number): number {
    const value = this.#fields.get(field)?.at(-1);
    return typeof value === 'number' ? value : 0;
  }

  bytes(field: number): Buffer {
    const value = this.#fields.get(field)?.at(-1);
    return typeof value === 'object' ? value : Buffer.alloc(0);
  }

  text(field: number): string {
    return this.bytes(field).toString();
  }

  /** Empty when it is missing. */
  message(field: number): Message {
    return new Message(this.bytes(field));
  }

  messages(field: number): Message[] {
    return (this.#fields.get(field) ?? []).flatMap((value) => (typeof value === 'object' ? new Message(value) : []));
  }

  #readField(): void {
    const tag = this.#varint();
    const value = this.#value(tag % 8);
    const number = Math.floor(tag / 8);
    const values = this.#fields.get(number);
    if (values === undefined) this.#fields.set(number, [value]);
    else values.push(value);
  }

  #value(type: number): number | Buffer {
    if (type === VARINT) return this.#varint();
    if (type === DELIMITED) return this.#take(this.#varint());
    if (type === FIXED64) return this.#take(8);
    if (type === FIXED32) return this.#take(4);
    throw new RangeError(`wire type ${type}`);
  }

  #take(length: number): Buffer {
    const end = this.#at + length;
    if (end > this.#bytes.length) throw new RangeError('cut short');
    const bytes = this.#bytes.subarray(this.#at, end);
    this.#at = end;
    return bytes;
  }

  #varint(): number {
    let value = 0;
    for (let scale = 1; ; scale *= 0x80) {
      const byte = this.#bytes[this.#at++];
      if (byte === undefined) throw new RangeError('cut short');
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
    }
  }
}
