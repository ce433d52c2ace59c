/* SPDX-License-Identifier: Dual BSD/GPL */
/*
 * What leads users' packets to their servers' trees in the kernel's own tables: on ingress of the interfaces toward users a packet for a
 * VIP gets its owner's mark, by which a rule finds the table of that owner's tree. Nothing else of it is touched, so that it stays what the
 * kernel can forward whole: labels are put on by the table's route.
 *
 * Whom nobody serves has a mark, too, where its service answers such users: owner 0's, whose table makes the kernel say that the VIP cannot
 * be reached. Other packets of theirs are dropped.
 *
 * Behind tdpd's fast path it gives what that has passed up the same answer, for both ask vips.h. What comes with a label from a user is
 * dropped here, too.
 *
 * tdpd loads it without CAP_PERFMON: hence the stack written by words. steer.h and words.h say why.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <stdbool.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "border.h"
#include "vips.h"

#define NEXT (-1) /* TCX_NEXT, TC_ACT_UNSPEC */
#define DROP 2	  /* TC_ACT_SHOT */

#define HEADERS (ETH_HLEN + VIP_HEADERS)

volatile const __u32 mark_base;
volatile const __u32 mark_mask; /* what of a mark is ours: the other bits stay */

/* Counters of marking.go, in its order. */
enum count {
	COUNT_MARKED,
	COUNT_NOBODY,	/* dropped, or left to the kernel to refuse: the user has no owner */
	COUNT_REFUSED,	/* of these: left to the kernel */
	COUNT_OUTSIDER, /* dropped: labelled */
	COUNTS,
};

/* VIPs whose users are told that nobody serves them; those of IPv4 as mapped. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 2 * STEER_MAX_GROUPS); /* while VIPs are replaced there are old and new ones */
	__type(key, struct in6_addr);
	__type(value, __u32);
} mark_refuse SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTS);
	__type(key, __u32);
	__type(value, __u64);
} mark_counts SEC(".maps");

/* done counts packets as they were on the wire, as the kernel's own counters do: GRO makes one of many. */
static __always_inline int done(struct __sk_buff *skb, enum count which, int verdict)
{
	ALONE __u32 key = which;
	__u64 *n = bpf_map_lookup_elem(&mark_counts, &key);

	if (n)
		*n += skb->gso_segs ?: 1;
	return verdict;
}

/* What of a packet matters here. */
struct packet {
	__u64 vip[2]; /* struct in6_addr */
	__u32 owner;
};

/* read_packet finds a frame's owner, as vip_owner has it. */
static __always_inline void read_packet(struct ethhdr *eth, void *end, struct packet *p)
{
	__u32 user;

	p->owner = STEER_NO_GROUP;
	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = (void *)(eth + 1);
		if ((void *)(ip + 1) > end)
			return;
		p->owner = vip_owner(ip, end, &user);
		p->vip[0] = 0;
		p->vip[1] = WORD(bpf_htonl(0xffff), ip->daddr);
	} else if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = (void *)(eth + 1);
		if ((void *)(ip + 1) > end)
			return;
		__u32 *dst = ip->daddr.s6_addr32;
		p->owner = vip_owner6(ip, end, &user);
		p->vip[0] = WORD(dst[0], dst[1]);
		p->vip[1] = WORD(dst[2], dst[3]);
	}
}

static __always_inline int mark(struct __sk_buff *skb, __u32 owner, enum count which)
{
	skb->mark = (skb->mark & ~mark_mask) | mark_base | owner;
	return done(skb, which, NEXT);
}

/* nobody takes a packet of a user whom nobody serves. */
static __always_inline int nobody(struct __sk_buff *skb, struct packet *p)
{
	__u64 vip[] = { p->vip[0], p->vip[1] };

	done(skb, COUNT_NOBODY, 0);
	return bpf_map_lookup_elem(&mark_refuse, &vip) ? mark(skb, STEER_NOBODY, COUNT_REFUSED) : DROP;
}

SEC("tc")
int mark_users(struct __sk_buff *skb)
{
	struct packet p = {};

	if ((void *)(long)skb->data + HEADERS > (void *)(long)skb->data_end &&
	    bpf_skb_pull_data(skb, skb->len < HEADERS ? skb->len : HEADERS))
		return NEXT;
	struct ethhdr *eth = (void *)(long)skb->data;
	if ((void *)(eth + 1) > (void *)(long)skb->data_end)
		return NEXT;
	if (has_label(eth, (void *)(long)skb->data_end))
		return done(skb, COUNT_OUTSIDER, DROP);
	if (skb->vlan_present || skb->pkt_type == PACKET_OTHERHOST)
		return NEXT; /* a VLAN's own interface has a hook */
	read_packet(eth, (void *)(long)skb->data_end, &p);
	if (p.owner == STEER_NO_GROUP)
		return NEXT;
	if (p.owner == STEER_NOBODY)
		return nobody(skb, &p);
	return mark(skb, p.owner, COUNT_MARKED);
}

char _license[] SEC("license") = "Dual BSD/GPL";
