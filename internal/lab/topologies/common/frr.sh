# One of FRR's daemons, zebra first, with all of theirs in a directory that FRR's user reaches. It begins as root, and reads NAME.conf.
name=$1
dir={{.Dir}}/frr
if [ "$name" = zebra ]; then
	chmod 711 {{.Dir}}
	install -d -o frr -g frr "$dir"
else
	until [ -S "$dir/zserv.api" ]; do sleep 0.1; done
fi
install -o frr -g frr -m 600 "{{.Dir}}/$name.conf" "$dir"
set -- -f "$dir/$name.conf" -i "$dir/$name.pid" -z "$dir/zserv.api" --vty_socket "$dir"
[ "$name" != ldpd ] || set -- "$@" --ctl_socket "$dir"
# What is killed would leave a directory in the machine's /var/tmp.
exec unshare --mount sh -e -c 'mount -t tmpfs frr /var/tmp; exec "$@"' frr "/usr/lib/frr/$name" "$@"
