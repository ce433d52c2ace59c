// SPDX-License-Identifier: Dual BSD/GPL
/* The user's side of dynamic TCP (Fig 20, 21). Connections to a service say by an option that they can move; segments go to where a connection is,
 * and the application sees the address that it connected to. Changes of destination are taken here, and go on to user space when they are of a
 * connection that there is: neither the kernel nor applications see any. Several clients, each of its control group, have programs of their own. */
#include "known.h"
#include "option.h"
#include "siphash.h"

#define SYNS_WITH_OPTION 2 /* the third goes without: something between may drop what it does not know */
#define STATE_FIN_WAIT1 4 /* include/net/tcp_states.h */
#define STATE_FIN_WAIT2 5
#define STATE_CLOSING 11
#define ENDED 60000000000ULL /* TIME-WAIT, ns: include/net/tcp.h */
#define CHANGES_PER_SECOND 1000 /* to user space, of each CPU: a signature is to be checked for each */
#define CHANGES_AT_ONCE 64
#define CHANGES_OF_ONE_PER_SECOND 50 /* of one connection: who floods it takes nothing from others */
#define CHANGES_OF_ONE_AT_ONCE 20
#define TAKEN 0x4d44 /* the reply to a connect that is some client's */

/* Of cookies: drawn anew by each process. */
volatile const __u64 secret[2] = {};

/* ClientCounters of client.go, in its order. */
struct client_counters {
	__u64 offered;
	__u64 agreed;
	__u64 plain;
	__u64 mismatched;
	__u64 not_published;
	__u64 no_room;
	__u64 table_full;
	__u64 sent;
	__u64 received;
	__u64 errors;
	__u64 failed;
	__u64 resets_ahead;
	__u64 change_malformed;
	__u64 change_unknown;
	__u64 change_tag;
	__u64 change_cookie;
	__u64 change_old;
	__u64 change_passed;
	__u64 change_lost;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct client_counters);
} counters SEC(".maps");

#define COUNT(field)                                                              \
	do {                                                                      \
		static const __u32 zero = 0;                                      \
		struct client_counters *c = bpf_map_lookup_elem(&counters, &zero); \
		if (c)                                                            \
			c->field++;                                               \
	} while (0)

/* Numbers of services by their VIP and port. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, struct place);
	__type(value, __u64);
} services SEC(".maps");

/* Addresses that begin alike, of one of several. */
struct prefix {
	__u64 length_of; /* bits, the 32 of the number behind it included; whose: 32 bits */
	__u64 address[2];
};

/* Where servers of a service may be. */

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct prefix);
	__type(value, __u32);
} published SEC(".maps");

/* By which ways packets leave by an interface: ways.go. */
struct way {
	__u64 hop[2]; /* ::, the destination is on the link */
	__u64 hops; /* names all the next hops that there are */
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct prefix);
	__type(value, struct way);
} ways SEC(".maps");

/* When the ways were written, ns since boot: so no other process's moment is the same. */
volatile __u64 ways_at;

/* What a socket says in its SYN, until the server is heard. Storage of sockets is dear to make, so each has a place of many, by its number: who begins so
 * many later takes it, and a handshake that lasts so long ends plain. */
#define HANDSHAKES 16384

struct handshake {
	__u64 socket;
	__u64 service;
	__u64 cookie;
	__u64 tag;
	__u64 syns; /* that had the option */
	__u64 keep; /* flags of callbacks that others had set */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, HANDSHAKES);
	__type(key, __u32);
	__type(value, struct handshake);
} handshakes SEC(".maps");

/* connectionMapValue in Go, which alone changes where it is; the lock keeps anybody from seeing half of that. */
struct connection {
	struct bpf_spin_lock lock;
	__u32 moves;
	struct place now;
	struct place before; /* port 0: there is none */
	__u64 sequence;
	__u64 cookie;
	__u64 tag;
	__u64 opened; /* ns since boot */
	__u64 ended;  /* it is over, and its port in TIME-WAIT */
	__u64 change_at; /* when its next change may be given to user space: ns since boot; each move begins it anew */
	__u64 stays; /* when its frames were for the VIP's next hop: stay_of */
	struct place first; /* where it is until it moves: nobody changes this, so it takes no lock */
	__u64 has_origins;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 131072);
	__type(key, struct flow);
	__type(value, struct connection);
} connections SEC(".maps");

