#!/bin/sh
# A program for HOOK (docs/monitoring.md): one line in the system's log, and a mail where there is a mail program. Install it with
#   install -o root -m 755 hook.sh /etc/tsmacvlan-hook
line="$TSMACVLAN_EVENT: $TSMACVLAN_ADDRESS on $TSMACVLAN_PARENT, also used by $TSMACVLAN_MAC (ours: ${TSMACVLAN_OUR_MAC:-none})"
logger -t tsmacvlan-hook -- "$line"
if command -v mail > /dev/null; then echo "$line" | mail -s "tsmacvlan on $(uname -n)" root; fi
