/* SPDX-License-Identifier: Dual BSD/GPL */
/*
 * A packet that is too long for the link: who sent it is told the longest that would do (RFC 1191, RFC 8201), by the way that it came. From
 * inside a tree, too: the router before knows the way to the user. What may be fragmented, has options, or came when too many were told
 * already is left to the tables.
 */
#ifndef MANYCAST_TOOLONG_H
#define MANYCAST_TOOLONG_H

#include "answer.h"

#define ICMP_FRAG_NEEDED 4
#define ICMPV6_PKT_TOOBIG 2

static __always_inline bool tell4(struct xdp_md *ctx, __u32 at, __u32 mtu)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct iphdr *ip = data + at;

	return (void *)(ip + 1) <= end && ip->frag_off & bpf_htons(IP_DF) &&
	       error4(ctx, LIMIT_TOO_LONG, at, ICMP_DEST_UNREACH | ICMP_FRAG_NEEDED << 8 | (__u64)bpf_htons(mtu) << 48);
}

static __always_inline bool tell6(struct xdp_md *ctx, __u32 at, __u32 mtu)
{
	return error6(ctx, LIMIT_TOO_LONG, at, ICMPV6_PKT_TOOBIG | (__u64)bpf_htonl(mtu) << 32);
}

/* too_long is for a packet of that protocol, whose header is at an offset; mtu is what its sender may send. */
static __always_inline int too_long(struct xdp_md *ctx, __be16 proto, __u32 at, __u32 mtu)
{
	if (!(proto == bpf_htons(ETH_P_IP) ? tell4(ctx, at, mtu) : tell6(ctx, at, mtu)))
		return to_kernel(COUNT_TOO_LONG);
	done(COUNT_TOO_LONG, 0);
	return to_sender(ctx, COUNT_TOLD);
}

static __always_inline bool tell_inside(struct xdp_md *ctx, __u32 entry, __u32 mtu)
{
	const __u32 at = ETH_HLEN + sizeof(__be32);
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u8 *first = data + at;

	if ((void *)(first + 1) > end || !(entry & ENTRY_BOTTOM))
		return false;
	if (*first >> 4 == 4)
		return tell4(ctx, at, mtu);
	return *first >> 4 == 6 && tell6(ctx, at, mtu);
}

/* too_long_inside is for one behind a label. */
static __always_inline int too_long_inside(struct xdp_md *ctx, __u32 entry, __u32 mtu)
{
	done(COUNT_TOO_LONG, 0);
	return tell_inside(ctx, entry, mtu) ? to_sender(ctx, COUNT_TOLD) : to_tables();
}

#endif
