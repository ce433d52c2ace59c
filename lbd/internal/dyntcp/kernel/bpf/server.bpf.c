// SPDX-License-Identifier: Dual BSD/GPL
/* The server's side of dynamic TCP (Fig 20, 21). Who offers to be moved is answered with where this server is, and is served there: segments for the
 * server's own address come to the socket at the VIP, answers leave from where the user sends to. What is known of a connection ends with it. */
#include "known.h"
#include "mark.h"
#include "option.h"

#define ELSEWHERE_EVERY 1000000000ULL /* of a connection, ns */

#define STATE_TIME_WAIT 6 /* include/net/tcp_states.h */
#define STATE_LISTEN 10
#define STATE_NEW_SYN_RECV 12
#define SOL_TCP 6
#define TCP_SAVE_SYN_OPTION 27

/* ServerCounters of server.go, in its order. */
struct server_counters {
	__u64 answered;
	__u64 no_room;
	__u64 established;
	__u64 no_memory;
	__u64 received;
	__u64 sent;
	__u64 followed;
	__u64 errors;
	__u64 failed;
	__u64 heard;
	__u64 heard_lost;
	__u64 doubted;
	__u64 elsewhere;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct server_counters);
} counters SEC(".maps");

#define COUNT(field)                                                              \
	do {                                                                      \
		static const __u32 zero = 0;                                      \
		struct server_counters *c = bpf_map_lookup_elem(&counters, &zero); \
		if (c)                                                            \
			c->field++;                                               \
	} while (0)

/* Where this server is for a VIP and port, and the other way round. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, struct place);
	__type(value, struct place);
} services SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, struct place);
	__type(value, struct place);
} destinations SEC(".maps");

/* Ports of services: whoever listens at one may be a service's listener, whatever its address. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, __u32); /* __be16 */
	__type(value, __u32);
} ports SEC(".maps");

/* serverMapValue in Go. */
struct connection {
	__u64 cookie;
	__u64 tag;
	__u64 sequence;
	struct place destination;
	__u64 heard; /* the user sends to destination */
	__u64 elsewhere; /* when it was last told that it does not: ns since boot */
};

/* Connections that were made here. Storage of sockets is dear to make. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, struct flow);
	__type(value, struct connection);
} made SEC(".maps");

/* Connections that came here, and those for which there was no room: what is known of them lies with their sockets. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct connection);
} connections SEC(".maps");

/* The numbers of the last segment at destination of handshakes that may end there. Each flow has one place, which it shares with others: to lose it
 * costs the first answers their source. */
#define ARRIVALS_BITS 12

struct arrival {
	struct flow flow;
	__u64 numbers;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1 << ARRIVALS_BITS);
	__type(key, __u32);
	__type(value, struct arrival);
} arrivals SEC(".maps");

/* Connections that were here: their segments come to the VIP as if they were, for whoever knows where to they went. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 131072);
	__type(key, struct flow);
	__type(value, __u32);
} follows SEC(".maps");

struct heard {
	struct flow flow;
	__u64 cookie;
	__u64 tag;
	__u64 sequence;
	__u64 elsewhere; /* not at destination */
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 18);
} hearings SEC(".maps");

/* Sequence and acknowledgement as a segment has them. */
#define NUMBERS(seq, ack) WORD(bpf_htonl(seq), bpf_htonl(ack))

/* ---- connections */

static __always_inline bool is_service_port(__be16 port)
{
	ALONE __u32 key = port;

	return bpf_map_lookup_elem(&ports, &key);
}

/* listens: what a SYN had is kept for the child, so that the option is known at the handshake's end. */
static __always_inline int listens(struct bpf_sock_ops *ctx)
{
	int one = 1;

	if (!is_service_port(local_port(ctx)))
		return 1;
	bpf_setsockopt(ctx, SOL_TCP, TCP_SAVE_SYN_OPTION, &one, sizeof(one));
	bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG);
	return 1;
}

