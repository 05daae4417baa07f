# Asked before an installation changes anything: is another tsmacvlan here? It would be refused at its start, and at the next boot the
# one that starts first, with an empty state, would keep out the one that knows the containers. By make install, and by the .deb, as a part
# of its scripts (plugin/deb.ts): there is no other program yet. And by make plugin-enable, after whose failure Docker would keep a plugin
# that does not start. `occupied make`, `occupied deb` or `occupied plugin` says who asks.
occupied() {
  reason=
  plugin=$(enabled_plugins | head -n 1)
  if [ -n "$plugin" ] && [ "$1" = plugin ]; then
    reason="the managed plugin $plugin is enabled already; docs/install.md says how it is upgraded with its state: \"Upgrade a plugin that was installed from a file\""
  elif [ -n "$plugin" ]; then
    reason="the managed plugin $plugin is enabled on this host, and one tsmacvlan is enough for a host; stay with it, or remove its networks, then \"docker plugin disable $plugin\" and \"docker plugin rm $plugin\", and install again"
  elif [ "$1" = plugin ] && { systemctl --quiet is-enabled tsmacvlan || systemctl --quiet is-active tsmacvlan; } 2>/dev/null; then
    reason='the service tsmacvlan is on this host, and one tsmacvlan is enough for a host; stay with it, or remove its networks, then the service (sudo make uninstall, or sudo apt remove tsmacvlan), and install again'
  elif [ "$1" = make ] && [ "$(dpkg-query --show --showformat='${db:Status-Status}' tsmacvlan 2>/dev/null)" = installed ]; then
    reason='the Debian package tsmacvlan is installed; upgrade that one, or remove it (apt remove tsmacvlan) and install again'
  elif [ "$1" = deb ] && unit=$(unit_of_make) && [ -n "$unit" ]; then
    reason="$unit is of make install or of the archive, and would be the one that starts; take that installation away first, as its docs/install.md says: containers run on, and the state stays"
  elif ! systemctl --quiet is-active tsmacvlan 2>/dev/null && is_locked; then
    reason='another tsmacvlan runs in this network namespace ("ss -xlp | grep @tsmacvlan" shows its process); stop it, and install again'
  fi
  [ -n "$reason" ] || return 0
  echo "nothing was installed: $reason" >&2
  return 1
}

# A socket of the name, with the mark that only a daemon can give it (src/kernel/unixdiag.ts); without ss the name alone.
is_locked() {
  if sockets=$(ss -xlHOm 2>/dev/null); then
    echo "$sockets" | grep -qE ' @tsmacvlan[ -].*,rb2147483646,'
  else
    grep -qE ' @tsmacvlan(-[0-9a-f-]+)?$' /proc/net/unix
  fi
}

# Names of the enabled managed plugins that are tsmacvlan, of whatever version: what they say of themselves begins so. Asked is the engine
# of this machine: the user's DOCKER_HOST or context may lead to another.
enabled_plugins() {
  if listed=$(unset DOCKER_HOST DOCKER_CONTEXT DOCKER_TLS_VERIFY; timeout 10 docker --host unix:///var/run/docker.sock plugin ls --no-trunc --format '{{.Enabled}} {{.Name}} {{.Description}}' 2>/dev/null); then
    echo "$listed" | sed -n 's/^true \([^ ]*\) tsmacvlan.*/\1/p'
    return
  fi
  # No engine answers: as it writes them down (moby plugin/store.go).
  root=$(sed -n 's/.*"data-root" *: *"\([^"]*\)".*/\1/p' /etc/docker/daemon.json 2>/dev/null || true)
  for file in "${root:-/var/lib/docker}"/plugins/*/config.json; do
    if grep -qs '"Description":"tsmacvlan' "$file"; then
      sed -n 's/.*"Enabled":true,"Id":"[^"]*","Name":"\([^"]*\)".*/\1/p' "$file"
    fi
  done
}

# Prints the networks that need the service; fails where none does. While it is stopped its own state tells, which may be one of several
# here, or another daemon has taken over what it had. A state that cannot be read may have some: then why it cannot.
# Where the program itself is gone nothing runs that a removal would end.
networks_left() (
  command -v "$1" >/dev/null || return 1
  unset SOCKET STATE_DIR
  for name in SOCKET STATE_DIR; do
    value=$(sed -n "s/^$name=[\"']\?\([^\"']*\).*/\1/p" /etc/default/tsmacvlan 2>/dev/null | tail -n 1)
    if [ -n "$value" ]; then export "$name=$value"; fi
  done
  if ! systemctl --quiet is-active tsmacvlan 2>/dev/null; then
    if is_locked; then return 1; fi
    unset SOCKET
    export STATE_DIR="${STATE_DIR:-/var/lib/tsmacvlan}"
  fi
  if listed=$("$1" networks 2>/dev/null); then
    echo "$listed" | grep -v '^none$'
  else
    echo "which networks are left cannot be told: $("$1" networks 2>&1 >/dev/null)"
  fi
)

unit_of_make() {
  for file in /etc/systemd/system/tsmacvlan.service /usr/local/lib/systemd/system/tsmacvlan.service; do
    if [ -f "$file" ] && ! grep -q '^ExecStart=/usr/bin/tsmacvlan ' "$file"; then echo "$file"; fi
  done | head -n 1
}
