// SPDX-License-Identifier: Dual BSD/GPL
/* The agent (Fig 7C, 9): on the interface where the server joins. Ingress: group -> VIP for the server's own users, all others
 * are dropped; what came to the VIP itself along the server's tree (Fig 17) is whoever's the routers say. Egress: the MSS that answers
 * announce fits the path. */
#include "packet.h"
#include "refuse.h"
#include "steer.h"

/* Owners in a group's plan; 0: another server's. */
#define MINE 1
#define MINE_WHILE_ALIVE 2 /* a leader gives them to others once the agent is dead */
#define MINE_IN_STEAD 3	   /* a silent neighbour's, who may come back */

#define TCP_MSS_KIND 2
#define TCP_MSS_LENGTH 4
#define TCP_OPTIONS_MAX 40 /* bytes, RFC 9293 section 3.1 */

/* Largest MSS to announce, bytes; 0: any. */
volatile const __u16 mss_max = 0;

/* MAC address of the interface: that of refusals. */
volatile const __u8 own_mac[ETH_ALEN] = {};

#include "keep.h"
#include "redirect.h"

#define SAMPLE 16     /* of so many packets one tells whose it is */

/* Traffic of agent.go, in its order. */
struct traffic {
	__u64 packets;
	__u64 bytes;
	__u64 opened;
	__u64 refused;
};

struct service {
	__be32 vip;
	__be32 name; /* what the service is known by in the maps below: its group, or without one the VIP */
	__be32 chains; /* group of the plan of its chains; 0: it keeps no connections */
};

/* By destination: groups, and VIPs that are reached by trees. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, __be32);
	__type(value, struct service);
} groups SEC(".maps");

/* VIPs of IPv6 of services that keep connections. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct in6_addr);
	__type(value, struct service);
} groups6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 262144);
	__type(key, struct port_key);
	__type(value, __be32); /* the service's name */
} services SEC(".maps");

/* What was done for each group; only groups that are in it are counted. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, __be32);
	__type(value, struct traffic);
} traffic SEC(".maps");

/* Share of a group's users whose new connections are refused, of 1024; groups without an entry refuse nobody. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, __be32);
	__type(value, __u32);
} sheds SEC(".maps");

struct sender_key {
	__be32 group;
	__be32 user;
};

/* The packets of the heaviest users, by a sample. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_PERCPU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct sender_key);
	__type(value, __u64);
} senders SEC(".maps");

/* Until when the agent counts as alive: nanoseconds since boot, 0 before it is. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} alive_until SEC(".maps");

/* And as one that hears whether neighbours are back. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} in_stead_until SEC(".maps");

/* What the agent changed on this host and has to undo, by name ("vip 192.0.2.80 dev lo"). Programs do not use it: it is here
 * because it has to live as long as the pins do, and to end with the boot. */
struct undo_key {
	char name[64];
};

struct undo_value {
	char was[16];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct undo_key);
	__type(value, struct undo_value);
} undo SEC(".maps");

/* has_port: a VIP that is reached by trees is one service's, also while that changes its name. */
static __always_inline bool has_port(const struct service *s, const struct iphdr *ip, __be16 port, __u8 proto)
{
	__u64 key = port_key(s->vip, port, proto);
	__be32 *name = bpf_map_lookup_elem(&services, &key);

	return name && (*name == s->name || ip->daddr == s->vip);
}

enum judgement { WANTED, WANTED_ERROR, NO_PORT, TOO_SHORT };

/* judge_icmp: echoes are answered; an error is wanted when it is about the service's own answer, and its user is the one that
 * the answer went to, not the router that reports. */
