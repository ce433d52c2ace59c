/* SPDX-License-Identifier: Dual BSD/GPL */
/*
 * Packets of connections that other servers hold (Fig 14), and of those that are being moved. What is of nobody here goes to the latest
 * former owner of its user, unchanged, by VXLAN. The VNI says how far it has come:
 *
 *   hops left    4 bits  15 at first, one less each time; what has none left is not sent on
 *   epoch       20 bits  the last one in which who gets it owned the user: it sends on to owners of earlier epochs alone. Those are even.
 *
 * So the epoch falls from server to server, whatever their chains say, and each packet comes to an end; hops bound it once more.
 *
 * A packet from another server comes in at our VXLAN device and goes from there into the ingress of the interface where the server joins, as
 * if it had come by that: rp_filter finds nothing strange. Its mark says that it has come so.
 */
#ifndef MANYCAST_FORWARD_H
#define MANYCAST_FORWARD_H

#include "flow.h"
#include "mark.h"
#include "steer.h"

#define HOPS 15
#define EPOCH_BITS 20
#define EPOCH ((1U << EPOCH_BITS) - 1)
#define FINAL 0U       /* as an epoch: who gets it has the last word; of UDP its user's owner, where it knows another one */
#define PASSED 1U      /* who gets it has the connection, or nobody answers: it may have been given back meanwhile */
#define DIVERTED 3U    /* who gets it was given the connection when it began: it has it, knows whom it gave it to, or has the last word */
#define STRAIGHT EPOCH /* as an epoch: as if it came straight from a router, later than all */

#define MAX_HOPS 8
#define TUNNEL_TTL 64

/* forwardMapValue in Go. */
struct forwarding {
	__u32 device; /* our VXLAN device's index; 0: nothing is forwarded */
	__u32 main;   /* index of the interface where the server joins */
	__u32 local;  /* own address, host order; 0: as the kernel chooses */
	__u32 flows;  /* how many entries flows may have; 0: none */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct forwarding);
} forwarding SEC(".maps");

/* Who may forward to this server: addresses in host order. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, __u32);
} peers SEC(".maps");

struct hop {
	__u32 address; /* host order */
	__u32 until;   /* epoch: not FINAL, PASSED or STRAIGHT; odd: the same as the even one above, but after this server */
};

#define CHAIN_ASK 1
#define CHAIN_TAKES 2
#define CHAIN_OWNS 4

/* Users of a service share chains: plans of steer.h have their numbers, under struct service's chains. */
struct chain {
	__u32 flags; /* CHAIN_... */
	__u32 owner; /* host order; 0: this server, or not known */
	struct hop hops[MAX_HOPS]; /* the latest first; all 0: no hop */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 8192); /* 0 is none */
	__type(key, __u32);
	__type(value, struct chain);
} chains SEC(".maps");

enum { GATE_HOLD = 1, GATE_OPENING, GATE_PASS, GATE_LEAD, GATE_ARMED };

/* Which servers connections were redirected to, host order. What is at the VIP comes here all the same. Nobody says when they are over: an entry that is
 * left counts for packets alone that nobody here knows, and goes when there are too many. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct flow);
	__type(value, __u32);
} diverted SEC(".maps");

/* Whether there may be any of these. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} diverts SEC(".maps");

/* What Hold, Pass and SetFlows said. */
struct gate {
	__u32 kind;
	__u32 to; /* host order */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 131072);
	__type(key, struct flow);
	__type(value, struct gate);
} flows SEC(".maps");

/* Packets of a flow that is held. While a gate opens, packets go on being held until those before them have gone up. */
struct holding {
	__u64 held;
	__u64 released;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 131072);
	__type(key, struct flow);
	__type(value, struct holding);
} holdings SEC(".maps");

/* When a packet of a flow of UDP was last delivered here: nanoseconds since boot. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct flow);
	__type(value, __u64);
} seen SEC(".maps");

/* Fragments of a datagram come one behind the other; behind 65,535 others its id is another one's. */
#define FRAGMENT_AGE 2000000000 /* nanoseconds */

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct fragment);
	__type(value, struct fragment_sent);
} fragments SEC(".maps");

#define STRAY_MAX 2048		/* bytes of a frame; what is longer comes without */
#define STRAYS_PER_SECOND 1000	/* of each CPU */

struct stray {
	struct flow flow;
	__u64 length; /* of the frame; 0: too long */
	__u8 frame[STRAY_MAX];
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} strays SEC(".maps");

/* When the next stray may be given: nanoseconds since boot. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} stray_at SEC(".maps");

/* A flow of UDP is known for so long after a packet of it: nanoseconds. */
volatile const __u64 flow_idle = 30000000000;
#define SEEN_STEP 1000000000 /* its time is not written more often: others read it */

