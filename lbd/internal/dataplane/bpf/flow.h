/* SPDX-License-Identifier: Dual BSD/GPL */
/* Flows of TCP and UDP of both families, and whether the socket table knows them. */
#ifndef MANYCAST_FLOW_H
#define MANYCAST_FLOW_H

#include <linux/in6.h>
#include <linux/ipv6.h>

#include "packet.h"

#define STATE_TIME_WAIT 6 /* include/net/tcp_states.h */
#define STATE_LISTEN 10
#define ICMPV6_ERRORS 128 /* below (RFC 4443 section 2.1) */
#define IP6_OFFSET 0xfff8 /* of this fragment, in bytes (RFC 8200 section 4.5) */
#define IP6_MORE 1	  /* more fragments follow */

/* flowMapKey in Go: addresses of IPv4 are mapped to IPv6 (RFC 4291 section 2.5.5.2). By words: words.h. */
struct flow {
	__u64 user[2];
	__u64 vip[2];
	__u64 ports_proto; /* user's port, VIP's port, protocol in 4 bytes */
};

#define MAPPED(address) WORD(bpf_htonl(0xffff), address)

static __always_inline __u32 flow_proto(const struct flow *flow)
{
	return flow->ports_proto >> 32;
}

static __always_inline __u64 flow_ports(__be16 user, __be16 vip, __u8 proto)
{
	return WORD(HALF(user, vip), proto);
}

enum kind { OTHER, TCP, UDP, ICMP_ERROR, LATER_FRAGMENT };

/* First fragments of datagrams that were sent on. One may come twice, from a router and back from a server that it was sent to: the epoch tells
 * which of them a later fragment is behind. */
struct fragment {
	__u64 user[2];
	__u64 vip[2];
	__u64 id_epoch; /* of IPv4 with the protocol; the epoch it came with */
};

struct fragment_sent {
	__u32 to; /* host order */
	__u32 epoch;
	__u64 at; /* nanoseconds since boot */
};

/* A packet, and how it has come. Each CPU has one, in a map: what is read from there the verifier knows nothing of, and so need not follow
 * each value on each way. That of Linux 6.1 would follow them for ever. */
struct arrival {
	struct flow flow; /* of an ICMP error: that of the packet that it is about */
	__u64 kind;
	__u64 opens;	   /* first segment of a connection */
	__u64 l4;	   /* offset of its header */
	__u64 is_part;	   /* of a datagram in fragments */
	__u64 id;	   /* of that datagram, of IPv4 with the protocol */
	struct fragment first; /* what is known of it goes by this, */
	struct fragment_sent sent; /* and is this */
	__u64 user;	   /* host order, of IPv6 the stand-in */
	__u64 chains;	   /* the service's */
	__u64 is_mine;	   /* the user is this server's */
	__u64 is_over;	   /* its connection here is in TIME-WAIT */
	__u64 is_straight; /* from a router */
	__u64 hops;	   /* left */
	__u64 epoch;	   /* it came with; once it is sent on, it goes with */
	__u64 to;	   /* server that it is sent to, host order */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct arrival);
} arrivals SEC(".maps");

static __always_inline struct arrival *this_arrival(void)
{
	static const __u32 zero = 0;

	return bpf_map_lookup_elem(&arrivals, &zero);
}

/* is_cookie reports whether a listener of the flow gave this acknowledgement's cookie away. That covers the VIP, not the group.
 * header has room for an IP header. */
static __always_inline bool is_cookie(struct __sk_buff *skb, const struct arrival *a, struct bpf_sock *listener, __u64 *header)
{
	__u32 length = a->flow.user[0] ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);
	ALONE struct tcphdr tcp;

	if (a->kind != TCP || bpf_skb_load_bytes(skb, ETH_HLEN, header, length) || bpf_skb_load_bytes(skb, a->l4, &tcp, sizeof(tcp)))
		return false;
	if (length == sizeof(struct iphdr))
		header[2] = a->flow.vip[1] >> 32; /* daddr */
	return !bpf_tcp_check_syncookie(listener, header, length, &tcp, sizeof(tcp));
}

/* has_connection: a request is a connection, too. One in TIME-WAIT is none: its user may have opened another one since, by the same port, elsewhere. What
 * is of nobody elsewhere goes up to it. */
static __noinline bool has_connection(struct __sk_buff *skb, struct arrival *a)
{
	const struct flow *flow = &a->flow;
	__u64 words[5]; /* struct bpf_sock_tuple, then a header */
	struct bpf_sock *sk;
	bool known;

	if (flow->user[0]) {
		words[0] = flow->user[0];
		words[1] = flow->user[1];
		words[2] = flow->vip[0];
		words[3] = flow->vip[1];
		words[4] = (__u32)flow->ports_proto;
		sk = bpf_skc_lookup_tcp(skb, (void *)words, sizeof(((struct bpf_sock_tuple *)0)->ipv6), BPF_F_CURRENT_NETNS, 0);
	} else {
		words[0] = WORD(flow->user[1] >> 32, flow->vip[1] >> 32);
		words[1] = (__u32)flow->ports_proto;
		words[2] = words[3] = words[4] = 0;
		sk = bpf_skc_lookup_tcp(skb, (void *)words, sizeof(((struct bpf_sock_tuple *)0)->ipv4), BPF_F_CURRENT_NETNS, 0);
	}
	if (!sk)
		return false;
	a->is_over = sk->state == STATE_TIME_WAIT;
	known = !a->is_over && (sk->state != STATE_LISTEN || is_cookie(skb, a, sk, words));
	bpf_sk_release(sk);
	return known;
}

#endif
