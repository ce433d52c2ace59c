/* SPDX-License-Identifier: Dual BSD/GPL */
/*
 * MPLS in UDP (RFC 7510), for where the network between is IP alone:
 *
 *   IP: this router ► the far end, no fragments │ UDP: the flow ► 6635 │ label │ packet
 *
 * The source port tells flows apart to routers between, which share them out by it. The outer class is the label's, its ECN that of the
 * packet inside, which gets it back (RFC 6040). TTLs are those of a tunnel: the label's counts one hop (RFC 4023 section 5.2).
 *
 * The checksum is zero, for IPv6, too. RFC 7510 section 3.1 allows that within one operator's network where both ends know each other,
 * which fast_sources sees to: a label has no checksum of its own on any link, and what is below it has.
 */
#ifndef MANYCAST_UDP_H
#define MANYCAST_UDP_H

#include <linux/udp.h>

#define UDP_MPLS 6635
#define UDP_FLOWS 49152 /* the first source port */
#define UDP_FLOW_BITS 14
#define UDP_HOPS 64
#define UDP_SOURCES 1024 /* prefixes */

#define ECN_MASK 3
#define ECN_ECT1 1
#define ECN_ECT0 2
#define ECN_CE 3

#define OUTER4 (sizeof(struct iphdr) + sizeof(struct udphdr))
#define OUTER6 (sizeof(struct ipv6hdr) + sizeof(struct udphdr))

/* Who may send labels in UDP: the length of a prefix and 32, zero, an address; of IPv4 as mapped. */
struct fast_source {
	__u32 bits;
	__u32 zero; /* whole words on the stack */
	struct in6_addr address;
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, UDP_SOURCES);
	__type(key, struct fast_source);
	__type(value, __u32);
} fast_sources SEC(".maps");

static __always_inline bool is_mapped(const struct in6_addr *a)
{
	return !(a->s6_addr32[0] | a->s6_addr32[1]) && a->s6_addr32[2] == bpf_htonl(0xffff);
}

/* room is what a hop adds to a packet: a label, and what it is in. */
static __always_inline __u32 room(const struct fast_hop *hop)
{
	if (hop->how == HOW_LABEL)
		return sizeof(__be32);
	if (hop->how != HOW_UDP)
		return 0;
	return sizeof(__be32) + (is_mapped(&hop->far) ? OUTER4 : OUTER6);
}

/* ecn_of is that of what is behind the last label. */
static __always_inline __u8 ecn_of(void *inside, void *end)
{
	__u8 *b = inside;

	if ((void *)(b + 2) > end)
		return 0;
	if (b[0] >> 4 == 4)
		return b[1] & ECN_MASK;
	return b[0] >> 4 == 6 ? b[1] >> 4 & ECN_MASK : 0;
}

/* set_ecn writes it into a packet of which ecn_of was not 0. */
static __always_inline void set_ecn(void *inside, void *end, __u8 ecn)
{
	struct iphdr *ip = inside;
	__u8 *b = inside;

	if ((void *)(ip + 1) > end)
		return;
	if (ip->version == 6) {
		b[1] = (b[1] & ~(ECN_MASK << 4)) | ecn << 4;
		return;
	}
	__u8 tos = (ip->tos & ~ECN_MASK) | ecn;
	__u32 sum = (__u16)~ip->check + (__u16)~bpf_htons(ip->tos) + bpf_htons(tos);
	sum = (sum & 0xffff) + (sum >> 16);
	ip->check = ~((sum & 0xffff) + (sum >> 16));
	ip->tos = tos;
}

/* into_udp sends the packet to the hop's far end; entry is host order, pushed or, swapped, in the place of the label that is there. */
static __always_inline int into_udp(struct xdp_md *ctx, struct fast_hop *hop, __u32 entry, __u32 flow, __u8 ecn, bool swapped)
{
	const bool four = is_mapped(&hop->far);
	const __u8 class = (entry & ENTRY_TC_MASK) >> ENTRY_TC << 5 | ecn;
	void *data, *end;
	struct ethhdr *eth;
	struct udphdr *udp;
	__be32 *label;

	if (bpf_xdp_adjust_head(ctx, -(int)((four ? OUTER4 : OUTER6) + (swapped ? 0 : sizeof(*label)))))
		return done(COUNT_MALFORMED, XDP_DROP);
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	__u32 len = bpf_xdp_get_buff_len(ctx) - ETH_HLEN;
	eth = data;
	if (four) {
		struct iphdr *ip = (void *)(eth + 1);
		udp = (void *)(ip + 1);
		label = (void *)(udp + 1);
		if ((void *)(label + 1) > end)
			return done(COUNT_MALFORMED, XDP_DROP);
		__u32 src = bpf_ntohl(fast_self4), dst = bpf_ntohl(hop->far.s6_addr32[3]);
		__u32 sum = (0x4500 | class) + len + IP_DF + (UDP_HOPS << 8 | IPPROTO_UDP) + (src >> 16) + (src & 0xffff) + (dst >> 16) + (dst & 0xffff);
		eth->h_proto = bpf_htons(ETH_P_IP);
		ip->version = 4;
		ip->ihl = sizeof(*ip) / 4;
		ip->tos = class;
		ip->tot_len = bpf_htons(len);
		ip->id = 0; /* RFC 6864 */
		ip->frag_off = bpf_htons(IP_DF);
		ip->ttl = UDP_HOPS;
		ip->protocol = IPPROTO_UDP;
		sum = (sum & 0xffff) + (sum >> 16);
		ip->check = bpf_htons(~((sum & 0xffff) + (sum >> 16)));
		ip->saddr = bpf_htonl(src);
		ip->daddr = bpf_htonl(dst);
		len -= sizeof(*ip);
	} else {
		struct ipv6hdr *ip = (void *)(eth + 1);
		udp = (void *)(ip + 1);
		label = (void *)(udp + 1);
		if ((void *)(label + 1) > end)
			return done(COUNT_MALFORMED, XDP_DROP);
		__u64 self[] = { fast_self6[0], fast_self6[1] };
		eth->h_proto = bpf_htons(ETH_P_IPV6);
		*(__be32 *)ip = bpf_htonl(6U << 28 | (__u32)class << 20); /* no flow label: the source port is one */
		len -= sizeof(*ip);
		ip->payload_len = bpf_htons(len);
		ip->nexthdr = IPPROTO_UDP;
		ip->hop_limit = UDP_HOPS;
		__builtin_memcpy(&ip->saddr, self, sizeof(ip->saddr));
		__builtin_memcpy(&ip->daddr, &hop->far, sizeof(ip->daddr));
	}
	__builtin_memcpy(eth, hop->macs, sizeof(hop->macs));
	flow ^= entry >> ENTRY_LABEL;
	flow = (flow ^ flow >> 16) * 0x9e3779b1U;
	udp->source = bpf_htons(UDP_FLOWS | flow >> (32 - UDP_FLOW_BITS));
	udp->dest = bpf_htons(UDP_MPLS);
	udp->len = bpf_htons(len);
	udp->check = 0;
	*label = bpf_htonl(entry);
	done(COUNT_TUNNELED, 0);
	done(swapped ? COUNT_SWAPPED : COUNT_PUSHED, 0);
	return bpf_redirect(hop->ifindex, 0);
}