static __always_inline struct forwarding *forwarding_now(void)
{
	static const __u32 zero = 0;

	return bpf_map_lookup_elem(&forwarding, &zero);
}

/* was_seen reports whether a packet of the flow was delivered here lately. */
static __always_inline bool was_seen(const struct flow *flow)
{
	__u64 *at = bpf_map_lookup_elem(&seen, flow);

	return at && bpf_ktime_get_boot_ns() - *at < flow_idle;
}

static __always_inline void see(const struct flow *flow)
{
	__u64 now = bpf_ktime_get_boot_ns(), *at = bpf_map_lookup_elem(&seen, flow);

	if (!at)
		bpf_map_update_elem(&seen, flow, &now, BPF_ANY);
	else if (now - *at > SEEN_STEP)
		*at = now;
}

static __always_inline bool is_known(struct __sk_buff *skb, struct arrival *a)
{
	return flow_proto(&a->flow) == IPPROTO_UDP ? was_seen(&a->flow) : has_connection(skb, a);
}

/* owner_in is steer_owner. It is global, so that the verifier goes through it once, not again for each way that leads here. */
__noinline __u32 owner_in(__be32 group, __u32 user)
{
	return steer_owner(group, user);
}

/* chain_of finds the chain of a user: number 0, who has none, is a chain without hops. There is no other way to nothing than that the
 * map says so: the verifier of Linux 6.1 would follow it to where the chain is read. */
static __always_inline struct chain *chain_of(__u32 key, __u32 user)
{
	ALONE __u32 number = owner_in(key, user);

	return bpf_map_lookup_elem(&chains, &number); /* STEER_NO_GROUP: behind its end */
}

/* is_before compares epochs (RFC 1982 section 3.2). */
static __always_inline bool is_before(__u32 until, __u32 epoch)
{
	__u32 ago = (epoch - until) & EPOCH;

	return epoch == STRAIGHT || (epoch != FINAL && ago && ago < 1U << (EPOCH_BITS - 1));
}

enum decision { DELIVER, END, FORWARD, RETURN, PASS, HOLD, STRAY, LOSE, REDIRECT };

static __always_inline enum decision to_server(struct arrival *a, __u32 server, __u32 epoch, enum decision what)
{
	a->to = server;
	a->epoch = epoch;
	return what;
}

/* is_late reports whether a server took it for this one's, and this is the first that gets it so: two that say so of each other send it to and fro
 * once. It is one condition, for the verifier's sake. */
static __always_inline bool is_late(const struct arrival *a, const struct chain *c)
{
	return !((a->epoch ^ STRAIGHT) | (a->hops ^ HOPS) | a->is_mine | (c->flags & CHAIN_TAKES));
}

/* is_about_to_own reports whether this server is about to have the user, whom it does not take yet, or any more. */
static __always_inline bool is_about_to_own(const struct arrival *a, const struct chain *c)
{
	return !a->is_mine && c->flags & CHAIN_OWNS;
}

/* by_chain says what becomes of a packet that is of nobody here. Of a flow of UDP that no former owner knows one that is behind takes this server
 * for the owner: it knows more. */
static __always_inline enum decision by_chain(struct arrival *a)
{
	struct chain *c;

	if (a->epoch == DIVERTED || (a->epoch == FINAL && a->kind != UDP))
		return END;
	if (a->epoch == PASSED)
		return a->is_over ? END : LOSE;
	c = chain_of(a->chains, a->user);
	if (!c)
		return END;
	if (a->epoch == FINAL)
		return c->owner && !is_about_to_own(a, c) ? to_server(a, c->owner, FINAL, RETURN) : END;
	/* Here by a path of the user's own (Fig 16), from a router or a server that is behind, or where this server stands by: the owner knows more. */
	if (c->owner && (a->is_straight || is_late(a, c)))
		return to_server(a, c->owner, STRAIGHT, FORWARD);
	if (a->opens)
		return DELIVER;
#pragma unroll
	for (int i = 0; i < MAX_HOPS; i++) {
		__u64 hop = *(volatile __u64 *)&c->hops[i]; /* at a constant offset: steer.h */
		if (hop && is_before(hop >> 32, a->epoch))
			return to_server(a, hop, ((hop >> 32) + 1) & ~1U, FORWARD);
	}
	if (a->kind == TCP && c->flags & CHAIN_ASK)
		return STRAY;
	if (a->kind == UDP && !a->is_straight && c->owner) /* also where this server stands by */
		return to_server(a, c->owner, FINAL, RETURN);
	/* A server that knows more says that it is this one's, which does not know it yet: it comes again. */
	if (a->kind == TCP && !a->is_straight && !a->is_mine && a->epoch == STRAIGHT)
		return LOSE;
	return END;
}