/* Whose connections are at a place at first: the VIP that was so first. */
struct lead {
	struct place vip;
	__u64 stays; /* as connections' */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct place);
	__type(value, struct lead);
} leads SEC(".maps");

/* Whose segments come from where a connection is, and was, when it has moved or leads do not say it: the place instead of the VIP, to the VIP. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 262144);
	__type(key, struct flow);
	__type(value, struct place);
} origins SEC(".maps");

/* Connections that are over, the oldest first. They are kept for TIME-WAIT, that its answers find their way, but for no longer than there is room. */
struct ended {
	struct flow flow;
	__u64 opened; /* the connection's */
	__u64 until;  /* ns since boot */
};

struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, 65536);
	__type(value, struct ended);
} endings SEC(".maps");

struct change {
	struct flow flow;
	__u8 message[DYNTCP_CHANGE_SIZE];
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 16);
} changes SEC(".maps");

/* When the next change may be given to user space: nanoseconds since boot. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} change_at SEC(".maps");

/* ---- connections */

static __always_inline bool flow_of(struct bpf_sock_ops *ctx, struct flow *flow)
{
	if (!ends_of(ctx, flow->user, flow->vip))
		return false;
	flow->ports = HALF(local_port(ctx), remote_port(ctx));
	return true;
}

static __always_inline __u64 *service_of(const struct flow *flow)
{
	struct place vip = { { flow->vip[0], flow->vip[1] }, SECOND_PORT(flow->ports) };

	return bpf_map_lookup_elem(&services, &vip);
}

/* origin_of is the flow as it comes from a place. */
static __always_inline void origin_of(struct flow *origin, const struct flow *flow, const struct place *place)
{
	set_flow(origin, flow->user, place->address, HALF(FIRST_PORT(flow->ports), place->port));
}

/* places_of reads where a connection is and was, both at one moment. */
static __always_inline void places_of(struct connection *c, struct place *now, struct place *before)
{
	bpf_spin_lock(&c->lock);
	*now = c->now;
	*before = c->before;
	bpf_spin_unlock(&c->lock);
}

static __always_inline void forget_origin(const struct flow *flow, const struct place *place)
{
	struct flow origin;

	origin_of(&origin, flow, place);
	bpf_map_delete_elem(&origins, &origin);
}

/* forget deletes the connection of a flow, that of the moment opened, or any. */
static __noinline int forget(const struct flow *flow, __u64 opened)
{
	struct connection *c = bpf_map_lookup_elem(&connections, flow);
	struct place now, before;

	if (!c || (opened && c->opened != opened))
		return 0;
	if (!c->has_origins) {
		bpf_map_delete_elem(&connections, flow);
		return 0;
	}
	places_of(c, &now, &before);
	bpf_map_delete_elem(&connections, flow);
	forget_origin(flow, &now);
	if (before.port)
		forget_origin(flow, &before);
	return 0;
}

/* tidy forgets up to two connections that were over by then: so there are never more of them than of new ones. */
static __noinline int tidy(__u64 now)
{
	struct ended e;

#pragma unroll
	for (int i = 0; i < 2; i++) {
		if (bpf_map_peek_elem(&endings, &e) || e.until > now || bpf_map_pop_elem(&endings, &e))
			return 0;
		forget(&e.flow, e.opened);
	}
	return 0;
}

static __always_inline struct handshake *place_of(__u64 socket)
{
	ALONE __u32 place = socket % HANDSHAKES;

	return bpf_map_lookup_elem(&handshakes, &place);
}

/* is_others says so of connections of IPv4 to what is no VIP, as most are. */
static __always_inline bool is_others(struct bpf_sock_ops *ctx)
{
	struct place to = { { 0, MAPPED(ctx->remote_ip4) }, remote_port(ctx) };

	return ctx->family == FAMILY_IPV4 && !is_known(KNOWN_VIP, &to);
}

/* begins draws tag and cookie: of the socket and the moment, which do not come again. A control group's client goes before one of those above it:
 * the kernel runs their programs in this order, on one context. */
