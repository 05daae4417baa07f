#!/bin/sh
# Runs the bundle of this checkout with the Node that make fetched, or with the system's where that is new enough.
checkout=$(dirname "$(dirname "$(readlink -f "$0")")")
node=node
for fetched in "$checkout"/plugin/runtime/node_modules/node-linux-*/bin/node; do
  if [ -x "$fetched" ]; then node=$fetched; fi
done
exec "$node" "$checkout/dist/tsmacvlan.js" "$@"
