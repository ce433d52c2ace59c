/* SPDX-License-Identifier: Dual BSD/GPL */
/*
 * Users of a VIP whom nobody serves: their packets are dropped, or answered at once, as the VIP's service says. A connection attempt ends
 * by either answer; one that is open ends by a reset alone, and outlives errors until somebody serves again. What nobody may answer is
 * dropped (RFC 1122 section 3.2.2, RFC 4443 section 2.4), and so is what has options or extension headers.
 */
#ifndef MANYCAST_REFUSE_H
#define MANYCAST_REFUSE_H

#include "answer.h"

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

#define ICMP_ECHO 8
#define ICMPV6_ECHO_REQUEST 128

/* Codes of unreachable. Of what has ports the port is, as at a server without the service: Linux ends connection attempts by any code, but
 * tells users of UDP of this one and not of an unreachable host, by which systems of BSD's kind let attempts go on, too. */
#define ICMP_HOST_UNREACH 1
#define ICMP_PORT_UNREACH 3
#define ICMPV6_DEST_UNREACH 1
#define ICMPV6_ADDR_UNREACH 3
#define ICMPV6_PORT_UNREACH 4

enum refuse {
	REFUSE_DROP,
	REFUSE_UNREACHABLE,
	REFUSE_RESET, /* TCP; the rest as before */
};

#define SERVICE_TELL 1 /* flag: packets that come without a tag from a router are told of: tagless.h */

/* What of a VIP's service matters here; no entry is as one of zeros. */
struct fast_service {
	__u8 refuse;
	__u8 flags;
	__u8 pad[6];
};

/* By VIP; those of IPv4 as mapped. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 2 * STEER_MAX_GROUPS); /* while VIPs are replaced there are old and new ones */
	__type(key, struct in6_addr);
	__type(value, struct fast_service);
} fast_services SEC(".maps");

struct tcp_header {
	__be16 src;
	__be16 dst;
	__be32 seq;
	__be32 ack;
	__u8 offset; /* upper half, in units of 4 bytes */
	__u8 flags;
	__be16 window;
	__sum16 check;
	__be16 urgent;
};

/* reset writes the reset for a segment, header included, where there is no connection (RFC 9293 section 3.10.7.1), less its sum. It is no
 * longer than what it answers, and so has no limit. */
static __always_inline bool reset(struct fast_answer *a, struct tcp_header *tcp, void *end, __u32 segment)
{
	__u32 seq = 0, ack = 0, flags = TCP_RST;

	if ((void *)(tcp + 1) > end || tcp->flags & TCP_RST)
		return false;
	__u32 header = (tcp->offset >> 4) * 4;
	if (header < sizeof(*tcp) || header > segment || segment > 0xffff)
		return false;
	if (tcp->flags & TCP_ACK) {
		seq = tcp->ack;
	} else {
		ack = bpf_htonl(bpf_ntohl(tcp->seq) + segment - header + !!(tcp->flags & TCP_SYN) + !!(tcp->flags & TCP_FIN));
		flags |= TCP_ACK;
	}
	a->body[0] = WORD(HALF(tcp->dst, tcp->src), seq);
	a->body[1] = WORD(ack, HALF(sizeof(*tcp) << 2 | flags << 8, 0));
	a->body[2] = 0; /* half of it is the header's */
	return true;
}

static __always_inline bool reset4(struct xdp_md *ctx, struct iphdr *ip, void *end)
{
	struct fast_answer *a = new_answer();

	if (!a || !reset(a, (void *)(ip + 1), end, bpf_ntohs(ip->tot_len) - sizeof(*ip)))
		return false;
	a->pseudo[0] = WORD(ip->daddr, ip->saddr);
	a->pseudo[1] = HALF(IPPROTO_TCP << 8, bpf_htons(sizeof(struct tcp_header)));
	__u32 sum = bpf_csum_diff(0, 0, (__be32 *)a->pseudo, 12, 0);
	a->body[2] = fold(bpf_csum_diff(0, 0, (__be32 *)a->body, sizeof(struct tcp_header), sum));
	header4(a, 0, IPPROTO_TCP, sizeof(struct tcp_header), ip->daddr, ip->saddr);
	return back(ctx, bpf_htons(ETH_P_IP), a, sizeof(*ip), sizeof(struct tcp_header));
}

