/** The numbers that the kernel gives to the attributes of its rtnetlink messages, under the kernel's own names. */

/** linux/if_link.h: what a link has. */
export const IFLA = {
  ADDRESS: 1,
  IFNAME: 3,
  MTU: 4,
  LINK: 5,
  MASTER: 10,
  WIRELESS: 11,
  LINKINFO: 18,
  IFALIAS: 20,
  AF_SPEC: 26,
  GROUP: 27,
  EXT_MASK: 29,
  PROMISCUITY: 30,
  CARRIER_CHANGES: 35,
  LINK_NETNSID: 37,
  TARGET_NETNSID: 46,
  MIN_MTU: 50,
  MAX_MTU: 51,
  PROP_LIST: 52,
  ALT_IFNAME: 53,
} as const;

/** Within IFLA_LINKINFO: the kind of a link, and what only that kind has. */
export const IFLA_INFO = {
  KIND: 1,
  DATA: 2,
  SLAVE_KIND: 4,
} as const;

/** Within IFLA_INFO_DATA of a macvlan. */
export const IFLA_MACVLAN = {
  MODE: 1,
  BC_QUEUE_LEN: 7,
} as const;

/** Within IFLA_INFO_DATA of a VLAN. */
export const IFLA_VLAN = {
  ID: 1,
  PROTOCOL: 5,
} as const;

/** linux/if_addr.h: what an address on a link has. */
export const IFA = {
  ADDRESS: 1,
  LOCAL: 2,
  FLAGS: 8,
  TARGET_NETNSID: 10,
} as const;

/** linux/rtnetlink.h: what a route has. */
export const RTA = {
  DST: 1,
  OIF: 4,
  GATEWAY: 5,
  PREFSRC: 7,
  MULTIPATH: 9,
  TABLE: 15,
  VIA: 18,
} as const;

/** linux/neighbour.h: what an entry of the neighbour table has. */
export const NDA = {
  DST: 1,
  LLADDR: 2,
} as const;

/** linux/net_namespace.h: which namespace is meant. */
export const NETNSA = {
  NSID: 1,
  FD: 3,
} as const;
