/* SPDX-License-Identifier: Dual BSD/GPL */
/* What the agent's programs count. */
#ifndef MANYCAST_COUNTERS_H
#define MANYCAST_COUNTERS_H

#include "packet.h"

/* AgentCounters of agent.go, in its order. */
struct agent_counters {
	__u64 delivered;
	__u64 bytes;
	__u64 fragments;
	__u64 icmp_errors;
	__u64 not_mine;
	__u64 no_port;
	__u64 malformed;
	__u64 clamped;
	__u64 lapsed;
	__u64 shed;
	__u64 forwarded_out;
	__u64 forwarded_on;
	__u64 forwarded_in;
	__u64 forward_returned;
	__u64 forward_ended;
	__u64 forward_failed;
	__u64 not_peer;
	__u64 hops_spent;
	__u64 held;
	__u64 held_lost; /* who reads our device counts them */
	__u64 passed;
	__u64 strays;
	__u64 strays_lost;
	__u64 fragments_followed;
	__u64 redirected;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct agent_counters);
} counters SEC(".maps");

#define COUNT(field, n)                                                                   \
	do {                                                                              \
		static const __u32 zero = 0;                                              \
		struct agent_counters *c = bpf_map_lookup_elem(&counters, &zero);         \
		if (c)                                                                    \
			c->field += (n);                                                  \
	} while (0)

#endif