static __always_inline struct place *destination_of(struct bpf_sock_ops *ctx, struct flow *flow)
{
	struct place vip;

	if (!ends_of(ctx, flow->vip, flow->user))
		return 0;
	flow->ports = HALF(remote_port(ctx), local_port(ctx));
	vip.address[0] = flow->vip[0];
	vip.address[1] = flow->vip[1];
	vip.port = local_port(ctx);
	return bpf_map_lookup_elem(&services, &vip);
}

static __always_inline bool is_synack(struct bpf_sock_ops *ctx)
{
	return (ctx->skb_tcp_flags & (SYN | ACK)) == (SYN | ACK);
}

/* offered finds the option of the SYN. */
static __always_inline bool offered(struct bpf_sock_ops *ctx, struct option *o)
{
	return load_option(ctx, o, BPF_LOAD_HDR_OPT_TCP_SYN) && o->length == DYNTCP_OPTION_SIZE;
}

/* no_more: a child has its listener's flags, but its own segments have no option. Sockets of a client beside, which connect, have flags of their own. */
static __always_inline int no_more(struct bpf_sock_ops *ctx)
{
	bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags & ~BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG);
	return 1;
}

/* reserve: of IPv4 the destination is in the answer, where there is room; of IPv6 there is never. */
static __noinline int reserve(struct bpf_sock_ops *ctx)
{
	struct place *to;
	struct option o;
	struct flow flow;

	if (ctx->args[0] == BPF_WRITE_HDR_TCP_CURRENT_MSS)
		return 1;
	if (!is_synack(ctx))
		return is_service_port(local_port(ctx)) ? no_more(ctx) : 1;
	to = destination_of(ctx, &flow);
	if (!to || !offered(ctx, &o))
		return 1;
	if (IS_MAPPED(to->address) && !bpf_reserve_hdr_opt(ctx, DYNTCP_OPTION_DESTINATION_SIZE, 0))
		return 1;
	if (bpf_reserve_hdr_opt(ctx, DYNTCP_OPTION_SIZE, 0))
		COUNT(no_room);
	return 1;
}

static __noinline int write(struct bpf_sock_ops *ctx)
{
	struct place *to;
	struct option o;
	struct flow flow;

	if (!is_synack(ctx))
		return 1;
	to = destination_of(ctx, &flow);
	if (!to || !offered(ctx, &o))
		return 1;
	if ((IS_MAPPED(to->address) && store_destination(ctx, option_tag(&o), option_cookie(&o), ADDRESS4(to->address), to->port)) ||
	    store_option(ctx, option_tag(&o), option_cookie(&o)))
		COUNT(answered);
	return 1;
}

static __always_inline struct arrival *arrival_of(const struct flow *flow)
{
	__u64 mixed = (flow->user[0] ^ flow->user[1] ^ flow->ports) * 0x9e3779b97f4a7c15; /* Fibonacci hashing */
	ALONE __u32 place = mixed >> (64 - ARRIVALS_BITS);

	return bpf_map_lookup_elem(&arrivals, &place);
}

static __always_inline bool is_same(const struct flow *a, const struct flow *b)
{
	return a->user[0] == b->user[0] && a->user[1] == b->user[1] && a->vip[0] == b->vip[0] && a->vip[1] == b->vip[1] && a->ports == b->ports;
}

/* ended_at_destination says whether it is the segment that ends the handshake that came to destination: so say its numbers. */
static __always_inline bool ended_at_destination(struct bpf_sock_ops *ctx, const struct flow *flow)
{
	struct arrival *arrived = arrival_of(flow);
	bool is;

	if (!arrived || !is_same(&arrived->flow, flow))
		return false;
	is = arrived->numbers == NUMBERS(ctx->rcv_nxt, ctx->snd_nxt);
	arrived->flow.ports = 0;
	if (!is)
		COUNT(doubted);
	return is;
}

