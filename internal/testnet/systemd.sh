# A machine of its own for systemd, in new namespaces: this machine's files, below what is in the directory $1, and a layer in memory that takes what is written.
read -r pid rest </proc/self/stat # of the namespace that is left, whose proc this is
mount -t tmpfs -o mode=755 tmpfs /mnt
cd /mnt
mkdir up work root
cp -a "$1/." up
mount -t overlay -o lowerdir=/,upperdir=up,workdir=work overlay root
mount -t proc proc root/proc
mount -t sysfs sysfs root/sys
# What is no namespace's own is read, and neither set nor loaded.
for path in proc/sys sys; do
	mount --bind root/$path root/$path
	mount -o remount,bind,ro root/$path
done
mount --bind /proc/sys/net root/proc/sys/net
mount -t cgroup2 cgroup2 root/sys/fs/cgroup
mount -t bpf -o mode=700 bpf root/sys/fs/bpf # as systemd has it
mount -t tmpfs -o mode=755 tmpfs root/dev
for device in null zero full random urandom tty; do
	: >root/dev/$device
	mount --bind /dev/$device root/dev/$device
done
ln -s /proc/self/fd root/dev/fd
mkdir root/dev/shm root/dev/pts
mount -t tmpfs -o mode=1777 tmpfs root/dev/shm
mount -t devpts -o newinstance,mode=620,ptmxmode=666 devpts root/dev/pts
ln -s pts/ptmx root/dev/ptmx
for path in run tmp var/log etc/systemd/system; do mount -t tmpfs -o mode=755 tmpfs root/$path; done
chmod 1777 root/tmp
: >root/etc/fstab
rm -f root/etc/machine-id # without one systemd takes it for its first boot, and enables all kinds of services
tr -d - </proc/sys/kernel/random/uuid >root/etc/machine-id
cd root
pivot_root . mnt
umount -l /mnt
echo "pid $pid"
exec setpriv --bounding-set=-sys_module,-sys_time,-syslog,-audit_control,-audit_read \
	env -i container=manycast PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --unit=basic.target --log-target=journal