static __noinline int begins(struct bpf_sock_ops *ctx)
{
	__u64 socket, now, *service;
	struct handshake *h;
	struct flow flow;

	if (is_others(ctx) || ctx->reply == TAKEN || !flow_of(ctx, &flow))
		return 1;
	service = service_of(&flow);
	if (!service || !is_ours(ctx))
		return 1;
	socket = bpf_get_socket_cookie(ctx);
	h = place_of(socket);
	if (!h)
		return 1;
	ctx->reply = TAKEN;
	now = bpf_ktime_get_boot_ns();
	forget(&flow, 0);
	tidy(now);
	h->socket = socket;
	h->service = *service;
	h->cookie = siphash(secret[0], secret[1], socket, now);
	h->tag = siphash(secret[0], secret[1], ~socket, now) & 0xffff;
	h->syns = 0;
	h->keep = ctx->bpf_sock_ops_cb_flags;
	bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG);
	COUNT(offered);
	return 1;
}

static __always_inline struct handshake *handshake_of(struct bpf_sock_ops *ctx)
{
	__u64 socket = bpf_get_socket_cookie(ctx);
	struct handshake *h = place_of(socket);

	return h && h->socket == socket ? h : 0;
}

/* said ends callbacks of the handshake that nobody else has asked for. */
static __always_inline int said(struct bpf_sock_ops *ctx, struct handshake *h, int flags)
{
	bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags & ~(flags & ~(int)h->keep));
	h->socket = 0;
	return 1;
}

/* withdraw makes it plain again: a server may not learn of it. None has been heard by now. */
static __always_inline void withdraw(struct bpf_sock_ops *ctx)
{
	struct flow flow;

	COUNT(no_room);
	if (flow_of(ctx, &flow))
		forget(&flow, 0);
}

static __noinline int reserve(struct bpf_sock_ops *ctx)
{
	struct handshake *h = handshake_of(ctx);
	bool opens = ctx->skb_tcp_flags & SYN;

	if (!h || (opens && h->syns >= SYNS_WITH_OPTION) || !bpf_reserve_hdr_opt(ctx, DYNTCP_OPTION_SIZE, 0))
		return 1;
	if (opens)
		COUNT(no_room);
	else
		withdraw(ctx);
	return 1;
}

static __always_inline int write(struct bpf_sock_ops *ctx)
{
	struct handshake *h = handshake_of(ctx);

	if (h && store_option(ctx, h->tag, h->cookie) && ctx->skb_tcp_flags & SYN)
		h->syns++;
	return 1;
}

/* is_published says whether a server of the service may be there. */
static __always_inline bool is_published(__u64 service, const struct place *place)
{
	struct prefix key = { WORD(160, service), { place->address[0], place->address[1] } };

	return place->port && bpf_map_lookup_elem(&published, &key);
}

/* whereabouts is where the server says that it is; the VIP where it does not, or may not. */
static __always_inline void whereabouts(__u64 service, const struct flow *flow, const struct option *o, struct place *place)
{
	if (o->length == DYNTCP_OPTION_DESTINATION_SIZE && IS_MAPPED(flow->vip)) {
		place->address[0] = 0;
		place->address[1] = MAPPED(option_address(o));
		place->port = option_port(o);
		if (is_published(service, place))
			return;
		COUNT(not_published);
	}
	place->address[0] = flow->vip[0];
	place->address[1] = flow->vip[1];
	place->port = SECOND_PORT(flow->ports);
}

static __always_inline bool is_same(const struct place *place, const struct flow *flow)
{
	return place->address[0] == flow->vip[0] && place->address[1] == flow->vip[1] && place->port == SECOND_PORT(flow->ports);
}

/* begin_at says where a connection is until it moves; false: it needs an origin, for the place leads to another VIP. */
static __always_inline bool begin_at(struct connection *c, const struct flow *flow)
{
	struct lead new = { { { flow->vip[0], flow->vip[1] }, SECOND_PORT(flow->ports) } }, *l;

	c->now = c->first;
	if (is_same(&c->first, flow))
		return true;
	know(KNOWN_PLACE, &c->first);
	l = bpf_map_lookup_elem(&leads, &c->first);
	if (!l)
		return !bpf_map_update_elem(&leads, &c->first, &new, BPF_NOEXIST);
	if (!is_same(&l->vip, flow))
		return false;
	c->stays = l->stays;
	return true;
}

static __always_inline bool keep_origin(const struct flow *flow, const struct place *place)
{
	struct place vip = { { flow->vip[0], flow->vip[1] }, SECOND_PORT(flow->ports) };
	struct flow origin;

	know(KNOWN_ORIGIN, place);
	origin_of(&origin, flow, place);
	return !bpf_map_update_elem(&origins, &origin, &vip, BPF_ANY);
}

