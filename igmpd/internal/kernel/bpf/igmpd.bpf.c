/* SPDX-License-Identifier: Dual BSD/GPL */
/*
 * igmpd's classifier and accelerator, on ingress of the interfaces that private groups' packets come in by, behind the
 * director. A packet for such a group gets its owner's mark, which leads it to the owner's multicast routing table; what the
 * accelerator can take is sent out of the owner's interface at once. All else is passed on untouched.
 *
 * The user is the packet's source address; of an ICMP error the address that the packet inside went to. Fragments of an ICMP
 * error but the first have no packet inside and go by their source. The redirect leaves the kernel's reverse path filter
 * out: with rp_filter on, the tables drop sources without a route (2) or with a route elsewhere (1), the accelerator does not.
 *
 * igmpd loads it without CAP_PERFMON: hence no loops, and the stack written by words. steer.h and words.h say why.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "steer.h"

#define NEXT (-1) /* TCX_NEXT, TC_ACT_UNSPEC */
#define DROP 2	  /* TC_ACT_SHOT */

#define PORTS_MAX 32736 /* STEER_MAX_GROUPS times the 32 interfaces of a table */
#define IP_OFFSET 0x1fff
#define FRAME_HLEN (ETH_HLEN + sizeof(struct iphdr))

/* ICMP errors (RFC 792); <linux/icmp.h> needs the C library. */
#define ICMP_HLEN 8
#define ICMP_DEST_UNREACH 3
#define ICMP_SOURCE_QUENCH 4
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETERPROB 12

volatile const __u32 igmpd_mark;
volatile const __u32 igmpd_mark_mask;
volatile const __u8 igmpd_accelerate;

/* A private group at an interface that its packets are accepted from. */
struct port {
	__be32 group;
	__u32 ifindex;
};

/* Where an owner's packets leave. */
struct exit {
	__u32 ifindex; /* 0: the table alone knows */
	__u8 known;
	__u8 pad;
	__u8 mac[ETH_ALEN]; /* of the interface */
};

struct traffic {
	__u64 packets;
	__u64 bytes; /* from the IP header on */
};

enum count {
	COUNT_NO_OWNER,
	COUNT_ACCELERATED,
	COUNT_TABLES,
	COUNTS,
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, PORTS_MAX);
	__type(key, struct port);
	__type(value, __u32);
} igmpd_ports SEC(".maps");

/* By owner; the loader sets the sizes. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct exit);
} igmpd_exits SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct traffic);
} igmpd_owners SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTS);
	__type(key, __u32);
	__type(value, __u64);
} igmpd_counts SEC(".maps");

static __always_inline int done(enum count which, int verdict)
{
	ALONE __u32 key = which;
	__u64 *n = bpf_map_lookup_elem(&igmpd_counts, &key);

	if (n)
		(*n)++;
	return verdict;
}

static __always_inline __be32 user_of(struct __sk_buff *skb, struct iphdr *ip)
{
	__u32 at = ETH_HLEN + ip->ihl * 4;
	ALONE __be32 user; /* in the packet inside */
	ALONE __u8 type;

	if (ip->protocol != IPPROTO_ICMP || (ip->frag_off & bpf_htons(IP_OFFSET)))
		return ip->saddr;
	if (bpf_skb_load_bytes(skb, at, &type, sizeof(type)))
		return ip->saddr;
	if (type != ICMP_DEST_UNREACH && type != ICMP_SOURCE_QUENCH && type != ICMP_TIME_EXCEEDED && type != ICMP_PARAMETERPROB)
		return ip->saddr;
	if (bpf_skb_load_bytes(skb, at + ICMP_HLEN + __builtin_offsetof(struct iphdr, daddr), &user, sizeof(user)))
		return ip->saddr;
	return user;
}

/* Sends the packet out of the owner's interface, or leaves it to the tables with all that they treat in another way. */
static __always_inline int forward(struct __sk_buff *skb, struct ethhdr *eth, struct iphdr *ip, struct exit *exit)
{
	ALONE __u32 len = 0;
	__u32 ifindex = exit->ifindex, sum;
	__u8 *group = (__u8 *)&ip->daddr;

	if (!igmpd_accelerate || !ifindex || ifindex == skb->ifindex || ip->ihl != 5 || ip->ttl <= 1)
		return done(COUNT_TABLES, NEXT);
	if (bpf_check_mtu(skb, ifindex, &len, 0, BPF_MTU_CHK_SEGS))
		return done(COUNT_TABLES, NEXT);
	sum = ip->check + bpf_htons(0x0100);
	ip->check = sum + (sum >= 0xffff);
	ip->ttl--;
	eth->h_dest[0] = 0x01; /* RFC 1112 section 6.4 */
	eth->h_dest[1] = 0x00;
	eth->h_dest[2] = 0x5e;
	eth->h_dest[3] = group[1] & 0x7f;
	eth->h_dest[4] = group[2];
	eth->h_dest[5] = group[3];
	__builtin_memcpy(eth->h_source, exit->mac, ETH_ALEN);
	return done(COUNT_ACCELERATED, bpf_redirect(ifindex, 0));
}

SEC("tc")
int igmpd_classify(struct __sk_buff *skb)
{
	if (skb->protocol != bpf_htons(ETH_P_IP) || skb->vlan_present)
		return NEXT;
	if ((void *)(long)skb->data + FRAME_HLEN > (void *)(long)skb->data_end && bpf_skb_pull_data(skb, FRAME_HLEN))
		return NEXT;
	struct ethhdr *eth = (void *)(long)skb->data;
	struct iphdr *ip = (void *)(eth + 1);
	if ((void *)(ip + 1) > (void *)(long)skb->data_end)
		return NEXT;
	if ((ip->daddr & bpf_htonl(0xf0000000)) != bpf_htonl(0xe0000000))
		return NEXT;
	__u64 port = WORD(ip->daddr, skb->ifindex); /* struct port */
	if (!bpf_map_lookup_elem(&igmpd_ports, &port))
		return NEXT;

	ALONE __u32 owner = steer_lookup(ip->daddr, user_of(skb, ip));
	if (owner == STEER_NO_GROUP)
		return NEXT; /* removed this moment */
	if (owner == STEER_NOBODY)
		return done(COUNT_NO_OWNER, DROP);
	struct exit *exit = bpf_map_lookup_elem(&igmpd_exits, &owner);
	if (!exit || !exit->known)
		return done(COUNT_NO_OWNER, DROP);
	struct traffic *traffic = bpf_map_lookup_elem(&igmpd_owners, &owner);
	if (traffic) {
		traffic->packets++;
		traffic->bytes += skb->len - ETH_HLEN;
	}
	skb->mark = (skb->mark & ~igmpd_mark_mask) | igmpd_mark | owner;
	return forward(skb, eth, ip, exit);
}

char _license[] SEC("license") = "Dual BSD/GPL";
