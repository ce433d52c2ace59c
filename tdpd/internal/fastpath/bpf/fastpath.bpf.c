/* SPDX-License-Identifier: Dual BSD/GPL */
/*
 * tdpd's own forwarding of labelled packets, and of packets that are to get a label, as XDP programs: fast_edge on interfaces toward
 * users, where nobody may send labels, fast_core on those toward other routers of the domain.
 *
 *   packet for a VIP ─── vips.h: owner ──► fast_trees: the owner's tree ─┐
 *   labelled packet ── fast_labels: what its label stands for ───────────┴─► fast_hops: push, swap or pop, MACs, out
 *          ▲
 *   label in UDP for this router: udp.h, which puts them there, too
 *
 * What these cannot do alone goes up, untouched, to the kernel's tables, which give the same answer: a TTL that ends here, a label or a
 * neighbour that is not known here; where there are no tables behind, what has a label is dropped. Of a stack the upper label alone
 * matters, however deep it is; reserved labels (RFC 3032 section 2.1) are the tables' matter: nobody is told one of this router. TTL and traffic class follow the uniform model (RFC 3443, RFC 3270), as the kernel's do. Who sent a
 * packet that is too long for the link is told so at once: toolong.h. So is, where its service wants it, who is served by nobody: refuse.h.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <stdbool.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "border.h"
#include "vips.h"

/* A label stack entry (RFC 3032 section 2.1), host order. */
#define ENTRY_LABEL 12
#define ENTRY_TC 9
#define ENTRY_TC_MASK (7U << ENTRY_TC)
#define ENTRY_BOTTOM (1U << 8)
#define ENTRY_TTL 0xffU
#define ENTRY_FIRST 16 /* label: those below have meanings of their own */

enum how {
	HOW_KERNEL, /* leave it to the tables */
	HOW_LABEL,  /* push, or swap for the label that came in */
	HOW_BARE,   /* without a label, or with what is below it */
	HOW_UDP,    /* push or swap, and send it to the far end in UDP */
	HOW_LOCAL,  /* what is below the label is for this host */
};

/* Where packets leave, and how. */
struct fast_hop {
	__u32 ifindex;
	__u32 entry; /* label stack entry to push or swap in: the label alone */
	__u8 macs[2 * ETH_ALEN]; /* destination, source */
	__u16 mtu;	    /* of the link: longest packet, all that is added included */
	__u8 how;
	__u8 labelled;	     /* the next two are the loader's: what it is to be, were the neighbor known */
	struct in6_addr via; /* the neighbor; of IPv4 as mapped */
	struct in6_addr far; /* of HOW_UDP, and the loader's; likewise */
};

/* The next hops of a tree or of a label: several share the flows. */
struct fast_path {
	__u32 first; /* in fast_hops */
	__u32 count; /* 0: nobody */
};

struct fast_traffic {
	__u64 packets;
	__u64 bytes; /* from the IP header on, without labels */
};

/* Counters of fastpath.go, in its order. */
enum count {
	COUNT_PUSHED,
	COUNT_SWAPPED,
	COUNT_POPPED,
	COUNT_BARE,	/* to a next hop that wants no label */
	COUNT_KERNEL,	/* left to the tables */
	COUNT_EXPIRING, /* of these: with a TTL that ends here */
	COUNT_TOO_LONG, /* for the link's MTU: the sender was told, or it was left to the tables */
	COUNT_TOLD,	/* of these: told */
	COUNT_NOBODY,	/* dropped or refused: the user has no owner, or the owner no tree; dropped: a label leads nowhere */
	COUNT_RESET,	/* of these: refused by a reset */
	COUNT_UNREACHABLE, /* of these: refused by an ICMP error */
	COUNT_OUTSIDER, /* dropped: labelled, on an interface toward users */
	COUNT_NO_LABEL, /* dropped: a label that is not known, and no tables behind */
	COUNT_NO_TABLES, /* dropped: a label that is, but what the tables should have done, and there are none */
	COUNT_MALFORMED,
	COUNT_TUNNELED,	  /* of those pushed and swapped: sent in UDP */
	COUNT_UNTUNNELED, /* taken out of UDP */
	COUNT_STRANGER,	  /* dropped: in UDP, from who may not */
	COUNT_CONGESTED,  /* dropped: marked on the way in UDP, and what is inside cannot say so */
	COUNT_LOCAL,	  /* given to this host */
	COUNTS,
};

