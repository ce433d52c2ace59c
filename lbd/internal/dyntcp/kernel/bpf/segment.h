/* SPDX-License-Identifier: Dual BSD/GPL */
/* Packets of both families as the client's and the server's programs see them: who sends what to whom, and another address and port in
 * place of one of theirs. */
#ifndef MANYCAST_SEGMENT_H
#define MANYCAST_SEGMENT_H

#include <linux/in6.h>
#include <linux/ipv6.h>

#include "packet.h"

/* flowMapKey in Go: addresses of IPv4 are mapped to IPv6 (RFC 4291 section 2.5.5.2). By words: words.h. */
struct flow {
	__u64 user[2];
	__u64 vip[2]; /* or where the connection is */
	__u64 ports; /* user's, the other's, 0 */
};

/* An address and a port of it. */
struct place {
	__u64 address[2];
	__u64 port; /* __be16 */
};

#define MAPPED(address) WORD(bpf_htonl(0xffff), address)
#define IS_MAPPED(address) (!(address)[0] && (__u32)(address)[1] == bpf_htonl(0xffff))
#define ADDRESS4(address) ((__be32)((address)[1] >> 32))

#define FIRST_PORT(ports) ((__be16)(ports))
#define SECOND_PORT(ports) ((__be16)((ports) >> 16))

#define ICMPV6_ERRORS 128 /* below (RFC 4443 section 2.1) */
#define EXTENSIONS 6	  /* of IPv6 that are followed */

#define SYN 0x02
#define RST 0x04
#define ACK 0x10
#define FLAGS_UNREAD 0x100

enum what { OTHER, TCP, UDP, TCP_ERROR, LATER, HIDDEN };

/* A packet. Each CPU has one of each hook, in a map: what is read from there the verifier knows nothing of, and so need not follow each value on
 * each way. */
struct segment {
	__u64 what;
	__u64 src[2]; /* of an ICMP error: of the packet that it is about, and so below */
	__u64 dst[2];
	__u64 ports; /* source, destination */
	__u64 ip;    /* offset of the IP header */
	__u64 l4;
	__u64 sum;   /* offset of the sum that covers the ports */
	__u64 check; /* of the IPv4 header */
	__u64 fragment[2]; /* key of fragments; 0: the packet is none */
	__u64 flags; /* of TCP; FLAGS_UNREAD */
	/* Room for what is looked up or written: on the stack the first store to each word is a barrier against speculation, for who has no CAP_PERFMON. */
	struct flow flow, wire; /* as TCP knows it, and as it is on the wire */
	struct place place, vip;
	__u64 words[5];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct segment);
} segments SEC(".maps");

/* Addresses that first fragments of TCP got, for those that follow: they have no ports. */
struct fragment_key {
	__u64 addresses;
	__u64 id;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct fragment_key);
	__type(value, __u64);
} fragments SEC(".maps");

enum hook { INGRESS, EGRESS };

/* The programs of two hooks may run on one CPU, one inside the other. */
static __always_inline struct segment *segment_of(enum hook hook)
{
	static const __u32 ingress = INGRESS, egress = EGRESS;

	return bpf_map_lookup_elem(&segments, hook == INGRESS ? &ingress : &egress);
}

static __always_inline void set_ends4(struct segment *s, __be32 src, __be32 dst)
{
	s->src[0] = s->dst[0] = 0;
	s->src[1] = MAPPED(src);
	s->dst[1] = MAPPED(dst);
}

static __always_inline void set_flow(struct flow *flow, const __u64 *user, const __u64 *other, __u64 ports)
{
	flow->user[0] = user[0];
	flow->user[1] = user[1];
	flow->vip[0] = other[0];
	flow->vip[1] = other[1];
	flow->ports = ports;
}

static __always_inline void set_place(struct place *place, const __u64 *address, __be16 port)
{
	place->address[0] = address[0];
	place->address[1] = address[1];
	place->port = port;
}

/* has_flag is true where they cannot be read. */
static __always_inline bool has_flag(struct __sk_buff *skb, const struct segment *s, __u8 flag)
{
	ALONE __u8 flags;

	if (s->flags != FLAGS_UNREAD)
		return s->flags & flag;
	return bpf_skb_load_bytes(skb, s->l4 + 13, &flags, sizeof(flags)) || flags & flag;
}