/* keep keeps what is known of a connection: with its socket, where there is no room. */
static __always_inline bool keep(struct bpf_sock_ops *ctx, const struct flow *flow, struct connection *c)
{
	struct bpf_sock *sk;

	if (!bpf_map_update_elem(&made, flow, c, BPF_ANY)) {
		bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
		return true;
	}
	sk = ctx->sk;
	return sk && bpf_sk_storage_get(&connections, sk, c, BPF_SK_STORAGE_GET_F_CREATE);
}

/* established: a server that answered with a SYN cookie knows nothing of the SYN, but the option comes again with what ends the handshake. */
static __noinline int established(struct bpf_sock_ops *ctx)
{
	struct connection c = {};
	struct place *to;
	struct option o;
	struct flow flow;

	if (!is_service_port(local_port(ctx)) || !is_ours(ctx))
		return 1;
	if (!(ctx->skb_tcp_flags & SYN)) /* with fast open the SYN-ACK is yet to come, from the child */
		no_more(ctx);
	to = destination_of(ctx, &flow);
	if (!to || (!offered(ctx, &o) && !(load_option(ctx, &o, 0) && o.length == DYNTCP_OPTION_SIZE)))
		return 1;
	c.cookie = option_cookie(&o);
	c.tag = option_tag(&o);
	c.destination = *to;
	c.heard = ended_at_destination(ctx, &flow);
	if (keep(ctx, &flow, &c))
		COUNT(established);
	else
		COUNT(no_memory);
	return 1;
}

/* ends: what is in TIME-WAIT has no more to say. */
static __noinline int ends(struct bpf_sock_ops *ctx)
{
	struct flow flow;

	if (ctx->args[1] == STATE_CLOSE && ends_of(ctx, flow.vip, flow.user)) {
		flow.ports = HALF(remote_port(ctx), local_port(ctx));
		bpf_map_delete_elem(&made, &flow);
	}
	return 1;
}

SEC("sockops")
int server_connections(struct bpf_sock_ops *ctx)
{
	switch (ctx->op) {
	case BPF_SOCK_OPS_TCP_LISTEN_CB:
		return is_ours(ctx) ? listens(ctx) : 1;
	case BPF_SOCK_OPS_HDR_OPT_LEN_CB:
		return is_ours(ctx) ? reserve(ctx) : 1;
	case BPF_SOCK_OPS_WRITE_HDR_OPT_CB:
		return is_ours(ctx) ? write(ctx) : 1;
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		return established(ctx);
	case BPF_SOCK_OPS_STATE_CB:
		return is_ours(ctx) ? ends(ctx) : 1;
	}
	return 1;
}

/* ---- packets */

static __always_inline int done(bool ok)
{
	if (ok)
		return NEXT;
	COUNT(failed);
	return DROP;
}

/* connection_at is the socket of exactly this flow, or a listener of its VIP. */
static __always_inline struct bpf_sock *connection_at(struct __sk_buff *skb, const struct flow *flow, __u64 *room)
{
	return socket_of(skb, flow->user, flow->vip, flow->ports, room);
}

/* connection_of is what is known of the connection of a flow, which is a socket's. */
static __always_inline struct connection *connection_of(const struct flow *flow, struct bpf_sock *sk)
{
	struct connection *c = bpf_map_lookup_elem(&made, flow);

	return c ?: bpf_sk_storage_get(&connections, sk, 0, 0);
}

/* is_here says whether there is a connection of a flow, not only a listener. */
static __noinline bool is_here(struct __sk_buff *skb, struct segment *s, const struct flow *flow)
{
	struct bpf_sock *sk = connection_at(skb, flow, s->words);
	bool here;

	if (!sk)
		return false;
	here = sk->state != STATE_LISTEN;
	bpf_sk_release(sk);
	return here;
}

/* load_numbers is false for what is not to be believed whatever its numbers are: they count with an acknowledgement, and a reset ends all. */
static __always_inline bool load_numbers(struct __sk_buff *skb, const struct segment *s, __u64 *numbers)
{
	__u64 words[2]; /* of struct tcphdr, from the sequence on */

	if (bpf_skb_load_bytes(skb, s->l4 + offsetof(struct tcphdr, seq), words, sizeof(words)))
		return false;
	*numbers = words[0];
	return (words[1] >> 8 & (ACK | RST)) == ACK;
}

