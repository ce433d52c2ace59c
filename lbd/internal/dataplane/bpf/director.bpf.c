// SPDX-License-Identifier: Dual BSD/GPL
/* The director (Fig 9): tcx ingress where users' packets enter. VIP and port -> group; the programs behind it see the group. */
#include "packet.h"
#include "refuse.h"

/* DirectorCounters of director.go, in its order. */
struct director_counters {
	__u64 rewritten;
	__u64 bytes;
	__u64 fragments;
	__u64 icmp_errors;
	__u64 fragments_lost;
	__u64 no_service;
	__u64 malformed;
	__u64 refused;
	__u64 unanswered;
};

/* What a port of a VIP stands for. */
struct target {
	__be32 group;
	__u32 is_refused; /* nobody serves it */
};

/* VIP -> the group that takes its ICMP echo: that of the lowest port. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, __be32);
	__type(value, __be32);
} vips SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 262144);
	__type(key, struct port_key);
	__type(value, struct target);
} services SEC(".maps");

/* When a CPU may send a port unreachable again: nanoseconds since boot. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} unreachable_at SEC(".maps");

struct fragment_key {
	__be32 src;
	__be32 dst;
	__be16 id;
	__u8 proto;
	__u8 pad;
};

struct fragment {
	__be32 group; /* 0: no service */
	__u32 seen;   /* seconds */
};

#define FRAGMENT_AGE 30 /* seconds: the kernel's own time to reassemble (ipfrag_time); the id may be another datagram's then */

/* Where the first fragment of a datagram went. The size is the configuration's. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct fragment_key);
	__type(value, struct fragment);
} fragments SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct director_counters);
} counters SEC(".maps");

#define COUNT(field, n)                                                                   \
	do {                                                                              \
		static const __u32 zero = 0;                                              \
		struct director_counters *c = bpf_map_lookup_elem(&counters, &zero);      \
		if (c)                                                                    \
			c->field += (n);                                                  \
	} while (0)

static __always_inline __u32 seconds(void)
{
	return bpf_ktime_get_ns() / 1000000000;
}

/* A struct fragment_key by words. */
struct fragment_words {
	__u64 addresses;
	__u32 id_proto;
};

static __always_inline struct fragment_words fragment_key(const struct iphdr *ip)
{
	struct fragment_words key = { WORD(ip->saddr, ip->daddr), HALF(ip->id, ip->protocol) };

	return key;
}

static __always_inline struct target target_of(__be32 vip, __be16 port, __u8 proto)
{
	__u64 key = port_key(vip, port, proto);
	struct target *found = bpf_map_lookup_elem(&services, &key);
	struct target none = {};

	return found ? *found : none;
}

/* group_of_icmp: an echo goes to the VIP's first service, an error to the service whose answer it quotes. */
static __always_inline bool group_of_icmp(struct __sk_buff *skb, const struct iphdr *ip, __be32 first, __be32 *group)
{
	__u32 l4 = l4_offset(ip);
	ALONE struct iphdr inner;
	ALONE struct ports ports;
	ALONE __u8 type;

	if (bpf_skb_load_bytes(skb, l4, &type, sizeof(type)))
		return false;
	if (type == ICMP_ECHO) {
		*group = first;
		return true;
	}
	if (!is_icmp_error(type))
		return true;
	if (!load_quoted(skb, l4, &inner))
		return false;
	if (inner.saddr != ip->daddr || is_later_fragment(&inner))
		return true;
	if (inner.protocol == IPPROTO_ICMP) {
		*group = first;
	} else {
		if (!load_quoted_ports(skb, l4, &inner, &ports))
			return false;
		*group = target_of(inner.saddr, ports.src, inner.protocol).group;
	}
	if (*group)
		COUNT(icmp_errors, 1);
	return true;
}

