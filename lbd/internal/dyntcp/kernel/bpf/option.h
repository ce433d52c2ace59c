/* SPDX-License-Identifier: Dual BSD/GPL */
/* What the programs of connections share: whose callback it is, and the option. */
#ifndef MANYCAST_OPTION_H
#define MANYCAST_OPTION_H

#include "dyntcp.h"
#include "segment.h"

#define FAMILY_IPV4 2
#define FAMILY_IPV6 10

#define STATE_CLOSE 7 /* include/net/tcp_states.h */

/* Whose sockets are meant: the cookie of the network namespace. Sockets of all namespaces come by a cgroup. */
volatile const __u64 netns = 0;

static __always_inline bool is_ours(struct bpf_sock_ops *ctx)
{
	return bpf_get_netns_cookie(ctx) == netns;
}

/* Fields of the context the verifier lets a program read one by one, each at its own place: clang is not to join two. */
#define FIELD(field) (*(volatile __u32 *)&(field))

/* ends_of are the local and the remote end. */
static __always_inline bool ends_of(struct bpf_sock_ops *ctx, __u64 *local, __u64 *remote)
{
	if (ctx->family == FAMILY_IPV4) {
		local[0] = remote[0] = 0;
		local[1] = MAPPED(ctx->local_ip4);
		remote[1] = MAPPED(ctx->remote_ip4);
		asm volatile("" ::: "memory"); /* nor what the two ways end with */
		return true;
	}
	if (ctx->family != FAMILY_IPV6)
		return false;
	local[0] = WORD(FIELD(ctx->local_ip6[0]), FIELD(ctx->local_ip6[1]));
	local[1] = WORD(FIELD(ctx->local_ip6[2]), FIELD(ctx->local_ip6[3]));
	remote[0] = WORD(FIELD(ctx->remote_ip6[0]), FIELD(ctx->remote_ip6[1]));
	remote[1] = WORD(FIELD(ctx->remote_ip6[2]), FIELD(ctx->remote_ip6[3]));
	return true;
}

static __always_inline __be16 local_port(struct bpf_sock_ops *ctx)
{
	return bpf_htons(ctx->local_port);
}

static __always_inline __be16 remote_port(struct bpf_sock_ops *ctx)
{
	return ctx->remote_port >> 16;
}

/* The option as words, DYNTCP_OPTION_OFF_*: tag and cookie as they lie in memory. */
struct option {
	__u64 words[3];
	__u64 length;
};

#define OPTION_BEGIN(length) ((__u64)HALF(DYNTCP_OPTION_KIND | (length) << 8, bpf_htons(DYNTCP_EXID)))

static __always_inline __u64 option_tag(const struct option *o)
{
	return o->words[0] >> 32 & 0xffff;
}

static __always_inline __u64 option_cookie(const struct option *o)
{
	return o->words[0] >> 48 | o->words[1] << 16;
}

static __always_inline __be32 option_address(const struct option *o)
{
	return o->words[1] >> 48 | (o->words[2] & 0xffff) << 16;
}

static __always_inline __be16 option_port(const struct option *o)
{
	return o->words[2] >> 16;
}

/* load_option finds it in what the callback is about; flags of bpf_load_hdr_opt. One of another length is none. */
static __always_inline bool load_option(struct bpf_sock_ops *ctx, struct option *o, __u64 flags)
{
	o->words[0] = OPTION_BEGIN(4); /* what is looked for: kind and ExID */
	o->words[1] = o->words[2] = 0;
	o->length = bpf_load_hdr_opt(ctx, o->words, DYNTCP_OPTION_DESTINATION_SIZE, flags);
	return o->length == DYNTCP_OPTION_SIZE || o->length == DYNTCP_OPTION_DESTINATION_SIZE;
}

static __always_inline bool store_option(struct bpf_sock_ops *ctx, __u64 tag, __u64 cookie)
{
	__u64 words[] = { OPTION_BEGIN(DYNTCP_OPTION_SIZE) | tag << 32 | cookie << 48, cookie >> 16 };

	return !bpf_store_hdr_opt(ctx, words, DYNTCP_OPTION_SIZE, 0);
}

static __always_inline bool store_destination(struct bpf_sock_ops *ctx, __u64 tag, __u64 cookie, __be32 address, __be16 port)
{
	__u64 words[] = { OPTION_BEGIN(DYNTCP_OPTION_DESTINATION_SIZE) | tag << 32 | cookie << 48, cookie >> 16 | (__u64)address << 48,
			  address >> 16 | (__u32)port << 16 };

	return !bpf_store_hdr_opt(ctx, words, DYNTCP_OPTION_DESTINATION_SIZE, 0);
}

#endif