/* By owner; the loader sets the sizes. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct fast_path);
} fast_trees SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct fast_path);
} fast_labels SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct fast_hop);
} fast_hops SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct fast_traffic);
} fast_owners SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTS);
	__type(key, __u32);
	__type(value, __u64);
} fast_counts SEC(".maps");

/* Keys of fast_counts: each of these on the stack, for each place that counts, is more than there is of it. */
static volatile const __u32 count_keys[COUNTS] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19 };

static __always_inline int done(enum count which, int verdict)
{
	__u64 *n = bpf_map_lookup_elem(&fast_counts, (void *)&count_keys[which]);

	if (n)
		(*n)++;
	return verdict;
}

static __always_inline int to_kernel(enum count why)
{
	done(COUNT_KERNEL, 0);
	return done(why, XDP_PASS);
}

/* Not 0: there are no tables behind. */
volatile const __u32 fast_alone;

/* to_tables is for what has a label. */
static __always_inline int to_tables(void)
{
	if (fast_alone)
		return done(COUNT_NO_TABLES, XDP_DROP);
	return done(COUNT_KERNEL, XDP_PASS);
}

/* Ethernet addresses of a frame whose beginning moves. They are read and written by 2 bytes: it is IP that the kernel lays on words, and where the
 * CPU minds (user-mode Linux says so), the verifier takes nothing else.
 */
struct macs {
	__u64 first, second;
};

static __always_inline struct macs macs_of(const struct ethhdr *eth)
{
	const __u16 *half = (const void *)eth;

	return (struct macs){ WORD(HALF(half[0], half[1]), HALF(half[2], half[3])), HALF(half[4], half[5]) };
}

static __always_inline void put_macs(struct ethhdr *eth, struct macs macs)
{
	__u16 *half = (void *)eth;

	half[0] = macs.first;
	half[1] = macs.first >> 16;
	half[2] = macs.first >> 32;
	half[3] = macs.first >> 48;
	half[4] = macs.second;
	half[5] = macs.second >> 16;
}

#include "toolong.h"
#include "refuse.h"
#include "udp.h"
#include "tagless.h"

/* hop_of chooses one of a path's hops by the flow. */
static __always_inline struct fast_hop *hop_of(const struct fast_path *path, __u32 flow)
{
	__u32 count = path->count, n = path->first;

	if (!count)
		return 0;
	if (count > 1) {
		flow = (flow ^ flow >> 16) * 0x9e3779b1U;
		n += (__u64)flow * count >> 32;
	}
	ALONE __u32 at = n;
	return bpf_map_lookup_elem(&fast_hops, &at);
}

/* set_ttl writes a TTL into an IPv4 header, and mends its checksum (RFC 1624). */
static __always_inline void set_ttl(struct iphdr *ip, __u8 ttl)
{
	__u32 sum = (__u16)~ip->check + (__u16)~bpf_htons(ip->ttl << 8) + bpf_htons(ttl << 8);

	sum = (sum & 0xffff) + (sum >> 16);
	ip->check = ~((sum & 0xffff) + (sum >> 16));
	ip->ttl = ttl;
}

static __always_inline void count_owner(__u32 owner, __u32 bytes)
{
	ALONE __u32 key = owner;
	struct fast_traffic *traffic = bpf_map_lookup_elem(&fast_owners, &key);

	if (traffic) {
		traffic->packets++;
		traffic->bytes += bytes;
	}
}

