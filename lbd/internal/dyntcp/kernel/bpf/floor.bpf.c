// SPDX-License-Identifier: Dual BSD/GPL
/* The least that connections which can move take of any programs, for a benchmark: an option in SYN and SYN-ACK, and after that another address in each
 * segment, at both hosts. All of it is constant: nothing is looked up or kept. */
#include "option.h"

volatile const __be32 vip = 0;
volatile const __be32 destination = 0;
volatile const __be16 port = 0;

/* What shows it at work: ends of connections, and segments. */
__u64 agreed, rewritten;

#define SOL_TCP 6
#define TCP_SAVE_SYN_OPTION 27
#define TAG 1
#define COOKIE 2

static __always_inline int begins(struct bpf_sock_ops *ctx, __be16 of)
{
	if (of == port)
		bpf_sock_ops_cb_flags_set(ctx, BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG);
	return 1;
}

/* over: both hosts read the other's option. */
static __always_inline int over(struct bpf_sock_ops *ctx, __be16 of, __u64 length, __u64 flags)
{
	struct option o;

	if (of != port)
		return 1;
	if (load_option(ctx, &o, flags) && o.length == length)
		agreed++;
	bpf_sock_ops_cb_flags_set(ctx, 0);
	return 1;
}

SEC("sockops")
int floor_user(struct bpf_sock_ops *ctx)
{
	switch (ctx->op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		return begins(ctx, remote_port(ctx));
	case BPF_SOCK_OPS_HDR_OPT_LEN_CB:
		bpf_reserve_hdr_opt(ctx, DYNTCP_OPTION_SIZE, 0);
		return 1;
	case BPF_SOCK_OPS_WRITE_HDR_OPT_CB:
		store_option(ctx, TAG, COOKIE);
		return 1;
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
		return over(ctx, remote_port(ctx), DYNTCP_OPTION_DESTINATION_SIZE, 0);
	}
	return 1;
}

static __always_inline void keep_syns(struct bpf_sock_ops *ctx)
{
	int one = 1;

	bpf_setsockopt(ctx, SOL_TCP, TCP_SAVE_SYN_OPTION, &one, sizeof(one));
}

SEC("sockops")
int floor_server(struct bpf_sock_ops *ctx)
{
	switch (ctx->op) {
	case BPF_SOCK_OPS_TCP_LISTEN_CB:
		keep_syns(ctx);
		return begins(ctx, local_port(ctx));
	case BPF_SOCK_OPS_HDR_OPT_LEN_CB:
		bpf_reserve_hdr_opt(ctx, DYNTCP_OPTION_DESTINATION_SIZE, 0);
		return 1;
	case BPF_SOCK_OPS_WRITE_HDR_OPT_CB:
		store_destination(ctx, TAG, COOKIE, destination, port);
		return 1;
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		return over(ctx, local_port(ctx), DYNTCP_OPTION_SIZE, BPF_LOAD_HDR_OPT_TCP_SYN);
	}
	return 1;
}

/* rewrite leaves handshakes at the VIP. */
static __always_inline int rewrite(struct __sk_buff *skb, enum hook hook, enum end end, __be32 from, __be32 to)
{
	struct segment *s = segment_of(hook);

	if (!s || !read_plain4(skb, s) || ADDRESS4(end == SOURCE ? s->src : s->dst) != from ||
	    (FIRST_PORT(s->ports) != port && SECOND_PORT(s->ports) != port) || s->flags & SYN)
		return NEXT;
	rewritten++;
	return set_address4(skb, s, end, to) ? NEXT : DROP;
}

SEC("tc")
int floor_user_ingress(struct __sk_buff *skb)
{
	return rewrite(skb, INGRESS, SOURCE, destination, vip);
}

SEC("tc")
int floor_user_egress(struct __sk_buff *skb)
{
	return rewrite(skb, EGRESS, TARGET, vip, destination);
}

SEC("tc")
int floor_server_ingress(struct __sk_buff *skb)
{
	return rewrite(skb, INGRESS, TARGET, destination, vip);
}

SEC("tc")
int floor_server_egress(struct __sk_buff *skb)
{
	return rewrite(skb, EGRESS, SOURCE, vip, destination);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
