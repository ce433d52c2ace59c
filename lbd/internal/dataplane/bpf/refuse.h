/* SPDX-License-Identifier: Dual BSD/GPL */
/* Answers to packets that nobody will serve: TCP gets a reset, UDP a port unreachable. The answer takes the packet's place, in a
 * frame to the neighbour that it came from. */
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

#define TCP_HEADER sizeof(struct tcp_header)
#define IP_HEADER sizeof(struct iphdr)

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
	ALONE __u8 mac[2 * ETH_ALEN]; /* destination, source */

	return !bpf_skb_load_bytes(skb, 0, mac, sizeof(mac)) &&
	       !bpf_skb_store_bytes(skb, 0, mac + ETH_ALEN, ETH_ALEN, 0) &&
	       !bpf_skb_store_bytes(skb, ETH_ALEN, own ? (const void *)own : mac, ETH_ALEN, 0);
}

/* turn_ip writes the header of an answer of so many bytes behind it. */
static __always_inline bool turn_ip(struct __sk_buff *skb, const struct iphdr *ip, __u8 proto, __u16 length)
{
	struct {
		__u64 length_fragment;
		__u64 proto_source;
		__be32 to;
	} answer = { /* struct iphdr; do not fragment */
		.length_fragment = WORD(HALF(0x45, bpf_htons(IP_HEADER + length)), HALF(0, bpf_htons(0x4000))),
		.proto_source = WORD(HALF(ANSWER_TTL | proto << 8, 0), ip->daddr),
		.to = ip->saddr,
	};
	__sum16 check = ~fold(bpf_csum_diff(0, 0, (__be32 *)&answer, IP_HEADER, 0));

	answer.proto_source = WORD(HALF(ANSWER_TTL | proto << 8, check), ip->daddr);
	return !bpf_skb_store_bytes(skb, ETH_HLEN, &answer, IP_HEADER, BPF_F_RECOMPUTE_CSUM);
}

/* is_sum_left_to_device: a local sender, or another guest of this host, may leave the sum of TCP to the device that sends the packet
 * at last; only what the kernel changes for us then tells so. */
static __always_inline bool is_sum_left_to_device(struct __sk_buff *skb, __u32 at)
{
	ALONE __sum16 before = bpf_htons(0x1234);
	ALONE __sum16 after;

	if (bpf_skb_store_bytes(skb, at, &before, sizeof(before), 0) || bpf_l4_csum_replace(skb, at, 0, 1, 2) ||
	    bpf_skb_load_bytes(skb, at, &after, sizeof(after)))
		return false;
	return before == after;
}

/* turn_tcp makes it the reset that RFC 9293 section 3.10.7.1 wants where there is no connection. */
static __always_inline bool turn_tcp(struct __sk_buff *skb, const struct iphdr *ip, const struct tcp_header *tcp, const volatile __u8 *own)
{
	__u32 l4 = ETH_HLEN + IP_HEADER;
	__u32 length = bpf_ntohs(ip->tot_len) - IP_HEADER - (tcp->offset >> 4) * 4;
	__be32 seq = 0, ack = 0;
	__u8 flags = TCP_RST;
	__s64 sum;

	if (tcp->flags & TCP_ACK) {
		seq = tcp->ack;
	} else {
		length += !!(tcp->flags & TCP_SYN) + !!(tcp->flags & TCP_FIN);
		ack = bpf_htonl(bpf_ntohl(tcp->seq) + length);
		flags |= TCP_ACK;
	}
	struct {
		__u64 ports_seq;
		__u64 ack_flags;
		__u32 check;
	} answer = { WORD(HALF(tcp->dst, tcp->src), seq), WORD(ack, HALF(TCP_HEADER << 2 | flags << 8, 0)), 0 }; /* struct tcp_header */
	struct {
		__u64 addresses;
		__u32 proto_length;
	} pseudo = { WORD(ip->daddr, ip->saddr), HALF(IPPROTO_TCP << 8, bpf_htons(TCP_HEADER)) };

	if (bpf_skb_change_tail(skb, l4 + TCP_HEADER, 0))
		return false;
	sum = bpf_csum_diff(0, 0, (__be32 *)&pseudo, 12, 0);
	if (is_sum_left_to_device(skb, l4 + offsetof(struct tcp_header, check)))
		answer.check = fold(sum);
	else
		answer.check = (__sum16)~fold(bpf_csum_diff(0, 0, (__be32 *)&answer, TCP_HEADER, sum));
	return !bpf_skb_store_bytes(skb, l4, &answer, TCP_HEADER, BPF_F_RECOMPUTE_CSUM) &&
	       turn_ip(skb, ip, IPPROTO_TCP, TCP_HEADER) && turn_frame(skb, own);
}

/* refuse_tcp answers with a reset; false: no answer, the packet is to be dropped. Resets get none. */
static __always_inline bool refuse_tcp(struct __sk_buff *skb, const struct iphdr *ip, const volatile __u8 *own)
{
	ALONE struct tcp_header tcp;

	if (!may_answer(ip) || bpf_skb_load_bytes(skb, l4_offset(ip), &tcp, sizeof(tcp)) || tcp.flags & TCP_RST)
		return false;
	return turn_tcp(skb, ip, &tcp, own);
}

/* refuse_udp answers with an ICMP port unreachable; false as above. A sum that was left to the device ends up in the unused half of the
 * header, as 0 or 0xffff: to the sum of ICMP both are nothing. */
static __always_inline bool refuse_udp(struct __sk_buff *skb, const struct iphdr *ip)
{
	struct {
		__u64 icmp; /* type, code, checksum, 4 bytes unused */
		__u8 quote[ICMP_QUOTE];
		__u32 pad;
	} answer;
	__u32 l4 = ETH_HLEN + IP_HEADER, length = sizeof(answer.icmp) + sizeof(answer.quote);
	__sum16 check;

	if (!may_answer(ip) || bpf_skb_load_bytes(skb, ETH_HLEN, answer.quote, sizeof(answer.quote)))
		return false;
	answer.icmp = HALF(ICMP_DEST_UNREACH | ICMP_PORT_UNREACH << 8, 0);
	check = ~fold(bpf_csum_diff(0, 0, (__be32 *)&answer, length, 0));
	answer.icmp = HALF(ICMP_DEST_UNREACH | ICMP_PORT_UNREACH << 8, check);
	return !bpf_skb_change_tail(skb, l4 + length, 0) &&
	       !bpf_skb_store_bytes(skb, l4, &answer, length, BPF_F_RECOMPUTE_CSUM) &&
	       turn_ip(skb, ip, IPPROTO_ICMP, length) && turn_frame(skb, 0);
}

#endif
