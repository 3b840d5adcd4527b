#!/bin/sh
# Boots a system from an archive of its root directory: systemd in a container, in memory, gone with it.
#
# Usage: unshare --mount --mount-proc --pid --fork --kill-child tests/package/boot.sh ARCHIVE NAME     (as root)
# To be run in a mount namespace of its own, in which systemd gets what it cannot do without: a hierarchy of cgroup2 in the
# usual place, also where the machine still has the first version's, and in it a group that nobody else uses.
set -eu

mount --make-rprivate /
umount --recursive /sys/fs/cgroup 2>/dev/null || :
mount -t cgroup2 cgroup2 /sys/fs/cgroup
group=/sys/fs/cgroup/nattrail-test-$2
mkdir -p "$group"
echo 0 >"$group/cgroup.procs"
# nspawn's own files, and the system: nothing of it is to be left.
mkdir -p /run/systemd/nspawn
mount -t tmpfs -o mode=755 tmpfs /run/systemd/nspawn
mount -t tmpfs -o mode=755 tmpfs /mnt
mkdir /mnt/system
tar --extract --auto-compress --numeric-owner --directory=/mnt/system --file="$1"
# As on a machine: the journal is on the disk, and large enough for the tests.
mkdir -p /mnt/system/var/log/journal /mnt/system/etc/systemd/journald.conf.d
printf '[Journal]\nSystemMaxUse=1G\nSystemKeepFree=16M\n' >/mnt/system/etc/systemd/journald.conf.d/test.conf
echo gateway >/mnt/system/etc/hostname
# 133: it wants to be rebooted.
status=133
while [ "$status" -eq 133 ]; do
  status=0
  systemd-nspawn --quiet --boot --directory=/mnt/system --machine="nattrail-test-$2" --hostname=gateway --private-network \
    --register=no --keep-unit --console=pipe </dev/null || status=$?
done
exit "$status"