/* find_target is false when the packet is too short to tell. The group is 0 when there is no service. */
static __always_inline bool find_target(struct __sk_buff *skb, const struct iphdr *ip, __be32 first, struct target *target)
{
	ALONE struct ports ports;

	if (ip->protocol == IPPROTO_ICMP)
		return group_of_icmp(skb, ip, first, &target->group);
	if (ip->protocol != IPPROTO_TCP && ip->protocol != IPPROTO_UDP)
		return true;
	if (!load_ports(skb, l4_offset(ip), &ports))
		return false;
	*target = target_of(ip->daddr, ports.dst, ip->protocol);
	return true;
}

/* follow_first finds the group of a later fragment; false: its first was not seen. */
static __always_inline bool follow_first(const struct iphdr *ip, __be32 *group)
{
	struct fragment_words key = fragment_key(ip);
	struct fragment *f = bpf_map_lookup_elem(&fragments, &key);

	if (!f || seconds() - f->seen > FRAGMENT_AGE)
		return false;
	*group = f->group;
	return true;
}

static __always_inline void remember_first(const struct iphdr *ip, __be32 group)
{
	struct fragment_words key = fragment_key(ip);
	__u64 f = WORD(group, seconds()); /* struct fragment */

	bpf_map_update_elem(&fragments, &key, &f, BPF_ANY);
}

/* to_group makes it the packet that the user would have sent to the group itself. */
static __always_inline bool to_group(struct __sk_buff *skb, const struct iphdr *ip, __be32 group)
{
	__u64 mac = bpf_cpu_to_be64((0x01005e000000 | (bpf_ntohl(group) & 0x7fffff)) << 16); /* RFC 1112 section 6.4 */

	return set_destination(skb, ip, group) && !bpf_skb_store_bytes(skb, 0, &mac, ETH_ALEN, 0) &&
	       !bpf_skb_change_type(skb, PACKET_MULTICAST);
}

static __always_inline bool may_send_unreachable(void)
{
	static const __u32 zero = 0;
	__u64 now = bpf_ktime_get_boot_ns(), *at = bpf_map_lookup_elem(&unreachable_at, &zero);

	if (!at || now < *at)
		return false;
	*at = now + 1000000000 / ICMP_PER_SECOND;
	return true;
}

/* refuse tells a user of TCP or UDP that nobody serves. */
static __always_inline int refuse(struct __sk_buff *skb, const struct iphdr *ip)
{
	bool answered;

	if (ip->protocol == IPPROTO_TCP)
		answered = refuse_tcp(skb, ip, 0);
	else
		answered = may_send_unreachable() && refuse_udp(skb, ip);
	if (!answered) {
		COUNT(unanswered, 1);
		return DROP;
	}
	COUNT(refused, 1);
	return bpf_redirect(skb->ifindex, 0);
}

SEC("tc")
int director(struct __sk_buff *skb)
{
	struct target target = {};
	struct iphdr ip;
	__be32 *first;

	if (!load_ipv4(skb, &ip))
		return NEXT;
	first = bpf_map_lookup_elem(&vips, &ip.daddr);
	if (!first)
		return NEXT;
	if (is_later_fragment(&ip)) {
		if (!follow_first(&ip, &target.group)) {
			COUNT(fragments_lost, 1);
			return DROP;
		}
	} else {
		if (!find_target(skb, &ip, *first, &target)) {
			COUNT(malformed, 1);
			return DROP;
		}
		if (ip.frag_off & bpf_htons(IP_MORE))
			remember_first(&ip, target.group);
	}
	if (!target.group) {
		COUNT(no_service, 1);
		return NEXT;
	}
	if (target.is_refused && !is_fragment(&ip))
		return refuse(skb, &ip);
	if (!to_group(skb, &ip, target.group)) {
		COUNT(malformed, 1);
		return DROP;
	}
	if (is_later_fragment(&ip))
		COUNT(fragments, 1);
	COUNT(rewritten, 1);
	COUNT(bytes, skb->len);
	return NEXT;
}

char _license[] SEC("license") = "Dual BSD/GPL";
