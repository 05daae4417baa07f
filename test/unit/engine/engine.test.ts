/** Where Docker is looked for, and what is said of a Docker that cannot be asked or that tells nonsense. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { namingOf } from '../../../src/commands/docker.ts';
import { askEngine } from '../../../src/engine/inventory.ts';
import { findEngine } from '../../../src/engine/place.ts';
import { temporaryDirectory } from '../temporary.ts';

const options = { timeout: 20_000 };

function context(home: string, name: string, endpoint: object): void {
  const directory = join(home, '.docker/contexts/meta', createHash('sha256').update(name).digest('hex'));
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, 'meta.json'), JSON.stringify({ Name: name, Endpoints: { docker: endpoint } }));
}

test('Docker is where DOCKER_HOST says, else the context, else its usual socket', options, (t) => {
  const home = temporaryDirectory(t);
  const place = (environment: Record<string, string> = {}) => {
    const { text, isTls, options: at } = findEngine(environment, home);
    return [text, isTls, at.socketPath ?? `${at.host}:${at.port}`];
  };
  const usual = ['unix:///var/run/docker.sock', false, '/var/run/docker.sock'];
  assert.deepEqual(place(), usual);
  assert.deepEqual(place({ DOCKER_HOST: '' }), usual);
  assert.deepEqual(place({ DOCKER_HOST: 'unix:///x.sock' }), ['unix:///x.sock', false, '/x.sock']);
  assert.deepEqual(place({ DOCKER_HOST: 'tcp://10.0.0.1' }), ['tcp://10.0.0.1', false, '10.0.0.1:2375']);
  assert.deepEqual(place({ DOCKER_HOST: 'tcp://[fd00::1]:99' }), ['tcp://[fd00::1]:99', false, 'fd00::1:99']);
  assert.deepEqual(place({ DOCKER_HOST: 'tcp://a', DOCKER_TLS_VERIFY: '1' }), ['tcp://a', true, 'a:2376']);
  assert.throws(() => place({ DOCKER_HOST: 'ssh://root@a' }), { code: 'ENGINE_SCHEME', message: /of the kind "ssh"/ });
  assert.throws(() => place({ DOCKER_HOST: 'tcp://' }), {
    code: 'ENGINE_ADDRESS',
    message: /is not an address of Docker/,
  });

  context(home, 'nas', { Host: 'unix:///nas.sock' });
  context(home, 'bare', {});
  writeFileSync(join(home, '.docker/config.json'), JSON.stringify({ currentContext: 'nas' }));
  assert.deepEqual(place(), ['unix:///nas.sock', false, '/nas.sock']);
  assert.deepEqual(place({ DOCKER_CONTEXT: 'default' }), usual);
  assert.deepEqual(place({ DOCKER_HOST: 'unix:///x.sock', DOCKER_CONTEXT: 'nas' })[0], 'unix:///x.sock');
  for (const name of ['bare', 'none'])
    assert.throws(() => place({ DOCKER_CONTEXT: name }), {
      code: 'ENGINE_CONTEXT',
      message: /does not exist or names no/,
    });
  writeFileSync(join(home, '.docker/config.json'), '{"currentContext":');
  assert.deepEqual(place(), usual);
});

/** What answers on a socket instead of Docker. */
async function standing(t: TestContext, answer: (path: string) => { status?: number; body: string }) {
  const path = join(temporaryDirectory(t), 'docker.sock');
  const asked: string[] = [];
  const server = createServer((request, response) => {
    asked.push(`${request.method} ${request.url}`);
    const { status = 200, body } = answer(request.url ?? '');
    response.writeHead(status).end(body);
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  t.after(() => server.close());
  return { asked, place: findEngine({ DOCKER_HOST: `unix://${path}` }, '/nonexistent') };
}

test('two GETs, and names that are nonsense stay text', options, async (t) => {
  const containers = [
    {
      Id: 'c1',
      Names: ['/other/web', '/w\u001b[31meb'],
      State: 'running',
      NetworkSettings: { Networks: { lan: { NetworkID: 'n1', EndpointID: 'e1' } } },
    },
    { Id: 'c2', Names: ['/db'], State: 'created', NetworkSettings: { Networks: { 'l\nan': { NetworkID: '' } } } },
    // As an engine that was killed leaves it.
    {
      Id: 'c3',
      Names: ['/old'],
      State: 'exited',
      NetworkSettings: { Networks: { lan: { NetworkID: 'n1', EndpointID: 'e3' } } },
    },
    { Id: 7, Names: 'x', NetworkSettings: null },
    null,
  ];
  const networks = [{ Id: 'n1', Name: 'l\nan', Driver: 'tsmacvlan' }, 'nonsense'];
  const { asked, place } = await standing(t, (path) => ({
    body: JSON.stringify(path.startsWith('/containers') ? containers : networks),
  }));
  const naming = namingOf(await askEngine(place), false);
  assert.deepEqual(asked.sort(), ['GET /containers/json?all=true', 'GET /networks']);
  assert.equal(naming.container('e1'), 'w\\u001b[31meb');
  assert.equal(naming.network('n1'), 'l\\u000aan');
  assert.deepEqual(naming.known.stopped.get('n1'), ['db', 'old']);
  assert.equal(naming.network('f'.repeat(64)), 'f'.repeat(12));
  assert.equal(naming.container('e2'), null);
  assert.equal(naming.container('e3'), null);
});

test('certificates that cannot be read, or are none, are a reason and no crash', options, async (t) => {
  const directory = temporaryDirectory(t);
  const environment = { DOCKER_HOST: 'tcp://127.0.0.1:1', DOCKER_TLS_VERIFY: '1', DOCKER_CERT_PATH: directory };
  writeFileSync(join(directory, 'ca.pem'), 'nonsense');
  writeFileSync(join(directory, 'key.pem'), 'nonsense');
  await assert.rejects(askEngine(findEngine(environment, '/nonexistent')), { code: 'ENGINE_SILENT' });
  mkdirSync(join(directory, 'cert.pem'));
  assert.throws(() => findEngine(environment, '/nonexistent'), { code: 'ENGINE_SILENT', message: /EISDIR/ });
});

test('what is no Docker, or refuses, is said in a sentence', options, async (t) => {
  const cases: [{ status?: number; body: string }, RegExp][] = [
    [{ body: '<html>' }, /what answers there is no Docker engine/],
    [{ body: '{}' }, /what answers there is no Docker engine/],
    [{ status: 403, body: '{"message":"denied"}' }, /answered HTTP 403/],
  ];
  for (const [answer, sentence] of cases) {
    const { place } = await standing(t, () => answer);
    await assert.rejects(askEngine(place), { name: 'PluginError', message: sentence });
  }
  const nobody = findEngine({ DOCKER_HOST: 'unix:///nonexistent/docker.sock' }, '/nonexistent');
  await assert.rejects(askEngine(nobody), { code: 'ENGINE_SILENT', message: /\(no such file or directory\)/ });
});

test('an answer without an end is not read to the end', options, async (t) => {
  const path = join(temporaryDirectory(t), 'd.sock');
  const piece = Buffer.alloc(4 * 1024 * 1024, '[');
  const server = createServer((_, response) => {
    const go = () => {
      while (!response.destroyed && response.write(piece));
    };
    response.on('drain', go);
    go();
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  t.after(() => server.close());
  const endless = findEngine({ DOCKER_HOST: `unix://${path}` }, '/nonexistent');
  await assert.rejects(askEngine(endless), { code: 'ENGINE_SILENT', message: /no Docker engine|did not answer/ });
});