static __always_inline enum judgement judge_icmp(struct __sk_buff *skb, const struct iphdr *ip, const struct service *s, __be32 *user)
{
	__u32 l4 = l4_offset(ip);
	ALONE struct iphdr inner;
	ALONE struct ports ports;
	ALONE __u8 type;

	if (bpf_skb_load_bytes(skb, l4, &type, sizeof(type)))
		return TOO_SHORT;
	if (type == ICMP_ECHO)
		return WANTED;
	if (!is_icmp_error(type))
		return NO_PORT;
	if (!load_quoted(skb, l4, &inner))
		return TOO_SHORT;
	if (inner.saddr != s->vip || is_later_fragment(&inner))
		return NO_PORT;
	*user = inner.daddr;
	if (inner.protocol == IPPROTO_ICMP)
		return WANTED_ERROR;
	if (!load_quoted_ports(skb, l4, &inner, &ports))
		return TOO_SHORT;
	return has_port(s, ip, ports.src, inner.protocol) ? WANTED_ERROR : NO_PORT;
}

/* judge tells whether the service wants the packet, and whose it is. A later fragment has no port: it comes to nothing when its
 * first was dropped. */
static __noinline enum judgement judge(struct __sk_buff *skb, const struct iphdr *ip, const struct service *s, __be32 *user)
{
	ALONE struct ports ports;

	*user = ip->saddr;
	if (is_later_fragment(ip))
		return WANTED;
	if (ip->protocol == IPPROTO_ICMP)
		return judge_icmp(skb, ip, s, user);
	if (ip->protocol != IPPROTO_TCP && ip->protocol != IPPROTO_UDP)
		return NO_PORT;
	if (!load_ports(skb, l4_offset(ip), &ports))
		return TOO_SHORT;
	return has_port(s, ip, ports.dst, ip->protocol) ? WANTED : NO_PORT;
}

static __always_inline bool is_mine(__u32 owner)
{
	return owner == MINE || owner == MINE_WHILE_ALIVE || owner == MINE_IN_STEAD;
}

/* is_alive says whether an owner's users are taken, who are not for ever. */
static __always_inline bool is_alive(__u32 owner)
{
	static const __u32 zero = 0;
	__u64 *until;

	if (owner == MINE_IN_STEAD)
		until = bpf_map_lookup_elem(&in_stead_until, &zero);
	else
		until = bpf_map_lookup_elem(&alive_until, &zero);

	return until && bpf_ktime_get_boot_ns() < *until;
}

/* sample notes whose packet it is, and how many it stands for. */
static __always_inline void sample(__be32 group, __be32 user)
{
	static const __u64 first = SAMPLE;
	__u64 key = WORD(group, user); /* struct sender_key */
	__u64 *packets;

	if (bpf_get_prandom_u32() % SAMPLE)
		return;
	packets = bpf_map_lookup_elem(&senders, &key);
	if (packets)
		*packets += SAMPLE;
	else
		bpf_map_update_elem(&senders, &key, &first, BPF_ANY);
}

