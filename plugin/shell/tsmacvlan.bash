# Written by "make tables" from src/commands/table.ts; edit that.
_tsmacvlan_networks() {
  tsmacvlan networks --json 2>/dev/null | sed -n 's/^    "id": "\([^"]*\)".*/\1/p'
}

_tsmacvlan() {
  local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} command=${COMP_WORDS[1]} words=
  case $before in
    --html) COMPREPLY=($(compgen -W "" -- "$word")); return ;;
    --listen) COMPREPLY=($(compgen -W "" -- "$word")); return ;;
    --parent) COMPREPLY=($(compgen -W "$(cd /sys/class/net && echo *)" -- "$word")); return ;;
    --profile) COMPREPLY=($(compgen -W "fast rfc" -- "$word")); return ;;
    --network) COMPREPLY=($(compgen -W "$(_tsmacvlan_networks)" -- "$word")); return ;;
    --from) COMPREPLY=($(compgen -W "" -- "$word")); return ;;
    --to) COMPREPLY=($(compgen -W "" -- "$word")); return ;;
  esac
  if ((COMP_CWORD == 1)); then words='serve map networks endpoints who doctor watch pools leases conflicts probe dhcp gc forget store reserve unreserve backup restore settings help version --help --version'
  else
    case $command in
      serve) words='--help' ;;
      map) words='--html --serve --listen --open --cluster --no-trunc --json --help' ;;
      networks) words='--no-trunc --json --help' ;;
      endpoints) words='--no-trunc --json --help' ;;
      who) words='--no-trunc --json --help' ;;
      doctor) words='--no-trunc --json --help' ;;
      watch) words='--no-trunc --json --help' ;;
      pools) words='--no-trunc --json --help' ;;
      leases) words='--cluster --no-trunc --json --help' ;;
      conflicts) words='--clear --no-trunc --json --help' ;;
      probe) words='--parent --profile --json --help' ;;
      dhcp) words='--json --help'; ((COMP_CWORD == 2)) && words+=" $(cd /sys/class/net && echo *)" ;;
      gc) words='--dry-run --json --help' ;;
      forget) words='--json --help'; ((COMP_CWORD == 2)) && words+=" $(_tsmacvlan_networks)" ;;
      store) words='--from --to --dry-run --force --json --help'; ((COMP_CWORD == 2)) && words+=' nodes forget migrate' ;;
      reserve) words='--network --json --help' ;;
      unreserve) words='--network --json --help' ;;
      backup) ((COMP_CWORD == 2)) && COMPREPLY=($(compgen -f -- "$word")); words='--json --help' ;;
      restore) ((COMP_CWORD == 2)) && COMPREPLY=($(compgen -f -- "$word")); words='--dry-run --json --help' ;;
      settings) words='--json --help' ;;
      help) words='serve map networks endpoints who doctor watch pools leases conflicts probe dhcp gc forget store reserve unreserve backup restore settings' ;;
    esac
  fi
  COMPREPLY+=($(compgen -W "$words" -- "$word"))
}

complete -F _tsmacvlan tsmacvlan
