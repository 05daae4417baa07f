/** The documents as a web site (make site): no file of it comes from another host, and a link to nothing ends the build. */

/** As GitHub makes anchors of headings, so that links work in both; test/unit/docs.test.ts holds them. */
function slugify(heading) {
  return heading
    .toLowerCase()
    .replace(/[^\p{L}\p{N}\s_-]/gu, '')
    .trim()
    .replace(/\s/g, '-');
}

/** The pages are text: `{{.ID}}` in them is Docker's, and nothing that Vue fills in. */
function keepBraces(markdown) {
  const render = markdown.render.bind(markdown);
  markdown.render = (...words) => render(...words).replaceAll('{{', '&#123;&#123;');
}

function pages(...rows) {
  return rows.map(([text, page]) => ({ text, link: `/docs/${page}` }));
}

export default {
  title: 'tsmacvlan',
  description: 'A Docker network plugin that gives each container its own place on your LAN',
  srcDir: 'pages',
  outDir: '../dist/site',
  rewrites: { 'README.md': 'index.md' },
  markdown: { anchor: { slugify }, toc: { slugify }, config: keepBraces },
  // Files that are no pages are served beside them; test/unit/docs.test.ts looks whether they are there.
  ignoreDeadLinks: [/\/examples\//],
  themeConfig: {
    search: { provider: 'local' },
    outline: [2, 3],
    sidebar: [
      {
        text: 'Start',
        items: pages(
          ['Getting started', 'getting-started'],
          ['Install', 'install'],
          ['Recipes', 'recipes'],
          ['Migration', 'migration'],
          ['Comparison', 'comparison'],
          ['What articles get wrong', 'articles'],
        ),
      },
      {
        text: 'Run',
        items: pages(
          ['Operating', 'operating'],
          ['Troubleshooting', 'troubleshooting'],
          ['Messages', 'messages'],
          ['Monitoring', 'monitoring'],
          ['Security', 'security'],
          ['Upgrade notes', 'upgrading'],
        ),
      },
      {
        text: 'Understand',
        items: pages(
          ['Wires', 'wires'],
          ['Glossary', 'glossary'],
          ['Conflicts', 'conflicts'],
          ['Names', 'names'],
          ['DHCP', 'dhcp'],
          ['Gateways', 'gateways'],
          ['The page', 'page'],
          ['Swarm', 'swarm'],
          ['Shared addresses', 'etcd'],
          ['Differences', 'differences'],
          ['Reference', 'reference'],
        ),
      },
      {
        text: 'Work on it',
        collapsed: true,
        items: pages(
          ['Architecture', 'architecture'],
          ['Kernel', 'kernel'],
          ['LAN check', 'lan'],
          ['Reliability', 'reliability'],
          ['Many hosts', 'scale'],
          ['Dependencies', 'dependencies'],
          ['Releasing', 'releasing'],
        ),
      },
    ],
  },
};
