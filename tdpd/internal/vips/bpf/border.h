/* SPDX-License-Identifier: Dual BSD/GPL */
/* What nobody outside may send: labels. Include <linux/if_ether.h>, <stdbool.h> and <bpf/bpf_endian.h> first. */
#ifndef MANYCAST_BORDER_H
#define MANYCAST_BORDER_H

/* A VLAN tag (IEEE 802.1Q), and what is behind it. */
struct tag {
	__be16 vlan;
	__be16 proto;
};

#define MAX_TAGS 4 /* looked at */

static __always_inline bool is_tag(__be16 proto)
{
	return proto == bpf_htons(ETH_P_8021Q) || proto == bpf_htons(ETH_P_8021AD) || proto == bpf_htons(ETH_P_QINQ1);
}

/* has_label finds labels of unicast and of multicast (RFC 5332), behind VLAN tags, too; more of these than are looked at it takes for such. */
static __always_inline bool has_label(struct ethhdr *eth, void *end)
{
	struct tag *tag = (void *)(eth + 1);
	__be16 proto = eth->h_proto;

#pragma unroll
	for (int i = 0; i < MAX_TAGS && is_tag(proto); i++, tag++) {
		if ((void *)(tag + 1) > end)
			return false;
		proto = tag->proto;
	}
	return proto == bpf_htons(ETH_P_MPLS_UC) || proto == bpf_htons(ETH_P_MPLS_MC) || is_tag(proto);
}

#endif