/* send puts the packet on the hop's link; entry is host order, what is pushed. */
static __always_inline int send(struct xdp_md *ctx, struct fast_hop *hop, __u32 entry, enum count which)
{
	void *data, *end;
	struct ethhdr *eth;
	__be32 *label;

	if (bpf_xdp_adjust_head(ctx, -(int)sizeof(*label)))
		return done(COUNT_MALFORMED, XDP_DROP);
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	eth = data;
	label = (void *)(eth + 1);
	if ((void *)(label + 1) > end)
		return done(COUNT_MALFORMED, XDP_DROP);
	__builtin_memcpy(eth, hop->macs, sizeof(hop->macs));
	eth->h_proto = bpf_htons(ETH_P_MPLS_UC);
	*label = bpf_htonl(entry);
	done(which, 0);
	return bpf_redirect(hop->ifindex, 0);
}

/* What of an IP packet matters here. */
struct packet {
	__u32 owner;
	__u32 user; /* host order */
	__u32 len;  /* as its header says */
	__u8 ttl;
	__u8 tc;
	__u8 ecn;
};

/* onto_tree sends a user's packet along its owner's tree; from_router: it came by an interface toward routers. */
static __always_inline int onto_tree(struct xdp_md *ctx, struct ethhdr *eth, struct packet *p, const bool from_router)
{
	ALONE __u32 owner = p->owner;
	void *end = (void *)(long)ctx->data_end;
	struct fast_path *path = bpf_map_lookup_elem(&fast_trees, &owner);
	struct fast_hop *hop = path ? hop_of(path, p->user) : 0;

	if (!hop)
		return refuse(ctx, eth);
	if (hop->how == HOW_KERNEL || hop->how == HOW_LOCAL)
		return done(COUNT_KERNEL, XDP_PASS);
	if (p->ttl <= 1)
		return to_kernel(COUNT_EXPIRING);
	__u32 more = room(hop);
	if (p->len + more > hop->mtu)
		return too_long(ctx, eth->h_proto, ETH_HLEN, hop->mtu - more);
	if (from_router && fast_tells)
		fast_tell(ctx, p->user);
	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = (void *)(eth + 1);
		if ((void *)(ip + 1) > end)
			return done(COUNT_MALFORMED, XDP_DROP);
		set_ttl(ip, p->ttl - 1);
	} else {
		struct ipv6hdr *ip = (void *)(eth + 1);
		if ((void *)(ip + 1) > end)
			return done(COUNT_MALFORMED, XDP_DROP);
		ip->hop_limit = p->ttl - 1;
	}
	count_owner(owner, p->len);
	__u32 entry = hop->entry | (__u32)p->tc << ENTRY_TC | ENTRY_BOTTOM | (p->ttl - 1);
	if (hop->how == HOW_LABEL)
		return send(ctx, hop, entry, COUNT_PUSHED);
	if (hop->how == HOW_UDP)
		return into_udp(ctx, hop, entry, p->user, p->ecn, false);
	__builtin_memcpy(eth, hop->macs, sizeof(hop->macs));
	done(COUNT_BARE, 0);
	return bpf_redirect(hop->ifindex, 0);
}

/* is_for_vip says whether a packet is, and what of it matters then. */
static __always_inline bool is_for_vip(struct ethhdr *eth, void *end, struct packet *p)
{
	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = (void *)(eth + 1);
		if ((void *)(ip + 1) > end)
			return false;
		p->owner = vip_owner(ip, end, &p->user);
		p->len = bpf_ntohs(ip->tot_len);
		p->ttl = ip->ttl;
		p->tc = ip->tos >> 5;
		p->ecn = ip->tos & ECN_MASK;
	} else {
		struct ipv6hdr *ip = (void *)(eth + 1);
		if ((void *)(ip + 1) > end)
			return false;
		p->owner = vip_owner6(ip, end, &p->user);
		p->len = sizeof(*ip) + bpf_ntohs(ip->payload_len);
		p->ttl = ip->hop_limit;
		p->tc = ip->priority >> 1;
		p->ecn = ip->flow_lbl[0] >> 4 & ECN_MASK;
	}
	return p->owner != STEER_NO_GROUP;
}