/* opens reports whether it is the first segment of a connection. */
static __always_inline bool opens(struct __sk_buff *skb, const struct iphdr *ip)
{
	ALONE __u8 flags;

	if (ip->protocol != IPPROTO_TCP || is_later_fragment(ip) ||
	    bpf_skb_load_bytes(skb, l4_offset(ip) + offsetof(struct tcp_header, flags), &flags, sizeof(flags)))
		return false;
	return (flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

static __always_inline bool is_shed(const __be32 *group, __be32 user)
{
	__u32 *share = bpf_map_lookup_elem(&sheds, group);

	return share && is_among(user, *share);
}

/* shed refuses it in the VIP's name. Where a server has sent it here its frame's sender is on that one's link: the answer goes by the route to the
 * user. */
static __noinline int shed(struct __sk_buff *skb, struct iphdr *ip, __be32 vip, struct traffic *t, const struct arrival *a)
{
	COUNT(shed, 1);
	if (t)
		t->refused++;
	ip->daddr = vip;
	if (!refuse_tcp(skb, ip, own_mac))
		return DROP;
	return a->is_straight ? bpf_redirect(skb->ifindex, 0) : bpf_redirect_neigh(skb->ifindex, NULL, 0, 0);
}

/* unknown is for what is for no service here. From another server that is for nobody. */
static __always_inline int unknown(__u32 mark)
{
	if (is_straight(mark))
		return NEXT;
	COUNT(not_mine, 1);
	return DROP;
}

/* whose is the owner of a packet's user. What comes to the VIP itself is whoever's the routers say, but that a service that keeps
 * connections has to know which users are its own. */
static __always_inline __u32 whose(const struct iphdr *ip, const struct service *s, __u32 user)
{
	return ip->daddr == s->vip && !s->chains ? MINE : owner_in(s->name, bpf_ntohl(user));
}

/* turns_away says whether a packet straight from a router is for others. On one link all servers see what is for the group. */
static __always_inline bool turns_away(__u32 owner)
{
	if (!is_mine(owner)) {
		COUNT(not_mine, 1);
		return true;
	}
	/* On one link the next owner sees the same packets: both would answer. */
	if (owner != MINE && !is_alive(owner)) {
		COUNT(lapsed, 1);
		return true;
	}
	return false;
}

/* ingress4 is for IPv4. */
static __noinline int ingress4(struct __sk_buff *skb, __u32 mark)
{
	enum judgement judgement;
	struct traffic *traffic_of;
	ALONE struct iphdr ip;
	ALONE __be32 name;
	struct service *s;
	struct arrival *a;
	bool opening;
	__be32 user;
	__u32 owner;
	int verdict;

	if (!load_ipv4(skb, &ip))
		return unknown(mark);
	s = bpf_map_lookup_elem(&groups, &ip.daddr);
	if (!s)
		return unknown(mark);
	name = s->name;
	judgement = judge(skb, &ip, s, &user);
	if (judgement == TOO_SHORT) {
		COUNT(malformed, 1);
		return DROP;
	}
	if (judgement == NO_PORT) {
		COUNT(no_port, 1);
		return DROP;
	}
	owner = whose(&ip, s, user);
	opening = opens(skb, &ip);
	a = this_arrival();
	if (!a)
		return DROP;
	arrive(a, mark);
	/* Connections that a peer has redirected are this server's, whoever the user's is. */
	if ((a->is_straight ? ip.daddr != s->vip : !s->chains && a->epoch != DIVERTED) && turns_away(owner))
		return DROP;
	if (s->chains || (ip.protocol != IPPROTO_UDP && (!a->is_straight || has_diverted()))) {
		a->opens = opening;
		a->is_mine = is_mine(owner);
		a->user = bpf_ntohl(user);
		a->chains = s->chains;
		verdict = keep4(skb, &ip, s->vip, a);
		if (verdict != NEXT)
			return verdict;
	}
	if (opening && a->is_straight) {
		verdict = redirect(skb, &ip, &name, s->vip, a);
		if (verdict != NEXT)
			return verdict;
	}
	traffic_of = bpf_map_lookup_elem(&traffic, &name);
	if (opening && is_shed(&name, user))
		return shed(skb, &ip, s->vip, traffic_of, a);
	if (traffic_of) {
		traffic_of->packets++;
		traffic_of->bytes += skb->len;
		traffic_of->opened += opening;
	}
	sample(name, user);
	/* Unlike a group, the VIP is taken by TCP only from frames for this host. */
	if (ip.daddr != s->vip && (!set_destination(skb, &ip, s->vip) || bpf_skb_change_type(skb, PACKET_HOST))) {
		COUNT(malformed, 1);
		return DROP;
	}
	if (is_later_fragment(&ip))
		COUNT(fragments, 1);
	if (judgement == WANTED_ERROR)
		COUNT(icmp_errors, 1);
	COUNT(delivered, 1);
	COUNT(bytes, skb->len);
	return NEXT;
}
/* ingress6 is for IPv6, of services that keep connections. */
static __noinline int ingress6(struct __sk_buff *skb, __u32 mark)
{
	struct arrival *a = this_arrival();
	ALONE __u8 flags;
	struct service *s;
	__u64 vip[2], key; /* struct in6_addr */
	__u32 owner;

	if (!a || skb->vlan_present || skb->pkt_type == PACKET_OTHERHOST ||
	    bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, daddr), vip, sizeof(vip)))
		return unknown(mark);
	s = bpf_map_lookup_elem(&groups6, vip);
	if (!s)
		return unknown(mark);
	if (!find_flow6(skb))
		return NEXT;
	key = port_key(s->vip, a->flow.ports_proto >> 16, flow_proto(&a->flow));
	if (a->kind != LATER_FRAGMENT && !bpf_map_lookup_elem(&services, &key))
		return NEXT;
	arrive(a, mark);
	a->user = steer_standin(bpf_be64_to_cpu(a->flow.user[0]));
	a->chains = s->chains;
	owner = owner_in(s->name, a->user);
	a->is_mine = is_mine(owner);
	a->opens = a->kind == TCP && !bpf_skb_load_bytes(skb, a->l4 + offsetof(struct tcp_header, flags), &flags, sizeof(flags)) &&
		   (flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
	return keep(skb, a);
}

/* let_in lets up what our own device gives back, and counts what was held. */
static __noinline int let_in(struct __sk_buff *skb, __u32 mark)
{
	struct arrival *a = this_arrival();
	ALONE struct iphdr ip;
	struct holding *h;

	if (!a || MARK_OF(mark) != RELEASED)
		return NEXT;
	if (load_ipv4(skb, &ip))
		find_flow4(skb, &ip, ip.daddr, a);
	else if (!find_flow6(skb))
		return NEXT;
	if (a->kind != TCP)
		return NEXT;
	h = bpf_map_lookup_elem(&holdings, &a->flow);
	if (h)
		__sync_fetch_and_add(&h->released, 1);
	return NEXT;
}

SEC("tc")
int agent_ingress(struct __sk_buff *skb)
{
	__u32 mark = skb->mark, what = MARK_OF(mark);

	if (what == LET_IN || what == RELEASED) {
		skb->mark = 0;
		return let_in(skb, mark);
	}
	if (what == FORWARDED)
		skb->mark = 0;
	return skb->protocol == bpf_htons(ETH_P_IPV6) ? ingress6(skb, mark) : ingress4(skb, mark);
}

/* forward_ingress is on our VXLAN device: what peers forward goes on into the interface where the server joins. What is held here has
 * been read before: packet sockets come first. */
SEC("tc")
int forward_ingress(struct __sk_buff *skb)
{
	__u64 key[6]; /* struct bpf_tunnel_key */
	struct forwarding *f;
	ALONE __u32 remote;

	if (MARK_OF(skb->mark) == HELD)
		return DROP;
	f = forwarding_now();
	if (!f || bpf_skb_get_tunnel_key(skb, (void *)key, sizeof(struct bpf_tunnel_key), 0))
		goto refuse;
	remote = key[0] >> 32;
	if (!bpf_map_lookup_elem(&peers, &remote) || !as_ours(skb, own_mac))
		goto refuse;
	skb->mark = MARK(FORWARDED, (__u32)key[0] & 0xffffff);
	return bpf_redirect(f->main, BPF_F_INGRESS);
refuse:
	COUNT(not_peer, 1);
	return DROP;
}

/* forward_egress is on our VXLAN device, too: what its reader writes goes up as if it had come by the interface where the server joins. */
SEC("tc")
int forward_egress(struct __sk_buff *skb)
{
	__u32 what = MARK_OF(skb->mark);
	struct forwarding *f = forwarding_now();

	if ((what != LET_IN && what != RELEASED) || !f)
		return NEXT;
	return bpf_redirect(f->main, BPF_F_INGRESS);
}

/* set_mss replaces the value of the option at off. Where it does not lie on a 16-bit word of the segment, the checksum sees its
 * bytes the other way round. */
static __always_inline bool set_mss(struct __sk_buff *skb, __u32 l4, __u32 off, __be16 was, __be16 max)
{
	ALONE __be16 mss = max;
	__u32 sum = l4 + offsetof(struct tcphdr, check);
	bool odd = (off - l4) & 1;
	long err;

	if (odd)
		err = bpf_l4_csum_replace(skb, sum, __builtin_bswap16(was), __builtin_bswap16(mss), 2);
	else
		err = bpf_l4_csum_replace(skb, sum, was, mss, 2);
	return !err && !bpf_skb_store_bytes(skb, off + 2, &mss, sizeof(mss), 0);
}

/* The options stay in the packet: on the stack, at an offset that varies, only a loader with CAP_PERFMON may read them. */
struct walk {
	struct __sk_buff *skb;
	__u64 at;  /* where the walk is; at the MSS option once it is found */
	__u64 end; /* of the options */
	__u64 found;
};

/* forgotten is x; the verifier knows nothing of it. That of Linux 6.1 takes the steps of bpf_loop for one at most: where the walk
 * begins at an even offset it finds that no option lies at an odd one, and removes the branch for those. */
static __always_inline __u64 forgotten(__u64 x)
{
	asm volatile("%0 = -%0\n%0 = -%0" : "+r"(x));
	return x;
}

/* step goes over one option; 1 ends the walk, as do options that make no sense. */
static long step(__u32 i, struct walk *w)
{
	ALONE struct {
		__u8 kind, length;
	} option;

	if (w->at + TCP_MSS_LENGTH > w->end || bpf_skb_load_bytes(w->skb, w->at, &option, sizeof(option)))
		return 1;
	if (option.kind == 1) { /* no operation */
		w->at++;
		return 0;
	}
	if (option.kind == 0 || option.length < 2)
		return 1;
	if (option.kind == TCP_MSS_KIND && option.length == TCP_MSS_LENGTH) {
		w->found = 1;
		return 1;
	}
	w->at += option.length;
	return 0;
}

/* clamp_mss finds the MSS option of a segment whose header is so long, and lowers its value. */
static __always_inline void clamp_mss(struct __sk_buff *skb, __u32 l4, __u32 header)
{
	struct walk w = { .skb = skb, .at = forgotten(l4 + sizeof(struct tcphdr)), .end = l4 + header };
	ALONE __be16 was;

	bpf_loop(TCP_OPTIONS_MAX, step, &w, 0);
	if (!w.found || bpf_skb_load_bytes(skb, w.at + 2, &was, sizeof(was)))
		return;
	if (bpf_ntohs(was) > mss_max && set_mss(skb, l4, w.at, was, bpf_htons(mss_max)))
		COUNT(clamped, 1);
}

/* count_answer counts what goes to users, too. */
static __always_inline void count_answer(struct __sk_buff *skb, const __be32 *group)
{
	struct traffic *t = bpf_map_lookup_elem(&traffic, group);

	if (!t)
		return;
	t->packets++;
	t->bytes += skb->len;
}

SEC("tc")
int agent_egress(struct __sk_buff *skb)
{
	ALONE struct iphdr ip;
	ALONE struct ports ports;
	__be32 *group;
	__u64 key;
	__u32 l4;
	ALONE __u8 bits[2]; /* data offset, flags */

	if (!load_ipv4(skb, &ip) || is_later_fragment(&ip) || (ip.protocol != IPPROTO_TCP && ip.protocol != IPPROTO_UDP))
		return NEXT;
	l4 = l4_offset(&ip);
	if (!load_ports(skb, l4, &ports))
		return NEXT;
	key = port_key(ip.saddr, ports.src, ip.protocol);
	group = bpf_map_lookup_elem(&services, &key);
	if (!group)
		return NEXT;
	count_answer(skb, group);
	/* The 13th byte on: data offset and flags. */
	if (!mss_max || ip.protocol != IPPROTO_TCP || bpf_skb_load_bytes(skb, l4 + 12, bits, sizeof(bits)) || !(bits[1] & TCP_SYN))
		return NEXT;
	clamp_mss(skb, l4, (bits[0] >> 4) * 4);
	return NEXT;
}

char _license[] SEC("license") = "Dual BSD/GPL";