/* is_next says whether a connection's TCP takes a segment as the next one: it begins where what has come ends, and acknowledges what is on its way, or
 * all that was (RFC 9293 section 3.10.7.4 takes more: what is out of order, too, but the next one after that will do). Who does not see the
 * connection has both to guess, and who guesses them could write into its stream. */
static __always_inline bool is_next(struct __sk_buff *skb, const struct segment *s, struct bpf_sock *sk)
{
	struct bpf_tcp_sock *tcp = bpf_tcp_sock(sk);
	__u64 numbers;
	__u32 ack;

	if (!tcp || !load_numbers(skb, s, &numbers))
		return false;
	ack = bpf_ntohl(numbers >> 32);
	return bpf_ntohl(numbers) == tcp->rcv_nxt && ack - tcp->snd_una <= tcp->snd_nxt - tcp->snd_una;
}

/* tell tells user space where a user is heard. */
static __always_inline void tell(const struct flow *flow, const struct connection *c, bool elsewhere)
{
	struct heard *h;

	h = bpf_ringbuf_reserve(&hearings, sizeof(*h), 0);
	if (!h) {
		COUNT(heard_lost);
		return;
	}
	h->flow = *flow;
	h->cookie = c->cookie;
	h->tag = c->tag;
	h->sequence = c->sequence;
	h->elsewhere = elsewhere;
	bpf_ringbuf_submit(h, 0);
}

/* hear: a user has come to destination. */
static __always_inline void hear(const struct flow *flow, struct connection *c)
{
	c->heard = 1;
	COUNT(heard);
	tell(flow, c, false);
}

/* miss: a user is elsewhere. It takes no answers from destination then. */
static __always_inline void miss(const struct flow *flow, struct connection *c)
{
	__u64 now = bpf_ktime_get_boot_ns();

	if (now - c->elsewhere < ELSEWHERE_EVERY)
		return;
	c->elsewhere = now;
	c->heard = 0;
	COUNT(elsewhere);
	tell(flow, c, true);
}

enum whose { OTHERS, OURS, MAYBE_OURS, REQUESTED, NOBODYS };

/* is_at: who is heard at another place of this server may not know of this one yet. */
static __always_inline bool is_at(const struct connection *c, const struct segment *s)
{
	return c->destination.address[0] == s->dst[0] && c->destination.address[1] == s->dst[1] && c->destination.port == SECOND_PORT(s->ports);
}

/* arrives keeps the numbers of what may end a handshake: only when it has ended they can be compared. */
static __always_inline void arrives(struct __sk_buff *skb, const struct segment *s, const struct flow *flow)
{
	struct arrival *arrived = arrival_of(flow);
	__u64 numbers;

	if (!arrived || !load_numbers(skb, s, &numbers))
		return;
	arrived->flow = *flow;
	arrived->numbers = numbers;
}

/* listen_for hears a user who comes to where the connection is. */
static __always_inline void listen_for(struct __sk_buff *skb, const struct segment *s, const struct flow *flow, struct connection *c, struct bpf_sock *sk)
{
	if (c->heard || !is_at(c, s))
		return;
	if (is_next(skb, s, sk))
		hear(flow, c);
	else
		COUNT(doubted);
}

/* made_here: where the user is heard, the socket need not be looked for. */
static __noinline enum whose made_here(struct __sk_buff *skb, struct segment *s, const struct flow *flow, struct connection *c)
{
	struct bpf_sock *sk;

	if (c->heard)
		return OURS;
	sk = connection_at(skb, flow, s->words);
	if (!sk)
		return NOBODYS;
	listen_for(skb, s, flow, c, sk);
	bpf_sk_release(sk);
	return OURS;
}

/* whose says whether a socket of the VIP has the flow and can be moved. Of a request, and in TIME-WAIT, it is not known: it can.
 * Here and below what may be NULL is not asked about twice: Linux 6.1 follows also what a CPU could guess there, for who has no CAP_PERFMON. */
