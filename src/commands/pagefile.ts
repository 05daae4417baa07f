/** The page as one file: style, script and, where it is not served live, the picture. */
import { createHash } from 'node:crypto';
import type { Picture } from '../page/picture.ts';

/** A page, and what a browser may do with it (Content-Security-Policy). */
export interface PageFile {
  readonly html: string;
  readonly policy: string;
}

/** `picture`: null for a page that gets its pictures from `events` beside it. */
export async function pageWith(picture: Picture | null): Promise<PageFile> {
  const { script, style } = await import('#page');
  const policy = [
    "default-src 'none'",
    `script-src '${digest(script)}'`,
    `style-src '${digest(style)}'`,
    ...(picture === null ? ["connect-src 'self'"] : []),
    "base-uri 'none'",
    "form-action 'none'",
    // The browser itself refuses to make markup of text.
    "require-trusted-types-for 'script'",
    "trusted-types 'none'",
  ].join('; ');
  // Inside a script element only this character begins anything else.
  const data = JSON.stringify(picture).replaceAll('<', '\\u003c');
  const html = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>tsmacvlan</title>
<style>${style}</style>
</head>
<body>
<header>
<h1>tsmacvlan</h1>
<span id="host"></span>
<span id="live" class="dim"></span>
<span id="found" class="dim" role="status"></span>
<input id="find" type="search" placeholder="name, address or MAC address" aria-label="find a name, an address or a MAC address">
<button id="theme" type="button">Colours</button>
</header>
<div id="trouble" role="alert"></div>
<div id="remarks" role="status"></div>
<main>
<section aria-label="who is where"><h2>Who is where</h2><div id="tree"></div></section>
<section aria-label="addresses"><h2>Addresses</h2><div id="grids"></div><div id="legend"></div></section>
<section aria-label="conflicts"><h2>Conflicts</h2><div id="conflicts"></div></section>
</main>
<script type="application/json" id="picture">${data}</script>
<script>${script}</script>
</body>
</html>
`;
  return { html, policy };
}

function digest(text: string): string {
  return `sha256-${createHash('sha256').update(text).digest('base64')}`;
}
