/* SPDX-License-Identifier: Dual BSD/GPL */
/*
 * A packet that is too long for the link: who sent it is told the longest that would do (RFC 1191, RFC 8201), by the way that it came. From
 * inside a tree, too: the router before knows the way to the user. What may be fragmented, has options, or came when too many were told
 * already is left to the tables.
 */
#ifndef MANYCAST_TOOLONG_H
#define MANYCAST_TOOLONG_H

#define TOLD_PER_SECOND 1000 /* and CPU */

#define ICMP_FRAG_NEEDED 4
#define ICMPV6_PKT_TOOBIG 2
#define IP_DF 0x4000
#define QUOTED 32  /* bytes of an IPv4 packet: its header, and no less than 8 behind it */
#define QUOTED6 48 /* the same of IPv6 */
#define HOPS 64

/* This router's addresses; zero: it has none, and tells nobody. */
volatile const __be32 fast_self4;
volatile const __u64 fast_self6[2];

/* When a CPU may tell somebody again: nanoseconds since boot. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} fast_told_at SEC(".maps");

/* What is being written: more than the stack has room for. */
struct fast_answer {
	__u64 header[5];
	__u64 icmp[1 + QUOTED6 / 8];
	__u64 pseudo[5];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct fast_answer);
} fast_answers SEC(".maps");

static __always_inline struct fast_answer *new_answer(void)
{
	static const __u32 zero = 0;

	return bpf_map_lookup_elem(&fast_answers, &zero);
}

static __always_inline bool may_tell(void)
{
	static const __u32 zero = 0;
	__u64 now = bpf_ktime_get_ns(), *at = bpf_map_lookup_elem(&fast_told_at, &zero);

	if (!at || now < *at)
		return false;
	*at = now + 1000000000 / TOLD_PER_SECOND;
	return true;
}

static __always_inline __u16 fold(__s64 sum)
{
	__u32 s = sum;

	s = (s & 0xffff) + (s >> 16);
	s = (s & 0xffff) + (s >> 16);
	return ~s;
}

/* back cuts the frame to a length, turns it around, and writes an answer into it. */
static __always_inline bool back(struct xdp_md *ctx, __be16 proto, struct fast_answer *a, const __u32 header, const __u32 icmp)
{
	const __u32 len = ETH_HLEN + header + icmp;
	void *data, *end;
	struct ethhdr *eth;
	__u16 *mac;

	if (bpf_xdp_adjust_tail(ctx, (int)len - (int)bpf_xdp_get_buff_len(ctx)))
		return false;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	eth = data;
	mac = data;
	if (data + len > end)
		return false;
#pragma unroll
	for (int i = 0; i < ETH_ALEN / 2; i++) {
		__u16 to = mac[i];
		mac[i] = mac[i + ETH_ALEN / 2];
		mac[i + ETH_ALEN / 2] = to;
	}
	eth->h_proto = proto;
	__builtin_memcpy(eth + 1, a->header, header);
	__builtin_memcpy((void *)(eth + 1) + header, a->icmp, icmp);
	return true;
}