/* steer takes what is for a VIP. */
static __always_inline int steer(struct xdp_md *ctx, struct ethhdr *eth, struct packet *p, const bool from_router)
{
	if (p->owner == STEER_NOBODY)
		return refuse(ctx, eth);
	return onto_tree(ctx, eth, p, from_router);
}

/* flow_of tells the flows of labelled packets apart, by the addresses inside where there is IP. */
static __always_inline __u32 flow_of(void *inside, void *end)
{
	struct iphdr *ip = inside;
	struct ipv6hdr *ip6 = inside;

	if ((void *)(ip + 1) > end)
		return 0;
	if (ip->version == 4)
		return bpf_ntohl(ip->saddr) ^ bpf_ntohl(ip->daddr);
	if (ip->version == 6 && (void *)(ip6 + 1) <= end)
		return bpf_ntohl(ip6->saddr.s6_addr32[1] ^ ip6->saddr.s6_addr32[3] ^ ip6->daddr.s6_addr32[1] ^ ip6->daddr.s6_addr32[3]);
	return 0;
}

/* uncover takes the label off (RFC 3032 section 2.3, RFC 3443), and returns what protocol is below it; 0: none that is known here, or too
 * little of it. The frame's header is still to be written.
 */
static __always_inline __be16 uncover(struct xdp_md *ctx, __u32 entry)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	__be32 *label = (void *)(eth + 1);
	struct iphdr *ip = (void *)(label + 1);
	struct ipv6hdr *ip6 = (void *)ip;
	__u16 proto = ETH_P_MPLS_UC;

	if ((void *)(ip + 1) > end)
		return 0;
	if (!(entry & ENTRY_BOTTOM)) {
		__be32 *below = label + 1;
		__u32 next = bpf_ntohl(*below);
		if ((next & ENTRY_TTL) > (entry & ENTRY_TTL))
			*below = bpf_htonl((next & ~ENTRY_TTL) | (entry & ENTRY_TTL));
	} else if (ip->version == 4) {
		proto = ETH_P_IP;
		set_ttl(ip, entry);
	} else if (ip->version == 6 && (void *)(ip6 + 1) <= end) {
		proto = ETH_P_IPV6;
		ip6->hop_limit = entry;
	} else {
		return 0;
	}
	return bpf_xdp_adjust_head(ctx, sizeof(*label)) ? 0 : bpf_htons(proto);
}

/* bare sends on what is below the label. */
static __always_inline int bare(struct xdp_md *ctx, __u32 entry, struct fast_hop *hop)
{
	__be16 proto = uncover(ctx, entry);
	struct ethhdr *eth = (void *)(long)ctx->data;

	if (!proto || (void *)(eth + 1) > (void *)(long)ctx->data_end)
		return done(COUNT_MALFORMED, XDP_DROP);
	__builtin_memcpy(eth, hop->macs, sizeof(hop->macs));
	eth->h_proto = proto;
	done(COUNT_POPPED, 0);
	return bpf_redirect(hop->ifindex, 0);
}

/* deliver gives this host what is below the last label, as if it had come without. */
static __always_inline int deliver(struct xdp_md *ctx, struct ethhdr *eth, __u32 entry)
{
	if (!(entry & ENTRY_BOTTOM))
		return to_tables();
	if (!(entry & ENTRY_TTL)) {
		done(COUNT_EXPIRING, 0);
		return to_tables();
	}
	struct macs macs = macs_of(eth);
	__be16 proto = uncover(ctx, entry);
	eth = (void *)(long)ctx->data;
	if (!proto || (void *)(eth + 1) > (void *)(long)ctx->data_end)
		return done(COUNT_MALFORMED, XDP_DROP);
	put_macs(eth, macs);
	eth->h_proto = proto;
	return done(COUNT_LOCAL, XDP_PASS);
}