static __always_inline bool reset6(struct xdp_md *ctx, struct ipv6hdr *ip, void *end)
{
	struct fast_answer *a = new_answer();

	if (!a || !reset(a, (void *)(ip + 1), end, bpf_ntohs(ip->payload_len)))
		return false;
	__builtin_memcpy(&a->header[1], &ip->daddr, sizeof(ip->daddr));
	__builtin_memcpy(&a->header[3], &ip->saddr, sizeof(ip->saddr));
	__u32 sum = header6(a, IPPROTO_TCP, sizeof(struct tcp_header));
	a->body[2] = fold(bpf_csum_diff(0, 0, (__be32 *)a->body, sizeof(struct tcp_header), sum));
	return back(ctx, bpf_htons(ETH_P_IPV6), a, sizeof(*ip), sizeof(struct tcp_header));
}

/* may_tell_of is false for what is an error itself, or may hide one. */
static __always_inline bool may_tell_of(__u8 proto, void *l4, void *end)
{
	struct tcp_header *tcp = l4;
	__u8 *type = l4;

	switch (proto) {
	case IPPROTO_TCP:
		return (void *)(tcp + 1) <= end && !(tcp->flags & TCP_RST);
	case IPPROTO_ICMP:
		return (void *)(type + 1) <= end && *type == ICMP_ECHO;
	case IPPROTO_ICMPV6:
		return (void *)(type + 1) <= end && *type == ICMPV6_ECHO_REQUEST;
	case IPPROTO_HOPOPTS:
	case IPPROTO_ROUTING:
	case IPPROTO_FRAGMENT:
	case IPPROTO_AH:
	case IPPROTO_DSTOPTS:
	case IPPROTO_MH:
		return false;
	}
	return true;
}

static __always_inline __u8 how_to_refuse(__u64 upper, __u64 lower)
{
	__u64 vip[] = { upper, lower }; /* struct in6_addr */
	struct fast_service *service = bpf_map_lookup_elem(&fast_services, &vip);

	return service ? service->refuse : REFUSE_DROP;
}

static __always_inline int refuse4(struct xdp_md *ctx, struct iphdr *ip, void *end)
{
	if ((void *)(ip + 1) > end)
		return XDP_DROP;
	__u8 how = how_to_refuse(0, WORD(bpf_htonl(0xffff), ip->daddr)), net = bpf_ntohl(ip->saddr) >> 24;
	if (how == REFUSE_DROP || ip->ihl != 5 || ip->frag_off & bpf_htons(IP_OFFSET) || net == 0 || net == 127 || net >= 224)
		return XDP_DROP;
	if (how == REFUSE_RESET && ip->protocol == IPPROTO_TCP && !(ip->frag_off & bpf_htons(IP_MORE)))
		return reset4(ctx, ip, end) ? to_sender(ctx, COUNT_RESET) : XDP_DROP;
	__u64 code = has_ports(ip->protocol) ? ICMP_PORT_UNREACH : ICMP_HOST_UNREACH;
	if (!may_tell_of(ip->protocol, ip + 1, end) || !error4(ctx, LIMIT_NOBODY, ETH_HLEN, ICMP_DEST_UNREACH | code << 8))
		return XDP_DROP;
	return to_sender(ctx, COUNT_UNREACHABLE);
}

static __always_inline int refuse6(struct xdp_md *ctx, struct ipv6hdr *ip, void *end)
{
	if ((void *)(ip + 1) > end)
		return XDP_DROP;
	__u32 *src = ip->saddr.s6_addr32, *dst = ip->daddr.s6_addr32;
	__u8 how = how_to_refuse(WORD(dst[0], dst[1]), WORD(dst[2], dst[3]));
	if (how == REFUSE_DROP || ip->saddr.s6_addr[0] == 0xff || !(src[0] | src[1])) /* multicast; none, loopback, and IPv4 as mapped */
		return XDP_DROP;
	if (how == REFUSE_RESET && ip->nexthdr == IPPROTO_TCP)
		return reset6(ctx, ip, end) ? to_sender(ctx, COUNT_RESET) : XDP_DROP;
	__u64 code = has_ports(ip->nexthdr) ? ICMPV6_PORT_UNREACH : ICMPV6_ADDR_UNREACH;
	if (!may_tell_of(ip->nexthdr, ip + 1, end) || !error6(ctx, LIMIT_NOBODY, ETH_HLEN, ICMPV6_DEST_UNREACH | code << 8))
		return XDP_DROP;
	return to_sender(ctx, COUNT_UNREACHABLE);
}

/* refuse is for a packet to a VIP, whose user nobody serves. */
static __always_inline int refuse(struct xdp_md *ctx, struct ethhdr *eth)
{
	void *end = (void *)(long)ctx->data_end;

	done(COUNT_NOBODY, 0);
	if (eth->h_proto == bpf_htons(ETH_P_IP))
		return refuse4(ctx, (void *)(eth + 1), end);
	return refuse6(ctx, (void *)(eth + 1), end);
}

#endif
