#!/bin/sh
# The first process of the test machine: goes from the initial ramfs to the Debian on the disk, with what this boot
# brings along in a tmpfs at /vm, and hands over to tests.sh or to systemd.

/bin/busybox --install -s /bin
mount -t devtmpfs devtmpfs /dev
mount -t proc proc /proc
modprobe -a virtio_pci virtio_blk virtio_rng > /dev/null 2>&1
if [ "$(cat /vm/init)" = bare ]; then
    mount -t tmpfs -o mode=755,size=80% tmpfs /new
    mkdir -p /new/dev /new/etc /new/proc /new/root /new/sys /new/run /new/tmp /new/usr/bin /new/usr/lib /new/usr/sbin /new/var/tmp
    for name in bin lib sbin; do ln -s usr/$name /new/$name; done
    cp /bin/busybox /new/usr/bin/
    chroot /new /bin/busybox --install -s
else
    tries=0
    until [ -b /dev/vda ]; do
        tries=$((tries + 1))
        [ $tries -lt 100 ] || { echo "vm: no disk"; poweroff -f; }
        usleep 100000
    done
    mount -t ext4 /dev/vda /new || { echo "vm: the disk cannot be mounted"; poweroff -f; }
fi

mkdir -p /new/vm /new/usr/lib/modules
mount -t tmpfs -o mode=755,size=80% tmpfs /new/vm
for name in /vm/*; do
    [ "$name" = /vm/root ] || { cp -a "$name" /new/vm/ && rm -rf "$name"; }
done
[ -d /vm/root ] && cp -a /vm/root/. /new/
cp /new/vm/bin/cooper /new/usr/bin/cooper
cp -a /lib/modules/. /new/usr/lib/modules/
# busybox reads the tables as they are.
[ "$(cat /new/vm/init)" = bare ] || chroot /new depmod "$(uname -r)"
# Links at the places where the programs lie on the host, for tests that know them from their build.
while read -r place target; do
    mkdir -p "/new${place%/*}" && ln -sf "$target" "/new$place"
done < /new/vm/links
ln -sfn /vm/examples /new/examples
echo cooper-vm > /new/etc/hostname
printf '127.0.0.1 localhost\n::1 localhost\n127.0.1.1 cooper-vm\n' > /new/etc/hosts
: > /new/etc/resolv.conf

# switch_root clears only a file system that has an /init.
umount /proc /dev
if [ "$(cat /new/vm/init)" = systemd ]; then
    mount -t devtmpfs devtmpfs /new/dev
    exec switch_root -c /dev/console /new /lib/systemd/systemd
fi
mount -t devtmpfs devtmpfs /new/dev
exec switch_root -c /dev/console /new /vm/tests.sh
