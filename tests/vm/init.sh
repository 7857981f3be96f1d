#!/bin/busybox sh
# The first program of the virtual machine: the host's files as root folder, with memory over them for what is written,
# and cgroup v2 alone. It hands over to the program in /then, as process 1; gVisor needs a root folder that
# `pivot_root` can leave, which the initramfs itself is not.
fail() {
	echo "init: $1"
	echo b > /proc/sysrq-trigger
}
mount() {
	/bin/busybox mount "$@" || fail "mount $*"
}
mount -t proc proc /proc
mount -t devtmpfs dev /dev
for module in $(/bin/busybox cat /modules/order); do
	/bin/busybox insmod "/modules/$module" || fail "insmod $module"
done
mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=1048576 host /host
mount -t tmpfs -o size=75%,mode=755 memory /memory
/bin/busybox mkdir /memory/upper /memory/work
mount -t overlay -o lowerdir=/host,upperdir=/memory/upper,workdir=/memory/work overlay /root
mount -t proc proc /root/proc
mount -t sysfs sys /root/sys
mount -t cgroup2 -o nsdelegate cgroup2 /root/sys/fs/cgroup
mount -t devtmpfs dev /root/dev
/bin/busybox mkdir -p /root/dev/pts /root/dev/shm
mount -t devpts devpts /root/dev/pts
mount -t tmpfs -o mode=1777 memory /root/dev/shm
mount -t tmpfs -o mode=1777 memory /root/tmp
mount -t tmpfs -o mode=755 memory /root/run
/bin/busybox cp /then /root/run/then || fail "copying the program to run"
/bin/busybox ip link set lo up
exec /bin/busybox switch_root /root /bin/sh /run/then
