/* SPDX-License-Identifier: Dual BSD/GPL */
/*
 * Answers to who sent a packet. One takes the packet's place, and goes back by the interface, and to the neighbor, that it came from. What
 * no answer can be made for is left as it was.
 */
#ifndef MANYCAST_ANSWER_H
#define MANYCAST_ANSWER_H

/* Errors may be longer than what they answer: so many of each limit and CPU, some at once (RFC 4443 section 2.4). */
#define ERRORS_PER_SECOND 1000
#define ERRORS_AT_ONCE 50

#define QUOTED 28  /* bytes of an IPv4 packet: its header, and 8 behind it (RFC 792) */
#define QUOTED6 48 /* the same of IPv6 */
#define HOPS 64

#define IP_DF 0x4000

/* Errors with a limit of their own, so that many of one kind do not keep the others from being told. */
enum limit {
	LIMIT_TOO_LONG,
	LIMIT_NOBODY,
	LIMITS,
};

/* This router's addresses; zero: it has none, and sends no errors. They are no constants: what the verifier goes through is then the same with
 * and without them. The one of Linux 6.1 once took a minute where it knew that there was none of IPv6. */
volatile __be32 fast_self4;
volatile __u64 fast_self6[2];

/* When a CPU will have sent its errors at that rate: nanoseconds since boot. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, LIMITS);
	__type(key, __u32);
	__type(value, __u64);
} fast_told_at SEC(".maps");

/* What is being written: more than the stack has room for. */
struct fast_answer {
	__u64 header[5];
	__u64 body[1 + QUOTED6 / 8];
	__u64 pseudo[5];
	__u16 macs[ETH_ALEN]; /* of the packet: destination, source */
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

static __always_inline bool may_tell(enum limit which)
{
	static const __u32 keys[LIMITS] = { 0, 1 };
	const __u64 each = 1000000000 / ERRORS_PER_SECOND;
	__u64 now = bpf_ktime_get_ns(), *at = bpf_map_lookup_elem(&fast_told_at, &keys[which]);

	if (!at || *at > now + (ERRORS_AT_ONCE - 1) * each)
		return false;
	*at = (*at > now ? *at : now) + each;
	return true;
}

static __always_inline __u16 fold(__s64 sum)
{
	__u32 s = sum;

	s = (s & 0xffff) + (s >> 16);
	s = (s & 0xffff) + (s >> 16);
	return ~s;
}

/* header4 writes the header of an answer of so many bytes behind it. */
static __always_inline void header4(struct fast_answer *a, __u8 tos, __u8 proto, const __u32 body, __be32 from, __be32 to)
{
	const __u32 len = sizeof(struct iphdr) + body;

	a->header[0] = 0x45 | tos << 8 | (__u64)bpf_htons(len) << 16 | (__u64)bpf_htons(IP_DF) << 48;
	a->header[1] = HOPS | proto << 8 | (__u64)from << 32;
	a->header[2] = to; /* half of it is the header's */
	a->header[1] |= (__u64)fold(bpf_csum_diff(0, 0, (__be32 *)a->header, sizeof(struct iphdr), 0)) << 16;
}

/* header6 writes one whose addresses are there, and returns the sum of its pseudo-header (RFC 8200 section 8.1). */
static __always_inline __u32 header6(struct fast_answer *a, __u8 proto, const __u32 body)
{
	a->header[0] = 0x60 | (__u64)bpf_htons(body) << 32 | (__u64)proto << 48 | (__u64)HOPS << 56;
	__builtin_memcpy(a->pseudo, &a->header[1], 2 * sizeof(struct in6_addr));
	a->pseudo[4] = bpf_htonl(body) | (__u64)bpf_htonl(proto) << 32;
	return bpf_csum_diff(0, 0, (__be32 *)a->pseudo, sizeof(a->pseudo), 0);
}

/* back makes the frame as long as an answer is, turns it around, and writes the answer into it. What is longer grows at the head, where
 * drivers leave room. */
static __always_inline bool back(struct xdp_md *ctx, __be16 proto, struct fast_answer *a, const __u32 header, const __u32 body)
{
	const __u32 len = ETH_HLEN + header + body;
	int more = (int)len - (int)bpf_xdp_get_buff_len(ctx);
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;

	if ((void *)(eth + 1) > end)
		return false;
	__builtin_memcpy(a->macs, eth, sizeof(a->macs));
	if (more > 0 ? bpf_xdp_adjust_head(ctx, -more) : bpf_xdp_adjust_tail(ctx, more))
		return false;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	eth = data;
	if (data + len > end)
		return false;
	__builtin_memcpy(eth->h_dest, &a->macs[ETH_ALEN / 2], ETH_ALEN);
	__builtin_memcpy(eth->h_source, a->macs, ETH_ALEN);
	eth->h_proto = proto;
	__builtin_memcpy(eth + 1, a->header, header);
	__builtin_memcpy((void *)(eth + 1) + header, a->body, body);
	return true;
}

/* to_sender sends what back has made. Not by XDP_TX, which a veth without XDP at its other end leaves lying. */
static __always_inline int to_sender(struct xdp_md *ctx, enum count which)
{
	__u32 ifindex = ctx->ingress_ifindex;

	asm volatile("" : "+r"(ifindex)); /* else clang makes one of this load and those from hops, by a pointer that the verifier refuses */
	done(which, 0);
	return bpf_redirect(ifindex, 0);
}

/* error4 makes it an ICMP error about the packet whose header is at an offset; first is what it begins with, less its sum. */
static __always_inline bool error4(struct xdp_md *ctx, enum limit which, __u32 at, __u64 first)
{
	const __u32 size = 8 + QUOTED;
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct fast_answer *a = new_answer();
	struct iphdr *ip = data + at;

	if (!a || data + at + QUOTED > end || ip->ihl != 5 || !fast_self4 || !may_tell(which))
		return false;
	a->body[0] = first;
	__builtin_memcpy(&a->body[1], ip, QUOTED);
	a->body[0] |= (__u64)fold(bpf_csum_diff(0, 0, (__be32 *)a->body, size, 0)) << 16;
	header4(a, 0xc0, IPPROTO_ICMP, size, fast_self4, ip->saddr); /* internetwork control */
	return back(ctx, bpf_htons(ETH_P_IP), a, sizeof(*ip), size);
}

/* error6 is the same of IPv6. */
static __always_inline bool error6(struct xdp_md *ctx, enum limit which, __u32 at, __u64 first)
{
	const __u32 size = 8 + QUOTED6;
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct fast_answer *a = new_answer();
	struct ipv6hdr *ip = data + at;

	if (!a || data + at + QUOTED6 > end || !(fast_self6[0] | fast_self6[1]) || !may_tell(which))
		return false;
	a->header[1] = fast_self6[0];
	a->header[2] = fast_self6[1];
	__builtin_memcpy(&a->header[3], &ip->saddr, sizeof(ip->saddr));
	a->body[0] = first;
	__builtin_memcpy(&a->body[1], ip, QUOTED6);
	a->body[0] |= (__u64)fold(bpf_csum_diff(0, 0, (__be32 *)a->body, size, header6(a, IPPROTO_ICMPV6, size))) << 16;
	return back(ctx, bpf_htons(ETH_P_IPV6), a, sizeof(a->header), size);
}

#endif
