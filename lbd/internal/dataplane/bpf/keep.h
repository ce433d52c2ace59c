/* SPDX-License-Identifier: Dual BSD/GPL */
/* Packets of services that keep connections, or redirect them: whose flow each is of, what becomes of it, and that done. */
#ifndef MANYCAST_KEEP_H
#define MANYCAST_KEEP_H

#include "counters.h"
#include "forward.h"

/* is_among picks a share of users, of 1024, by their addresses, so that they are the same ones each time. The factor is the golden ratio's (Knuth). */
static __always_inline bool is_among(__be32 user, __u32 share)
{
	return (bpf_ntohl(user) * 2654435769u >> 22) < share;
}

/* is_straight says of a packet's mark whether it came from a router. */
static __always_inline bool is_straight(__u32 mark)
{
	return MARK_OF(mark) != FORWARDED;
}

/* arrive says how a packet has come, by its mark. */
static __always_inline void arrive(struct arrival *a, __u32 mark)
{
	a->is_straight = is_straight(mark);
	a->hops = is_straight(mark) ? HOPS + 1 : mark >> EPOCH_BITS & HOPS;
	a->epoch = is_straight(mark) ? STRAIGHT : mark & EPOCH;
}

static __always_inline void set_flow4(struct arrival *a, __be32 user, __be32 vip, __be16 user_port, __be16 vip_port, __u8 proto)
{
	a->flow.user[1] = MAPPED(user);
	a->flow.vip[1] = MAPPED(vip);
	a->flow.ports_proto = flow_ports(user_port, vip_port, proto);
}

/* find_flow4 finds the flow of a packet that the service wants. */
static __noinline void find_flow4(struct __sk_buff *skb, const struct iphdr *ip, __be32 vip, struct arrival *a)
{
	ALONE struct iphdr inner;
	ALONE struct ports ports;

	a->kind = OTHER;
	a->flow.user[0] = a->flow.vip[0] = 0;
	a->l4 = l4_offset(ip);
	a->is_part = is_fragment(ip);
	a->id = HALF(ip->id, ip->protocol);
	if (is_later_fragment(ip)) {
		set_flow4(a, ip->saddr, vip, 0, 0, ip->protocol);
		a->kind = LATER_FRAGMENT;
	} else if (ip->protocol != IPPROTO_ICMP) { /* judge lets through only these */
		if (!load_ports(skb, a->l4, &ports))
			return;
		set_flow4(a, ip->saddr, vip, ports.src, ports.dst, ip->protocol);
		a->kind = ip->protocol == IPPROTO_TCP ? TCP : UDP;
	} else if (load_quoted(skb, a->l4, &inner) && (inner.protocol == IPPROTO_TCP || inner.protocol == IPPROTO_UDP) &&
		   inner.saddr == vip && load_quoted_ports(skb, a->l4, &inner, &ports)) {
		set_flow4(a, inner.daddr, vip, ports.dst, ports.src, inner.protocol);
		a->kind = ICMP_ERROR;
	}
}

/* find_flow6 does so of a packet to a VIP of IPv6, for this arrival; false: it has none, as all that has extension headers but one of a fragment.
 * It is global, as owner_in is. */
__noinline int find_flow6(struct __sk_buff *skb)
{
	struct arrival *a = this_arrival();
	ALONE struct ports ports;
	ALONE __u8 type;
	__u64 ip[5]; /* struct ipv6hdr */
	__u32 at;

	if (!a || bpf_skb_load_bytes(skb, ETH_HLEN, ip, sizeof(ip)))
		return false;
	a->l4 = ETH_HLEN + sizeof(ip);
	a->kind = OTHER;
	a->is_part = false;
	__u8 proto = ip[0] >> 48;
	if (proto == IPPROTO_FRAGMENT) {
		__u64 header; /* RFC 8200 section 4.5: next header, reserved, offset and whether more follow, id */
		if (bpf_skb_load_bytes(skb, ETH_HLEN + sizeof(ip), &header, sizeof(header)))
			return false;
		proto = header;
		a->is_part = header >> 16 & bpf_htons(IP6_OFFSET | IP6_MORE);
		a->id = header >> 32;
		a->l4 += sizeof(header);
		if (header >> 16 & bpf_htons(IP6_OFFSET))
			a->kind = LATER_FRAGMENT;
	}
	at = *(volatile __u64 *)&a->l4; /* one way for both: chain_of */
	if (a->kind == LATER_FRAGMENT || proto == IPPROTO_TCP || proto == IPPROTO_UDP) {
		a->flow.user[0] = ip[1];
		a->flow.user[1] = ip[2];
		a->flow.vip[0] = ip[3];
		a->flow.vip[1] = ip[4];
		if (a->kind == LATER_FRAGMENT)
			return true;
		a->kind = proto == IPPROTO_TCP ? TCP : UDP;
		if (!load_ports(skb, at, &ports))
			return false;
		a->flow.ports_proto = flow_ports(ports.src, ports.dst, proto);
		return true;
	}
	if (proto != IPPROTO_ICMPV6 || bpf_skb_load_bytes(skb, at, &type, sizeof(type)) || type >= ICMPV6_ERRORS)
		return false;
	at += ICMP_HEADER;
	__u64 vip[] = { ip[3], ip[4] };
	if (bpf_skb_load_bytes(skb, at, ip, sizeof(ip)) || ip[1] != vip[0] || ip[2] != vip[1])
		return false;
	proto = ip[0] >> 48;
	if ((proto != IPPROTO_TCP && proto != IPPROTO_UDP) || !load_ports(skb, at + sizeof(ip), &ports))
		return false;
	a->kind = ICMP_ERROR;
	a->flow.user[0] = ip[3];
	a->flow.user[1] = ip[4];
	a->flow.vip[0] = ip[1];
	a->flow.vip[1] = ip[2];
	a->flow.ports_proto = flow_ports(ports.dst, ports.src, proto);
	return true;
}

