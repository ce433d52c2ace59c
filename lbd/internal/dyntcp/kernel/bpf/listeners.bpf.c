// SPDX-License-Identifier: Dual BSD/GPL
/* Listeners that were there before the server's program: it is told of SYNs and SYN-ACKs at each port that user space names. For this alone the
 * loader needs CAP_PERFMON, and Linux 6.12. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define STATE_LISTEN 10 /* include/net/tcp_states.h */
#define SOL_TCP 6
#define TCP_SAVE_SYN_OPTION 27
#define TCP_BPF_SOCK_OPS_CB_FLAGS_OPTION 1008

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct sock_common {
	unsigned char skc_state;
	__u16 skc_num;
};

struct bpf_iter_meta {
	struct seq_file *seq;
};

struct bpf_iter__tcp {
	struct bpf_iter_meta *meta;
	struct sock_common *sk_common;
};

struct tcp_sock {};
#pragma clang attribute pop

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, __u32);
} ports SEC(".maps");

SEC("iter/tcp")
int server_listeners(struct bpf_iter__tcp *ctx)
{
	struct sock_common *sk = ctx->sk_common;
	struct tcp_sock *tcp;
	int one = 1, flags = 0;
	__u32 port;

	if (!sk || sk->skc_state != STATE_LISTEN)
		return 0;
	port = __builtin_bswap16(sk->skc_num);
	if (!bpf_map_lookup_elem(&ports, &port))
		return 0;
	tcp = bpf_skc_to_tcp_sock(sk);
	if (!tcp || bpf_getsockopt(tcp, SOL_TCP, TCP_BPF_SOCK_OPS_CB_FLAGS_OPTION, &flags, sizeof(flags)))
		return 0;
	flags |= BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG;
	bpf_setsockopt(tcp, SOL_TCP, TCP_BPF_SOCK_OPS_CB_FLAGS_OPTION, &flags, sizeof(flags));
	bpf_setsockopt(tcp, SOL_TCP, TCP_SAVE_SYN_OPTION, &one, sizeof(one));
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
