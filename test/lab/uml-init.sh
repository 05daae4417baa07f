#!/bin/bash
# The first process of the guest that test/lab/uml.ts boots: makes a read-only root directory (the real machine's)
# usable, loads modules, runs the test file and powers off. Variables come from the kernel's command line:
#   CHECKOUT     this project's directory             UML      the unpacked packages of user-mode Linux
#   NODE, TEST   the program and the file it runs     BUSYBOX  its insmod loads modules
#   PATTERN      which of its tests; empty: all
#   DISK         a block device on which the hosts of the lab keep their disks; empty: in memory
#   LOSES_POWER  not empty: goes dark without writing caches to the disk
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp NO_COLOR=1

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
# Its ring buffers mapped into a process crash this kernel (7.2.7); without them Node uses epoll.
echo 2 >/proc/sys/kernel/io_uring_disabled
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
ln -sf /proc/self/fd /dev/fd

# The checkout may itself stand below one of the directories that become writable.
mount --bind "$CHECKOUT" /mnt
for directory in /run /tmp; do mount -t tmpfs tmpfs "$directory"; done
mkdir -p "$CHECKOUT"
mount --move /mnt "$CHECKOUT"
mkdir -p /run/netns /run/lab
if [ -n "${DISK:-}" ]; then
  mount -t ext4 "$DISK" /run/lab
  # A host's /run is gone after a power cut; only its disk stays.
  rm -rf /run/lab/*/run
fi

# A module's dependencies stand behind it in modules.dep, the deepest last.
modules=$UML/usr/lib/uml/modules/$(uname -r)
load() {
  local name=$1 file
  shift
  awk -v name="/$name.ko:" 'index($1, name) { for (i = NF; i > 1; i--) print $i; sub(":", "", $1); print $1 }' \
    "$modules/modules.dep" | while read -r file; do "$BUSYBOX" insmod "$modules/$file" "$@" 2>/dev/null; done
}
# These two would each make a link of their own.
load dummy numdummies=0
load bonding max_bonds=0
for module in 8021q team_mode_activebackup bridge veth macvlan macvtap tun overlay; do load $module; done

ip link set lo up
hostname vlan-kernel
cd "$CHECKOUT" || exit
# What a test leaves running must not keep its process alive: here everything ends with the machine.
"$NODE" --import=./test/untracked.ts --test-force-exit --test-reporter=./test/lab/uml-reporter.ts --test-reporter-destination=stdout \
  ${PATTERN:+--test-name-pattern="$PATTERN"} "$TEST"
echo "{\"type\":\"exit\",\"status\":$?}" >/dev/ttyS0
[ -n "${LOSES_POWER:-}" ] || sync
echo o >/proc/sysrq-trigger
sleep 60
