/* SPDX-License-Identifier: Dual BSD/GPL */
/* What keeps the programs from looking long at packets that are nobody's, which most are: a bit of what places there are. */
#ifndef MANYCAST_KNOWN_H
#define MANYCAST_KNOWN_H

#include "segment.h"

/* What places are known as. Each has a number, which it shares with others; none is taken out. User space has the like: know in maps_linux.go. */
enum known_as {
	KNOWN_VIP,    /* a service's */
	KNOWN_PLACE,  /* where connections that can move are or were; at the user's host the VIP is, too */
	KNOWN_ORIGIN, /* where some came whose origin is in a table of its own */
	KNOWN_KINDS,
};
#define KNOWN_BITS 12

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, KNOWN_KINDS << KNOWN_BITS);
	__type(key, __u32);
	__type(value, __u64);
} known SEC(".maps");

static __always_inline __u64 *known_of(enum known_as as, const __u64 *address, __be16 port)
{
	__u64 mixed = (address[0] ^ address[1] ^ port) * 0x9e3779b97f4a7c15; /* Fibonacci hashing */
	ALONE __u32 number = as << KNOWN_BITS | mixed >> (64 - KNOWN_BITS);

	return bpf_map_lookup_elem(&known, &number);
}

static __always_inline void know(enum known_as as, const struct place *place)
{
	__u64 *is = known_of(as, place->address, place->port);

	if (is)
		*is = 1;
}

static __always_inline bool is_known(enum known_as as, const struct place *place)
{
	__u64 *is = known_of(as, place->address, place->port);

	return is && *is;
}

/* is_nobodys says so of TCP of IPv4, as most of it is, one end of which is not known. What opens a connection, and is sent here, is nobody's, too: it goes to the VIP, or
 * comes from there, as it is. */
static __always_inline bool is_nobodys(struct __sk_buff *skb, enum end at, enum known_as as, bool opening)
{
	struct iphdr *ip = plain4(skb);
	struct ports *ports;
	struct place end;

	if (!ip)
		return false;
	if (opening && (flags4(ip) & (SYN | RST)) == SYN)
		return true;
	ports = (void *)(ip + 1);
	end.address[0] = 0;
	end.address[1] = MAPPED(at == SOURCE ? ip->saddr : ip->daddr);
	end.port = at == SOURCE ? ports->src : ports->dst;
	return !is_known(as, &end);
}

/* is_end_known is for what is_nobodys does not judge. */
static __always_inline bool is_end_known(const struct segment *s, enum end at, enum known_as as)
{
	const __u64 *address = at == SOURCE ? s->src : s->dst;
	struct place end = { { address[0], address[1] }, at == SOURCE ? FIRST_PORT(s->ports) : SECOND_PORT(s->ports) };

	return is_known(as, &end);
}

/* is_udp says so of what has no headers between, as most has none. */
static __always_inline bool is_udp(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ipv6hdr *ip6 = data + ETH_HLEN;
	struct iphdr *ip = data + ETH_HLEN;

	if ((void *)(ip + 1) > end || skb->vlan_present)
		return false;
	return (skb->protocol == bpf_htons(ETH_P_IP) && ip->protocol == IPPROTO_UDP) ||
	       (skb->protocol == bpf_htons(ETH_P_IPV6) && ip6->nexthdr == IPPROTO_UDP);
}

#endif
