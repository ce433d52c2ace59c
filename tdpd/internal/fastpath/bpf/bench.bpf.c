/* SPDX-License-Identifier: Dual BSD/GPL */
/*
 * The steering program beside others, for BPF_PROG_TEST_RUN. bench_drive makes the frame of one repetition what it was, from another
 * user, and calls what is measured: bench_nothing is what that costs, bench_push the same label onto everything, bench_connections a
 * steering program that keeps connections, as balancers do.
 */
#include "fastpath.bpf.c"

#define BENCH_LEN (ETH_HLEN + 46) /* a 60-byte frame, 64 with its checksum */

struct bench {
	__u32 users; /* a power of 2, less 1 */
	__u32 run;   /* in bench_programs */
	__u32 first; /* user, host order */
	__u32 at;    /* state of the generator */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct bench);
} bench_config SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, __u32);
} bench_programs SEC(".maps");

struct connection {
	__be32 src;
	__be32 dst;
	__be32 ports;
	__u32 proto;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 20);
	__type(key, struct connection);
	__type(value, __u32);
} bench_lru SEC(".maps");

SEC("xdp")
int bench_drive(struct xdp_md *ctx)
{
	__u32 zero = 0;
	struct bench *b = bpf_map_lookup_elem(&bench_config, &zero);

	if (!b)
		return XDP_ABORTED;
	if (bpf_xdp_adjust_head(ctx, (int)bpf_xdp_get_buff_len(ctx) - BENCH_LEN))
		return XDP_ABORTED;
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct iphdr *ip = (void *)(eth + 1);
	if ((void *)(ip + 1) > end)
		return XDP_ABORTED;
	b->at = b->at * 1664525 + 1013904223;
	__builtin_memset(eth->h_dest, 2, ETH_ALEN);
	__builtin_memset(eth->h_source, 4, ETH_ALEN);
	eth->h_proto = bpf_htons(ETH_P_IP);
	ip->saddr = bpf_htonl(b->first + ((b->at >> 8) & b->users));
	ip->ttl = 64;
	bpf_tail_call(ctx, &bench_programs, b->run);
	return XDP_ABORTED;
}

SEC("xdp")
int bench_nothing(struct xdp_md *ctx)
{
	return XDP_TX;
}

SEC("xdp")
int bench_push(struct xdp_md *ctx)
{
	void *data, *end;
	struct ethhdr *eth;
	__be32 *label;

	if (bpf_xdp_adjust_head(ctx, -(int)sizeof(*label)))
		return XDP_ABORTED;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	eth = data;
	label = (void *)(eth + 1);
	if ((void *)(label + 1) > end)
		return XDP_ABORTED;
	__builtin_memset(eth, 6, 2 * ETH_ALEN);
	eth->h_proto = bpf_htons(ETH_P_MPLS_UC);
	*label = bpf_htonl(100 << ENTRY_LABEL | ENTRY_BOTTOM | 63);
	return XDP_TX;
}

SEC("xdp")
int bench_connections(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct iphdr *ip = (void *)(eth + 1);
	__be32 *ports = (void *)(ip + 1);

	if ((void *)(ports + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP))
		return XDP_PASS;
	struct connection c = { ip->saddr, ip->daddr, *ports, ip->protocol };
	struct packet p = { .user = bpf_ntohl(ip->saddr), .len = bpf_ntohs(ip->tot_len), .ttl = ip->ttl, .tc = ip->tos >> 5 };
	__u32 *owner = bpf_map_lookup_elem(&bench_lru, &c);
	if (owner) {
		p.owner = *owner;
	} else {
		p.owner = steer_owner(ip->daddr, p.user);
		if (p.owner == STEER_NO_GROUP || p.owner == STEER_NOBODY)
			return XDP_PASS;
		bpf_map_update_elem(&bench_lru, &c, &p.owner, BPF_ANY);
	}
	return onto_tree(ctx, eth, &p, false);
}
