/* SPDX-License-Identifier: Dual BSD/GPL */
/* What the director's and the agent's programs share: one IPv4 packet behind an Ethernet header, who it is for, and a new
 * destination for it. Offsets count from the Ethernet header. All is read by bpf_skb_load_bytes: it works for paged data and
 * behind IP options alike.
 *
 * Director and agent load without CAP_PERFMON: hence no loop but bpf_loop's, and the stack written by words. steer.h and words.h
 * say why. */
#ifndef MANYCAST_PACKET_H
#define MANYCAST_PACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "words.h"

#define NEXT TC_ACT_UNSPEC /* TCX_NEXT: the other programs of the hook, then the kernel */
#define DROP TC_ACT_SHOT

/* <linux/icmp.h> brings the C library's headers along. */
#define ICMP_DEST_UNREACH 3
#define ICMP_ECHO 8
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETERPROB 12
#define ICMP_HEADER 8 /* bytes */

#define IP_MORE 0x2000   /* more fragments follow */
#define IP_OFFSET 0x1fff /* of this fragment, in units of 8 bytes */

struct ports {
	__be16 src;
	__be16 dst;
};

/* A port of a VIP. */
struct port_key {
	__be32 vip;
	__be16 port;
	__u8 proto;
	__u8 pad;
};

static __always_inline __u64 port_key(__be32 vip, __be16 port, __u8 proto)
{
	return WORD(vip, HALF(port, proto));
}

/* load_anybodys_ipv4 is false for what is not ours to judge: other protocols, VLAN tags (the VLAN's own interface has a hook). */
static __always_inline bool load_anybodys_ipv4(struct __sk_buff *skb, struct iphdr *ip)
{
	if (skb->protocol != bpf_htons(ETH_P_IP) || skb->vlan_present || bpf_skb_load_bytes(skb, ETH_HLEN, ip, sizeof(*ip)))
		return false;
	return ip->version == 4 && ip->ihl >= 5;
}

/* load_ipv4 is false for frames for another host, too. */
static __always_inline bool load_ipv4(struct __sk_buff *skb, struct iphdr *ip)
{
	return skb->pkt_type != PACKET_OTHERHOST && load_anybodys_ipv4(skb, ip);
}

static __always_inline __u32 l4_offset(const struct iphdr *ip)
{
	return ETH_HLEN + ip->ihl * 4;
}

static __always_inline bool is_later_fragment(const struct iphdr *ip)
{
	return ip->frag_off & bpf_htons(IP_OFFSET);
}

static __always_inline bool is_fragment(const struct iphdr *ip)
{
	return ip->frag_off & bpf_htons(IP_OFFSET | IP_MORE);
}

static __always_inline bool load_ports(struct __sk_buff *skb, __u32 l4, struct ports *ports)
{
	return !bpf_skb_load_bytes(skb, l4, ports, sizeof(*ports));
}

/* ICMP errors quote the packet that they are about (RFC 792). */
static __always_inline bool is_icmp_error(__u8 type)
{
	return type == ICMP_DEST_UNREACH || type == ICMP_TIME_EXCEEDED || type == ICMP_PARAMETERPROB;
}

/* load_quoted reads the packet that the ICMP error at l4 is about; false: too short, or no IPv4. */
static __always_inline bool load_quoted(struct __sk_buff *skb, __u32 l4, struct iphdr *inner)
{
	if (bpf_skb_load_bytes(skb, l4 + ICMP_HEADER, inner, sizeof(*inner)))
		return false;
	return inner->version == 4 && inner->ihl >= 5;
}

/* load_quoted_ports reads at least the 8 bytes of the quoted packet that RFC 792 promises. */
static __always_inline bool load_quoted_ports(struct __sk_buff *skb, __u32 l4, const struct iphdr *inner, struct ports *ports)
{
	return load_ports(skb, l4 + ICMP_HEADER + inner->ihl * 4, ports);
}

/* set_destination rewrites the destination address. The checksum of TCP and UDP covers it (only the first fragment has one; a
 * UDP checksum of 0 stays 0), that of ICMP does not. */
static __always_inline bool set_destination(struct __sk_buff *skb, const struct iphdr *ip, __be32 address)
{
	ALONE __be32 to = address;
	__u32 l4 = l4_offset(ip);

	if (!is_later_fragment(ip)) {
		if (ip->protocol == IPPROTO_TCP &&
		    bpf_l4_csum_replace(skb, l4 + offsetof(struct tcphdr, check), ip->daddr, to, BPF_F_PSEUDO_HDR | 4))
			return false;
		if (ip->protocol == IPPROTO_UDP &&
		    bpf_l4_csum_replace(skb, l4 + offsetof(struct udphdr, check), ip->daddr, to,
					BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0 | 4))
			return false;
	}
	if (bpf_l3_csum_replace(skb, ETH_HLEN + offsetof(struct iphdr, check), ip->daddr, to, 4))
		return false;
	return !bpf_skb_store_bytes(skb, ETH_HLEN + offsetof(struct iphdr, daddr), &to, sizeof(to), 0);
}

#endif