static __noinline enum whose whose(struct __sk_buff *skb, struct segment *s, const struct flow *flow)
{
	struct connection *c = bpf_map_lookup_elem(&made, flow);
	struct bpf_sock *sk;
	enum whose whose;

	if (c)
		return made_here(skb, s, flow, c);
	sk = connection_at(skb, flow, s->words);
	if (!sk)
		return NOBODYS;
	c = bpf_sk_storage_get(&connections, sk, 0, 0);
	if (c) {
		whose = OURS;
		listen_for(skb, s, flow, c, sk);
	} else if (sk->state == STATE_LISTEN) {
		whose = NOBODYS;
	} else if (sk->state == STATE_TIME_WAIT) {
		whose = MAYBE_OURS;
	} else if (sk->state == STATE_NEW_SYN_RECV) {
		whose = REQUESTED;
		arrives(skb, s, flow);
	} else {
		whose = OTHERS;
	}
	bpf_sk_release(sk);
	return whose;
}

/* has_option looks for it where Linux puts options, at multiples of 4 bytes. */
static __noinline bool has_option(struct __sk_buff *skb, const struct segment *s)
{
	__u64 words[DYNTCP_OPTIONS_MAX / 8] = {};
	ALONE __u8 offset;
	__u64 length;

	if (bpf_skb_load_bytes(skb, s->l4 + 12, &offset, sizeof(offset)))
		return false;
	length = (offset >> 4) * 4 - sizeof(struct tcphdr);
	if (length < DYNTCP_OPTION_SIZE || length > sizeof(words) || bpf_skb_load_bytes(skb, s->l4 + sizeof(struct tcphdr), words, length))
		return false;
#pragma unroll
	for (int i = 0; i <= DYNTCP_OPTIONS_MAX - 16; i += 4) {
		if (length < i + DYNTCP_OPTION_SIZE)
			return false;
		if ((__u32)(words[i / 8] >> i % 8 * 8) == (__u32)OPTION_BEGIN(DYNTCP_OPTION_SIZE))
			return true;
	}
	return false;
}

/* is_for_vip says whether a segment for this server's own address is for the VIP's socket. Who connects to that address itself is left alone. */
static __always_inline bool is_for_vip(struct __sk_buff *skb, struct segment *s, const struct flow *flow)
{
	enum whose it;

	if (has_flag(skb, s, SYN))
		return false;
	it = whose(skb, s, flow);
	if (it == OURS || (it == REQUESTED && has_option(skb, s)))
		return true;
	set_flow(&s->wire, s->src, s->dst, s->ports);
	if (is_here(skb, s, &s->wire) || it == OTHERS)
		return false;
	if (it != NOBODYS)
		return true;
	if (bpf_map_lookup_elem(&follows, flow)) {
		COUNT(followed);
		return true;
	}
	if (!has_option(skb, s))
		return false;
	arrives(skb, s, flow);
	return true;
}

static __noinline int to_destination(struct __sk_buff *skb, struct segment *s)
{
	struct place *vip;

	set_place(&s->place, s->dst, SECOND_PORT(s->ports));
	vip = bpf_map_lookup_elem(&destinations, &s->place);
	if (!vip)
		return NEXT;
	set_flow(&s->flow, s->src, vip->address, HALF(FIRST_PORT(s->ports), vip->port));
	if (!is_for_vip(skb, s, &s->flow))
		return NEXT;
	COUNT(received);
	return done(set_target(skb, s, vip));
}

/* sent_on: what another server sends on here shows that the user has not followed the connection's last move, or was led back. */
static __noinline int sent_on(struct __sk_buff *skb, struct segment *s)
{
	struct connection *c;
	struct bpf_sock *sk;

	set_flow(&s->flow, s->src, s->dst, s->ports);
	sk = connection_at(skb, &s->flow, s->words);
	if (!sk)
		return NEXT;
	c = connection_of(&s->flow, sk);
	if (c && c->sequence && is_next(skb, s, sk))
		miss(&s->flow, c);
	bpf_sk_release(sk);
	return NEXT;
}

