/** What failures of etcd mean: what may pass, what another member may do better, and which sentence a person reads. */
import { Code, ConnectError } from '@connectrpc/connect';
import * as errors from '../../errors.ts';

/** As a member says it (etcd, rpctypes/error.go, ErrInvalidAuthToken). */
export const TOKEN_IS_OLD = 'invalid auth token';
/** Of a call whose time was up. */
export const NO_ANSWER = 'no answer in time';

/** A call that failed: `code` and `message` as the member said them, or UNAVAILABLE and why no answer could be had. */
export class CallFailure extends Error {
  readonly code: Code;
  /** The connection is whole, and what came on it was no answer: a page of HTML, bytes that are no message, a stream cut short. */
  readonly isNonsense: boolean;
  /** The cluster whose member answered, where it is not ours. */
  readonly otherCluster: string | null;

  constructor(code: Code, message: string, cause: unknown, isNonsense = false, otherCluster: string | null = null) {
    super(message, { cause });
    this.code = code;
    this.isNonsense = isNonsense;
    this.otherCluster = otherCluster;
  }

  /** Whatever was answered is not about our claims. */
  static ofOtherCluster(clusterId: string): CallFailure {
    return new CallFailure(Code.Unavailable, `a member of cluster ${clusterId} answered`, undefined, false, clusterId);
  }

  /** `error`: whatever a call on the connection threw. What the member did not say itself is as good as no answer. */
  static of(error: unknown, { isOpen, brokenBy }: ConnectionState): CallFailure {
    if (error instanceof CallFailure) return error;
    if (error instanceof ConnectError && error.metadata.has('grpc-status'))
      return new CallFailure(error.code, error.rawMessage, error);
    if (error instanceof ConnectError && error.code === Code.DeadlineExceeded)
      return new CallFailure(Code.DeadlineExceeded, NO_ANSWER, error);
    const cause = brokenBy ?? innermost(error);
    const reason = cause instanceof ConnectError ? cause.rawMessage : cause instanceof Error ? cause.message : '';
    return new CallFailure(Code.Unavailable, reason || 'connection closed', cause, isOpen);
  }
}

/** What a connection says of itself after a call failed. */
export interface ConnectionState {
  readonly isOpen: boolean;
  /** Why it broke, if it did: this says more than the failure of a call on it, of which it is the cause. */
  readonly brokenBy: unknown;
}

/** Node's error stands below those that libraries made of it. */
function innermost(error: unknown): unknown {
  let found = error;
  while (found instanceof Error && found.cause instanceof Error) found = found.cause;
  return found;
}

/** The next try, perhaps on another member, may go well. */
export function isPassing(failure: CallFailure): boolean {
  return failure.code === Code.Unavailable || isLate(failure) || isTokenOld(failure);
}

/** The member itself calls it an unknown error when it runs out of the time it was given. */
export function isLate({ code, message }: CallFailure): boolean {
  return code === Code.DeadlineExceeded || /context (deadline exceeded|canceled)/.test(message);
}

/** Tokens last five minutes, and end with the member and with every change of users. */
export function isTokenOld({ message }: CallFailure): boolean {
  return /invalid auth token|auth store is old/.test(message);
}

/** Node's codes for a certificate that we refuse (tls.html#x509-certificate-error-codes), or the member refused ours. */
export function isOfTls({ cause }: CallFailure): boolean {
  const { code } = (cause ?? {}) as { code?: unknown };
  return typeof code === 'string' && /CERT|SSL|TLS|SELF_SIGNED|UNABLE_TO/.test(code);
}

/** Name and password were refused, which another password may mend. */
export function isOfPassword({ message }: CallFailure): boolean {
  return message.includes('authentication failed');
}

/** Members that ask for no user refuse one who logs in. */
export function isOfNoLock(message: string): boolean {
  return message.includes('authentication is not enabled');
}

/** The lease of that number is there: an earlier try was carried out, and its answer was lost. */
export function isGranted(error: unknown): boolean {
  return error instanceof ConnectError && error.rawMessage.includes('lease already exists');
}

/** Who did not log in is refused: since when, nobody says. */
export function isOfNoName({ message }: CallFailure): boolean {
  return message.includes('user name is empty');
}

function isOfLogin({ code, message }: CallFailure): boolean {
  return (
    code === Code.Unauthenticated ||
    code === Code.PermissionDenied ||
    (code === Code.FailedPrecondition && message.includes('authentication')) ||
    (code === Code.InvalidArgument && /user name|authentication/.test(message))
  );
}

/** The only place where a failure of etcd becomes a sentence. `endpoints`: as in STORE, without the scheme. */
export function sentence(failure: CallFailure, endpoints: string): errors.PluginError {
  const { message, code, otherCluster, cause } = failure;
  // Of a file that cannot be read.
  if (cause instanceof errors.PluginError) return cause;
  if (otherCluster !== null) return errors.clusterOther(endpoints, otherCluster);
  if (code === Code.ResourceExhausted && message.includes('space')) return errors.clusterFull(endpoints, failure);
  if (isOfTls(failure)) return errors.clusterTls(endpoints, plain(message), failure);
  if (isPassing(failure)) return errors.clusterUnreachable(endpoints, message, failure);
  if (isOfLogin(failure)) return errors.clusterLogin(endpoints, message.replace('etcdserver: ', ''), failure);
  return errors.clusterFailed(endpoints, message, failure);
}

/** Of OpenSSL's `4006:error:0A000412:SSL routines:ssl3_read_bytes:ssl/tls alert bad certificate:…` what a person reads; without advice about Node. */
function plain(message: string): string {
  return message.match(/SSL routines:[^:]*:([^:]+)/)?.[1] ?? message.replace(/; .*/s, '');
}