/* labelled takes what came in with a label. */
static __always_inline int labelled(struct xdp_md *ctx, struct ethhdr *eth, void *end)
{
	__be32 *label = (void *)(eth + 1);

	if ((void *)(label + 1) > end)
		return done(COUNT_MALFORMED, XDP_DROP);
	__u32 entry = bpf_ntohl(*label);
	ALONE __u32 key = entry >> ENTRY_LABEL;
	struct fast_path *path = bpf_map_lookup_elem(&fast_labels, &key);
	if (!path)
		return fast_alone ? done(COUNT_NO_LABEL, XDP_DROP) : done(COUNT_KERNEL, XDP_PASS);
	struct fast_hop *hop = hop_of(path, path->count > 1 ? flow_of(label + 1, end) : 0);
	if (!hop)
		return done(COUNT_NOBODY, XDP_DROP);
	if (hop->how == HOW_KERNEL)
		return to_tables();
	if (hop->how == HOW_LOCAL)
		return deliver(ctx, eth, entry);
	if ((entry & ENTRY_TTL) <= 1) {
		done(COUNT_EXPIRING, 0);
		return to_tables();
	}
	entry--;
	__u32 len = bpf_xdp_get_buff_len(ctx) - ETH_HLEN - sizeof(*label), more = room(hop);
	if (len + more > hop->mtu)
		return too_long_inside(ctx, entry, hop->mtu - more);
	if (hop->how == HOW_BARE)
		return bare(ctx, entry, hop);
	__u32 out = hop->entry | (entry & (ENTRY_TC_MASK | ENTRY_BOTTOM | ENTRY_TTL));
	if (hop->how == HOW_UDP)
		return into_udp(ctx, hop, out, flow_of(label + 1, end), entry & ENTRY_BOTTOM ? ecn_of(label + 1, end) : 0, true);
	*label = bpf_htonl(out);
	__builtin_memcpy(eth, hop->macs, sizeof(hop->macs));
	done(COUNT_SWAPPED, 0);
	return bpf_redirect(hop->ifindex, 0);
}

/* Ethernet addresses of interfaces, by their index, in the lower 6 bytes; 0: not known. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1 << 14);
	__type(key, __u32);
	__type(value, __u64);
} fast_macs SEC(".maps");

/* fast_is_ours is 0 for frames to groups and to other hosts: a switch that floods, or an interface in promiscuous mode, brings them, and who
 * forwarded them would double them. Where the address is not known all frames to a host are taken. It has a stack of its own: there is no
 * more room on that of the programs.
 */
static __noinline int fast_is_ours(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	__u32 ifindex = ctx->ingress_ifindex;
	__u64 *mac;

	if ((void *)(eth + 1) > end || eth->h_dest[0] & 1)
		return 0;
	mac = bpf_map_lookup_elem(&fast_macs, &ifindex);
	__u16 *to = (__u16 *)eth->h_dest;
	return !mac || !*mac || *mac == ((__u64)to[0] | (__u64)to[1] << 16 | (__u64)to[2] << 32);
}

static __always_inline int forward(struct xdp_md *ctx, bool takes_labels)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;

	if ((void *)(eth + 1) > end)
		return XDP_PASS;
	if (eth->h_proto == bpf_htons(ETH_P_IP) || eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		struct packet p = {};
		if (!fast_is_ours(ctx))
			return XDP_PASS;
		if (is_for_vip(eth, end, &p))
			return steer(ctx, eth, &p, takes_labels);
		int verdict = out_of_udp(ctx, eth, end);
		if (verdict != LABELLED)
			return verdict;
		eth = (void *)(long)ctx->data;
		end = (void *)(long)ctx->data_end;
		if ((void *)(eth + 1) > end)
			return done(COUNT_MALFORMED, XDP_DROP);
		return labelled(ctx, eth, end);
	}
	if (!takes_labels && has_label(eth, end))
		return done(COUNT_OUTSIDER, XDP_DROP);
	if (eth->h_proto != bpf_htons(ETH_P_MPLS_UC) || !fast_is_ours(ctx))
		return XDP_PASS;
	return labelled(ctx, eth, end);
}

SEC("xdp")
int fast_edge(struct xdp_md *ctx)
{
	return forward(ctx, false);
}

SEC("xdp")
int fast_core(struct xdp_md *ctx)
{
	return forward(ctx, true);
}

char _license[] SEC("license") = "Dual BSD/GPL";
