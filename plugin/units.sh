# Asked by make install and make uninstall before a unit goes: what an administrator wrote into it is not deleted.
# keep_unit FILE [PREFIX]: FILE stays as FILE.bak, which systemd does not read; with PREFIX only where it is not what make install writes.
keep_unit() {
  [ -e "$1" ] || [ -L "$1" ] || return 0
  if [ -n "${2:-}" ] && sed "s|@PREFIX@|$2|g" plugin/tsmacvlan.service | cmp -s - "$1"; then return 0; fi
  # It changes the service of the Debian package, which is no business of make.
  if grep -qs '^ExecStart=/usr/bin/tsmacvlan ' "$1"; then return 0; fi
  mv -T --backup=numbered "$1" "$1.bak" || return 1
  echo "$1 is another unit than make install writes, and was kept as $1.bak; what is to be changed belongs in a drop-in, which stays: systemctl edit tsmacvlan"
}
