/** The managed plugin: the directory that `docker plugin create` takes, and what became of it on an engine. */
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ownArchitecture } from '../../plugin/artefacts.ts';
import { manifest } from '../../plugin/manifest.ts';
import { buildRootfs } from '../../plugin/rootfs.ts';
import { VERSION } from '../../src/version.ts';
import type { Engine } from './engine.ts';
import { untilSaid } from './patience.ts';

type Manifest = ReturnType<typeof manifest>;

/** Makes the directory; as of another version when one is given. `change` alters the manifest. */
export async function makePlugin(
  directory: string,
  version = VERSION,
  change: (manifest: Manifest) => object = (unchanged) => unchanged,
): Promise<string> {
  mkdirSync(directory, { recursive: true });
  await buildRootfs(join(directory, 'rootfs'), ownArchitecture());
  writeFileSync(join(directory, 'config.json'), JSON.stringify(change(manifest())));
  if (version !== VERSION) renumber(join(directory, 'rootfs/app/tsmacvlan.cjs'), version);
  return directory;
}

function renumber(bundle: string, version: string): void {
  const program = readFileSync(bundle, 'utf8');
  const renumbered = program.replaceAll(`version:"${VERSION}"`, `version:"${version}"`);
  assert.notEqual(renumbered, program, 'the bundle does not hold its version as expected');
  writeFileSync(bundle, renumbered);
}

/** A plugin on an engine, by its local name. */
export class ManagedPlugin {
  readonly engine: Engine;
  readonly name: string;
  readonly id: string;

  private constructor(engine: Engine, name: string, id: string) {
    this.engine = engine;
    this.name = name;
    this.id = id;
  }

  static async find(engine: Engine, name: string): Promise<ManagedPlugin> {
    return new ManagedPlugin(engine, name, await engine.must('plugin', 'inspect', '--format', '{{.ID}}', name));
  }

  /** What it has written, out of the engine's log. */
  log(): string {
    const lines = this.engine.log().split('\n');
    return lines.filter((line) => line.includes(`plugin=${this.id}`)).join('\n');
  }

  /** Waits for words of its log: the engine hands on what it writes some time later. */
  logs(words: RegExp): Promise<void> {
    return untilSaid(words, () => this.log());
  }

  /** Its state directory, seen from outside the host. */
  stateDirectory(): string {
    return this.engine.host.file(`/run/disk/docker/plugins/${this.id}/propagated-mount`);
  }

  /** Ends its process as a crash would. */
  async crash(): Promise<void> {
    const { host } = this.engine;
    const { stdout } = await host.run(['sh', '-c', 'for p in /proc/[0-9]*; do echo ${p#/proc/} $(cat $p/comm); done']);
    const found = stdout.match(/^(\d+) tsmacvlan$/m)?.[1];
    assert.ok(found, `the plugin does not run:\n${stdout}`);
    await host.run(['kill', '-9', found]);
  }
}
