/**
 * The parent of a network's sub-interfaces: found on the host and then never changed, or made here (a VLAN, an isolated
 * link). What is made here carries PARENT_ALIAS and is removed with its last network only if it still carries it.
 */
import * as errors from '../errors.ts';
import { isKernelError } from '../kernel/errno.ts';
import type { Link, Links } from '../kernel/link.ts';
import { PARENT_ALIAS, PROBE_ALIAS, isolatedLinkName } from '../linknames.ts';
import type { Network, NetworkOptions, ParentLink, VlanProtocol, VlanRecipe } from '../model.ts';
import { readVlanIds } from './options.ts';
import { kindRefusal } from './refusal.ts';

/** A VLAN id on a link can exist once: its kernel key is (link, protocol, id), under whatever name. */
interface Tag {
  readonly id: number;
  readonly protocol: VlanProtocol;
}

/** ARPHRD_ETHER (linux/if_arp.h); macvlan_common_newlink wants Ethernet below. */
const ETHERNET = 1;
/** Kinds whose rx_handler takes a member's frames, so that macvlan gets EBUSY (netdev_rx_handler_register). */
const FRAME_TAKING_MASTERS = ['bridge', 'bond', 'team', 'openvswitch', 'ovs-system'];
const CHILD_KINDS = ['macvlan', 'macvtap', 'ipvlan', 'ipvtap'];
/** IFNAMSIZ without the closing zero (linux/if.h). */
const LONGEST_NAME_BYTES = 15;

/** Finds, makes and releases the parents of networks, and knows why a link cannot be one. */
export class Parents {
  readonly #links: Links;
  /** Alias to link name, from the setting PARENTS. */
  readonly #aliases: ReadonlyMap<string, string>;

  constructor(links: Links, aliases: ReadonlyMap<string, string>) {
    this.#links = links;
    this.#aliases = aliases;
  }

  /**
   * Where the network's sub-interfaces will live. Refuses what cannot carry them; changes nothing. A VLAN that exists under
   * another name than ours comes to light when it is made: see settle().
   */
  async plan(options: NetworkOptions, networkId: string): Promise<ParentLink> {
    if (options.parent === null) return isolated(networkId);
    const typed = options.parent;
    const { base, labels } = await this.#findBase(await this.#resolve(typed), typed);
    const vlan = [...labels, ...options.vlan];
    if (vlan.length === 0) return this.#planParent(base);
    this.#checkBase(base);
    return this.#planVlan({ base: base.name, vlan, protocol: options.vlanProtocol }, base);
  }

  /** The plan, once the link is there. Refuses an administrator's VLAN that cannot carry sub-interfaces. */
  async settle(parent: ParentLink, link: Link): Promise<ParentLink> {
    if (link.name === parent.name) return parent;
    await this.#checkParent(link);
    return { ...parent, name: link.name, made: link.alias === PARENT_ALIAS };
  }

  /** The link itself, made when it is ours and missing (after a reboot, or when the base came back). */
  async ensure(parent: ParentLink, networkId: string): Promise<Link> {
    if (parent.recipe === 'isolated') return this.#ensureIsolated(parent.name);
    if (parent.recipe === null || !parent.made) return this.#existing(parent.name, networkId);
    const link = await this.#links.byName(parent.name);
    return link?.alias === PARENT_ALIAS ? link : this.#ensureVlan(parent.recipe, networkId);
  }

