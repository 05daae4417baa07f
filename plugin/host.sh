#!/bin/sh
# The command line of the managed plugin on its host, by the Node and the libraries of the plugin: a link to this file, wherever it is
# put, is the command `tsmacvlan`. It finds the daemon's socket and state as every other install of it does.
program=$(readlink -f "$0")
root=${program%/app/*}
for loader in "$root"/lib64/ld-linux-*.so.* "$root"/lib/ld-linux-*.so.*; do
  if [ -f "$loader" ]; then break; fi
done
libraries=
for directory in "$root"/lib/*-linux-gnu "$root"/usr/lib/*-linux-gnu "$root/lib64" "$root/usr/lib64"; do
  if [ -d "$directory" ]; then libraries=$libraries$directory:; fi
done
# As plugin/launcher.sh.
exec "$loader" --library-path "${libraries%:}" "$root/bin/node" --max-semi-space-size=1 "$root/app/tsmacvlan.cjs" "$@"