static __always_inline bool read_ports(struct __sk_buff *skb, struct segment *s)
{
	ALONE struct ports ports;

	if (!load_ports(skb, s->l4, &ports))
		return false;
	s->ports = HALF(ports.src, ports.dst);
	return true;
}

/* read_quoted4 is for ICMP errors about segments of TCP. */
static __noinline bool read_quoted4(struct __sk_buff *skb, struct segment *s)
{
	ALONE struct iphdr inner;
	ALONE __u8 type;

	if (bpf_skb_load_bytes(skb, s->l4, &type, sizeof(type)) || !is_icmp_error(type) || !load_quoted(skb, s->l4, &inner) ||
	    inner.protocol != IPPROTO_TCP || is_later_fragment(&inner))
		return false;
	s->what = TCP_ERROR;
	s->sum = s->l4 + 2;
	s->ip = s->l4 + ICMP_HEADER;
	s->l4 = s->ip + inner.ihl * 4;
	s->check = inner.check;
	set_ends4(s, inner.saddr, inner.daddr);
	return read_ports(skb, s);
}

static __noinline bool read4(struct __sk_buff *skb, struct segment *s)
{
	ALONE struct iphdr ip;

	if (!load_anybodys_ipv4(skb, &ip) || (skb->pkt_type == PACKET_OTHERHOST && ip.protocol != IPPROTO_UDP))
		return false;
	s->ip = ETH_HLEN;
	s->l4 = l4_offset(&ip);
	s->sum = s->l4 + offsetof(struct tcphdr, check);
	s->check = ip.check;
	s->fragment[0] = s->fragment[1] = 0;
	s->flags = FLAGS_UNREAD;
	set_ends4(s, ip.saddr, ip.daddr);
	if (ip.protocol == IPPROTO_ICMP)
		return !is_later_fragment(&ip) && read_quoted4(skb, s);
	if (ip.protocol != IPPROTO_TCP && ip.protocol != IPPROTO_UDP)
		return false;
	s->what = ip.protocol == IPPROTO_TCP ? TCP : UDP;
	if (is_fragment(&ip)) {
		s->fragment[0] = WORD(ip.saddr, ip.daddr);
		s->fragment[1] = HALF(ip.id, ip.protocol);
	}
	if (is_later_fragment(&ip)) {
		if (s->what == UDP)
			return false;
		s->what = LATER;
		return true;
	}
	return read_ports(skb, s);
}

#define PLAIN4 0x45 /* version, length: no options */

/* plain4 is the header of what most packets are, where it lies, with TCP's behind it; NULL: read4 is to look. */
static __always_inline struct iphdr *plain4(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct iphdr *ip = data + ETH_HLEN;

	if ((void *)(ip + 1) + sizeof(struct tcphdr) > end || skb->protocol != bpf_htons(ETH_P_IP) || skb->vlan_present ||
	    skb->pkt_type == PACKET_OTHERHOST || *(__u8 *)ip != PLAIN4 || ip->protocol != IPPROTO_TCP || is_fragment(ip))
		return NULL;
	return ip;
}

static __always_inline __u8 flags4(const struct iphdr *ip)
{
	return ((const __u8 *)(ip + 1))[13];
}

static __always_inline bool read_plain4(struct __sk_buff *skb, struct segment *s)
{
	struct iphdr *ip = plain4(skb);
	struct ports *ports;

	if (!ip)
		return false;
	ports = (void *)(ip + 1);
	s->what = TCP;
	s->ip = ETH_HLEN;
	s->l4 = ETH_HLEN + sizeof(*ip);
	s->sum = s->l4 + offsetof(struct tcphdr, check);
	s->check = ip->check;
	s->fragment[0] = s->fragment[1] = 0;
	s->flags = flags4(ip);
	s->ports = HALF(ports->src, ports->dst);
	set_ends4(s, ip->saddr, ip->daddr);
	return true;
}

static __always_inline bool is_extension(__u8 proto)
{
	return proto == IPPROTO_HOPOPTS || proto == IPPROTO_ROUTING || proto == IPPROTO_DSTOPTS || proto == IPPROTO_FRAGMENT;
}

/* pass_extensions finds the header behind those (RFC 8200 section 4), or one of those behind too many. A fragment header is of 8 bytes, and says 0
 * where others say their length. */
