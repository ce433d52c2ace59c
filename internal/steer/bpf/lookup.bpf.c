// SPDX-License-Identifier: Dual BSD/GPL
// The lookup as a program to be run with a prepared packet: the first word is the group, then come users; their owners take
// their places.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include "steer.h"

#define USERS 256

static __always_inline __be32 prandom_user(void)
{
	return bpf_htonl(0x0b000000 + bpf_get_prandom_u32() % 1000000);
}

/* Global, so that the verifier goes through it once. */
__noinline __u32 lookup(__u32 group, __u32 user)
{
	return steer_lookup(group, user);
}

SEC("xdp")
int lookup_all(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__be32 *w = data;

	if ((void *)(w + 1 + USERS) > end)
		return XDP_ABORTED;
	for (int i = 1; i <= USERS; i++)
		w[i] = bpf_htonl(lookup(w[0], w[i]));
	return XDP_PASS;
}

SEC("xdp")
int lookup_one(struct xdp_md *ctx)
{
	return steer_lookup(bpf_htonl(0xef000001), prandom_user()) == 1 ? XDP_PASS : XDP_DROP;
}

SEC("xdp")
int lookup_none(struct xdp_md *ctx)
{
	return prandom_user() == 1 ? XDP_PASS : XDP_DROP;
}

char _license[] SEC("license") = "Dual BSD/GPL";
