/* SPDX-License-Identifier: Dual BSD/GPL */
/*
 * The owner of a user, by the plan of a group. Include <linux/bpf.h>, <bpf/bpf_helpers.h> and <bpf/bpf_endian.h> first.
 * Package steer writes these maps.
 *
 *   steer_groups   group address -> group number
 *   steer_current  group number -> generation in force; one aligned 8-byte store switches a group
 *   steer_plans    generation -> index runs, masks
 *   steer_slots    generation -> slot table
 *   steer_entries  (generation, mask, address) -> owner: masked portions
 *   steer_users    generation -> overrides of one address, in lines of a cache line: a user is in its first or in its second line
 *
 * A generation is complete before it comes into force, does not change afterwards, and its number and its entries are used
 * again only after a grace period. So one lookup sees one plan.
 *
 * Daemons load it without CAP_PERFMON. For them the verifier of Linux 6.1 is stricter in two ways:
 *
 *   - It follows branches that a CPU could mispredict, too, and so goes on behind the end of a loop whose count it knows, round
 *     after round until a pointer leaves its map. So the loop over masks is unrolled: no such end, constant offsets.
 *   - It watches what is written to the stack: words.h.
 */
#ifndef MANYCAST_STEER_H
#define MANYCAST_STEER_H

#include "words.h"

/* A program with other needs defines these before, or its loader changes max_entries. */
#ifndef STEER_MAX_GROUPS
#define STEER_MAX_GROUPS 1023
#endif
#ifndef STEER_MAX_ENTRIES
#define STEER_MAX_ENTRIES 131072
#endif

#define STEER_MAX_PLANS (2 * STEER_MAX_GROUPS + 2) /* old and new of each; 0 is none */
#define STEER_RUNS 4
#define STEER_MASKS 32
#define STEER_LINE 16 /* slots in a cache line */
#define STEER_USERS 8 /* users in a cache line */

#define STEER_NOBODY 0U
#define STEER_NO_GROUP (~0U)

#define STEER_SLOT_EXACT (1U << 31)  /* some user of the slot has an override */
#define STEER_SLOT_MASKED (1U << 30) /* some masked portion lies in the slot */
#define STEER_SLOT_OWNER (STEER_SLOT_MASKED - 1)

/* A user is its address (upper half, host order), these flags and the owner. */
#define STEER_USER_MORE (1U << 31)  /* in a line's first: some whose first line it is are in their second */
#define STEER_USER_HERE (1U << 30) /* not an empty place */

struct steer_run {
	__u32 shift; /* right */
	__u32 mask;  /* after the shift */
};

struct steer_plan {
	__u64 digest[2]; /* of the whole plan, for a restarted daemon */
	struct steer_run runs[STEER_RUNS];
	__u32 masks_len;
	__u32 users_len; /* lines */
	__u32 users_seed;
	__be32 by_port; /* the group whose plan is of users that are told apart by port, too; 0: there is none */
	__u32 masks[STEER_MASKS]; /* host order, most specific first */
};

struct steer_line {
	__u32 slot[STEER_LINE];
};

struct steer_users {
	__u64 user[STEER_USERS];
};

struct steer_key {
	__u32 generation;
	__u32 mask; /* host order */
	__u32 addr; /* host order */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, STEER_MAX_GROUPS);
	__type(key, __be32);
	__type(value, __u32);
} steer_groups SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, STEER_MAX_GROUPS);
	__type(key, __u32);
	__type(value, __u64);
} steer_current SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, STEER_MAX_PLANS);
	__type(key, __u32);
	__type(value, struct steer_plan);
} steer_plans SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, STEER_MAX_PLANS);
	__type(key, __u32);
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_ARRAY);
		__uint(map_flags, BPF_F_INNER_MAP);
		__uint(max_entries, 1);
		__uint(key_size, sizeof(__u32)); /* sizes: clang 14 leaves the types of an inner map incomplete */
		__uint(value_size, sizeof(struct steer_line));
	});
} steer_slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, STEER_MAX_ENTRIES);
	__type(key, struct steer_key);
	__type(value, __u32);
} steer_entries SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, STEER_MAX_PLANS);
	__type(key, __u32);
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_ARRAY);
		__uint(map_flags, BPF_F_INNER_MAP | BPF_F_MMAPABLE);
		__uint(max_entries, 1);
		__uint(key_size, sizeof(__u32));
		__uint(value_size, sizeof(struct steer_users));
	});
} steer_users SEC(".maps");

static __always_inline __u32 *steer_entry(__u32 generation, __u32 mask, __u32 addr)
{
	struct {
		__u64 generation_mask;
		__u32 addr;
	} key = { WORD(generation, mask), addr & mask }; /* struct steer_key */

	return bpf_map_lookup_elem(&steer_entries, &key);
}

