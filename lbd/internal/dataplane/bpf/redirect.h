/* SPDX-License-Identifier: Dual BSD/GPL */
/* First segments of connections that can move (dynamic TCP), which a server with too much to do sends to another one: that answers the user itself, with
 * its own destination. A user who does not hear of that, or may not go there, stays at the VIP: what comes of it is sent after (forward.h). */
#ifndef MANYCAST_REDIRECT_H
#define MANYCAST_REDIRECT_H

#include "dyntcp.h"
#include "keep.h"

/* redirectionMapValue in Go. */
struct redirection {
	__u32 share; /* of users, of 1024 */
	__u32 to;    /* host order */
};

/* By the service's name. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, __be32);
	__type(value, struct redirection);
} redirections SEC(".maps");

#define OPTION_BEGIN HALF(DYNTCP_OPTION_KIND | DYNTCP_OPTION_SIZE << 8, bpf_htons(DYNTCP_EXID))

/* offers_to_move looks for the option where Linux puts options, at multiples of 4 bytes. */
static __noinline bool offers_to_move(struct __sk_buff *skb, const struct iphdr *ip)
{
	__u32 tcp = l4_offset(ip), at = tcp + sizeof(struct tcphdr);
	ALONE __u32 word;
	ALONE __u8 offset; /* of the data, in the upper half, in units of 4 bytes */

	if (bpf_skb_load_bytes(skb, tcp + 12, &offset, sizeof(offset)))
		return false;
#pragma unroll
	for (int i = 0; i <= DYNTCP_OPTIONS_MAX - 16; i += 4) {
		if ((offset >> 4) * 4 < (int)sizeof(struct tcphdr) + i + DYNTCP_OPTION_SIZE || bpf_skb_load_bytes(skb, at + i, &word, sizeof(word)))
			return false;
		if (word == OPTION_BEGIN)
			return true;
	}
	return false;
}

/* redirect sends the first segment of a connection on; NEXT: it is served here. */
static __noinline int redirect(struct __sk_buff *skb, const struct iphdr *ip, const __be32 *name, __be32 vip, struct arrival *a)
{
	struct redirection *r = bpf_map_lookup_elem(&redirections, name);
	struct forwarding *f = forwarding_now();

	if (!r || !f || !f->device || !is_among(ip->saddr, r->share) || !offers_to_move(skb, ip))
		return NEXT;
	find_flow4(skb, ip, vip, a);
	if (a->kind != TCP)
		return NEXT;
	a->hops = HOPS + 1;
	to_server(a, r->to, DIVERTED, REDIRECT);
	divert(&a->flow, &r->to);
	return send_on(skb, a, f, REDIRECT);
}

#endif
