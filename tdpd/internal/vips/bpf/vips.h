/* SPDX-License-Identifier: Dual BSD/GPL */
/*
 * Whose users' packets for a VIP are: steer.h's answer for both families. Package vips writes these maps. Include <linux/bpf.h>,
 * <linux/in.h>, <linux/in6.h>, <linux/ip.h>, <linux/ipv6.h>, <stdbool.h>, <bpf/bpf_helpers.h> and <bpf/bpf_endian.h> first.
 *
 * A user is the packet's source; of an ICMP error the address that the packet inside went to. All of a VIP's packets go by the user
 * alone, so that fragments and any port follow the others. Headers are read in place: the caller has them, and of an ICMP error as much as
 * VIP_HEADERS, before end.
 */
#ifndef MANYCAST_VIPS_H
#define MANYCAST_VIPS_H

#include "steer.h"

#define IP_OFFSET 0x1fff

#define ICMP_HLEN 8
#define ICMP_DEST_UNREACH 3
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETERPROB 12
#define ICMPV6_ERRORS 128 /* below (RFC 4443 section 2.1) */

#define VIP_HEADERS (2 * sizeof(struct ipv6hdr) + ICMP_HLEN) /* the longest that is looked at */

/* VIPs of IPv6 -> what stands in for them as steer.h's group; those of IPv4 are groups themselves. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, STEER_MAX_GROUPS);
	__type(key, struct in6_addr);
	__type(value, __be32);
} vips6 SEC(".maps");

static __always_inline bool is_icmp_error(__u8 type)
{
	return type == ICMP_DEST_UNREACH || type == ICMP_TIME_EXCEEDED || type == ICMP_PARAMETERPROB;
}

static __always_inline __be32 user_of(struct iphdr *ip, void *end)
{
	__u8 *icmp = (__u8 *)(ip + 1);
	struct iphdr *inner = (void *)(icmp + ICMP_HLEN);

	if (ip->protocol != IPPROTO_ICMP || ip->ihl != 5 || ip->frag_off & bpf_htons(IP_OFFSET))
		return ip->saddr;
	if ((void *)(inner + 1) > end || !is_icmp_error(*icmp))
		return ip->saddr;
	return inner->daddr;
}

static __always_inline __u32 user_of6(struct ipv6hdr *ip, void *end)
{
	__u8 *icmp = (__u8 *)(ip + 1);
	struct ipv6hdr *inner = (void *)(icmp + ICMP_HLEN);
	struct in6_addr *user = &ip->saddr;

	if (ip->nexthdr == IPPROTO_ICMPV6 && (void *)(inner + 1) <= end && *icmp < ICMPV6_ERRORS)
		user = &inner->daddr;
	return steer_standin((__u64)bpf_ntohl(user->s6_addr32[0]) << 32 | bpf_ntohl(user->s6_addr32[1]));
}

/* vip_owner is the owner of a packet's user, and who that is (host order), as steer_owner has them; STEER_NO_GROUP: it is for no VIP. */
static __always_inline __u32 vip_owner(struct iphdr *ip, void *end, __u32 *user)
{
	*user = bpf_ntohl(user_of(ip, end));
	return steer_owner(ip->daddr, *user);
}

/* vip_owner6 is vip_owner of IPv6. */
static __always_inline __u32 vip_owner6(struct ipv6hdr *ip, void *end, __u32 *user)
{
	__u32 *dst = ip->daddr.s6_addr32;
	__u64 vip[] = { WORD(dst[0], dst[1]), WORD(dst[2], dst[3]) }; /* struct in6_addr */
	__be32 *group = bpf_map_lookup_elem(&vips6, &vip);

	if (!group)
		return STEER_NO_GROUP;
	*user = user_of6(ip, end);
	return steer_owner(*group, *user);
}

#endif