/* to_vip turns a packet to the group into one to the VIP. */
static __noinline bool to_vip(struct __sk_buff *skb, const struct arrival *a)
{
	ALONE struct iphdr ip;
	__be32 vip = a->flow.vip[1] >> 32;

	if (a->flow.user[0])
		return true;
	return load_ipv4(skb, &ip) && (ip.daddr == vip || set_destination(skb, &ip, vip));
}

/* hold sends the packet to who reads our device. */
static __always_inline int hold(struct __sk_buff *skb, const struct arrival *a, const struct forwarding *f)
{
	if (!to_vip(skb, a) || !as_ours(skb, own_mac)) {
		COUNT(forward_failed, 1);
		return DROP;
	}
	COUNT(held, 1);
	skb->mark = MARK(HELD, 0);
	return bpf_redirect(f->device, BPF_F_INGRESS);
}

static __always_inline int give_stray(struct __sk_buff *skb, const struct arrival *a)
{
	if (to_vip(skb, a) && stray(skb, a))
		COUNT(strays, 1);
	else
		COUNT(strays_lost, 1);
	return DROP;
}

/* send_on sends it to the server that was decided on. */
static __always_inline int send_on(struct __sk_buff *skb, const struct arrival *a, const struct forwarding *f, enum decision decision)
{
	if (!a->hops) {
		COUNT(hops_spent, 1);
		return DROP;
	}
	if (!send(skb, f, a->to, a->hops - 1, a->epoch)) {
		COUNT(forward_failed, 1);
		return DROP;
	}
	if (decision == PASS)
		COUNT(passed, 1);
	else if (decision == REDIRECT)
		COUNT(redirected, 1);
	else if (decision == RETURN || (a->epoch == STRAIGHT && !a->is_straight))
		COUNT(forward_returned, 1);
	else if (a->is_straight)
		COUNT(forwarded_out, 1);
	else
		COUNT(forwarded_on, 1);
	return bpf_redirect(f->device, 0);
}

static __always_inline int deliver(struct arrival *a, bool is_end)
{
	if (is_end && a->kind == TCP && !a->opens && !a->is_over)
		COUNT(forward_ended, 1);
	if (a->kind == UDP)
		see(&a->flow);
	if (!a->is_straight)
		COUNT(forwarded_in, 1);
	return NEXT;
}

/* name_part says by what the way of a fragment's datagram is known. */
static __always_inline void name_part(struct arrival *a)
{
	a->first.user[0] = a->flow.user[0];
	a->first.user[1] = a->flow.user[1];
	a->first.vip[0] = a->flow.vip[0];
	a->first.vip[1] = a->flow.vip[1];
	a->first.id_epoch = WORD(a->id, a->epoch);
}

/* note_part notes of this arrival, a first fragment, where it was sent, or that it was not: what is noted may be an earlier datagram's. */
__noinline int note_part(void)
{
	struct arrival *a = this_arrival();

	if (!a)
		return 0;
	if (!a->to)
		return bpf_map_delete_elem(&fragments, &a->first);
	a->sent.to = a->to;
	a->sent.epoch = a->epoch;
	a->sent.at = bpf_ktime_get_boot_ns();
	return bpf_map_update_elem(&fragments, &a->first, &a->sent, BPF_ANY);
}

/* follow sends this arrival, a later fragment, where the first one went: it has no ports. */
__noinline int follow(struct __sk_buff *skb)
{
	struct forwarding *f = forwarding_now();
	struct arrival *a = this_arrival();
	struct fragment_sent *sent;

	if (!a || !f)
		return NEXT;
	sent = bpf_map_lookup_elem(&fragments, &a->first);
	if (!sent || bpf_ktime_get_boot_ns() - sent->at > FRAGMENT_AGE)
		return NEXT;
	a->to = sent->to;
	a->epoch = sent->epoch;
	COUNT(fragments_followed, 1);
	return send_on(skb, a, f, FORWARD);
}

/* keep does with a packet what is decided; NEXT: it goes up here. */
static __noinline int keep(struct __sk_buff *skb, struct arrival *a)
{
	struct forwarding *f = forwarding_now();
	enum decision decision;

	a->to = 0;
	a->is_over = 0;
	if (!f || !f->device)
		return NEXT;
	if (a->is_part) {
		name_part(a);
		if (a->kind == LATER_FRAGMENT)
			return follow(skb);
	}
	decision = a->chains ? decide(skb, a, f) : decide_unkept(skb, a);
	if (a->is_part)
		note_part();
	if (decision == DELIVER || decision == END)
		return deliver(a, decision == END);
	if (decision == HOLD)
		return hold(skb, a, f);
	if (decision == LOSE) {
		COUNT(not_mine, 1);
		return DROP;
	}
	if (decision == STRAY)
		return give_stray(skb, a);
	return send_on(skb, a, f, decision);
}

/* keep4 is keep of IPv4. */
static __noinline int keep4(struct __sk_buff *skb, const struct iphdr *ip, __be32 vip, struct arrival *a)
{
	find_flow4(skb, ip, vip, a);
	if (a->kind == OTHER)
		return NEXT;
	return keep(skb, a);
}

#endif
