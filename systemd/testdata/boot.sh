#!/bin/bash
# Boots a systemd as PID 1 in namespaces of its own, over a throw-away overlay of /, and runs a script there as a unit.
#   boot.sh FOLDER       FOLDER/in is seen inside as /mnt/in, read-only; FOLDER/in/inside.sh is the script;
#                        FOLDER/out is /mnt/out: log (what the script printed), rc (its exit status)
# Nothing outside changes. It joins a cgroup folder of its own and then a cgroup namespace, without which that systemd
# would write into the machine's hierarchies.
set -eu
cgroups=/sys/fs/cgroup
[ ! -d $cgroups/unified ] || cgroups=$cgroups/unified
folder=$1
if [ "${2:-}" = "" ]; then
	export GROUP=$cgroups/fovea-test.$$
	unshare --mount --pid --fork --uts --ipc --net --kill-child "$0" "$folder" cgroup || true
	find "$GROUP" -depth -type d -exec rmdir {} \; 2>/dev/null || true
	exit 0
fi
if [ "$2" = cgroup ]; then
	mkdir -p "$GROUP"
	echo 0 >"$GROUP/cgroup.procs"
	exec unshare --cgroup "$0" "$folder" boot
fi
mount --make-rprivate /
mkdir -p "$folder/overlay"
mount -t tmpfs tmpfs "$folder/overlay"
mkdir "$folder"/overlay/{upper,work,root}
root=$folder/overlay/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$folder/overlay/upper,workdir=$folder/overlay/work" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for d in null zero full random urandom tty; do
	touch "$root/dev/$d"
	mount --bind "/dev/$d" "$root/dev/$d"
done
mkdir -p "$root/dev/shm" "$root/dev/pts"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
mkdir -p "$root/mnt/in" "$root/mnt/out"
mount --bind "$folder/in" "$root/mnt/in"
mount -o remount,ro,bind "$root/mnt/in"
mount --bind "$folder/out" "$root/mnt/out"
rm -rf "$root"/etc/systemd/system/*.wants "$root/etc/fstab" # start nothing of the machine's
rm -f "$root/usr/sbin/policy-rc.d"                          # which forbids packages to start services in a container
cat >"$root/etc/systemd/system/inside.service" <<'END'
[Unit]
DefaultDependencies=no
After=dbus.service
[Service]
Type=oneshot
ExecStart=/bin/bash -c '/bin/bash /mnt/in/inside.sh; echo $? >/mnt/out/rc'
StandardOutput=append:/mnt/out/log
StandardError=append:/mnt/out/log
ExecStopPost=/bin/systemctl --no-block exit 0
END
cat >"$root/etc/systemd/system/inside.target" <<'END'
[Unit]
Requires=dbus.service
Wants=inside.service
After=basic.target
END
# No chroot: in one the kernel refuses the user namespace of PrivateUsers=.
mkdir -p "$root/mnt/machine"
cd "$root"
pivot_root . mnt/machine
umount -l /mnt/machine
rmdir /mnt/machine
# As a machine's systemd finds it: credentials are mounted in a child and must be seen here.
mount --make-rshared /
container=test exec /lib/systemd/systemd --system --unit=inside.target --log-target=console --show-status=no
