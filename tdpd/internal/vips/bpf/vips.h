/* SPDX-License-Identifier: Dual BSD/GPL */
/*
 * Whose users' packets for a VIP are: steer.h's answer for both families. Package vips writes these maps. Include <linux/bpf.h>,
 * <linux/in.h>, <linux/in6.h>, <linux/ip.h>, <linux/ipv6.h>, <stdbool.h>, <bpf/bpf_helpers.h> and <bpf/bpf_endian.h> first.
 *
 * A user is the packet's source; of an ICMP error the address that the packet inside went to. All of a VIP's packets go by the user
 * alone, so that fragments and any port follow the others. But for users behind a NAT that is split: what they send by TCP and UDP goes by
 * the address and the source port; of an ICMP error by the port that the packet inside went to. What has no port there (a fragment, also
 * the first one, so that a datagram stays whole; another protocol; what is behind options or extension headers) goes by the address, as
 * everywhere. Headers are read in place: the caller has them, and of an ICMP error as much as VIP_HEADERS, before end.
 */
#ifndef MANYCAST_VIPS_H
#define MANYCAST_VIPS_H

#include "steer.h"

#define IP_OFFSET 0x1fff
#define IP_MORE 0x2000

#define ICMP_HLEN 8
#define ICMP_DEST_UNREACH 3
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETERPROB 12
#define ICMPV6_ERRORS 128 /* below (RFC 4443 section 2.1) */

#define PORTS (2 * sizeof(__be16))
#define VIP_HEADERS (2 * sizeof(struct ipv6hdr) + ICMP_HLEN + PORTS) /* the longest that is looked at */

#define VIP_MAX_SPLIT 65536

/* VIPs of IPv6 -> what stands in for them as steer.h's group; those of IPv4 are groups themselves. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, STEER_MAX_GROUPS);
	__type(key, struct in6_addr);
	__type(value, __be32);
} vips6 SEC(".maps");

/* Prefixes of users that are split, by the group of the plan that they then go by. */
struct vip_split {
	__u32 prefixlen; /* group included */
	__be32 group;
	__be32 addr[4]; /* of IPv4 the first one */
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, VIP_MAX_SPLIT);
	__type(key, struct vip_split);
	__type(value, __u32);
} vips_split SEC(".maps");

static __always_inline bool is_icmp_error(__u8 type)
{
	return type == ICMP_DEST_UNREACH || type == ICMP_TIME_EXCEEDED || type == ICMP_PARAMETERPROB;
}

/* Where an ICMP error has the packet that it is about. */
static __always_inline struct iphdr *quoted(struct iphdr *ip)
{
	return (void *)(ip + 1) + ICMP_HLEN;
}

static __always_inline struct ipv6hdr *quoted6(struct ipv6hdr *ip)
{
	return (void *)(ip + 1) + ICMP_HLEN;
}

static __always_inline bool quotes(struct iphdr *ip, void *end)
{
	if (ip->protocol != IPPROTO_ICMP || ip->ihl != 5 || ip->frag_off & bpf_htons(IP_OFFSET))
		return false;
	return (void *)(quoted(ip) + 1) <= end && is_icmp_error(*(__u8 *)(ip + 1));
}

static __always_inline bool quotes6(struct ipv6hdr *ip, void *end)
{
	return ip->nexthdr == IPPROTO_ICMPV6 && (void *)(quoted6(ip) + 1) <= end && *(__u8 *)(ip + 1) < ICMPV6_ERRORS;
}

static __always_inline bool has_ports(__u8 proto) { return proto == IPPROTO_TCP || proto == IPPROTO_UDP; }

/*
 * port_in is the first or the second port of a packet, 0 if it has none, or is one of such fragments. Bounds come before all else: the verifier
 * of Linux 6.1 forgets those that an answer before came of (steer.h).
 */
static __always_inline __u16 port_in(struct iphdr *ip, void *end, const int which, const __u16 fragments)
{
	__be16 *port = (__be16 *)(ip + 1) + which;

	if ((void *)(port + 1) > end || ip->ihl != 5 || ip->frag_off & bpf_htons(fragments))
		return 0;
	return has_ports(ip->protocol) ? bpf_ntohs(*port) : 0;
}

static __always_inline __u16 port_in6(struct ipv6hdr *ip, void *end, const int which)
{
	__be16 *port = (__be16 *)(ip + 1) + which;

	return (void *)(port + 1) <= end && has_ports(ip->nexthdr) ? bpf_ntohs(*port) : 0;
}

/* port_of is the user's port; 0: there is none. What an error is about went to it. */
static __always_inline __u16 port_of(struct iphdr *ip, void *end, bool is_error)
{
	return is_error ? port_in(quoted(ip), end, 1, IP_OFFSET) : port_in(ip, end, 0, IP_OFFSET | IP_MORE);
}

static __always_inline __u16 port_of6(struct ipv6hdr *ip, void *end, bool is_error)
{
	return is_error ? port_in6(quoted6(ip), end, 1) : port_in6(ip, end, 0);
}

/* by_port has a split user go by the plan of those, where there is one: plan, generation and user become that one's. */
static __always_inline struct steer_plan *by_port(struct steer_plan *plan, __u32 *generation, __u32 *user, const __u64 *split, __u16 port)
{
	__u32 g;

	if (!port || !bpf_map_lookup_elem(&vips_split, split))
		return plan;
	struct steer_plan *other = steer_plan_of(plan->by_port, &g);
	if (!other)
		return plan;
	*generation = g;
	*user = steer_flow(*user, port);
	return other;
}

/* vip_owner is the owner of a packet's user, and who that is (host order), as steer_owner has them; STEER_NO_GROUP: it is for no VIP. */
static __always_inline __u32 vip_owner(struct iphdr *ip, void *end, __u32 *user)
{
	__u32 generation;
	struct steer_plan *plan = steer_plan_of(ip->daddr, &generation);

	if (!plan)
		return STEER_NO_GROUP;
	bool is_error = quotes(ip, end);
	__be32 addr = is_error ? quoted(ip)->daddr : ip->saddr;
	*user = bpf_ntohl(addr);
	if (plan->by_port) {
		__u64 split[] = { WORD(8 * 2 * sizeof(__be32), plan->by_port), addr, 0 }; /* struct vip_split */
		plan = by_port(plan, &generation, user, split, port_of(ip, end, is_error));
	}
	return steer_by(plan, generation, *user);
}

/* vip_owner6 is vip_owner of IPv6. */
static __always_inline __u32 vip_owner6(struct ipv6hdr *ip, void *end, __u32 *user)
{
	__u32 *dst = ip->daddr.s6_addr32, generation;
	__u64 vip[] = { WORD(dst[0], dst[1]), WORD(dst[2], dst[3]) }; /* struct in6_addr */
	__be32 *group = bpf_map_lookup_elem(&vips6, &vip);
	struct steer_plan *plan = group ? steer_plan_of(*group, &generation) : 0;

	if (!plan)
		return STEER_NO_GROUP;
	bool is_error = quotes6(ip, end);
	__be32 *addr = is_error ? quoted6(ip)->daddr.s6_addr32 : ip->saddr.s6_addr32;
	*user = steer_standin((__u64)bpf_ntohl(addr[0]) << 32 | bpf_ntohl(addr[1]));
	if (plan->by_port) {
		__u64 split[] = { WORD(8 * 5 * sizeof(__be32), plan->by_port), WORD(addr[0], addr[1]), WORD(addr[2], addr[3]) };
		plan = by_port(plan, &generation, user, split, port_of6(ip, end, is_error));
	}
	return steer_by(plan, generation, *user);
}

#endif