static __always_inline __u8 pass_extensions(struct __sk_buff *skb, __u8 proto, __u64 *at)
{
	ALONE struct {
		__u8 next, length;
	} header;

#pragma unroll
	for (int i = 0; i < EXTENSIONS; i++) {
		if (!is_extension(proto))
			return proto;
		if (bpf_skb_load_bytes(skb, *at, &header, sizeof(header)))
			return IPPROTO_NONE;
		*at += proto == IPPROTO_FRAGMENT ? 8 : (header.length + 1) * 8;
		proto = header.next;
	}
	return proto;
}

static __always_inline bool read_header6(struct __sk_buff *skb, struct segment *s, __u64 at, __u8 *proto)
{
	__u64 ip[5]; /* struct ipv6hdr */

	if (bpf_skb_load_bytes(skb, at, ip, sizeof(ip)))
		return false;
	s->ip = at;
	s->l4 = at + sizeof(ip);
	s->sum = s->l4 + offsetof(struct tcphdr, check);
	s->src[0] = ip[1];
	s->src[1] = ip[2];
	s->dst[0] = ip[3];
	s->dst[1] = ip[4];
	*proto = ip[0] >> 48;
	return true;
}

/* read6: TCP behind extension headers is left alone, for no kernel sends it; UDP is not, and what is behind too many may be UDP. */
static __noinline bool read6(struct __sk_buff *skb, struct segment *s)
{
	ALONE __u8 type;
	__u64 sum;
	__u8 proto;

	if (skb->vlan_present || !read_header6(skb, s, ETH_HLEN, &proto))
		return false;
	s->fragment[0] = s->fragment[1] = 0;
	s->flags = FLAGS_UNREAD;
	if (proto == IPPROTO_TCP) {
		s->what = TCP;
		return skb->pkt_type != PACKET_OTHERHOST && read_ports(skb, s);
	}
	proto = pass_extensions(skb, proto, &s->l4);
	if (proto == IPPROTO_UDP) {
		s->what = UDP;
		return read_ports(skb, s);
	}
	if (skb->pkt_type == PACKET_OTHERHOST)
		return false;
	if (is_extension(proto)) {
		s->what = HIDDEN;
		return true;
	}
	if (proto != IPPROTO_ICMPV6 || bpf_skb_load_bytes(skb, s->l4, &type, sizeof(type)) || type >= ICMPV6_ERRORS)
		return false;
	sum = s->l4 + 2;
	if (!read_header6(skb, s, s->l4 + ICMP_HEADER, &proto) || proto != IPPROTO_TCP)
		return false;
	s->what = TCP_ERROR;
	s->sum = sum;
	return read_ports(skb, s);
}

/* read is false for what is none of ours to judge. Of frames for another host it is UDP alone that is: other clients' programs leave what they do not
 * know as such. */
static __always_inline bool read(struct __sk_buff *skb, struct segment *s)
{
	if (skb->protocol == bpf_htons(ETH_P_IPV6))
		return read6(skb, s);
	return read_plain4(skb, s) || read4(skb, s);
}

/* replaced is an IPv4 header's sum after a change of 4 bytes that it covers (RFC 1624). */
static __always_inline __u16 replaced(__u16 check, __be32 was, __be32 is)
{
	__u32 sum = (__u16)~check + (__u16)~was + (__u16)(~was >> 16) + (__u16)is + (is >> 16);

	sum = (sum & 0xffff) + (sum >> 16);
	return ~(sum + (sum >> 16));
}

/* socket_of finds whose a segment is. tuple is room. */
static __always_inline struct bpf_sock *socket_of(struct __sk_buff *skb, const __u64 *src, const __u64 *dst, __u64 ports, __u64 *tuple)
{
	bool v4 = IS_MAPPED(src);

	tuple[0] = v4 ? WORD(ADDRESS4(src), ADDRESS4(dst)) : src[0]; /* struct bpf_sock_tuple */
	tuple[1] = v4 ? ports : src[1];
	tuple[2] = dst[0];
	tuple[3] = dst[1];
	tuple[4] = ports;
	return bpf_skc_lookup_tcp(skb, (void *)tuple, v4 ? sizeof(((struct bpf_sock_tuple *)0)->ipv4) : sizeof(((struct bpf_sock_tuple *)0)->ipv6),
				  BPF_F_CURRENT_NETNS, 0);
}

