# FRR's zebra or ldpd, with all of theirs in a directory that FRR's user reaches.
dir={{.Dir}}/frr
if [ "$1" = zebra ]; then
	chmod 711 {{.Dir}}
	install -d -o frr -g frr "$dir"
	echo 'log stdout' > "$dir/zebra.conf"
	cat > "$dir/ldpd.conf" <<END
log stdout
mpls ldp
 router-id {{.Addr .Node "lo"}}
 discovery hello interval 2
 discovery hello holdtime 6
 address-family ipv4
  discovery transport-address {{.Addr .Node "lo"}}
{{- range $peer := .List .Vars.peers}}
  interface {{$peer}}
  exit
{{- end}}
 exit-address-family
END
	exec /usr/lib/frr/zebra -f "$dir/zebra.conf" -i "$dir/zebra.pid" -z "$dir/zserv.api" --vty_socket "$dir"
fi
until [ -S "$dir/zserv.api" ]; do sleep 0.1; done
exec /usr/lib/frr/ldpd -f "$dir/ldpd.conf" -i "$dir/ldpd.pid" -z "$dir/zserv.api" --vty_socket "$dir" --ctl_socket "$dir"
