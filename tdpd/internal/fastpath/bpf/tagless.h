/* SPDX-License-Identifier: Dual BSD/GPL */
/*
 * Packets for a VIP that came without a tag from another router, and go along a tree here: where the VIP's service is tagged upstream for
 * users who are active alone, that router is to hear of them. Who tells it is told once a second of a user; that is a limit, and no state:
 * what is forgotten of it, or finds no room, is told with another packet.
 */
#ifndef MANYCAST_TAGLESS_H
#define MANYCAST_TAGLESS_H

#define TAGLESS_EVERY 1000000000ULL /* nanoseconds */
#define TAGLESS_USERS (1 << 16)
#define TAGLESS_BYTES (1 << 18)

/* Not 0: there are VIPs that are told of. Else no packet costs more than a look at this. */
volatile __u32 fast_tells;

/* What is told; addresses of IPv4 as mapped, a user of IPv6 by its first 64 bits. */
struct fast_tagless {
	__u64 vip[2];
	__u64 user[2];
	__u32 ifindex;
	__u8 mac[ETH_ALEN]; /* who sent it */
	__u8 pad[6];
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, TAGLESS_BYTES);
} fast_tagless SEC(".maps");

struct fast_seen {
	__u64 vip[2];
	__u64 user;
};

/* When a user was told of: nanoseconds since boot. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, TAGLESS_USERS);
	__type(key, struct fast_seen);
	__type(value, __u64);
} fast_seen SEC(".maps");

/* seen_of is what a packet for a VIP is told of as; false: it is an ICMP error, or of a user who is told apart by port, whom routers upstream
 * tag anyhow.
 */
static __always_inline bool seen_of(struct ethhdr *eth, void *end, __u32 user, struct fast_seen *seen)
{
	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = (void *)(eth + 1);
		if ((void *)(ip + 1) > end)
			return false;
		seen->vip[0] = 0;
		seen->vip[1] = WORD(bpf_htonl(0xffff), ip->daddr);
		seen->user = ip->saddr;
		return bpf_ntohl(ip->saddr) == user;
	}
	struct ipv6hdr *ip = (void *)(eth + 1);
	if ((void *)(ip + 1) > end)
		return false;
	__u32 *src = ip->saddr.s6_addr32, *dst = ip->daddr.s6_addr32;
	seen->vip[0] = WORD(dst[0], dst[1]);
	seen->vip[1] = WORD(dst[2], dst[3]);
	seen->user = WORD(src[0], src[1]);
	return steer_standin((__u64)bpf_ntohl(src[0]) << 32 | bpf_ntohl(src[1])) == user;
}

/* fast_tell tells of a packet, as it came, for a VIP. It is a function for its stack and its size, and not one that the verifier looks at by
 * itself: a kernel without BTF knows no context in those.
 */
static __noinline int fast_tell(struct xdp_md *ctx, __u32 user)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct fast_seen seen;

	if ((void *)(eth + 1) > end || !seen_of(eth, end, user, &seen))
		return 0;
	struct fast_service *service = bpf_map_lookup_elem(&fast_services, &seen.vip);
	if (!service || !(service->flags & SERVICE_TELL))
		return 0;
	__u64 now = bpf_ktime_get_ns(), *last = bpf_map_lookup_elem(&fast_seen, &seen);
	if (last && now - *last < TAGLESS_EVERY)
		return 0;
	struct fast_tagless *t = bpf_ringbuf_reserve(&fast_tagless, sizeof(*t), 0);
	if (!t)
		return 0;
	bool four = eth->h_proto == bpf_htons(ETH_P_IP);
	t->vip[0] = seen.vip[0];
	t->vip[1] = seen.vip[1];
	t->user[0] = four ? 0 : seen.user;
	t->user[1] = four ? WORD(bpf_htonl(0xffff), seen.user) : 0;
	t->ifindex = ctx->ingress_ifindex;
	__builtin_memcpy(t->mac, eth->h_source, ETH_ALEN);
	__builtin_memset(t->pad, 0, sizeof(t->pad));
	bpf_ringbuf_submit(t, 0);
	bpf_map_update_elem(&fast_seen, &seen, &now, BPF_ANY);
	return 0;
}

#endif