static __noinline bool keep(__u64 service, const struct flow *flow, const struct option *o)
{
	struct connection c = { .opened = bpf_ktime_get_boot_ns(), .tag = option_tag(o), .cookie = option_cookie(o) };

	whereabouts(service, flow, o, &c.first);
	c.has_origins = !begin_at(&c, flow);
	if (c.has_origins && !keep_origin(flow, &c.first))
		return false;
	if (!bpf_map_update_elem(&connections, flow, &c, BPF_ANY))
		return true;
	if (c.has_origins)
		forget_origin(flow, &c.first);
	return false;
}

/* agree keeps the connection; false: there is no room for it. Those that are over make room. */
static __always_inline bool agree(__u64 service, const struct flow *flow, const struct option *o)
{
	if (keep(service, flow, o))
		return true;
	tidy(~0ULL);
	return keep(service, flow, o);
}

/* established: the server's SYN-ACK is here, the acknowledgement of it is not yet sent. */
static __noinline int established(struct bpf_sock_ops *ctx)
{
	struct handshake *h = handshake_of(ctx);
	struct option o;
	struct flow flow;

	if (!h || !flow_of(ctx, &flow))
		return 1;
	if (!h->syns || !load_option(ctx, &o, 0))
		COUNT(plain);
	else if (option_tag(&o) != h->tag || option_cookie(&o) != h->cookie)
		COUNT(mismatched);
	else if (!agree(h->service, &flow, &o))
		COUNT(table_full);
	else {
		/* The option goes with all that is sent until the server is heard: a server that keeps no state before the handshake's end
		 * learns it from there. */
		bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG |
						       BPF_SOCK_OPS_PARSE_ALL_HDR_OPT_CB_FLAG);
		COUNT(agreed);
		return 1;
	}
	return said(ctx, h, BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG);
}

/* heard: a segment that is no SYN-ACK shows that the server has the connection. */
static __always_inline int heard(struct bpf_sock_ops *ctx)
{
	struct handshake *h = handshake_of(ctx);

	if (!h || ctx->skb_tcp_flags & SYN)
		return 1;
	return said(ctx, h, BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG | BPF_SOCK_OPS_PARSE_ALL_HDR_OPT_CB_FLAG);
}

/* has_time_wait says of the state that a connection was closed in whether its port is in TIME-WAIT now. */
static __always_inline bool has_time_wait(__u32 was)
{
	return was == STATE_FIN_WAIT1 || was == STATE_FIN_WAIT2 || was == STATE_CLOSING;
}

/* ends: what is in TIME-WAIT goes when its time has come; at once where too much is. */
static __noinline int ends(struct bpf_sock_ops *ctx)
{
	struct connection *c;
	struct ended e;

	if (ctx->args[1] != STATE_CLOSE || !flow_of(ctx, &e.flow))
		return 1;
	if (!has_time_wait(ctx->args[0]))
		return forget(&e.flow, 0) + 1;
	c = bpf_map_lookup_elem(&connections, &e.flow);
	if (!c)
		return 1;
	c->ended = 1;
	e.opened = c->opened;
	e.until = bpf_ktime_get_boot_ns() + ENDED;
	if (bpf_map_push_elem(&endings, &e, BPF_ANY))
		forget(&e.flow, e.opened);
	return 1;
}