/* steer_in returns the user's override that is in a line, 0: it is not there. */
static __always_inline __u32 steer_in(struct steer_users *line, __u32 addr)
{
#pragma unroll
	for (int i = 0; i < STEER_USERS; i++) {
		__u64 user = *(volatile __u64 *)&line->user[i]; /* read once: it may change */
		if (user >> 32 == addr && user & STEER_USER_HERE)
			return user;
	}
	return 0;
}

/* steer_user returns the user's override, with STEER_USER_HERE; 0: it has none. */
static __always_inline __u32 steer_user(__u32 generation, const struct steer_plan *plan, __u32 addr)
{
	ALONE __u32 key = generation;
	void *table = bpf_map_lookup_elem(&steer_users, &key);
	if (!table)
		return 0;
	__u32 hash = (addr ^ plan->users_seed) * 0x9e3779b1U, lines = plan->users_len;
	hash = (hash ^ hash >> 15) * 0x85ebca77U;
	ALONE __u32 first = (__u64)hash * lines >> 32;
	struct steer_users *line = bpf_map_lookup_elem(table, &first);
	if (!line)
		return 0;
	__u32 user = steer_in(line, addr);
	if (user || !(line->user[0] & STEER_USER_MORE))
		return user;
	hash = (hash ^ hash >> 13) * 0xc2b2ae3dU;
	ALONE __u32 second = (__u64)hash * lines >> 32;
	line = bpf_map_lookup_elem(table, &second);
	return line ? steer_in(line, addr) : 0;
}

/* steer_plan_of finds the plan of a group that is in force, and its generation; 0: the group has none here. */
static __always_inline struct steer_plan *steer_plan_of(__be32 group, __u32 *generation)
{
	ALONE __be32 key = group;
	__u32 *number = bpf_map_lookup_elem(&steer_groups, &key);
	if (!number)
		return 0;
	ALONE __u32 n = *number;
	volatile __u64 *current = bpf_map_lookup_elem(&steer_current, &n);
	if (!current)
		return 0;
	ALONE __u32 g = *current;
	*generation = g;
	return bpf_map_lookup_elem(&steer_plans, &g);
}

/* steer_by returns the number of the user's owner in that plan, as steer_owner does. */
static __always_inline __u32 steer_by(struct steer_plan *plan, __u32 generation, __u32 user)
{
	ALONE __u32 key = generation;
	void *slots = bpf_map_lookup_elem(&steer_slots, &key);
	if (!slots)
		return STEER_NO_GROUP;

	__u32 addr = user, index = 0;
#pragma unroll
	for (int i = 0; i < STEER_RUNS; i++)
		index |= (addr >> (plan->runs[i].shift & 31)) & plan->runs[i].mask;
	ALONE __u32 at = index / STEER_LINE;
	struct steer_line *line = bpf_map_lookup_elem(slots, &at);
	if (!line)
		return STEER_NOBODY;
	__u32 slot = line->slot[index % STEER_LINE];

	if (slot & STEER_SLOT_EXACT) {
		__u32 user = steer_user(generation, plan, addr);
		if (user)
			return user & STEER_SLOT_OWNER;
	}
	if (slot & STEER_SLOT_MASKED) {
#pragma unroll
		for (__u32 i = 0; i < STEER_MASKS; i++) {
			if (i >= plan->masks_len)
				break;
			__u32 *owner = steer_entry(generation, plan->masks[i], addr);
			if (owner)
				return *owner;
		}
	}
	return slot & STEER_SLOT_OWNER;
}

/*
 * steer_owner returns the number of the user's owner in the group's plan, STEER_NOBODY if nobody owns it, or
 * STEER_NO_GROUP if the group has no plan here. The user is in host order: an address of IPv4, or what stands in for one.
 */
static __always_inline __u32 steer_owner(__be32 group, __u32 user)
{
	__u32 generation;
	struct steer_plan *plan = steer_plan_of(group, &generation);

	return plan ? steer_by(plan, generation, user) : STEER_NO_GROUP;
}

/* steer_lookup is steer_owner of an address. */
static __always_inline __u32 steer_lookup(__be32 group, __be32 user)
{
	return steer_owner(group, bpf_ntohl(user));
}

/* steer_standin is what stands in for a user of IPv6, by the first half of its address (host order): Standin in Go. */
static __always_inline __u32 steer_standin(__u64 prefix)
{
	prefix = (prefix ^ prefix >> 33) * 0xff51afd7ed558ccdULL;
	prefix = (prefix ^ prefix >> 33) * 0xc4ceb9fe1a85ec53ULL;
	return prefix >> 32;
}

/* steer_flow is what stands in for what a user sends from one port (host order), where ports tell it apart: Flow in Go. */
static __always_inline __u32 steer_flow(__u32 user, __u16 port)
{
	return steer_standin((__u64)user << 16 | port);
}

#endif