  /** Switches off and removes what is ours and none of `others` uses. Links on top keep a link, also a stranger's. */
  async release(parent: ParentLink, others: readonly Network[]): Promise<void> {
    await this.releasePromiscuity(parent, others);
    if (!parent.made) return;
    const inUse = namesOf(others);
    // By its place first, in case it was renamed; by its name in case the link below was.
    const { recipe } = parent;
    const inPlace = recipe === null || recipe === 'isolated' ? undefined : await this.#topmost(recipe);
    let link = inPlace ?? (await this.#links.byName(parent.name));
    while (link !== undefined && link.alias === PARENT_ALIAS && !inUse.has(link.name)) {
      if (await this.#carriesLinks(link)) return;
      const below = await this.#below(link);
      await this.#links.deleteLink(link.index);
      link = below;
    }
  }

  /** Off, if we switched it on and none of `others` needs it. */
  async releasePromiscuity({ name, promiscuous }: ParentLink, others: readonly Network[]): Promise<void> {
    if (!promiscuous || others.some(({ parent }) => parent.name === name && parent.promiscuous)) return;
    const link = await this.#links.byName(name);
    if (link?.isPromiscuous) await this.#links.setPromiscuous(link.index, false);
  }

  /**
   * Links of ours that no network uses: left by a crash between a record's removal and its link's. One that carries containers is
   * none: after a restore there may be networks that the backup does not know, and their containers would lose their interfaces.
   */
  async orphans(networks: readonly Network[]): Promise<Link[]> {
    const inUse = namesOf(networks);
    const ours = await this.#links.list(({ alias }) => alias === PARENT_ALIAS);
    const left = ours.filter((link) => !inUse.has(link.name) && !ours.some((other) => isOn(other, link)));
    const carry = await Promise.all(left.map(({ index }) => this.#links.table.hasSubInterfacesElsewhere(index)));
    return left.filter((_, position) => !carry[position]);
  }

  /** Names that could be given with -o parent=, for the sentence when one is missing. */
  async candidates(): Promise<string[]> {
    const all = await this.#links.list();
    return all.filter((link) => this.#refusal(link, all) === undefined).map((link) => link.name);
  }

  async #resolve(typed: string): Promise<string> {
    const name = this.#aliases.get(typed) ?? typed;
    // dev_valid_name (net/core/dev.c): no slash, no colon, no white space.
    if (name !== 'auto' && (/[\s/:]/.test(name) || name === '.' || name === '..'))
      throw errors.parentNameInvalid(typed);
    return name === 'auto' ? this.#defaultRouteLink() : name;
  }

  async #defaultRouteLink(): Promise<string> {
    const routes = await this.#links.defaultRoutes();
    const route = routes.find(({ family }) => family === 'IPv4') ?? routes[0];
    const link = route === undefined ? undefined : await this.#links.byIndex(route.linkIndex);
    if (link === undefined) throw errors.noDefaultRoute();
    return link.name;
  }

  /** `eth0.10.20` names the link itself, or VLAN 20 on eth0.10, or VLANs 10 and 20 on eth0: the longest that exists. */
  async #findBase(name: string, typed: string): Promise<{ base: Link; labels: number[] }> {
    const parts = name.split('.');
    for (let length = parts.length; length > 0; length--) {
      const base = await this.#knownByName(parts.slice(0, length).join('.'));
      if (base === undefined) continue;
      return { base, labels: length === parts.length ? [] : readVlanIds(parts.slice(length).join('.'), typed) };
    }
    const aliased = this.#aliases.get(typed);
    throw errors.parentMissing(typed, await this.candidates(), aliased === 'auto' ? typed : aliased);
  }

  async #byName(name: string): Promise<Link | undefined> {
    return canExist(name) ? this.#links.byName(name) : undefined;
  }

  /** Without asking the kernel, but for a link that is down: of its alias no event tells (kernel/watch.ts). */
  async #knownByName(name: string): Promise<Link | undefined> {
    if (!canExist(name)) return undefined;
    const link = await this.#links.known(name);
    return link?.isUp === false ? this.#links.byName(name) : link;
  }

