/** rtnetlink's messages about the numbers that other network namespaces have here (linux/net_namespace.h). Pure. */
import { Attributes, type Message, u32Attribute } from './netlink.ts';
import { NETNSA } from './uapi.ts';

export const RTM_NEWNSID = 88;
export const RTM_DELNSID = 89;
export const RTM_GETNSID = 90;

/** struct rtgenmsg {u8 family}, padded. */
const BODY_SIZE = 4;
/** NETNSA_NSID_NOT_ASSIGNED, -1: in a request whichever number is free, in an answer none. */
const ANY_NUMBER = 0xffffffff;

/** All namespaces that have a number here, or the one open at `fd`. */
export function namespaceBody(fd?: number): Buffer {
  return Buffer.concat([Buffer.alloc(BODY_SIZE), ...(fd === undefined ? [] : [u32Attribute(NETNSA.FD, fd)])]);
}

/** Gives the namespace open at `fd` a number here. */
export function numberingBody(fd: number): Buffer {
  return Buffer.concat([namespaceBody(fd), u32Attribute(NETNSA.NSID, ANY_NUMBER)]);
}

/** Null for a namespace without a number. */
export function decodeNamespaceId({ body }: Message): number | null {
  const id = new Attributes(body, BODY_SIZE).i32(NETNSA.NSID);
  return id === null || id < 0 ? null : id;
}
