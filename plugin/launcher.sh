#!/bin/sh
# Runs the bundle of this checkout with the Node that make fetched, or with the system's where that is new enough.
program=$(readlink -f "$0")
checkout=${program%/*/*}
node=node
for fetched in "$checkout"/plugin/runtime/node_modules/node-linux-*/bin/node; do
  if [ -x "$fetched" ]; then node=$fetched; fi
done
# Little garbage is kept: a daemon that waits most of the time has no use for a young generation of 32 MB.
exec "$node" --max-semi-space-size=1 "$checkout/dist/tsmacvlan.cjs" "$@"