  async #existing(name: string, networkId: string): Promise<Link> {
    const link = await this.#links.known(name);
    if (link === undefined) throw errors.parentGone(name, networkId, await this.candidates());
    return link;
  }

  async #planParent(base: Link): Promise<ParentLink> {
    await this.#checkParent(base);
    const made = base.alias === PARENT_ALIAS;
    const recipe = made ? recipeOf(base, await this.#links.list()) : null;
    return { name: base.name, made, promiscuous: false, recipe };
  }

  async #planVlan(recipe: VlanRecipe, base: Link): Promise<ParentLink> {
    let [link, name]: [Link | undefined, string] = [base, base.name];
    for (const tag of tags(recipe)) {
      name = `${name}.${tag.id}`;
      link = link && (await this.#vlanAt(link, tag, name));
      name = link?.name ?? name;
    }
    if (link !== undefined) await this.#checkParent(link);
    return { name, made: link === undefined || link.alias === PARENT_ALIAS, promiscuous: false, recipe };
  }

  /** The VLAN if it has our name for it. Throws when something else has, unless the VLAN exists elsewhere. */
  async #vlanAt(below: Link, tag: Tag, name: string): Promise<Link | undefined> {
    if (Buffer.byteLength(name) > LONGEST_NAME_BYTES)
      return this.#vlanElsewhere(below, tag, errors.parentNameTooLong(name));
    const link = await this.#byName(name);
    if (link === undefined || vlanOn([link], below, tag) !== undefined) return link;
    const what = link.vlan ? `VLAN ${link.vlan.id}` : (link.kind ?? 'physical interface');
    return this.#vlanElsewhere(below, tag, errors.vlanNameTaken(name, what));
  }

  async #vlanElsewhere(below: Link, tag: Tag, refusal: errors.PluginError): Promise<Link> {
    const link = vlanOn(await this.#links.list(), below, tag);
    if (link === undefined) throw refusal;
    return link;
  }

  /** The last of the chain's VLANs that exists; undefined when none does. */
  async #topmost(recipe: VlanRecipe): Promise<Link | undefined> {
    let link = await this.#byName(recipe.base);
    let topmost: Link | undefined;
    for (const tag of tags(recipe)) {
      link = link && ((await this.#vlanNamed(link, tag)) ?? vlanOn(await this.#links.list(), link, tag));
      topmost = link ?? topmost;
    }
    return topmost;
  }

  async #ensureVlan(recipe: VlanRecipe, networkId: string): Promise<Link> {
    let link = await this.#existing(recipe.base, networkId);
    for (const tag of tags(recipe)) link = (await this.#vlanNamed(link, tag)) ?? (await this.#makeVlan(link, tag));
    return link;
  }

  /** The VLAN under the name we give: to look through all links for it would take the longer the more VLANs there are. */
  async #vlanNamed(below: Link, tag: Tag): Promise<Link | undefined> {
    const link = await this.#byName(`${below.name}.${tag.id}`);
    return link && vlanOn([link], below, tag);
  }

  async #makeVlan(below: Link, tag: Tag): Promise<Link> {
    const spec = {
      name: `${below.name}.${tag.id}`,
      alias: PARENT_ALIAS,
      parentIndex: below.index,
      id: tag.id,
      protocol: kernelProtocol(tag.protocol),
    };
    try {
      const link = await this.#links.addVlan(spec);
      await this.#bringUp(link, below);
      return (await this.#links.byIndex(link.index)) ?? link;
    } catch (error) {
      // The kernel knows the VLAN already (vlan_check_real_dev), then under another name.
      const found = isKernelError(error, 'EEXIST') ? vlanOn(await this.#links.list(), below, tag) : undefined;
      if (found !== undefined) return found;
      throw kindRefusal(error, 'VLAN', '8021q');
    }
  }

  /** A VLAN follows its base up and down; below a base that is down it comes up with it (vlan_device_event). */
  async #bringUp(link: Link, below: Link): Promise<void> {
    try {
      await this.#links.setUp(link.index);
    } catch (error) {
      if (isKernelError(error, 'ENETDOWN') && !below.isUp) return;
      await this.#links.deleteLink(link.index);
      throw error;
    }
  }

  async #ensureIsolated(name: string): Promise<Link> {
    const found = await this.#links.byName(name);
    if (found !== undefined) return found;
    try {
      const link = await this.#links.addIsolated({ name, alias: PARENT_ALIAS });
      await this.#links.setUp(link.index);
      return link;
    } catch (error) {
      throw kindRefusal(error, 'dummy', 'dummy');
    }
  }

  /** The link from which the LAN was asked lingers for a while; the kernel deletes it with its parent. */
  async #carriesLinks(link: Link): Promise<boolean> {
    return (await this.#links.upper(link)).some(({ alias }) => alias !== PROBE_ALIAS);
  }

  async #below({ parentIndex, parentNamespaceId }: Link): Promise<Link | undefined> {
    return parentIndex === null || parentNamespaceId !== null ? undefined : this.#links.byIndex(parentIndex);
  }

  async #checkParent(link: Link): Promise<void> {
    // Other links are only looked at to name the one that is in the way.
    const isAlone = link.masterIndex === null && !CHILD_KINDS.includes(link.kind ?? '');
    const refusal = this.#refusal(link, isAlone ? [] : await this.#links.list());
    if (refusal !== undefined) throw refusal;
  }

  /** A VLAN may sit on a bridge's or bond's member, so less is refused of its base. */
  #checkBase(link: Link): void {
    const refusal = this.#mediumRefusal(link);
    if (refusal !== undefined) throw refusal;
  }

  #mediumRefusal(link: Link): errors.PluginError | undefined {
    if (link.isLoopback) return errors.parentLoopback(link.name);
    if (link.type !== ETHERNET) return errors.parentNotEthernet(link.name);
    return this.#links.isWireless(link.name) ? errors.parentWireless(link.name) : undefined;
  }

  #refusal(link: Link, all: readonly Link[]): errors.PluginError | undefined {
    if (link.kind !== null && CHILD_KINDS.includes(link.kind)) {
      const lower = all.find((other) => isOn(link, other));
      return errors.parentIsChild(link.name, link.kind, lower?.name ?? null);
    }
    const master = link.masterIndex === null ? undefined : all.find(({ index }) => index === link.masterIndex);
    const masterKind = link.masterKind ?? master?.kind;
    if (masterKind && FRAME_TAKING_MASTERS.includes(masterKind))
      return errors.parentEnslaved(link.name, master?.name ?? masterKind, masterKind);
    return this.#mediumRefusal(link);
  }
}

