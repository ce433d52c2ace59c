#!/usr/bin/env bash
# Makes frr-*.hex: two of FRR's ldpd in network namespaces, dual stack, with a pseudowire, a route that goes and a clean stop.
# As root, with frr, tcpdump and tshark: ./frr-capture.sh
set -euo pipefail
cd "$(dirname "$0")"
dir=$(mktemp -d)
pids=()
finish() {
	for p in "${pids[@]}"; do kill "$p" 2>/dev/null || true; done
	for i in 1 2; do ip netns del "ldpcap$i" 2>/dev/null || true; rm -rf "/run/frr/ldpcap$i"; done
	rm -rf "$dir"
}
trap finish EXIT
for i in 1 2; do ip netns add "ldpcap$i"; done
ip link add e0 netns ldpcap1 type veth peer name e0 netns ldpcap2
for i in 1 2; do
	n=ldpcap$i
	mkdir -p "/run/frr/$n"
	ip -n $n link set lo up
	ip -n $n addr add 1.1.1.$i/32 dev lo
	ip -n $n addr add 2001:db8::$i/128 dev lo
	ip -n $n addr add 10.0.0.$i/24 dev e0
	ip -n $n addr add 2001:db8:1::$i/64 dev e0 nodad
	ip -n $n link set e0 up
	cat >"$dir/$n.conf" <<-X
		mpls ldp
		 router-id 1.1.1.$i
		 dual-stack transport-connection prefer ipv4
		 address-family ipv4
		  discovery transport-address 1.1.1.$i
		  discovery targeted-hello accept
		  label local advertise explicit-null
		  interface e0
		 exit-address-family
		 address-family ipv6
		  discovery transport-address 2001:db8::$i
		  interface e0
		 exit-address-family
		l2vpn VPLS type vpls
		 member pseudowire pw0
		  neighbor lsr-id 1.1.1.$((3 - i))
		  pw-id 100
	X
done
ip -n ldpcap1 route add 1.1.1.2/32 via 10.0.0.2
ip -n ldpcap2 route add 1.1.1.1/32 via 10.0.0.1
ip -n ldpcap1 route add 2001:db8::2/128 via 2001:db8:1::2
ip -n ldpcap2 route add 2001:db8::1/128 via 2001:db8:1::1
ip -n ldpcap1 route add 192.0.2.0/25 via 10.0.0.2
chown -R frr:frr /run/frr "$dir"
ip netns exec ldpcap1 tcpdump -q -Z root -U -s 0 -i e0 -w "$dir/pcap" port 646 2>/dev/null & pids+=($!)
sleep 1
for i in 1 2; do
	n=ldpcap$i
	for d in zebra ldpd; do
		ip netns exec $n /usr/lib/frr/$d -N $n -f "$dir/$n.conf" -i "/run/frr/$n/$d.pid" --vty_socket "/run/frr/$n" >"$dir/$n.$d.log" 2>&1 & pids+=($!)
		sleep 1
	done
done
show() { vtysh --vty_socket /run/frr/ldpcap1 -c 'show mpls ldp neighbor'; }
for _ in $(seq 40); do sleep 1; ! show | grep -q OPERATIONAL || break; done
show | grep OPERATIONAL
sleep 5
ip -n ldpcap1 route del 192.0.2.0/25
sleep 3
kill "$(cat /run/frr/ldpcap2/ldpd.pid)"
sleep 3
kill "${pids[0]}"
wait "${pids[0]}" || true
head -c 24 "$dir/pcap" | od -A n -t x1 | head -1
{
	echo "# Datagrams, one a line, of two FRR ldpd: made by frr-capture.sh."
	tshark -r "$dir/pcap" -Y udp -T fields -e udp.payload 2>/dev/null | sort -u
} >frr-hello.hex
for dir12 in 1 2; do
	{
		echo "# TCP stream from 1.1.1.$dir12, a segment a line, of two FRR ldpd: made by frr-capture.sh."
		tshark -r "$dir/pcap" -Y "tcp.len > 0 && (ip.src == 1.1.1.$dir12 || ipv6.src == 2001:db8::$dir12)" -T fields -e tcp.payload 2>/dev/null
	} >frr-stream$dir12.hex
done
tshark -r "$dir/pcap" 2>/dev/null | tail -60
