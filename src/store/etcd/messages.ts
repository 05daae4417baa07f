/** The messages of etcd v3 (kv.proto, rpc.proto), and what they mean to those who know claims only. */
import type { MessageInitShape } from '@bufbuild/protobuf';
import { Code, ConnectError } from '@connectrpc/connect';
import {
  Compare_CompareResult,
  Compare_CompareTarget,
  type CompareSchema,
  type KeyValue,
  type RequestOpSchema,
  type ResponseHeader,
} from './kv_pb.ts';
import { type Event, Event_EventType } from './rpc_pb.ts';

/** What stands at a key. */
export interface StoredValue {
  readonly key: string;
  readonly value: string;
  /** Of the last change of this key. */
  readonly revision: number;
}

/** The revision of the last change of a key; 0: the key does not exist. */
export interface Condition {
  readonly key: string;
  readonly revision: number;
}

/** One step of a transaction. `lease`: the key ends with it. */
export type Change = { readonly put: { key: string; value: string; lease?: number } } | { readonly delete: string };

/** A key that was written, or deleted: then its value is empty. */
export interface KeyChange {
  readonly isGone: boolean;
  readonly entry: StoredValue;
}

type OperationInit = MessageInitShape<typeof RequestOpSchema>;

/** Of the cluster whose member answered. */
export function idOf(header: ResponseHeader | undefined): string {
  if (header === undefined) throw malformedAnswer('an answer without a header');
  return header.clusterId.toString(16);
}

/** An answer that could be read and yet is none of etcd's. */
export function malformedAnswer(what: string): ConnectError {
  return new ConnectError(what, Code.DataLoss);
}

/** A revision as a number. Throws what makes it none. */
export function exact(revision: bigint): number {
  const number = Number(revision);
  if (number < 0 || !Number.isSafeInteger(number)) throw malformedAnswer('a revision beyond all bounds');
  return number;
}

/** A key as etcd sends it. */
export function storedValue({ key, value, modRevision }: KeyValue): StoredValue {
  return { key: text(key), value: text(value), revision: exact(modRevision) };
}

/** A change as a watch sends it. */
export function keyChange({ type, kv }: Event): KeyChange {
  if (kv === undefined) throw malformedAnswer('a change of no key');
  return { isGone: type === Event_EventType.DELETE, entry: storedValue(kv) };
}

function text(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString();
}

/** What is read where a transaction is not made. */
export function reading(key: string): OperationInit {
  return { request: { case: 'requestRange', value: { key: Buffer.from(key) } } };
}

/** For a transaction. */
export function compare({ key, revision }: Condition): MessageInitShape<typeof CompareSchema> {
  return {
    result: Compare_CompareResult.EQUAL,
    target: Compare_CompareTarget.MOD,
    key: Buffer.from(key),
    targetUnion: { case: 'modRevision', value: BigInt(revision) },
  };
}

/** A step of a transaction. */
export function operation(change: Change): OperationInit {
  if ('delete' in change)
    return { request: { case: 'requestDeleteRange', value: { key: Buffer.from(change.delete) } } };
  const { key, value, lease = 0 } = change.put;
  const put = { key: Buffer.from(key), value: Buffer.from(value), lease: BigInt(lease) };
  return { request: { case: 'requestPut', value: put } };
}

/** The first key behind all with the prefix, which ends with an ASCII character. */
export function endOf(prefix: string): Uint8Array {
  const end = Buffer.from(prefix);
  end[end.length - 1] = (end.at(-1) ?? 0) + 1;
  return end;
}