/* about_answer gives what an error quotes the VIP: TCP knows it by that alone. */
static __noinline int about_answer(struct __sk_buff *skb, struct segment *s)
{
	struct place *vip;

	set_place(&s->place, s->src, FIRST_PORT(s->ports));
	vip = bpf_map_lookup_elem(&destinations, &s->place);
	if (!vip)
		return NEXT;
	set_flow(&s->flow, s->dst, vip->address, HALF(SECOND_PORT(s->ports), vip->port));
	if (!is_here(skb, s, &s->flow))
		return NEXT;
	COUNT(errors);
	return done(set_source(skb, s, vip));
}

SEC("tc")
int server_ingress(struct __sk_buff *skb)
{
	struct segment *s;

	if (is_nobodys(skb, TARGET, KNOWN_PLACE, false) && MARK_OF(skb->mark) != FORWARDED)
		return NEXT;
	s = segment_of(INGRESS);
	if (!s || !read(skb, s))
		return NEXT;
	if (s->what == TCP)
		return MARK_OF(skb->mark) == FORWARDED ? sent_on(skb, s) : to_destination(skb, s);
	if (s->what == TCP_ERROR)
		return about_answer(skb, s);
	return s->what == LATER ? done(follow_destination(skb, s)) : NEXT;
}

static __noinline int answer(struct __sk_buff *skb, struct segment *s, const struct connection *c)
{
	if (!c->heard)
		return NEXT;
	COUNT(sent);
	return done(set_source(skb, s, &c->destination));
}

/* from_vip: of a connection that came here only its socket can tell. */
static __noinline int from_vip(struct __sk_buff *skb, struct segment *s)
{
	struct connection *c;
	struct bpf_sock *sk;

	set_flow(&s->flow, s->dst, s->src, HALF(SECOND_PORT(s->ports), FIRST_PORT(s->ports)));
	c = bpf_map_lookup_elem(&made, &s->flow);
	if (c)
		return answer(skb, s, c);
	sk = skb->sk;
	if (!sk)
		return NEXT;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return NEXT;
	c = bpf_sk_storage_get(&connections, sk, 0, 0);
	return c ? answer(skb, s, c) : NEXT;
}

SEC("tc")
int server_egress(struct __sk_buff *skb)
{
	struct segment *s;

	if (is_udp(skb) || is_nobodys(skb, SOURCE, KNOWN_VIP, true))
		return NEXT;
	s = segment_of(EGRESS);
	if (!s || !read(skb, s))
		return NEXT;
	if (s->what == LATER)
		return done(follow_source(skb, s));
	return s->what == TCP && is_end_known(s, SOURCE, KNOWN_VIP) ? from_vip(skb, s) : NEXT;
}

/* named is the socket of a flow that is in a packet's place: user space runs these programs, which are at no hook. */
static __always_inline struct bpf_sock *named(struct __sk_buff *skb, struct flow *flow)
{
	__u64 room[5];

	return bpf_skb_load_bytes(skb, 0, flow, sizeof(*flow)) ? NULL : connection_at(skb, flow, room);
}

/* server_find writes what is known of the connection behind its flow. */
SEC("tc")
int server_find(struct __sk_buff *skb)
{
	struct flow flow;
	struct bpf_sock *sk = named(skb, &flow);
	struct connection *c;
	bool found;

	if (!sk)
		return 0;
	c = connection_of(&flow, sk);
	found = c && !bpf_skb_store_bytes(skb, sizeof(struct flow), c, sizeof(*c), 0);
	bpf_sk_release(sk);
	return found;
}

/* server_listen has the next segment at the connection's destination told though one was. */
SEC("tc")
int server_listen(struct __sk_buff *skb)
{
	struct flow flow;
	struct bpf_sock *sk = named(skb, &flow);
	struct connection *c;

	if (!sk)
		return 0;
	c = connection_of(&flow, sk);
	if (c)
		c->heard = 0;
	bpf_sk_release(sk);
	return !!c;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
