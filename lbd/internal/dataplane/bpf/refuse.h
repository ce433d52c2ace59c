/* SPDX-License-Identifier: Dual BSD/GPL */
/* Answers to packets that nobody will serve: TCP gets a reset, UDP a port unreachable. The answer takes the packet's place and goes
 * back by the interface, and to the neighbour, that it came from. */
#ifndef MANYCAST_REFUSE_H
#define MANYCAST_REFUSE_H

#include "packet.h"

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

#define ICMP_PORT_UNREACH 3
#define ANSWER_TTL 64
#define ICMP_QUOTE (sizeof(struct iphdr) + 8) /* RFC 792: the header and 8 bytes */
#define ICMP_PER_SECOND 1000		      /* port unreachables of each CPU: they may be longer than what they answer */

struct icmp_header {
	__u8 type;
	__u8 code;
	__sum16 check;
	__be32 unused;
};

/* What of a TCP header an answer depends on, and what it says. */
struct tcp_header {
	__be16 src;
	__be16 dst;
	__be32 seq;
	__be32 ack;
	__u8 offset; /* upper half, in units of 4 bytes */
	__u8 flags;
	__be16 window;
	__sum16 check;
	__be16 urgent;
};

struct pseudo_header {
	__be32 src;
	__be32 dst;
	__u8 zero;
	__u8 proto;
	__be16 length;
};

static __always_inline __sum16 fold(__s64 sum)
{
	sum = (sum & 0xffff) + ((__u64)sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum + (sum >> 16);
}

/* may_answer is false for what gets no answer: fragments, IP options, senders that are no host's address. */
static __always_inline bool may_answer(const struct iphdr *ip)
{
	__u8 first = bpf_ntohl(ip->saddr) >> 24;

	return ip->ihl == 5 && !is_fragment(ip) && first != 0 && first != 127 && first < 224;
}

/* turn_frame sends it back to its sender, from a MAC address of ours; 0: the one that it was sent to. */
static __always_inline bool turn_frame(struct __sk_buff *skb, const volatile __u8 *own)
{
	__u8 mac[2 * ETH_ALEN]; /* destination, source */
	__u8 turned[2 * ETH_ALEN];

	if (bpf_skb_load_bytes(skb, 0, mac, sizeof(mac)))
		return false;
	for (int i = 0; i < ETH_ALEN; i++) {
		turned[i] = mac[ETH_ALEN + i];
		turned[ETH_ALEN + i] = own ? own[i] : mac[i];
	}
	return !bpf_skb_store_bytes(skb, 0, turned, sizeof(turned), 0);
}

/* turn_ip writes the header of an answer of so many bytes behind it. */
static __always_inline bool turn_ip(struct __sk_buff *skb, const struct iphdr *ip, __u8 proto, __u16 length)
{
	struct iphdr answer = {
		.version = 4, .ihl = 5, .ttl = ANSWER_TTL, .protocol = proto, .saddr = ip->daddr, .daddr = ip->saddr,
		.tot_len = bpf_htons(sizeof(answer) + length), .frag_off = bpf_htons(0x4000), /* do not fragment */
	};

	answer.check = ~fold(bpf_csum_diff(0, 0, (__be32 *)&answer, sizeof(answer), 0));
	return !bpf_skb_store_bytes(skb, ETH_HLEN, &answer, sizeof(answer), BPF_F_RECOMPUTE_CSUM);
}

/* is_sum_left_to_device: a local sender, or another guest of this host, may leave the sum of TCP to the device that sends the packet
 * at last; only what the kernel changes for us then tells so. */
static __always_inline bool is_sum_left_to_device(struct __sk_buff *skb, __u32 at)
{
	__sum16 before = bpf_htons(0x1234), after;

	if (bpf_skb_store_bytes(skb, at, &before, sizeof(before), 0) || bpf_l4_csum_replace(skb, at, 0, 1, 2) ||
	    bpf_skb_load_bytes(skb, at, &after, sizeof(after)))
		return false;
	return before == after;
}

/* turn_tcp makes it the reset that RFC 9293 section 3.10.7.1 wants where there is no connection. */
static __always_inline bool turn_tcp(struct __sk_buff *skb, const struct iphdr *ip, const struct tcp_header *tcp, const volatile __u8 *own)
{
	__u32 l4 = ETH_HLEN + sizeof(*ip);
	__u32 length = bpf_ntohs(ip->tot_len) - sizeof(*ip) - (tcp->offset >> 4) * 4;
	struct tcp_header answer = { .src = tcp->dst, .dst = tcp->src, .offset = sizeof(answer) << 2, .flags = TCP_RST };
	struct pseudo_header pseudo = { .src = ip->daddr, .dst = ip->saddr, .proto = IPPROTO_TCP, .length = bpf_htons(sizeof(answer)) };
	__s64 sum;

	if (tcp->flags & TCP_ACK) {
		answer.seq = tcp->ack;
	} else {
		length += !!(tcp->flags & TCP_SYN) + !!(tcp->flags & TCP_FIN);
		answer.ack = bpf_htonl(bpf_ntohl(tcp->seq) + length);
		answer.flags |= TCP_ACK;
	}
	if (bpf_skb_change_tail(skb, l4 + sizeof(answer), 0))
		return false;
	sum = bpf_csum_diff(0, 0, (__be32 *)&pseudo, sizeof(pseudo), 0);
	if (is_sum_left_to_device(skb, l4 + offsetof(struct tcp_header, check)))
		answer.check = fold(sum);
	else
		answer.check = ~fold(bpf_csum_diff(0, 0, (__be32 *)&answer, sizeof(answer), sum));
	return !bpf_skb_store_bytes(skb, l4, &answer, sizeof(answer), BPF_F_RECOMPUTE_CSUM) &&
	       turn_ip(skb, ip, IPPROTO_TCP, sizeof(answer)) && turn_frame(skb, own);
}

/* refuse_tcp answers with a reset; false: no answer, the packet is to be dropped. Resets get none. */
static __always_inline bool refuse_tcp(struct __sk_buff *skb, const struct iphdr *ip, const volatile __u8 *own)
{
	struct tcp_header tcp;

	if (!may_answer(ip) || bpf_skb_load_bytes(skb, l4_offset(ip), &tcp, sizeof(tcp)) || tcp.flags & TCP_RST)
		return false;
	return turn_tcp(skb, ip, &tcp, own);
}

/* refuse_udp answers with an ICMP port unreachable; false as above. A sum that was left to the device ends up in the unused half of the
 * header, as 0 or 0xffff: to the sum of ICMP both are nothing. */
static __always_inline bool refuse_udp(struct __sk_buff *skb, const struct iphdr *ip)
{
	struct {
		struct icmp_header icmp;
		__u8 quote[ICMP_QUOTE];
	} answer = { .icmp = { .type = ICMP_DEST_UNREACH, .code = ICMP_PORT_UNREACH } };
	__u32 l4 = ETH_HLEN + sizeof(*ip);

	if (!may_answer(ip) || bpf_skb_load_bytes(skb, ETH_HLEN, answer.quote, sizeof(answer.quote)))
		return false;
	answer.icmp.check = ~fold(bpf_csum_diff(0, 0, (__be32 *)&answer, sizeof(answer), 0));
	return !bpf_skb_change_tail(skb, l4 + sizeof(answer), 0) &&
	       !bpf_skb_store_bytes(skb, l4, &answer, sizeof(answer), BPF_F_RECOMPUTE_CSUM) &&
	       turn_ip(skb, ip, IPPROTO_ICMP, sizeof(answer)) && turn_frame(skb, 0);
}

#endif
