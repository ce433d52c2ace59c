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

struct all {
	struct xdp_md *ctx;
	__u64 group; /* a __be32 */
	__u64 done;
};

/* A step of bpf_loop, which Linux 6.1 takes without CAP_PERFMON where it refuses a loop through the packet: see steer.h. */
static long lookup_step(__u32 i, struct all *all)
{
	__u32 at = sizeof(__be32) * (1 + i);
	ALONE __be32 word;

	if (bpf_xdp_load_bytes(all->ctx, at, &word, sizeof(word)))
		return 1;
	word = bpf_htonl(steer_lookup(all->group, word));
	if (bpf_xdp_store_bytes(all->ctx, at, &word, sizeof(word)))
		return 1;
	all->done++;
	return 0;
}

SEC("xdp")
int lookup_all(struct xdp_md *ctx)
{
	struct all all = { .ctx = ctx };

	if (bpf_xdp_load_bytes(ctx, 0, &all.group, sizeof(__be32)))
		return XDP_ABORTED;
	bpf_loop(USERS, lookup_step, &all, 0);
	return all.done == USERS ? XDP_PASS : XDP_ABORTED;
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

struct standins {
	__u64 prefix; /* in: host order */
	__u32 user;
	__u32 port;
};

/* stand_in replaces the prefix by what stands in for it, and for the user and the port. */
SEC("xdp")
int stand_in(struct xdp_md *ctx)
{
	ALONE struct standins in = {};

	if (bpf_xdp_load_bytes(ctx, 0, &in, sizeof(in)))
		return XDP_ABORTED;
	in.prefix = WORD(steer_standin(in.prefix), steer_flow(in.user, in.port));
	return bpf_xdp_store_bytes(ctx, 0, &in, sizeof(in)) ? XDP_ABORTED : XDP_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