enum end { SOURCE, TARGET };

/* set_address4: the sum of TCP covers the address, that of ICMP the quoted header, with that header's own sum, which the addresses follow. */
static __noinline bool set_address4(struct __sk_buff *skb, struct segment *s, enum end end, __be32 address)
{
	__be32 src = ADDRESS4(s->src), dst = ADDRESS4(s->dst), was = end == SOURCE ? src : dst;
	__u64 check = replaced(s->check, was, address);

	if (end == SOURCE)
		src = address;
	else
		dst = address;
	s->words[0] = check | (__u64)src << 16 | (__u64)dst << 48;
	s->words[1] = dst >> 16;
	if (s->what == TCP && bpf_l4_csum_replace(skb, s->sum, was, address, BPF_F_PSEUDO_HDR | 4))
		return false;
	return !bpf_skb_store_bytes(skb, s->ip + offsetof(struct iphdr, check), s->words, 2 + 4 + 4, 0);
}

/* set_address6: there is no sum of the header which would make up for the address in that of the whole packet, so BPF_F_RECOMPUTE_CSUM does;
 * what is under ICMPv6's sum is in that of the packet, and is made up for by it. */
static __noinline bool set_address6(struct __sk_buff *skb, const struct segment *s, __u32 at, const __u64 *from, const __u64 *address)
{
	__u64 was[] = { from[0], from[1] }, to[] = { address[0], address[1] };
	__s64 diff = bpf_csum_diff((__be32 *)was, sizeof(was), (__be32 *)to, sizeof(to), 0);

	if (diff < 0)
		return false;
	if (s->what == TCP)
		return !bpf_l4_csum_replace(skb, s->sum, 0, diff, BPF_F_PSEUDO_HDR) && !bpf_skb_store_bytes(skb, at, to, sizeof(to), BPF_F_RECOMPUTE_CSUM);
	return !bpf_l4_csum_replace(skb, s->sum, 0, diff, 0) && !bpf_skb_store_bytes(skb, at, to, sizeof(to), 0);
}

/* set_port: at is its offset. */
static __always_inline bool set_port(struct __sk_buff *skb, const struct segment *s, __u32 at, __be16 was, __be16 port)
{
	ALONE __be16 to;

	if (was == port)
		return true;
	to = port;
	return !bpf_l4_csum_replace(skb, s->sum, was, to, 2) && !bpf_skb_store_bytes(skb, at, &to, sizeof(to), 0);
}

/* remember keeps the address that a first fragment gets. */
static __always_inline void remember(const struct segment *s, const struct place *to)
{
	if (s->fragment[0])
		bpf_map_update_elem(&fragments, s->fragment, &to->address[1], BPF_ANY);
}

/* set_source and set_destination put a place where another was. */
static __noinline bool set_source(struct __sk_buff *skb, struct segment *s, const struct place *to)
{
	bool ok;

	remember(s, to);
	if (IS_MAPPED(s->src))
		ok = set_address4(skb, s, SOURCE, ADDRESS4(to->address));
	else
		ok = set_address6(skb, s, s->ip + offsetof(struct ipv6hdr, saddr), s->src, to->address);
	return ok && set_port(skb, s, s->l4, FIRST_PORT(s->ports), to->port);
}

static __noinline bool set_target(struct __sk_buff *skb, struct segment *s, const struct place *to)
{
	bool ok;

	remember(s, to);
	if (IS_MAPPED(s->dst))
		ok = set_address4(skb, s, TARGET, ADDRESS4(to->address));
	else
		ok = set_address6(skb, s, s->ip + offsetof(struct ipv6hdr, daddr), s->dst, to->address);
	return ok && set_port(skb, s, s->l4 + 2, SECOND_PORT(s->ports), to->port);
}

/* follow_source and follow_destination give a later fragment the address that its first got. */
static __always_inline bool follow_source(struct __sk_buff *skb, struct segment *s)
{
	__u64 *address = bpf_map_lookup_elem(&fragments, s->fragment);

	return !address || set_address4(skb, s, SOURCE, *address >> 32);
}

static __always_inline bool follow_destination(struct __sk_buff *skb, struct segment *s)
{
	__u64 *address = bpf_map_lookup_elem(&fragments, s->fragment);

	return !address || set_address4(skb, s, TARGET, *address >> 32);
}

#endif
