import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { vendorOf } from '../../../src/commands/vendor.ts';
import { temporaryDirectory } from '../temporary.ts';

/** As systemd and the IEEE have them. */
const LISTS = {
  'usr/lib/udev/hwdb.d/20-OUI.hwdb':
    'OUI:3C22FB*\n ID_OUI_FROM_DATABASE=Apple, Inc.\n\nOUI:3C22FBA*\n ID_OUI_FROM_DATABASE=Other\n',
  'usr/share/ieee-data/oui.txt':
    'OUI/MA-L\n3C-22-FB   (hex)\t\tApple, Inc.\r\n3C22FB     (base 16)\t\tApple, Inc.\r\n\t\t\t\tCupertino\r\n',
};

test('the vendor of a MAC address comes from the list that the host has', (t) => {
  assert.equal(vendorOf('3c:22:fb:10:aa:01', temporaryDirectory(t)), null);
  for (const [file, text] of Object.entries(LISTS)) {
    const root = temporaryDirectory(t);
    mkdirSync(join(root, dirname(file)), { recursive: true });
    writeFileSync(join(root, file), text);
    assert.equal(vendorOf('3c:22:fb:10:aa:01', root), 'Apple, Inc.');
    assert.equal(vendorOf('3c:22:fc:10:aa:01', root), null);
    assert.match(vendorOf('3e:22:fb:10:aa:01', root) ?? '', /^no vendor/);
  }
});