static __always_inline bool has_diverted(void)
{
	static const __u32 zero = 0;
	__u32 *is = bpf_map_lookup_elem(&diverts, &zero);

	return is && *is;
}

/* divert remembers the server that a connection is redirected to. */
static __always_inline void divert(const struct flow *flow, const __u32 *server)
{
	static const __u32 zero = 0, one = 1;

	if (!has_diverted())
		bpf_map_update_elem(&diverts, &zero, &one, BPF_ANY);
	bpf_map_update_elem(&diverted, flow, server, BPF_ANY);
}

/* diverted_to is the server that a packet's connection was redirected to; 0: none, or the packet comes from one that knows more. */
static __always_inline __u32 diverted_to(const struct arrival *a)
{
	__u32 *to;

	if (a->opens || a->epoch == FINAL || a->epoch == PASSED || a->epoch == DIVERTED || flow_proto(&a->flow) != IPPROTO_TCP ||
	    !has_diverted())
		return 0;
	to = bpf_map_lookup_elem(&diverted, &a->flow);
	return to ? *to : 0;
}

/* decide says what becomes of a packet, and where it is sent the server and the epoch. */
static __always_inline enum decision decide(struct __sk_buff *skb, struct arrival *a, const struct forwarding *f)
{
	__u32 kind = 0, to = 0;

	if (f->flows && flow_proto(&a->flow) == IPPROTO_TCP) {
		struct gate *gate = bpf_map_lookup_elem(&flows, &a->flow);
		if (gate) {
			kind = gate->kind;
			to = gate->to;
		}
	}
	if (kind == GATE_PASS)
		return to_server(a, to, PASSED, PASS);
	if (a->kind == TCP && (kind == GATE_HOLD || kind == GATE_OPENING || (kind == GATE_ARMED && a->epoch == PASSED))) {
		struct holding *h = bpf_map_lookup_elem(&holdings, &a->flow);
		if (h && (kind != GATE_OPENING || h->held != h->released)) {
			__sync_fetch_and_add(&h->held, 1);
			return HOLD;
		}
	}
	if (!a->opens && is_known(skb, a))
		return DELIVER;
	if (kind == GATE_LEAD && !a->opens && a->epoch != FINAL && a->epoch != PASSED)
		return to_server(a, to, FINAL, FORWARD);
	to = diverted_to(a);
	if (to)
		return to_server(a, to, DIVERTED, FORWARD);
	if (a->opens && (a->is_mine || a->epoch == FINAL || a->epoch == PASSED))
		return DELIVER;
	return by_chain(a);
}

/* decide_unkept is decide of a service that keeps no connections: those that were redirected are elsewhere. */
static __always_inline enum decision decide_unkept(struct __sk_buff *skb, struct arrival *a)
{
	__u32 to = diverted_to(a);

	return to && !is_known(skb, a) ? to_server(a, to, DIVERTED, FORWARD) : DELIVER;
}

/* send sends the frame to a server. VNI: see above. */
static __always_inline bool send(struct __sk_buff *skb, const struct forwarding *f, __u32 server, __u32 hops, __u32 epoch)
{
	__u64 key[] = { /* struct bpf_tunnel_key */
		WORD(hops << EPOCH_BITS | epoch, server), 0, WORD(0, TUNNEL_TTL << 8), WORD(0, f->local), 0, 0,
	};

	return !bpf_skb_set_tunnel_key(skb, (void *)key, sizeof(struct bpf_tunnel_key), BPF_F_ZERO_CSUM_TX);
}

static __always_inline bool may_stray(void)
{
	static const __u32 zero = 0;
	__u64 now = bpf_ktime_get_boot_ns(), *at = bpf_map_lookup_elem(&stray_at, &zero);

	if (!at || now < *at)
		return false;
	*at = now + 1000000000 / STRAYS_PER_SECOND;
	return true;
}

/* stray gives the packet to Strays; false: it is lost. */
static __noinline bool stray(struct __sk_buff *skb, const struct arrival *a)
{
	struct stray *s;
	__u64 before = skb->len - 1ULL;

	if (!may_stray())
		return false;
	s = bpf_ringbuf_reserve(&strays, sizeof(*s), 0);
	if (!s)
		return false;
	s->flow = a->flow;
	s->length = 0;
	if (before < STRAY_MAX) {
		asm volatile("" : "+r"(before)); /* so that the verifier sees the bounds of what is given to the helper */
		if (!bpf_skb_load_bytes(skb, 0, s->frame, before + 1))
			s->length = before + 1;
	}
	bpf_ringbuf_submit(s, 0);
	return true;
}

/* as_ours makes the frame one for this host. */
static __always_inline bool as_ours(struct __sk_buff *skb, const volatile __u8 *own)
{
	return !bpf_skb_store_bytes(skb, 0, (const void *)own, ETH_ALEN, 0);
}

#endif
