#!/bin/sh
# Boots the user-mode Linux whose packages are unpacked in $1; the other arguments are kernel parameters.
# To be run in a mount namespace of its own. Events of the guest come out of file descriptor 3, its console of 1.
#
# The program is linked against a newer C library than this machine may have, so it runs chrooted in its own packages
# and sees the real root directory at /host. Its guest's memory is an unlinked file in TMPDIR; it wants a HOME.
# It must not be process 1 of a namespace: it ends a panic with a signal that process 1 would not feel.
set -eu
uml=$1
shift
mount --rbind / "$uml/host"
mount --rbind /dev "$uml/dev"
mount -t proc proc "$uml/proc"
mount -t tmpfs tmpfs "$uml/tmp"
HOME=/tmp TMPDIR=/dev/shm chroot "$uml" /usr/bin/linux.uml \
  rootfstype=hostfs rootflags=/host ro seccomp=on quiet con=null con0=fd:0,fd:1 ssl0=null,fd:3 "$@"