static __always_inline int too_long4(struct xdp_md *ctx, __u32 at, __u32 mtu)
{
	const __u32 size = 8 + QUOTED;
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct fast_answer *a = new_answer();
	struct iphdr *ip = data + at;

	if (!a || data + at + QUOTED > end || ip->ihl != 5 || !(ip->frag_off & bpf_htons(IP_DF)) || !fast_self4 || !may_tell())
		return to_kernel(COUNT_TOO_LONG);
	a->icmp[0] = ICMP_DEST_UNREACH | ICMP_FRAG_NEEDED << 8 | (__u64)bpf_htons(mtu) << 48;
	__builtin_memcpy(&a->icmp[1], ip, QUOTED);
	a->icmp[0] |= (__u64)fold(bpf_csum_diff(0, 0, (__be32 *)a->icmp, size, 0)) << 16;
	a->header[0] = 0x45 | 0xc0 << 8 | (__u64)bpf_htons(sizeof(*ip) + size) << 16; /* internetwork control */
	a->header[1] = HOPS | IPPROTO_ICMP << 8 | (__u64)fast_self4 << 32;
	a->header[2] = ip->saddr; /* half of it is the header's */
	a->header[1] |= (__u64)fold(bpf_csum_diff(0, 0, (__be32 *)a->header, sizeof(*ip), 0)) << 16;
	if (!back(ctx, bpf_htons(ETH_P_IP), a, sizeof(struct iphdr), size))
		return done(COUNT_TOO_LONG, XDP_DROP);
	done(COUNT_TOLD, 0);
	done(COUNT_TOO_LONG, 0);
	return bpf_redirect(ctx->ingress_ifindex, 0); /* not XDP_TX, which a veth without XDP at its other end leaves lying */
}

static __always_inline int too_long6(struct xdp_md *ctx, __u32 at, __u32 mtu)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct fast_answer *a = new_answer();
	struct ipv6hdr *ip = data + at;

	if (!a || data + at + QUOTED6 > end || !(fast_self6[0] | fast_self6[1]) || !may_tell())
		return to_kernel(COUNT_TOO_LONG);
	a->header[0] = 0x60 | (__u64)bpf_htons(sizeof(a->icmp)) << 32 | (__u64)IPPROTO_ICMPV6 << 48 | (__u64)HOPS << 56;
	a->header[1] = fast_self6[0];
	a->header[2] = fast_self6[1];
	__builtin_memcpy(&a->header[3], &ip->saddr, sizeof(ip->saddr));
	a->icmp[0] = ICMPV6_PKT_TOOBIG | (__u64)bpf_htonl(mtu) << 32;
	__builtin_memcpy(&a->icmp[1], ip, QUOTED6);
	__builtin_memcpy(a->pseudo, &a->header[1], 2 * sizeof(ip->saddr)); /* RFC 8200 section 8.1 */
	a->pseudo[4] = bpf_htonl(sizeof(a->icmp)) | (__u64)bpf_htonl(IPPROTO_ICMPV6) << 32;
	__u32 sum = bpf_csum_diff(0, 0, (__be32 *)a->pseudo, sizeof(a->pseudo), 0);
	a->icmp[0] |= (__u64)fold(bpf_csum_diff(0, 0, (__be32 *)a->icmp, sizeof(a->icmp), sum)) << 16;
	if (!back(ctx, bpf_htons(ETH_P_IPV6), a, sizeof(a->header), sizeof(a->icmp)))
		return done(COUNT_TOO_LONG, XDP_DROP);
	done(COUNT_TOLD, 0);
	done(COUNT_TOO_LONG, 0);
	return bpf_redirect(ctx->ingress_ifindex, 0); /* not XDP_TX, which a veth without XDP at its other end leaves lying */
}

/* too_long is for a packet of that protocol, whose header is at an offset; mtu is what its sender may send. */
static __always_inline int too_long(struct xdp_md *ctx, __be16 proto, __u32 at, __u32 mtu)
{
	return proto == bpf_htons(ETH_P_IP) ? too_long4(ctx, at, mtu) : too_long6(ctx, at, mtu);
}

/* too_long_inside is for one behind a label. */
static __always_inline int too_long_inside(struct xdp_md *ctx, __u32 entry, __u32 mtu)
{
	const __u32 at = ETH_HLEN + sizeof(__be32);
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u8 *first = data + at;

	if ((void *)(first + 1) > end || !(entry & ENTRY_BOTTOM))
		return to_kernel(COUNT_TOO_LONG);
	if (*first >> 4 == 4)
		return too_long4(ctx, at, mtu);
	if (*first >> 4 == 6)
		return too_long6(ctx, at, mtu);
	return to_kernel(COUNT_TOO_LONG);
}

#endif