SEC("sockops")
int client_connections(struct bpf_sock_ops *ctx)
{
	switch (ctx->op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		return begins(ctx);
	case BPF_SOCK_OPS_HDR_OPT_LEN_CB:
		return reserve(ctx);
	case BPF_SOCK_OPS_WRITE_HDR_OPT_CB:
		return write(ctx);
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
		return established(ctx);
	case BPF_SOCK_OPS_PARSE_HDR_OPT_CB:
		return heard(ctx);
	case BPF_SOCK_OPS_STATE_CB:
		return ends(ctx);
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

static __always_inline struct way *way_of(__u32 interface, const __u64 *address)
{
	struct prefix key = { WORD(160, interface), { address[0], address[1] } };

	return bpf_map_lookup_elem(&ways, &key);
}

/* by_hop sends to a neighbor. The packet comes by this hook again, where it is nobody's: it is not for a VIP now. */
static __always_inline int by_hop(struct __sk_buff *skb, const __u64 *hop)
{
	__u64 words[] = { FAMILY_IPV6 | hop[0] << 32, hop[0] >> 32 | hop[1] << 32, hop[1] >> 32 }; /* struct bpf_redir_neigh */

	if (IS_MAPPED(hop)) {
		words[0] = WORD(FAMILY_IPV4, ADDRESS4(hop));
		words[1] = words[2] = 0;
	}
	return bpf_redirect_neigh(skb->ifindex, (void *)words, sizeof(words), 0);
}

/* leave: the frame is to the VIP's next hop. It stays so where the destination's is the same, and where the interface does not lead there. */
static __noinline int leave(struct __sk_buff *skb, const __u64 *vip, const __u64 *to)
{
	struct way *way = way_of(skb->ifindex, to), *other;

	if (!way)
		return NEXT;
	if (!(way->hop[0] | way->hop[1]))
		return by_hop(skb, to);
	other = way_of(skb->ifindex, vip);
	return other && other->hops == way->hops ? NEXT : by_hop(skb, way->hop);
}

/* stay_of changes with ways, interface and destination. */
static __always_inline __u64 stay_of(const struct __sk_buff *skb, __u64 moves)
{
	return ways_at + moves + ((__u64)skb->ifindex << 48);
}

/* stays: those that begin at the same place do so, too. */
static __noinline void stays(struct connection *c, const struct flow *flow, __u64 stay, __u64 moves)
{
	struct lead *l;

	c->stays = stay;
	if (moves)
		return;
	l = bpf_map_lookup_elem(&leads, &c->first);
	if (l && is_same(&l->vip, flow))
		l->stays = stay;
}

static __noinline int later_leaves(struct __sk_buff *skb, struct segment *s)
{
	__u64 *address = bpf_map_lookup_elem(&fragments, s->fragment), to[2];

	if (!address)
		return NEXT;
	to[0] = 0;
	to[1] = *address;
	return set_address4(skb, s, TARGET, ADDRESS4(to)) ? leave(skb, s->dst, to) : done(false);
}

SEC("tc")
int client_egress(struct __sk_buff *skb)
{
	struct connection *c;
	struct segment *s;
	const struct place *to;
	struct place moved;
	struct flow *flow;
	__u64 stay, moves = 0;
	int verdict;

	if (is_udp(skb) || is_nobodys(skb, TARGET, KNOWN_VIP, true))
		return NEXT;
	s = segment_of(EGRESS);
	if (!s || !read(skb, s) || (s->what != TCP && s->what != LATER))
		return NEXT;
	if (s->what == LATER)
		return later_leaves(skb, s);
	if (!is_end_known(s, TARGET, KNOWN_VIP))
		return NEXT;
	flow = &s->flow;
	set_flow(flow, s->src, s->dst, s->ports);
	c = bpf_map_lookup_elem(&connections, flow);
	if (!c)
		return NEXT;
	to = &c->first;
	if (c->moves) {
		bpf_spin_lock(&c->lock);
		moved = c->now;
		moves = c->moves;
		bpf_spin_unlock(&c->lock);
		to = &moved;
	}
	if (is_same(to, flow))
		return NEXT;
	COUNT(sent);
	if (!set_target(skb, s, to))
		return done(false);
	stay = stay_of(skb, moves);
	if (c->stays == stay)
		return NEXT;
	verdict = leave(skb, flow->vip, to->address);
	if (verdict == NEXT)
		stays(c, flow, stay, moves);
	return verdict;
}

/* is_at says whether a connection is at a place, or was before its last move. */
static __always_inline bool is_at(struct connection *c, const struct flow *from)
{
	struct place now, before;

	if (!c->moves)
		return is_same(&c->first, from);
	places_of(c, &now, &before);
	return is_same(&now, from) || is_same(&before, from);
}

/* find_origin finds the VIP of what comes from a place, s->wire: s->vip; false: it is no connection's, or as it should be. */
static __noinline bool find_origin(struct segment *s)
{
	struct connection *c;
	struct place *origin;
	struct lead *l;

	set_place(&s->place, s->wire.vip, SECOND_PORT(s->wire.ports));
	l = bpf_map_lookup_elem(&leads, &s->place);
	if (l) {
		origin_of(&s->flow, &s->wire, &l->vip);
		c = bpf_map_lookup_elem(&connections, &s->flow);
		if (c && is_at(c, &s->wire)) {
			s->vip = l->vip;
			return true;
		}
	}
	if (!is_known(KNOWN_ORIGIN, &s->place))
		return false;
	origin = bpf_map_lookup_elem(&origins, &s->wire);
	if (!origin)
		return false;
	s->vip = *origin;
	return !is_same(&s->vip, &s->wire);
}

/* is_ahead says whether a number is beyond what has come on the flow. */
static __always_inline bool is_ahead(struct __sk_buff *skb, struct segment *s, __u32 seq)
{
	struct bpf_tcp_sock *tcp;
	struct bpf_sock *sk;
	bool ahead;

	sk = socket_of(skb, s->flow.vip, s->flow.user, HALF(SECOND_PORT(s->flow.ports), FIRST_PORT(s->flow.ports)), s->words);
	if (!sk)
		return false;
	tcp = bpf_tcp_sock(sk);
	ahead = tcp && (__s32)(seq - tcp->rcv_nxt) > 0;
	bpf_sk_release(sk);
	return ahead;
}

/* resets_ahead finds, of resets, those that no server sends. One without an acknowledgement answers a segment, and has the number that this one acknowledges (RFC 9293
 * section 3.10.7.1): of what has come. No TCP ends by another (RFC 5961 section 3.2), but connection tracking comes first: Linux's takes one beyond the window
 * for how far the server has sent, and finds invalid what is sent from then on. An acknowledgement of 0 is none to it. */
static __noinline bool resets_ahead(struct __sk_buff *skb, struct segment *s)
{
	__u64 words[2]; /* of struct tcphdr, from the sequence on */

	if (bpf_skb_load_bytes(skb, s->l4 + offsetof(struct tcphdr, seq), words, sizeof(words)))
		return false;
	if (words[1] >> 8 & ACK && words[0] >> 32)
		return false;
	set_flow(&s->flow, s->dst, s->vip.address, HALF(SECOND_PORT(s->ports), s->vip.port));
	return bpf_map_lookup_elem(&connections, &s->flow) && is_ahead(skb, s, bpf_ntohl(words[0]));
}

/* from_server gives a segment the VIP instead of the place that it comes from. */
static __noinline int from_server(struct __sk_buff *skb, struct segment *s)
{
	bool moved;

	set_flow(&s->wire, s->dst, s->src, HALF(SECOND_PORT(s->ports), FIRST_PORT(s->ports)));
	set_place(&s->vip, s->src, FIRST_PORT(s->ports));
	moved = find_origin(s);
	if (moved)
		COUNT(received);
	if (has_flag(skb, s, RST) && resets_ahead(skb, s)) {
		COUNT(resets_ahead);
		return DROP;
	}
	return moved ? done(set_source(skb, s, &s->vip)) : NEXT;
}

/* about_segment does so with what an error quotes: TCP knows it by the VIP alone. */
static __noinline int about_segment(struct __sk_buff *skb, struct segment *s)
{
	set_flow(&s->wire, s->src, s->dst, s->ports);
	if (!find_origin(s))
		return NEXT;
	COUNT(errors);
	return done(set_target(skb, s, &s->vip));
}

/* affords lets so many through at once, and then one each while, which are ns. at is when the next one may be. */
static __always_inline bool affords(__u64 *at, __u64 now, __u64 at_once, __u64 each)
{
	__u64 earliest = now - at_once * each, next = *at < earliest ? earliest : *at;

	if (next > now)
		return false;
	*at = next + each;
	return true;
}

#define SECOND 1000000000ULL

/* may_change: of a connection first, so that what one has too much of is not counted against all. */
static __always_inline bool may_change(struct connection *c)
{
	static const __u32 zero = 0;
	__u64 now = bpf_ktime_get_boot_ns(), *all = bpf_map_lookup_elem(&change_at, &zero);

	return all && affords(&c->change_at, now, CHANGES_OF_ONE_AT_ONCE, SECOND / CHANGES_OF_ONE_PER_SECOND) &&
	       affords(all, now, CHANGES_AT_ONCE, SECOND / CHANGES_PER_SECOND);
}

/* What a message begins with, by words; the places behind it are user space's. */
struct change_begin {
	__u64 magic_version_tag;
	__u64 cookie;
	__u64 ports; /* user's, VIP's, old, new */
	__u64 user[2];
	__u64 vip[2];
};

#define CHANGE_BEGIN (DYNTCP_CHANGE_OFF_OLD)
_Static_assert(sizeof(struct change_begin) == CHANGE_BEGIN && DYNTCP_CHANGE_OFF_TAG == 6 && DYNTCP_CHANGE_OFF_COOKIE == 8 &&
	       DYNTCP_CHANGE_OFF_USER_PORT == 16 && DYNTCP_CHANGE_OFF_USER == 24 && DYNTCP_CHANGE_OFF_VIP == 40, "change_begin");

/* give gives a message to user space; false: it is lost. */
static __always_inline bool give(struct __sk_buff *skb, __u32 at, const struct flow *flow)
{
	struct change *c;

	c = bpf_ringbuf_reserve(&changes, sizeof(*c), 0);
	if (!c)
		return false;
	c->flow = *flow;
	c->pad = 0;
	if (bpf_skb_load_bytes(skb, at, c->message, sizeof(c->message))) {
		bpf_ringbuf_discard(c, 0);
		return false;
	}
	bpf_ringbuf_submit(c, 0);
	return true;
}

static __always_inline __u64 sequence_of(struct connection *c)
{
	__u64 sequence;

	bpf_spin_lock(&c->lock);
	sequence = c->sequence;
	bpf_spin_unlock(&c->lock);
	return sequence;
}

/* refuse leaves a datagram to the programs of other clients, as a frame for another host: the kernel has no other use for it. */
static __always_inline int refuse(struct __sk_buff *skb)
{
	return bpf_skb_change_type(skb, PACKET_OTHERHOST) ? DROP : NEXT;
}

/* take_change judges every datagram for the port. The cheapest checks come first; what is true of the connection goes to user space. */
static __noinline int take_change(struct __sk_buff *skb, const struct segment *s)
{
	__u32 at = s->l4 + sizeof(struct udphdr);
	struct change_begin begin;
	struct connection *c;
	ALONE __be16 length;
	ALONE __be64 sequence;
	struct flow flow;

	if (s->fragment[0] || bpf_skb_load_bytes(skb, s->l4 + offsetof(struct udphdr, len), &length, sizeof(length)) ||
	    length != bpf_htons(sizeof(struct udphdr) + DYNTCP_CHANGE_SIZE) || bpf_skb_load_bytes(skb, at, &begin, sizeof(begin)) ||
	    bpf_skb_load_bytes(skb, at + DYNTCP_CHANGE_OFF_SEQUENCE, &sequence, sizeof(sequence)) ||
	    (begin.magic_version_tag & 0xffffffffffff) != WORD(bpf_htonl(DYNTCP_CHANGE_MAGIC), DYNTCP_CHANGE_VERSION)) {
		COUNT(change_malformed);
		return refuse(skb);
	}
	flow.user[0] = begin.user[0];
	flow.user[1] = begin.user[1];
	flow.vip[0] = begin.vip[0];
	flow.vip[1] = begin.vip[1];
	flow.ports = (__u32)begin.ports;
	c = bpf_map_lookup_elem(&connections, &flow);
	if (!c || c->ended || flow.user[0] != s->dst[0] || flow.user[1] != s->dst[1])
		COUNT(change_unknown);
	else if (c->tag != begin.magic_version_tag >> 48)
		COUNT(change_tag);
	else if (c->cookie != begin.cookie)
		COUNT(change_cookie);
	else if (bpf_be64_to_cpu(sequence) <= sequence_of(c))
		COUNT(change_old);
	else {
		if (may_change(c) && give(skb, at, &flow))
			COUNT(change_passed);
		else
			COUNT(change_lost);
		return DROP;
	}
	return refuse(skb);
}

SEC("tc")
int client_ingress(struct __sk_buff *skb)
{
	struct segment *s;

	if (is_nobodys(skb, SOURCE, KNOWN_PLACE, false))
		return NEXT;
	s = segment_of(INGRESS);
	if (!s || !read(skb, s))
		return NEXT;
	if (s->what == LATER)
		return done(follow_source(skb, s));
	if (s->what == UDP)
		return SECOND_PORT(s->ports) == bpf_htons(DYNTCP_PORT) ? take_change(skb, s) : NEXT;
	if (s->what == HIDDEN) { /* Linux would look behind any number of headers */
		COUNT(change_malformed);
		return DROP;
	}
	return s->what == TCP ? from_server(skb, s) : about_segment(skb, s);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