/** A name over 15 bytes cannot exist; the kernel would refuse the question itself (ERANGE). */
function canExist(name: string): boolean {
  return name !== '' && Buffer.byteLength(name) <= LONGEST_NAME_BYTES;
}

function namesOf(networks: readonly Network[]): Set<string> {
  return new Set(networks.map(({ parent }) => parent.name));
}

function isolated(networkId: string): ParentLink {
  return { name: isolatedLinkName(networkId), made: true, promiscuous: false, recipe: 'isolated' };
}

function tags({ vlan, protocol }: VlanRecipe): Tag[] {
  return vlan.map((id, position) => ({ id, protocol: position === 0 ? protocol : '802.1q' }));
}

/** How a VLAN of ours that another network made would be made again. */
function recipeOf(link: Link, all: readonly Link[]): VlanRecipe | null {
  const below = all.find((other) => isOn(link, other));
  if (link.vlan === null || below === undefined) return null;
  const lower = below.alias === PARENT_ALIAS ? recipeOf(below, all) : null;
  if (lower !== null) return { ...lower, vlan: [...lower.vlan, link.vlan.id] };
  return { base: below.name, vlan: [link.vlan.id], protocol: link.vlan.protocol === '802.1ad' ? '802.1ad' : '802.1q' };
}

/** An index counts in the namespace it comes from: a veth's peer elsewhere may have the number of any link here. */
function isOn(link: Link, below: Link): boolean {
  return link.parentIndex === below.index && link.parentNamespaceId === null && link.index !== below.index;
}

function vlanOn(all: readonly Link[], below: Link, tag: Tag): Link | undefined {
  return all.find(
    (link) => isOn(link, below) && link.vlan?.id === tag.id && link.vlan.protocol === kernelProtocol(tag.protocol),
  );
}

function kernelProtocol(protocol: VlanProtocol): '802.1Q' | '802.1ad' {
  return protocol === '802.1ad' ? '802.1ad' : '802.1Q';
}