/* What has come out of UDP: no verdict, the frame has a label now. */
#define LABELLED (-1)

/* out_of_udp makes a labelled frame of what is for this router in UDP from who may send that. Fragments are not taken. */
static __always_inline int out_of_udp(struct xdp_md *ctx, struct ethhdr *eth, void *end)
{
	const bool four = eth->h_proto == bpf_htons(ETH_P_IP);
	struct udphdr *udp;
	bool fragment = false;
	__u8 ecn;
	__u64 from[3] = { WORD(32 + 128, 0) }; /* struct fast_source */

	if (four) {
		struct iphdr *ip = (void *)(eth + 1);
		if ((void *)(ip + 1) > end || ip->daddr != fast_self4 || ip->protocol != IPPROTO_UDP || ip->ihl != 5 || ip->frag_off & bpf_htons(IP_OFFSET))
			return XDP_PASS;
		fragment = ip->frag_off & bpf_htons(IP_MORE);
		ecn = ip->tos & ECN_MASK;
		from[2] = WORD(bpf_htonl(0xffff), ip->saddr);
		udp = (void *)(ip + 1);
	} else {
		struct ipv6hdr *ip = (void *)(eth + 1);
		if ((void *)(ip + 1) > end || ip->nexthdr != IPPROTO_UDP)
			return XDP_PASS;
		__u32 *src = ip->saddr.s6_addr32, *dst = ip->daddr.s6_addr32;
		if (WORD(dst[0], dst[1]) != fast_self6[0] || WORD(dst[2], dst[3]) != fast_self6[1])
			return XDP_PASS;
		ecn = ip->flow_lbl[0] >> 4 & ECN_MASK;
		from[1] = WORD(src[0], src[1]);
		from[2] = WORD(src[2], src[3]);
		udp = (void *)(ip + 1);
	}
	if ((void *)(udp + 1) > end || udp->dest != bpf_htons(UDP_MPLS))
		return XDP_PASS;
	if (!bpf_map_lookup_elem(&fast_sources, from))
		return done(COUNT_STRANGER, XDP_DROP);
	__be32 *label = (void *)(udp + 1);
	__u32 outer = four ? OUTER4 : OUTER6, len = bpf_ntohs(udp->len);
	if (fragment || (void *)(label + 1) > end || len < sizeof(*udp) + sizeof(*label))
		return done(COUNT_MALFORMED, XDP_DROP);
	if (ETH_HLEN + outer - sizeof(*udp) + len > bpf_xdp_get_buff_len(ctx))
		return done(COUNT_MALFORMED, XDP_DROP);
	__u32 entry = bpf_ntohl(*label);
	if (entry >> ENTRY_LABEL < ENTRY_FIRST)
		return done(COUNT_MALFORMED, XDP_DROP);
	if (ecn) {
		__u8 had = entry & ENTRY_BOTTOM ? ecn_of(label + 1, end) : 0;
		if (ecn == ECN_CE && !had)
			return done(COUNT_CONGESTED, XDP_DROP);
		if (ecn == ECN_CE || (ecn == ECN_ECT1 && had == ECN_ECT0))
			set_ecn(label + 1, end, ecn);
	}
	struct macs macs = macs_of(eth);
	if (bpf_xdp_adjust_head(ctx, outer))
		return done(COUNT_MALFORMED, XDP_DROP);
	eth = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if ((void *)(eth + 1) > end)
		return done(COUNT_MALFORMED, XDP_DROP);
	put_macs(eth, macs);
	eth->h_proto = bpf_htons(ETH_P_MPLS_UC);
	done(COUNT_UNTUNNELED, 0);
	return LABELLED;
}

#endif
